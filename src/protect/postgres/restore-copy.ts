import { mkdir, readlink, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure, systemErrorCode } from '../../errors.ts'
import { type BlobReader, type FetchBlobs, openStoredBlob, type StoredBlob } from '../../repository/blob-reader.ts'
import { fileRegions } from '../../repository/file-regions.ts'
import { CHUNK_BYTES } from '../../repository/blob.ts'
import { decodeBase, decodeOverlay, REGION_BYTES, type RegionBase } from '../../repository/region.ts'
import type { Repository } from '../../repository/repository.ts'
import type { TreeEntry } from '../../repository/tree.ts'
import { UnitQueue } from '../../stream/unit-queue.ts'
import type { WorkerPool } from '../../stream/worker-pool.ts'
import { FileFinisher, setOwner, type RestoredFile, type WrittenPart } from './file-finisher.ts'
import { mergeFingerprints } from './fingerprints-rebuild.ts'
import type { CompareUnit } from './compare-unit.ts'
import type { JobBlob, RestoredUnit, RestoreJob, RestoreUnit } from './restore-unit.ts'
import type { RestoreWorkerJob, RestoreWorkerResult } from './restore-worker.ts'

// Writes the files of a backup: units, jobs, and each file made durable when its last unit is there.

const JOB_UNITS = 64
/** Jobs whose blobs are fetched while all threads are busy. With those in the threads they bound what is in memory. */
const JOBS_FETCHING = 2
const FILES_WAITING = 1024

/** A unit before its blobs are fetched: a small file's chunk, or a region's base and overlays. */
interface WantedUnit {
  readonly path: string
  readonly offset: number
  readonly length: number
  readonly content:
    | { readonly kind: 'chunk'; readonly identity: Buffer }
    | { readonly kind: 'region'; readonly base: Buffer; readonly overlays: readonly Buffer[] }
}

export interface RestoreCopyOptions {
  readonly repository: Repository
  readonly reader: BlobReader
  readonly pool: WorkerPool<RestoreWorkerJob, RestoreWorkerResult>
  /** A directory that is there; empty but for our mark, unless `delta`. */
  readonly directory: string
  readonly entries: AsyncIterable<TreeEntry>
  /** Compare with what is there, and write only what differs. */
  readonly delta: boolean
  readonly signal: AbortSignal
  /** Bytes that were written, and those that were right already. */
  readonly onBytes: (bytes: { written: number; kept: number }) => void
  /** Called for each directory that was made, so that it can be made durable when all is in it. */
  readonly onDirectory: (path: string) => void
}

/** Writes all entries of a manifest below a directory. Gives each file out when it is durable, in the order of paths. */
export async function* restoreFiles(options: RestoreCopyOptions): AsyncGenerator<RestoredFile> {
  const finisher = new FileFinisher(options.directory)
  const queue = new UnitQueue<WantedUnit, number>({
    jobs: options.pool.capacity + JOBS_FETCHING,
    unitsPerJob: JOB_UNITS,
    bytesPerJob: REGION_BYTES,
    signal: options.signal,
    run: (units) => runJob(options, finisher, units),
  })
  const waiting: { queued: number; finished: Promise<RestoredFile> }[] = []
  try {
    for await (const entry of options.entries) {
      options.signal.throwIfAborted()
      if (entry.kind !== 'file') {
        await makeEntry(options, entry)
        continue
      }
      const finished = finisher.finish(entry, await queueFile(options, queue, entry))
      finished.catch(() => undefined)
      waiting.push({ queued: queue.queued, finished })
      if (waiting.length <= FILES_WAITING) continue
      const oldest = waiting.shift()!
      if (oldest.queued > queue.sent) await queue.flush()
      yield await oldest.finished
    }
    await queue.flush()
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) yield await next.finished
  } finally {
    await queue.settled()
    await Promise.allSettled(waiting.map(({ finished }) => finished))
  }
}

async function queueFile(
  options: RestoreCopyOptions,
  queue: UnitQueue<WantedUnit, number>,
  entry: TreeEntry & { kind: 'file' },
): Promise<WrittenPart[]> {
  const path = join(options.directory, entry.path)
  const parts: WrittenPart[] = []
  const add = async (unit: WantedUnit) => {
    const { result } = await queue.add(unit, unit.length)
    parts.push({ length: unit.length, crc: result })
  }
  if (entry.content.kind === 'chunk') {
    await add({ path, offset: 0, length: entry.sizeBytes, content: entry.content })
  }
  for await (const { base, overlays, offset, length } of fileRegions(options.reader, entry)) {
    const identities = overlays.map((overlay) => overlay.identity)
    await add({ path, offset, length, content: { kind: 'region', base, overlays: identities } })
  }
  return parts
}

async function makeEntry(options: RestoreCopyOptions, entry: Exclude<TreeEntry, { kind: 'file' }>): Promise<void> {
  const path = join(options.directory, entry.path)
  if (entry.kind === 'link') {
    // A delta has put it right before, so that it could look behind it.
    await symlink(entry.target, path).catch(async (error: unknown) => {
      if (systemErrorCode(error) !== 'EEXIST' || (await readlink(path)) !== entry.target) throw error
    })
    options.onDirectory(path)
    return
  }
  // pg_wal is there already, with the plan in it.
  await mkdir(path, { recursive: true, mode: 0o700 })
  await setOwner(path, entry)
  options.onDirectory(path)
}

