import { randomBytes } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Failure, systemErrorCode } from '../errors.ts'
import { formatLsn, parseLsn } from '../postgres/lsn.ts'
import { forEachConcurrent } from '../stream/for-each-concurrent.ts'
import type { CallOptions } from '../storage/storage.ts'
import { branchPrefix } from './layout.ts'
import type { Repository } from './repository.ts'
import { openObject, sealObject } from './sealed-object.ts'
import { listWal, readNote, type WalObject } from './wal-archive.ts'
import type { Branch } from './wal-branch.ts'
import type { WalNote } from './wal-note.ts'

// The notes of all WAL of a branch, in the order of LSNs. Each costs the storage a read, and never changes: what windows need of them is
// kept in a local, sealed file (docs/format.md, "Local state"), one line for each object:
//   [name behind the branch's folder, size, lastRecordEnd, leastCommit, greatestCommit, synchronous 0|1, [[name, lsn, micros], ...]]

/** What windows are made of. */
export type NoteSummary = Pick<WalNote, 'lastRecordEnd' | 'leastCommit' | 'greatestCommit' | 'synchronous' | 'restorePoints'>

export interface NotedWal {
  readonly object: WalObject
  readonly note: NoteSummary
}

/** Objects whose notes are looked up together: what is held in memory. */
const BATCH = 512
const READS_AT_ONCE = 16
/** A line of the local file that is longer than this is no line of ours. */
const LINE_CHARACTERS_MAX = 4 * 1024 * 1024

/**
 * Every stored stretch of a branch with its note. What `cacheDirectory` knows is not read again; it is brought up to date when the last
 * has been given. A cache that is damaged, or cannot be written, only costs time. Throws what the storage throws, and OBJECT_DAMAGED.
 */
export async function* readNotes(
  repository: Repository,
  branch: Branch,
  options: CallOptions & { cacheDirectory: string },
): AsyncGenerator<NotedWal> {
  const { cacheDirectory, signal } = options
  const call = signal === undefined ? {} : { signal }
  const name = `notes/${branch.path.branch}`
  const path = join(cacheDirectory, branch.path.branch)
  const known = new KnownNotes(readLines(repository, name, path))
  const writer = new CacheWriter(repository, name, path)
  let changed = false
  try {
    for await (const objects of batches(listWal(repository, branch, call))) {
      const lines = await lookUp(repository, branch, { objects, known, ...call })
      changed ||= lines.some(({ fresh }) => fresh)
      for (const { line, object } of lines) {
        await writer.add(line)
        yield { object, note: parseLine(line) }
      }
    }
    changed ||= await known.hasMore()
    if (changed) await writer.publish()
  } finally {
    await writer.close()
    await known.close()
  }
}

type Line = readonly [
  name: string,
  size: number,
  end: string | null,
  least: string | null,
  greatest: string | null,
  synchronous: 0 | 1,
  points: readonly (readonly [name: string, lsn: string, micros: string])[],
]

async function lookUp(
  repository: Repository,
  branch: Branch,
  wanted: CallOptions & { objects: readonly WalObject[]; known: KnownNotes },
): Promise<{ object: WalObject; line: Line; fresh: boolean }[]> {
  const { objects, known, signal } = wanted
  const prefix = branchPrefix(branch.path).length
  const found: ({ object: WalObject; line: Line; fresh: boolean } | undefined)[] = []
  const missing: number[] = []
  for (const [at, object] of objects.entries()) {
    const line = await known.take(object.key.slice(prefix), object.sizeBytes)
    if (line === undefined) missing.push(at)
    found.push(line === undefined ? undefined : { object, line, fresh: false })
  }
  const call = signal === undefined ? {} : { signal }
  await forEachConcurrent(missing, { limit: READS_AT_ONCE, ...call }, async (at) => {
    const object = objects[at]!
    try {
      const note = await readNote(repository, branch, object, call)
      found[at] = { object, line: formatLine(object.key.slice(prefix), object.sizeBytes, note), fresh: true }
    } catch (error) {
      // Deleted since it was listed: its bytes are in a whole segment, or expired.
      if (!(error instanceof Failure && error.code === 'OBJECT_MISSING')) throw error
    }
  })
  return found.filter((each) => each !== undefined)
}

async function* batches(objects: AsyncIterable<WalObject>): AsyncGenerator<WalObject[]> {
  let batch: WalObject[] = []
  for await (const object of objects) {
    batch.push(object)
    if (batch.length < BATCH) continue
    yield batch
    batch = []
  }
  if (batch.length > 0) yield batch
}

