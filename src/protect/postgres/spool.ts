import { fdatasyncSync, writevSync } from 'node:fs'
import { open, rename, rm, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '../../assert.ts'
import type { Clock } from '../../clock.ts'
import { Failure, systemErrorCode } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import type { KeyRing } from '../../repository/key-ring.ts'
import type { LsnRange } from '../../repository/wal-archive.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import { RecentWal } from './recent-wal.ts'
import { waitForEvent } from './sleep.ts'
import { makeDirectory, syncDirectory } from './durable-file.ts'
import { listDirectory, listSpoolBranches, writeSpoolBranch } from './spool-branch.ts'
import {
  newSpoolFileName,
  newSpoolKey,
  parseSpoolFileName,
  readSpoolRun,
  rememberPoint,
  scanSpoolFile,
  sealSpoolFrame,
  SPOOL_FRAME_BYTES,
  type FramePoint,
  type SpoolFile,
  type SpoolKey,
  type SpoolRun,
} from './spool-file.ts'

// The receiver's durable, encrypted spool (docs/format.md): what is acknowledged to PostgreSQL lies here until it is in the repository.

/** A spool must hold some segments whatever it is told: room is made by whole segments. */
const SEGMENTS_MIN = 4
const WRITE_AT_ONCE_BYTES_MAX = 64 * 1024
/** A disk that took longer for its last sync is synced from another thread: keepalives must be answered meanwhile. */
const SYNC_AT_ONCE_MS_MAX = 50
const AHEAD_BYTES = 1024 * 1024
const AHEAD_BATCH_BYTES_MAX = 64 * 1024
const ZEROS = Buffer.alloc(AHEAD_BYTES)
/** How often a file may be deleted under a reader before it gives up. */
const GONE_MAX = 100

/** WAL of one branch that this host has, whether the repository has it or not. */
export interface HeldWal {
  /** Without holes each, in LSN order. */
  readonly ranges: readonly LsnRange[]
  /** The bytes [from, to), which must lie in one of the ranges. */
  read(range: LsnRange): AsyncGenerator<Uint8Array>
}

/** What a spool holds of one branch. */
export interface SpoolContents extends HeldWal {
  readonly files: readonly SpoolFile[]
  /** Paths of files that were changed after they were written: acknowledged WAL may be lost. */
  readonly damaged: readonly string[]
  /** The bytes [from, to), which must lie in one of the ranges. Throws SPOOL_DAMAGED; ENOENT when a file was deleted meanwhile. */
  read(range: LsnRange): AsyncGenerator<Uint8Array>
}

/** Reads what a spool holds of a branch (its keyed name), opening every frame. Safe while a receiver writes it. */
export async function readSpool(directory: string, ring: KeyRing, branch: string): Promise<SpoolContents> {
  const files: SpoolFile[] = []
  for (const name of await listDirectory(directory)) {
    if (parseSpoolFileName(name)?.branch !== branch) continue
    const file = await scanUnlessGone(join(directory, name), ring)
    if (file !== undefined) files.push(file)
  }
  const runs = files.flatMap((file) => file.runs)
  const damaged = files.filter((file) => file.damaged).map(({ path }) => path)
  return { files, ranges: joinRanges(runs), damaged, read: (range) => readRuns(() => runs, ring, range) }
}

/** Ranges that touch or overlap become one; in LSN order. */
export function joinRanges(runs: readonly { startLsn: Lsn; endLsn: Lsn }[]): LsnRange[] {
  const ranges: { from: Lsn; to: Lsn }[] = []
  for (const { startLsn, endLsn } of runs.toSorted((left, right) => (left.startLsn < right.startLsn ? -1 : 1))) {
    const last = ranges.at(-1)
    if (last !== undefined && startLsn <= last.to) last.to = endLsn > last.to ? endLsn : last.to
    else ranges.push({ from: startLsn, to: endLsn })
  }
  return ranges
}

async function* readRuns(list: () => readonly SpoolRun[], ring: KeyRing, range: LsnRange): AsyncGenerator<Uint8Array> {
  let at = range.from
  let gone = 0
  while (at < range.to) {
    const here = list().filter(({ startLsn, endLsn }) => startLsn <= at && at < endLsn)
    const [run] = here.toSorted((left, right) => (left.endLsn > right.endLsn ? -1 : 1))
    if (run === undefined) throw new Failure('SPOOL_DAMAGED', `the spool does not hold the WAL at ${formatLsn(at)}`)
    const to = run.endLsn < range.to ? run.endLsn : range.to
    try {
      yield* readSpoolRun(run, ring, { from: at, to })
      at = to
    } catch (error) {
      // Only opening fails like that, before the first byte was given.
      if (systemErrorCode(error) !== 'ENOENT' || (gone += 1) > GONE_MAX) throw error
    }
  }
}

interface MutableRun extends SpoolRun {
  endLsn: Lsn
  readonly points: FramePoint[]
}

interface KnownFile {
  readonly path: string
  readonly branch: string
  readonly startLsn: Lsn
  /** Was it changed after it was written? What of it does not open may be nowhere else: it is deleted by nobody. */
  readonly damaged: boolean
  sizeBytes: number
  runs: SpoolRun[]
}

export interface SpoolOptions {
  readonly directory: string
  /** The component's name. Several components' receivers may share a directory. */
  readonly component: string
  readonly ring: KeyRing
  readonly bytesMax: number
  /** Called with the new path of a damaged file that would have been deleted: it is kept for people to look at. */
  readonly onSetAside?: (path: string) => void
}

/**
 * The spool of a receiver that is running: knows its files and their sizes, gives writers, and deletes what the repository has. One
 * process writes at a time (the replication slot sees to that); others may read the directory with `readSpool`.
 */
export class Spool {
  readonly directory: string
  readonly #component: string
  readonly #ring: KeyRing
  readonly bytesMax: number
  readonly #onSetAside: (path: string) => void
  readonly #files = new Map<string, KnownFile>()
  /** Paths of what an earlier process left. */
  readonly #earlier = new Set<string>()
  /** Paths of what was there when the present writer began. */
  #before: ReadonlySet<string> = new Set()
  #room = Promise.withResolvers<void>()
  /** What the present writer wrote last. */
  #recent: { readonly branch: string; readonly wal: RecentWal } | undefined

  private constructor(options: SpoolOptions) {
    this.directory = options.directory
    this.#component = options.component
    this.#ring = options.ring
    this.bytesMax = options.bytesMax
    this.#onSetAside = options.onSetAside ?? (() => undefined)
  }

  /** Opens a spool, making its directory. What is in it already counts against its limit, and can be read. */
  static async open(options: SpoolOptions): Promise<Spool> {
    await makeDirectory(options.directory)
    const spool = new Spool(options)
    await spool.rescan()
    return spool
  }

  /** Looks again at what there is, forgetting what was known. Other components' files in the directory are none of ours. */
  async rescan(): Promise<void> {
    const { branches } = await listSpoolBranches(this.directory, this.#ring)
    const ours = branches.filter(({ component }) => component === this.#component).map(({ branch }) => branch.path.branch)
    this.#files.clear()
    this.#earlier.clear()
    for (const name of await listDirectory(this.directory)) {
      const parsed = parseSpoolFileName(name)
      if (parsed === undefined || !ours.includes(parsed.branch)) continue
      const file = await scanUnlessGone(join(this.directory, name), this.#ring)
      if (file === undefined) continue
      this.#files.set(file.path, { ...file, runs: [...file.runs] })
      this.#earlier.add(file.path)
    }
  }

  get sizeBytes(): number {
    return [...this.#files.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  }

  /** Whether this much more may be written. */
  hasRoomFor(bytes: number, segmentSize: number): boolean {
    return this.sizeBytes + bytes <= Math.max(this.bytesMax, SEGMENTS_MIN * segmentSize)
  }

  /** Until something is deleted, or the time is over, or the signal aborts. */
  async waitForRoom(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
    await waitForEvent(this.#room.promise, { clock, ms, signal })
  }

  ranges(branch: Branch): LsnRange[] {
    return joinRanges(this.#runs(branch))
  }

  /** The bytes [from, to) of a branch, which must lie in one of its ranges. Throws SPOOL_DAMAGED. */
  async *read(branch: Branch, range: LsnRange): AsyncGenerator<Uint8Array> {
    const recent = this.#recent?.branch === branch.path.branch ? this.#recent.wal.read(range) : undefined
    yield* recent ?? readRuns(() => this.#runs(branch), this.#ring, range)
  }

  /**
   * Begins to write a branch at an LSN, always in a new file. `durably`: each sync waits for the disk; else the spool only holds what
   * nobody was told is safe, and a power cut may take it.
   */
  async startWriting(branch: Branch, startLsn: Lsn, durably = true): Promise<SpoolWriter> {
    await writeSpoolBranch(this.directory, this.#ring, { component: this.#component, branch })
    this.#before = new Set(this.#files.keys())
    const register = (file: KnownFile) => this.#files.set(file.path, file)
    const recent = new RecentWal()
    this.#recent = { branch: branch.path.branch, wal: recent }
    return new SpoolWriter({ directory: this.directory, ring: this.#ring, branch, startLsn, durably, recent, register })
  }

  /** Deletes the files of one segment, because the repository has it whole: damaged ones are set aside, empty ones go, too. */
  async deleteSegment(branch: Branch, segment: bigint): Promise<void> {
    for (const file of this.#files.values()) {
      // A file holds bytes of one segment only: its first LSN tells which, even while it is empty and about to be written.
      if (file.branch !== branch.path.branch || file.startLsn / BigInt(branch.head.segmentSize) !== segment) continue
      await this.#delete(file)
    }
  }

  /** Deletes files from before the present writer, all of which is in its range now: each new connection writes its segment anew. */
  async deleteCovered(branch: Branch, range: LsnRange): Promise<void> {
    for (const file of this.#files.values()) {
      if (!this.#before.has(file.path) || file.branch !== branch.path.branch) continue
      if (isWithin(file, [range])) await this.#delete(file)
    }
  }

  /** Deletes files of the present writer, which must have ended, where those from before it hold the same. */
  async deleteRedundant(branch: Branch): Promise<void> {
    const files = [...this.#files.values()].filter((file) => file.branch === branch.path.branch)
    const before = joinRanges(files.filter(({ path }) => this.#before.has(path)).flatMap(({ runs }) => runs))
    for (const file of files) {
      if (!this.#before.has(file.path) && isWithin(file, before)) await this.#delete(file)
    }
  }

  /** Deletes what an earlier process left, because the repository has all of it but what it `refused`. */
  async deleteEarlier(refused: readonly (LsnRange & { readonly branch: Branch })[]): Promise<void> {
    for (const path of this.#earlier) {
      const file = this.#files.get(path)
      if (file === undefined || file.damaged || file.runs.length === 0) continue
      const ranges = refused.filter(({ branch }) => branch.path.branch === file.branch)
      if (!ranges.some(({ from, to }) => file.runs.some((run) => from < run.endLsn && run.startLsn < to)))
        await this.#delete(file)
    }
    this.#earlier.clear()
  }

  /** Deletes the files of a branch all of which lies in `stored`: what the repository has of it. */
  async deleteStored(branch: Branch, stored: readonly LsnRange[]): Promise<void> {
    for (const file of this.#files.values()) {
      if (file.branch === branch.path.branch && isWithin(file, stored)) await this.#delete(file)
    }
  }

  async #delete(file: KnownFile): Promise<void> {
    // First out of the list: a reader that finds the file gone looks there for another that holds the same.
    this.#files.delete(file.path)
    if (file.damaged) await this.#setAside(file.path)
    else await rm(file.path, { force: true })
    this.#room.resolve()
    this.#room = Promise.withResolvers()
  }

  async #setAside(path: string): Promise<void> {
    const aside = `${path}.damaged`
    try {
      await rename(path, aside)
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return
      throw error
    }
    this.#onSetAside(aside)
  }

  #runs(branch: Branch): SpoolRun[] {
    return [...this.#files.values()].filter((file) => file.branch === branch.path.branch).flatMap((file) => file.runs)
  }
}

/** Whether all that a file was written with lies in these ranges. Of a file without WAL that opens, or a damaged one, nobody knows. */
function isWithin({ damaged, runs }: KnownFile, ranges: readonly LsnRange[]): boolean {
  if (damaged || runs.length === 0) return false
  return runs.every(({ startLsn, endLsn }) => ranges.some(({ from, to }) => from <= startLsn && endLsn <= to))
}

interface OpenFile {
  readonly handle: FileHandle
  readonly key: SpoolKey
  readonly known: KnownFile
  run: MutableRun | undefined
  frames: bigint
  /** Up to here zeros were written ahead. */
  aheadTo: number
  /** The end of the segment: where the next file begins. */
  readonly endLsn: Lsn
}

interface SpoolWriterOptions {
  readonly directory: string
  readonly ring: KeyRing
  readonly branch: Branch
  readonly startLsn: Lsn
  /** Whether `sync` waits for the disk. */
  readonly durably: boolean
  /** Gets what is written. */
  readonly recent: RecentWal
  readonly register: (file: KnownFile) => void
}

/**
 * Writes WAL to the spool. `append` buffers, `sync` makes durable all that was appended before it was called: only then may it be
 * acknowledged. When `sync` throws (DISK_FULL, SPOOL_UNWRITABLE), nothing is lost: the bytes stay buffered, and the next `sync`
 * writes them to a new file, because nothing can be said about the end of the old one.
 */
export class SpoolWriter {
  readonly #options: SpoolWriterOptions
  #buffered: Uint8Array[] = []
  #bufferedBytes = 0
  #durableLsn: Lsn
  #file: OpenFile | undefined
  #lastSyncMs = 0

  constructor(options: SpoolWriterOptions) {
    this.#options = options
    this.#durableLsn = options.startLsn
  }

  get durableLsn(): Lsn {
    return this.#durableLsn
  }

  get appendedLsn(): Lsn {
    return this.#durableLsn + BigInt(this.#bufferedBytes)
  }

  append(lsn: Lsn, bytes: Uint8Array): void {
    assert(lsn === this.appendedLsn, `WAL follows on: ${formatLsn(lsn)} after ${formatLsn(this.appendedLsn)}`)
    this.#buffered.push(bytes)
    this.#bufferedBytes += bytes.length
  }

  /** Makes durable what was appended. One fsync for each segment that it touches. One call at a time. */
  async sync(): Promise<void> {
    while (this.#bufferedBytes > 0) {
      try {
        await this.#writeToOneFile()
      } catch (cause) {
        await this.#abandonFile()
        throw spoolFailure(this.#options.directory, cause)
      }
    }
  }

  async close(): Promise<void> {
    const file = this.#file
    this.#file = undefined
    if (file === undefined) return
    // Zeros that were written ahead count against the limit of the spool as long as they are there; if they stay, only room is lost.
    if (file.aheadTo > file.known.sizeBytes) await file.handle.truncate(file.known.sizeBytes).catch(() => undefined)
    await file.handle.close()
  }

  async #writeToOneFile(): Promise<void> {
    const created = this.#file === undefined
    const file = (this.#file ??= await this.#createFile())
    const taken = this.#buffered.length
    // A commit is most often one message: then there is nothing to put together.
    const [only] = this.#buffered
    const all = taken === 1 ? asBuffer(only!) : Buffer.concat(this.#buffered)
    const length = Math.min(all.length, Number(file.endLsn - this.#durableLsn))
    const run = file.run ?? { ...file.known, endLsn: this.#durableLsn, startLsn: this.#durableLsn, points: [] }
    const sealed: Buffer[] = created ? [file.key.header] : []
    const points: FramePoint[] = []
    let offset = created ? file.key.header.length : file.known.sizeBytes
    for (let at = 0; at < length; at += SPOOL_FRAME_BYTES) {
      const lsn = this.#durableLsn + BigInt(at)
      const frame = sealSpoolFrame(file.key, file.frames, lsn, all.subarray(at, Math.min(length, at + SPOOL_FRAME_BYTES)))
      points.push({ lsn, offset, number: file.frames })
      sealed.push(...frame)
      offset += bytesOf(frame)
      file.frames += 1n
    }
    const { directory, durably } = this.#options
    if (durably) await writeAhead(file, offset, offset - file.known.sizeBytes)
    await writeAll(file.handle, sealed, created ? 0 : file.known.sizeBytes)
    if (durably) await this.#syncFile(file, offset - file.known.sizeBytes)
    // The file's name is durable only once its directory is.
    if (durably && created) await syncDirectory(directory)
    for (const point of points) rememberPoint(run.points, point)
    this.#options.recent.append(this.#durableLsn, all.subarray(0, length))
    this.#settle(file, { run, length, offset, rest: all.subarray(length), taken })
    if (this.#durableLsn === file.endLsn) await this.close()
  }

  /**
   * A commit waits for a small batch: handing its sync to another thread and back would cost two more turns of the scheduler. A large
   * batch, or a slow disk, must not keep everything else waiting.
   */
  async #syncFile(file: OpenFile, batchBytes: number): Promise<void> {
    const begunMs = performance.now()
    if (batchBytes <= WRITE_AT_ONCE_BYTES_MAX && this.#lastSyncMs <= SYNC_AT_ONCE_MS_MAX) fdatasyncSync(file.handle.fd)
    else await file.handle.datasync()
    this.#lastSyncMs = performance.now() - begunMs
  }

  /** From here on the bytes are durable: they may be acknowledged, and read. */
  #settle(file: OpenFile, written: { run: MutableRun; length: number; offset: number; rest: Buffer; taken: number }): void {
    this.#durableLsn += BigInt(written.length)
    // More may have been appended meanwhile.
    const later = this.#buffered.slice(written.taken)
    this.#buffered = written.rest.length > 0 ? [written.rest, ...later] : later
    this.#bufferedBytes -= written.length
    written.run.endLsn = this.#durableLsn
    file.known.sizeBytes = written.offset
    if (file.run === undefined) file.known.runs.push(written.run)
    file.run = written.run
  }

  async #createFile(): Promise<OpenFile> {
    const { directory, ring, branch, register } = this.#options
    const startLsn = this.#durableLsn
    const size = BigInt(branch.head.segmentSize)
    const name = newSpoolFileName(branch.path.branch, startLsn)
    const known = { path: join(directory, name), branch: branch.path.branch, startLsn, sizeBytes: 0, damaged: false, runs: [] }
    const handle = await open(known.path, 'wx', 0o600)
    register(known)
    return {
      handle,
      key: newSpoolKey(ring, name),
      known,
      run: undefined,
      frames: 0n,
      aheadTo: 0,
      endLsn: (startLsn / size + 1n) * size,
    }
  }

  /** After a failed write or sync. A file without a durable frame is removed; on a full disk that also makes room. */
  async #abandonFile(): Promise<void> {
    const file = this.#file
    if (file === undefined) return
    await this.close()
    if (file.run === undefined) await rm(file.known.path, { force: true })
  }
}

/**
 * Small batches are written over zeros that are there already: then a sync has no new blocks to record, which takes a third of its
 * time. A reader takes zeros for the end. Large batches gain nothing, and would be written twice.
 */
async function writeAhead(file: OpenFile, endOffset: number, batchBytes: number): Promise<void> {
  if (batchBytes > AHEAD_BATCH_BYTES_MAX || endOffset <= file.aheadTo) return
  await writeAll(file.handle, [ZEROS], endOffset)
  file.aheadTo = endOffset + AHEAD_BYTES
}

async function writeAll(file: FileHandle, pieces: readonly Buffer[], position: number): Promise<void> {
  let left = pieces
  for (let at = position; left.length > 0;) {
    // A small batch goes into the page cache, which takes less time than handing it to another thread; only the sync waits for the disk.
    const written =
      bytesOf(left) <= WRITE_AT_ONCE_BYTES_MAX ? writevSync(file.fd, left, at) : (await file.writev(left, at)).bytesWritten
    at += written
    left = withoutFirst(left, written)
  }
}

/** What a write that took only some of the bytes has left. */
function withoutFirst(pieces: readonly Buffer[], bytes: number): Buffer[] {
  let taken = bytes
  const left: Buffer[] = []
  for (const piece of pieces) {
    if (taken < piece.length) left.push(piece.subarray(taken))
    taken = Math.max(0, taken - piece.length)
  }
  return left
}

function bytesOf(pieces: readonly Buffer[]): number {
  return pieces.reduce((sum, { length }) => sum + length, 0)
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
}

async function scanUnlessGone(path: string, ring: KeyRing): Promise<SpoolFile | undefined> {
  try {
    return await scanSpoolFile(path, ring)
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

function spoolFailure(directory: string, cause: unknown): Error {
  const code = systemErrorCode(cause)
  if (code === undefined) return cause instanceof Error ? cause : new Error(String(cause))
  const what = `cannot write to the spool in "${directory}": ${code}; nothing of it was acknowledged`
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new Failure('DISK_FULL', what, { hint: 'make room on that disk: the receiver goes on by itself', cause })
  }
  return new Failure('SPOOL_UNWRITABLE', what, { hint: 'does the directory exist, and may this user write it?', cause })
}
