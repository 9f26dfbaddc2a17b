import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { z } from 'zod'
import { Failure, systemErrorCode } from '../../errors.ts'
import { keyedName } from '../../repository/key-ring.ts'
import { randomId } from '../../repository/layout.ts'
import type { Repository } from '../../repository/repository.ts'
import { openObject, sealObject } from '../../repository/sealed-object.ts'
import { comparePaths } from '../../repository/tree.ts'

// What a backup saw, page by page: a local, sealed file that the next one compares with. Records, in the order of paths:
//
//   u16 length of the path ‖ path ‖ u32 number of the first region ‖ u16 regions ‖ u32 length of the states ‖ states
//   states, each behind its u32 length: u32 length of the region ‖ region (docs/format.md) ‖ bitmap of overlaid pages ‖ fingerprints

/** The states of up to 128 successive regions of a file. */
export interface FingerprintRecord {
  readonly path: string
  readonly firstRegion: number
  readonly states: readonly Uint8Array[]
}

/** Where the fingerprints of a backup lie. */
export function fingerprintFile(repository: Repository, stateDirectory: string, component: string, backup: string): string {
  return join(stateDirectory, repository.id, 'fingerprints', keyedName(repository.ring, 'component', component), backup)
}

/** Writes the fingerprints of a backup, record by record; nothing is there under the file's name until all is, durably. */
export async function writeFingerprints(
  repository: Repository,
  file: { path: string; backup: string },
  records: AsyncIterable<FingerprintRecord>,
): Promise<void> {
  await mkdir(dirname(file.path), { recursive: true, mode: 0o700 })
  const temporary = `${file.path}.${randomId()}`
  const sealed = sealObject(
    repository.ring,
    { kind: 'fingerprints', name: localName(file.backup), head: { backup: file.backup } },
    encodeAll(records),
  )
  try {
    await pipeline(Readable.from(sealed), createWriteStream(temporary, { mode: 0o600, flush: true }))
    await rename(temporary, file.path)
    await using directory = await open(dirname(file.path), 'r')
    await directory.sync()
  } finally {
    await rm(temporary, { force: true })
  }
}

/** Removes the fingerprints of all backups of a component but these. */
export async function pruneFingerprints(directory: string, keep: ReadonlySet<string>): Promise<void> {
  for (const name of await readdir(directory)) if (!keep.has(name)) await rm(join(directory, name), { force: true })
}

/**
 * Finds the states of a previous backup's regions for files that are asked for in the order of their paths. Holds one record.
 * When the file ends, is damaged or is not there, there is nothing to find: the caller reads what it needs again.
 */
export class FingerprintReader {
  readonly #path: string
  readonly #records: AsyncGenerator<FingerprintRecord>
  readonly #onNotice: ((text: string) => void) | undefined
  #held: FingerprintRecord | undefined
  #ended = false

  constructor(repository: Repository, file: { path: string; backup: string }, onNotice?: (text: string) => void) {
    this.#path = file.path
    this.#records = readRecords(repository, file)
    this.#onNotice = onNotice
  }

  /** The states of a file's regions from `firstRegion` on, as encoded; empty when they are not known. */
  async find(path: string, firstRegion: number): Promise<readonly Uint8Array[]> {
    while (!this.#ended) {
      this.#held ??= await this.#next()
      if (this.#held === undefined) break
      const order = comparePaths(this.#held.path, path) || this.#held.firstRegion - firstRegion
      if (order === 0) return this.#held.states
      if (order > 0) return []
      this.#held = undefined
    }
    return []
  }

  async close(): Promise<void> {
    this.#ended = true
    await this.#records.return(undefined)
  }

  async #next(): Promise<FingerprintRecord | undefined> {
    try {
      const next = await this.#records.next()
      if (next.done === true) this.#ended = true
      return next.done === true ? undefined : next.value
    } catch (error) {
      if (!isUnusable(error)) throw error
      this.#ended = true
      this.#onNotice?.(`fingerprints cannot be used, what they told is read as new: ${(error as Error).message}`)
      // The next backup that wants them makes them again from the repository.
      await rm(this.#path, { force: true })
      return undefined
    }
  }
}

/** A power cut, a full disk or a bad one may leave such a file; it is a copy, and must not keep a backup from being made. */
function isUnusable(error: unknown): boolean {
  // A flipped bit in its header may look like another version, or another key.
  return error instanceof Failure || systemErrorCode(error) === 'ENOENT'
}

async function* readRecords(repository: Repository, file: { path: string; backup: string }): AsyncGenerator<FingerprintRecord> {
  const object = { kind: 'fingerprints' as const, name: localName(file.backup) }
  const opened = await openObject(repository.ring, object, createReadStream(file.path, { highWaterMark: 1024 * 1024 }))
  z.object({ backup: z.literal(file.backup) }).parse(opened.head)
  let held: Buffer = Buffer.alloc(0)
  for await (const piece of opened.body) {
    held = Buffer.concat([held, piece])
    for (;;) {
      const record = decodeRecord(held)
      if (record === undefined) break
      held = held.subarray(record.bytes)
      yield record
    }
  }
}

function localName(backup: string): string {
  return `fingerprints/${backup}`
}

async function* encodeAll(records: AsyncIterable<FingerprintRecord>): AsyncGenerator<Buffer> {
  for await (const record of records) {
    const path = Buffer.from(record.path)
    const states = record.states.flatMap((state) => {
      const length = Buffer.alloc(4)
      length.writeUInt32LE(state.length)
      return [length, state]
    })
    const head = Buffer.alloc(12 + path.length)
    head.writeUInt16LE(path.length)
    path.copy(head, 2)
    head.writeUInt32LE(record.firstRegion, 2 + path.length)
    head.writeUInt16LE(record.states.length, 6 + path.length)
    head.writeUInt32LE(
      states.reduce((sum, part) => sum + part.length, 0),
      8 + path.length,
    )
    yield Buffer.concat([head, ...states])
  }
}

function decodeRecord(bytes: Buffer): (FingerprintRecord & { bytes: number }) | undefined {
  if (bytes.length < 2) return undefined
  const pathEnd = 2 + bytes.readUInt16LE(0)
  const start = pathEnd + 10
  if (bytes.length < start) return undefined
  const end = start + bytes.readUInt32LE(pathEnd + 6)
  if (bytes.length < end) return undefined
  const states: Buffer[] = []
  for (let at = start; at < end;) {
    const length = bytes.readUInt32LE(at)
    states.push(bytes.subarray(at + 4, at + 4 + length))
    at += 4 + length
  }
  return { path: bytes.toString('utf8', 2, pathEnd), firstRegion: bytes.readUInt32LE(pathEnd), states, bytes: end }
}