function formatLine(name: string, size: number, note: NoteSummary): Line {
  const points = note.restorePoints.map((point) => [point.name, formatLsn(point.lsn), point.timeMicros.toString()] as const)
  const end = note.lastRecordEnd === null ? null : formatLsn(note.lastRecordEnd)
  const [least, greatest] = [note.leastCommit?.toString() ?? null, note.greatestCommit?.toString() ?? null]
  return [name, size, end, least, greatest, note.synchronous ? 1 : 0, points]
}

function parseLine([, , end, least, greatest, synchronous, points]: Line): NoteSummary {
  return {
    lastRecordEnd: end === null ? null : parseLsn(end),
    leastCommit: least === null ? null : BigInt(least),
    greatestCommit: greatest === null ? null : BigInt(greatest),
    synchronous: synchronous === 1,
    restorePoints: points.map(([name, lsn, micros]) => ({ name, lsn: parseLsn(lsn), timeMicros: BigInt(micros) })),
  }
}

/** The lines of an earlier cache beside the objects of now: both in the order of names. */
class KnownNotes {
  readonly #lines: AsyncGenerator<Line>
  #next: Line | undefined
  #begun = false

  constructor(lines: AsyncGenerator<Line>) {
    this.#lines = lines
  }

  /** The line of an object, when that is as it was. Objects have to be asked for in the order of their names. */
  async take(name: string, size: number): Promise<Line | undefined> {
    if (!this.#begun) await this.#step()
    while (this.#next !== undefined && this.#next[0] < name) await this.#step()
    return this.#next?.[0] === name && this.#next[1] === size ? this.#next : undefined
  }

  /** Whether there are lines of objects behind the last one. */
  async hasMore(): Promise<boolean> {
    await this.#step()
    return this.#next !== undefined
  }

  async close(): Promise<void> {
    await this.#lines.return(undefined)
  }

  async #step(): Promise<void> {
    this.#begun = true
    const next = await this.#lines.next()
    this.#next = next.done === true ? undefined : next.value
  }
}

/** Every frame is authenticated before its lines are given; where the file does not open any more, they end. */
async function* readLines(repository: Repository, name: string, path: string): AsyncGenerator<Line> {
  try {
    const { body } = await openObject(repository.ring, { kind: 'notes', name }, createReadStream(path))
    let rest = ''
    for await (const bytes of body) {
      const parts = (rest + bytes.toString('latin1')).split('\n')
      rest = parts.pop()!
      if (rest.length > LINE_CHARACTERS_MAX) return
      for (const part of parts) yield JSON.parse(Buffer.from(part, 'latin1').toString('utf8')) as Line
    }
  } catch (error) {
    const known = systemErrorCode(error) !== undefined || error instanceof Failure
    if (!known) throw error
  }
}

/** Writes a cache anew beside the old one. That it cannot be written is no failure: the notes are in the repository. */
class CacheWriter {
  readonly #path: string
  readonly #temporary: string
  readonly #lines = new PassThrough()
  readonly #written: Promise<boolean>

  constructor(repository: Repository, name: string, path: string) {
    this.#path = path
    this.#temporary = `${path}.${randomBytes(4).toString('hex')}.new`
    const sealed = sealObject(repository.ring, { kind: 'notes', name, head: {} }, this.#lines)
    this.#written = this.#write(sealed)
  }

  async add(line: Line): Promise<void> {
    if (this.#lines.destroyed || this.#lines.write(`${JSON.stringify(line)}\n`)) return
    await new Promise<void>((resolve) => {
      this.#lines.once('drain', resolve)
      this.#lines.once('close', resolve)
    })
  }

  async publish(): Promise<void> {
    this.#lines.end()
    if (await this.#written) await rename(this.#temporary, this.#path).catch(() => undefined)
  }

  async close(): Promise<void> {
    this.#lines.destroy()
    await this.#written
    await rm(this.#temporary, { force: true }).catch(() => undefined)
  }

  async #write(sealed: AsyncGenerator<Uint8Array>): Promise<boolean> {
    try {
      await mkdir(join(this.#path, '..'), { recursive: true, mode: 0o700 })
      await pipeline(Readable.from(sealed), createWriteStream(this.#temporary, { mode: 0o600 }))
      return true
    } catch {
      // A state directory that is not ours to write, or a full disk: without a cache it only takes longer.
      this.#lines.destroy()
      return false
    }
  }
}