async function runJob(
  options: RestoreCopyOptions,
  finisher: FileFinisher,
  units: readonly WantedUnit[],
): Promise<readonly number[]> {
  try {
    // Done twice where a blob is damaged that lies in another pack as well: what is written twice is the same.
    const restored = await options.reader.withSound(async (fetch) => {
      const job = await fetchJob(options, units, fetch)
      const transfer = job.ranges.map((range) => range.buffer)
      return (await options.pool.run(job, transfer)) as readonly RestoredUnit[]
    })
    for (const { path, length } of units) finisher.wrote(path, length)
    const kept = restored.reduce((sum, unit) => sum + unit.keptBytes, 0)
    options.onBytes({ written: units.reduce((sum, unit) => sum + unit.length, 0) - kept, kept })
    return restored.map(({ crc }) => crc)
  } catch (error) {
    throw explainWrite(error)
  }
}

/** What a unit is made of, when its base has been read. */
interface PlannedUnit {
  readonly unit: WantedUnit
  readonly base: RegionBase | undefined
  readonly chunks: readonly Buffer[]
  readonly overlays: readonly Buffer[]
}

/** Fetches what units are made of: first what their bases are, then all blobs together, but for chunks that the files have already. */
async function fetchJob(options: RestoreCopyOptions, units: readonly WantedUnit[], fetch: FetchBlobs): Promise<RestoreJob> {
  const { repository, signal } = options
  const what = `file "${units[0]!.path}"`
  const bases = units.flatMap(({ content }) => (content.kind === 'region' ? [content.base] : []))
  const baseBlobs = await fetch(bases, what, signal)
  const planned = units.map((unit): PlannedUnit => {
    const { content } = unit
    if (content.kind === 'chunk') return { unit, base: undefined, chunks: [content.identity], overlays: [] }
    const base = decodeBase(openStoredBlob(repository, baseBlobs.get(content.base.toString('hex'))!, 'region'))
    // The base may be longer than the region is now: the relation has been truncated since.
    return { unit, base, chunks: base.chunks.slice(0, Math.ceil(unit.length / CHUNK_BYTES)), overlays: content.overlays }
  })
  const kept = options.delta ? await compareUnits(options, planned, fetch) : planned.map((): readonly number[] => [])
  const identities = planned.flatMap(({ chunks, overlays }, index) => {
    const wanted = chunks.filter((_, chunk) => !kept[index]!.includes(chunk))
    return [...wanted, ...(keepsAll(planned[index]!, kept[index]!) ? [] : overlays)]
  })
  const { places, ranges, packs } = placeBlobs(await fetch(identities, what, signal))
  const place = (identity: Buffer) => places.get(identity.toString('hex'))
  const restoreUnits = planned.map(({ unit, base, chunks, overlays }, index): RestoreUnit => {
    const { path, offset, length } = unit
    const common = { path, offset, length, baseLength: base?.length ?? length, kept: kept[index]! }
    const overlaid = keepsAll(planned[index]!, kept[index]!) ? [] : overlays.map((overlay) => place(overlay)!)
    return { ...common, chunks: chunks.map(place), overlays: overlaid }
  })
  return { kind: 'restore', units: restoreUnits, ranges, packs }
}

/** The chunks of each unit that the file there has already, by their numbers. */
async function compareUnits(
  options: RestoreCopyOptions,
  planned: readonly PlannedUnit[],
  fetch: FetchBlobs,
): Promise<readonly (readonly number[])[]> {
  const { repository, signal } = options
  const overlays = planned.flatMap((unit) => unit.overlays)
  const blobs = await fetch(overlays, `file "${planned[0]!.unit.path}"`, signal)
  const units = planned.map(({ unit, base, chunks, overlays: own }): CompareUnit => {
    const { path, offset, length } = unit
    if (base === undefined) return { path, offset, length, identity: chunks[0]! }
    const opened = own.map((overlay) => decodeOverlay(openStoredBlob(repository, blobs.get(overlay.toString('hex'))!, 'overlay')))
    return { path, offset, length, fingerprints: mergeFingerprints(length, base, opened).fingerprints }
  })
  const result = await options.pool.run({ kind: 'compare', units })
  return result as readonly (readonly number[])[]
}

function keepsAll({ unit }: PlannedUnit, kept: readonly number[]): boolean {
  return kept.length === Math.ceil(unit.length / CHUNK_BYTES)
}

/** Says of each blob where it lies in the ranges that were read, which are then handed to a thread. */
function placeBlobs(blobs: ReadonlyMap<string, StoredBlob>) {
  const numbers = new Map<ArrayBuffer, number>()
  const places = new Map<string, JobBlob>()
  const packs = new Map<string, Uint8Array>()
  for (const [identity, { location, stored, packHeader }] of blobs) {
    const range = numbers.get(stored.buffer) ?? numbers.size
    numbers.set(stored.buffer, range)
    places.set(identity, { ...location, range, at: stored.byteOffset })
    packs.set(location.pack, packHeader)
  }
  const ranges = [...numbers.keys()].map((buffer) => new Uint8Array(buffer))
  return { places, ranges, packs }
}

/** A disk that is full is an expected failure; Node's message names the file. */
export function explainWrite(error: unknown): unknown {
  if (error instanceof Failure || !(error instanceof Error) || !/^(ENOSPC|EDQUOT)\b/.test(error.message)) return error
  return new Failure('DISK_FULL', `there is no room for the restored cluster: ${error.message}`, {
    hint: 'make room, or choose another directory, and run the restore again: it begins anew and the cluster cannot be started before it is whole',
    cause: error,
  })
}
