import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type pg from 'pg'
import { FindingList, type Check, type Evidence, type Outcome } from './verdict.ts'

/** One file, and the documents that name it. */
interface NamedFile {
  readonly sha256: string
  readonly size_bytes: string
  readonly documents: string
  readonly example: string
  readonly sizes: string
}

/** What was seen so far. */
interface Tally {
  readonly list: FindingList
  files: number
  read: number
  unreferenced: number
  missing: number
  damaged: number
}

const FILES = `
  select sha256 collate "C" as sha256, max(size_bytes)::text as size_bytes, count(*)::text as documents, min(id::text) as example,
    count(distinct size_bytes)::text as sizes
  from hospital.document_references group by 1 order by 1`
const PAGE = 1_000
const READERS = 8
/** Of `sample`, one file in so many is read; of the others it is seen that they are there and how large they are. */
const SAMPLE_ONE_IN = 100
const PREFIXES = 256

/**
 * Holds every file that a document names against its SHA-256 and its size. Files and rows are walked in the same order, two hex digits at a time, so that
 * what no document names is counted on the way: a file of an upload that never became a document, or of one that this database does not have.
 */
export const documents: Check = {
  name: 'documents',
  run: async (evidence): Promise<Outcome> => {
    const { client, filesDirectory, files } = evidence
    if (files === 'none') return { kind: 'not proven', reason: 'files are not looked at: see --files' }
    const directory = join(filesDirectory, 'documents')
    const { rows } = await client.query<{ count: string }>('select count(*) from hospital.document_references')
    const there = await stat(directory).catch(() => undefined)
    if (there === undefined && rows[0]!.count !== '0') {
      return { kind: 'not proven', reason: `there is no directory "${directory}"`, found: `${rows[0]!.count} documents` }
    }
    const tally = { list: new FindingList(), files: 0, read: 0, unreferenced: 0, missing: 0, damaged: 0 }
    await walk(evidence, directory, tally)
    return {
      kind: 'judged',
      expected: `every document's file is there, with its size and ${files === 'all' ? '' : 'for a sample '}its SHA-256`,
      found:
        `${rows[0]!.count} documents, ${tally.files} files, ${tally.read} of them read; ` +
        `${tally.missing} missing, ${tally.damaged} damaged, ${tally.unreferenced} that no document names`,
      findings: tally.list.findings,
      total: tally.list.total,
    }
  },
}

async function walk({ client, files }: Evidence, directory: string, tally: Tally): Promise<void> {
  await client.query(`declare files no scroll cursor for ${FILES}`)
  const oneIn = files === 'all' ? 1 : SAMPLE_ONE_IN
  let waiting = await nextPage(client)
  for (let prefix = 0; prefix < PREFIXES; prefix += 1) {
    const name = prefix.toString(16).padStart(2, '0')
    const present = new Set(await readdir(join(directory, name)).catch(() => []))
    while (waiting.length > 0) {
      const until = waiting.findIndex(({ sha256 }) => !sha256.startsWith(name))
      const mine = until === -1 ? waiting : waiting.slice(0, until)
      for (const { sha256 } of mine) present.delete(sha256)
      await judgeAll(mine, { directory, oneIn, tally })
      waiting = until === -1 ? await nextPage(client) : waiting.slice(until)
      if (until !== -1) break
    }
    tally.unreferenced += present.size
  }
  await client.query('close files')
}

async function nextPage(client: pg.ClientBase): Promise<NamedFile[]> {
  return (await client.query<NamedFile>(`fetch ${PAGE} from files`)).rows
}

interface Judging {
  readonly directory: string
  readonly oneIn: number
  readonly tally: Tally
}

async function judgeAll(files: readonly NamedFile[], judging: Judging): Promise<void> {
  const queue = files.values()
  const readers = Array.from({ length: READERS }, async () => {
    for (const file of queue) await judge(file, judging)
  })
  await Promise.all(readers)
}

async function judge(file: NamedFile, { directory, oneIn, tally }: Judging): Promise<void> {
  const { sha256, size_bytes: sizeBytes, example, documents: naming, sizes } = file
  const path = join(directory, sha256.slice(0, 2), sha256)
  const row = `DocumentReference/${example}${naming === '1' ? '' : ` and ${Number(naming) - 1} more`}`
  tally.files += 1
  if (sizes !== '1') tally.list.add(row, `name ${sha256} with different sizes`)
  const found = await stat(path).catch(() => undefined)
  if (found?.isFile() !== true) {
    tally.missing += 1
    tally.list.add(row, `its file ${sha256} is missing`)
  } else if (String(found.size) !== sizeBytes) {
    tally.damaged += 1
    tally.list.add(row, `its file ${sha256} has ${found.size} bytes, not ${sizeBytes}`)
  } else if (tally.files % oneIn === 0 || oneIn === 1) {
    tally.read += 1
    const problem = await contentProblem(path, sha256)
    if (problem === undefined) return
    tally.damaged += 1
    tally.list.add(row, problem)
  }
}

async function contentProblem(path: string, sha256: string): Promise<string | undefined> {
  const hash = createHash('sha256')
  try {
    for await (const piece of createReadStream(path) as AsyncIterable<Uint8Array>) hash.update(piece)
  } catch (error) {
    return `its file ${sha256} cannot be read: ${error instanceof Error ? error.message : String(error)}`
  }
  const found = hash.digest('hex')
  return found === sha256 ? undefined : `its file ${sha256} holds something else, of SHA-256 ${found}`
}
