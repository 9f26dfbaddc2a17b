import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Failure, systemErrorCode } from '../../errors.ts'
import { syncDirectory, writeNew } from '../../protect/postgres/durable-file.ts'
import { envelopeSchema, payloadOf, preAuthenticationEncoding, type Envelope } from './envelope.ts'
import { bundleReadme } from './bundle-readme.ts'
import type { FoundRecord } from './verify-evidence.ts'

// A bundle: records as files, with what it takes to check them without Resus (docs/evidence.md, "Verifying").

const RECORD_FILE = /^(\d{10})\.dsse\.json$/
/** A record has kilobytes. */
const FILE_BYTES_MAX = 16 * 1024 * 1024
const FILES_MAX = 1_000_000

export interface BundledRecord {
  readonly sequence: number
  readonly envelope: Envelope
  readonly html: string
}

export interface BundleContents {
  readonly system: string
  readonly head: Envelope
  /** PEM by fingerprint. */
  readonly keys: ReadonlyMap<string, string>
  readonly records: AsyncIterable<BundledRecord>
  /** Written last: it may tell what the records were. */
  readonly report: () => string
}

/**
 * Writes a bundle into a new directory, whole or not at all: under another name first, synced, then renamed. Throws DIRECTORY_NOT_EMPTY when something is there, and what the file system says.
 */
export async function writeBundle(directory: string, contents: BundleContents): Promise<{ readonly files: number }> {
  const parent = dirname(directory)
  const making = join(parent, `.${basename(directory)}.making`)
  await mkdir(parent, { recursive: true })
  await rm(making, { recursive: true, force: true })
  await mkdir(making, { mode: 0o700 })
  try {
    const files = new BundleFiles(making)
    for (const folder of ['records', 'keys']) await mkdir(join(making, folder), { mode: 0o700 })
    await putSigned(files, 'head', contents.head)
    for (const [fingerprint, pem] of contents.keys) await files.put(`keys/${fingerprint}.pem`, pem)
    for await (const { sequence, envelope, html } of contents.records) {
      const name = `records/${String(sequence).padStart(10, '0')}`
      await putSigned(files, name, envelope)
      await files.put(`${name}.json`, payloadOf(envelope))
      await files.put(`${name}.html`, html)
    }
    await files.put('report.html', contents.report())
    await files.put('README.md', bundleReadme(contents.system))
    await files.finish()
    await rename(making, directory)
    await syncDirectory(parent)
    return { files: files.count }
  } catch (error) {
    await rm(making, { recursive: true, force: true })
    if (systemErrorCode(error) === 'ENOTEMPTY' || systemErrorCode(error) === 'EEXIST' || systemErrorCode(error) === 'ENOTDIR') {
      throw new Failure('DIRECTORY_NOT_EMPTY', `"${directory}" is there already`, { hint: 'name a directory that is not there' })
    }
    throw error
  }
}

async function putSigned(files: BundleFiles, name: string, envelope: Envelope): Promise<void> {
  await files.put(`${name}.dsse.json`, `${JSON.stringify(envelope, null, 2)}\n`)
  await files.put(`${name}.pae`, preAuthenticationEncoding(payloadOf(envelope)))
  await files.put(`${name}.sig`, Buffer.from(envelope.signatures[0]!.sig, 'base64'))
}

class BundleFiles {
  readonly #directory: string
  readonly #sums: string[] = []

  constructor(directory: string) {
    this.#directory = directory
  }

  get count(): number {
    return this.#sums.length
  }

