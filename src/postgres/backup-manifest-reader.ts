import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { z } from 'zod'
import { Failure } from '../errors.ts'

/** One file that a `backup_manifest` lists. `path`: as the file system has it, in bytes where it is not UTF-8. */
export interface ListedFile {
  readonly path: string | Buffer
  readonly sizeBytes: number
  readonly crc32c: number
}

/** A path in a manifest is at most PATH_MAX, escaped; a longer line is none of ours. */
const LINE_BYTES_MAX = 64 * 1024

const fileSchema = z.union([
  z.object({ Path: z.string(), Size: z.number().int(), Checksum: z.string().regex(/^[0-9a-f]{8}$/) }),
  z.object({ 'Encoded-Path': z.string(), Size: z.number().int(), Checksum: z.string().regex(/^[0-9a-f]{8}$/) }),
])

/**
 * Reads the files of a `backup_manifest` as `BackupManifestWriter` writes it: one a line. The manifest's own checksum is compared at the
 * end, so believe none of them before it is exhausted. Throws NOT_VERIFIED when it is not as it was written.
 */
export async function* readBackupManifest(path: string): AsyncGenerator<ListedFile> {
  const hash = createHash('sha256')
  let found: string | undefined
  for await (const line of readLines(path)) {
    if (found !== undefined) throw notAsWritten(path, 'something follows its checksum')
    const text = line.toString('utf8')
    const checksum = /^"Manifest-Checksum": "([0-9a-f]{64})"\}\n$/.exec(text)?.[1]
    if (checksum !== undefined) {
      found = checksum
      continue
    }
    hash.update(line)
    if (/^\{ "(?:Encoded-)?Path"/.test(text)) yield parseFile(path, text)
  }
  if (found !== hash.digest('hex')) throw notAsWritten(path, found === undefined ? 'it has no checksum' : 'its checksum is wrong')
}

function parseFile(manifest: string, line: string): ListedFile {
  let data: unknown
  try {
    data = JSON.parse(line.replace(/,?\n$/, ''))
  } catch {
    data = undefined
  }
  const file = fileSchema.safeParse(data)
  if (!file.success) throw notAsWritten(manifest, `a line of it is "${line.slice(0, 200).trimEnd()}"`)
  const { Size: sizeBytes, Checksum: checksum } = file.data
  const path = 'Path' in file.data ? file.data.Path : Buffer.from(file.data['Encoded-Path'], 'hex')
  return { path, sizeBytes, crc32c: Buffer.from(checksum, 'hex').readUInt32LE() }
}

/** Lines with their line feeds. */
async function* readLines(path: string): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0)
  for await (const piece of createReadStream(path) as AsyncIterable<Buffer>) {
    rest = rest.length === 0 ? piece : Buffer.concat([rest, piece])
    let from = 0
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10, from)) {
      yield rest.subarray(from, end + 1)
      from = end + 1
    }
    rest = rest.subarray(from)
    if (rest.length > LINE_BYTES_MAX) throw notAsWritten(path, `it has a line of more than ${LINE_BYTES_MAX} bytes`)
  }
  if (rest.length > 0) yield rest
}

function notAsWritten(path: string, what: string): Failure {
  return new Failure('NOT_VERIFIED', `"${path}" is not as it was written: ${what}`, {
    hint: 'the disk or somebody changed it: restore again, on another disk',
  })
}