  async put(name: string, content: string | Uint8Array): Promise<void> {
    await writeNew(join(this.#directory, name), content)
    this.#sums.push(`${createHash('sha256').update(content).digest('hex')}  ${name}\n`)
  }

  async finish(): Promise<void> {
    await writeNew(join(this.#directory, 'SHA256SUMS'), this.#sums.join(''))
    for (const folder of ['records', 'keys', '.']) await syncDirectory(join(this.#directory, folder))
  }
}

/** What a bundle has, for a verifier. */
export interface OpenBundle {
  readonly head: Envelope | undefined
  readonly keys: readonly string[]
  readonly records: () => AsyncGenerator<FoundRecord>
  /** Files that are not what SHA256SUMS says, are not in it, or are not what the envelope beside them has. */
  readonly sums: readonly string[]
}

/** Opens a bundle. Throws EVIDENCE_UNKNOWN when the directory is none. Nothing in it is believed. */
export async function openBundle(directory: string): Promise<OpenBundle> {
  const names = await readdir(join(directory, 'records')).catch((error: unknown) => {
    throw new Failure('EVIDENCE_UNKNOWN', `"${directory}" is no bundle of evidence: ${String(error)}`, {
      hint: 'name the directory that "resus evidence bundle" has written',
    })
  })
  const sequences = names.flatMap((name) => RECORD_FILE.exec(name)?.[1] ?? []).toSorted()
  if (sequences.length > FILES_MAX) throw new Failure('EVIDENCE_UNKNOWN', `"${directory}" has more than ${FILES_MAX} records`)
  const pems = await readdir(join(directory, 'keys')).catch(() => [])
  const head = await readEnvelopeFile(join(directory, 'head.dsse.json'))
  const signed = [
    ['head.dsse.json', 'head'] as const,
    ...sequences.map((each) => [`records/${each}.dsse.json`, `records/${each}`] as const),
  ]
  return {
    head: head instanceof Failure ? undefined : head,
    keys: await Promise.all(
      pems.filter((name) => name.endsWith('.pem')).map(async (name) => readFile(join(directory, 'keys', name), 'utf8')),
    ),
    records: async function* records() {
      for (const digits of sequences) {
        const envelope = await readEnvelopeFile(join(directory, 'records', `${digits}.dsse.json`))
        yield { sequence: Number(digits), envelope }
      }
    },
    sums: [...(await compareSums(directory)), ...(await comparePlain(directory, signed))],
  }
}

async function readEnvelopeFile(path: string): Promise<Envelope | Failure> {
  const bad = (why: string) => new Failure('OBJECT_DAMAGED', `"${basename(path)}" is no envelope: ${why}`)
  try {
    const text = await readFile(path)
    if (text.length > FILE_BYTES_MAX) return bad('it is too long')
    const envelope = envelopeSchema.safeParse(JSON.parse(text.toString('utf8')))
    return envelope.success ? envelope.data : bad(envelope.error.issues[0]?.message ?? '')
  } catch (error) {
    return bad(error instanceof Error ? error.message : String(error))
  }
}

/** What lies beside an envelope for whoever has no tool for it has to be what the envelope has. */
async function comparePlain(directory: string, signed: readonly (readonly [string, string])[]): Promise<string[]> {
  const problems: string[] = []
  for (const [name, base] of signed) {
    const envelope = await readEnvelopeFile(join(directory, name))
    if (envelope instanceof Failure) continue
    const payload = payloadOf(envelope)
    const beside = [
      [`${base}.pae`, preAuthenticationEncoding(payload)],
      [`${base}.sig`, Buffer.from(envelope.signatures[0]!.sig, 'base64')],
      // The count has no copy for reading.
      ...(base === 'head' ? [] : ([[`${base}.json`, payload]] as const)),
    ] as const
    for (const [file, wanted] of beside) {
      const found = await readFile(join(directory, file)).catch(() => undefined)
      if (found === undefined || !wanted.equals(found)) problems.push(`${file} is not what ${name} has`)
    }
  }
  return problems
}

async function compareSums(directory: string): Promise<string[]> {
  const text = await readFile(join(directory, 'SHA256SUMS'), 'utf8').catch(() => undefined)
  if (text === undefined) return ['SHA256SUMS is not there']
  const problems: string[] = []
  const listed = new Set(['SHA256SUMS'])
  for (const line of text.split('\n')) {
    const [, sum, name] = /^([0-9a-f]{64}) {2}([A-Za-z0-9._/-]+)$/.exec(line) ?? []
    if (sum === undefined || name === undefined || name.split('/').includes('..')) continue
    listed.add(name)
    const found = await sha256Of(join(directory, name))
    if (found !== sum) problems.push(`${name} is ${found === undefined ? 'not there' : 'not what SHA256SUMS says'}`)
  }
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const name = join(entry.parentPath, entry.name).slice(directory.replace(/\/$/, '').length + 1)
    if (!listed.has(name)) problems.push(`${name} is not in SHA256SUMS`)
  }
  return problems
}

async function sha256Of(path: string): Promise<string | undefined> {
  const hash = createHash('sha256')
  try {
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
    return hash.digest('hex')
  } catch {
    return undefined
  }
}
