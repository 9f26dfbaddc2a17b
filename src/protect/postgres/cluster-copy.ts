import { Failure } from '../../errors.ts'
import { relationFile } from '../../postgres/relation-file.ts'
import { CHUNK_BYTES, PIECE_BYTES } from '../../repository/blob.ts'
import { REGION_BYTES, REGIONS_PART } from '../../repository/region.ts'
import { UnitQueue } from '../../stream/unit-queue.ts'
import type { WorkerPool } from '../../stream/worker-pool.ts'
import type { BackupUnit, UnitResult } from './backup-unit.ts'
import type { BackupJob, BackupJobResult } from './backup-worker.ts'
import type { DataEntry } from './data-directory.ts'
import type { FingerprintReader } from './fingerprints.ts'

// Turns files into units, units into jobs, and gives the results back in the order of the files.

/** Small files go to a thread together, up to this many or this many bytes. */
const JOB_UNITS = 64
const JOB_BYTES = REGION_BYTES
/** Units of parts that may wait for an earlier one: what each has become takes up to 17 KiB. */
const UNITS_WAITING = 1024
const RELATION_SEGMENT_BLOCKS = 131_072

/** Up to 128 successive regions of a file, or a small file whole, with what became of them. */
export interface CopiedPart {
  readonly entry: DataEntry
  readonly firstRegion: number
  readonly results: readonly UnitResult[]
  readonly isLast: boolean
}

export interface CopyOptions {
  readonly entries: Iterable<DataEntry>
  readonly pool: WorkerPool<BackupJob, BackupJobResult>
  /** The cluster has page checksums. */
  readonly checkPages: boolean
  /** What the previous backup saw; undefined to compare with nothing. */
  readonly previous: FingerprintReader | undefined
  /** Takes what a job has made before its results are given out. */
  readonly accept: (result: BackupJobResult) => Promise<void>
  readonly signal: AbortSignal
}

interface WaitingPart extends Omit<CopiedPart, 'results'> {
  readonly results: readonly Promise<UnitResult>[]
  /** How many units had been queued when its last one was. */
  readonly queued: number
}

/** Reads all files through the pool. A part is given out when all of it is done, in the order of `entries`. */
export async function* copyFiles(options: CopyOptions): AsyncGenerator<CopiedPart> {
  const jobs = new UnitQueue<BackupUnit, UnitResult>({
    jobs: options.pool.capacity,
    unitsPerJob: JOB_UNITS,
    bytesPerJob: JOB_BYTES,
    signal: options.signal,
    run: (units) => runJob(options, units),
  })
  const waiting: WaitingPart[] = []
  let unitsWaiting = 0
  const settle = async ({ entry, firstRegion, isLast, results, queued }: WaitingPart): Promise<CopiedPart> => {
    if (queued > jobs.sent) await jobs.flush()
    return { entry, firstRegion, isLast, results: await Promise.all(results) }
  }
  try {
    for await (const part of allParts(options)) {
      options.signal.throwIfAborted()
      waiting.push(await queuePart(jobs, part))
      // A file without units counts too.
      unitsWaiting += 1 + part.units.length
      while (unitsWaiting > UNITS_WAITING) {
        const oldest = waiting.shift()!
        unitsWaiting -= 1 + oldest.results.length
        yield await settle(oldest)
      }
    }
    await jobs.flush()
    for (let part = waiting.shift(); part !== undefined; part = waiting.shift()) yield await settle(part)
  } finally {
    // Results that nobody waits for any more must not be unhandled.
    await jobs.settled()
  }
}

async function queuePart(jobs: UnitQueue<BackupUnit, UnitResult>, part: Part): Promise<WaitingPart> {
  const results: Promise<UnitResult>[] = []
  for (const unit of part.units) results.push((await jobs.add(unit, unit.length)).result)
  return { entry: part.entry, firstRegion: part.firstRegion, isLast: part.isLast, results, queued: jobs.queued }
}

interface Part {
  readonly entry: DataEntry
  readonly firstRegion: number
  readonly isLast: boolean
  readonly units: readonly BackupUnit[]
}

async function* allParts(options: CopyOptions): AsyncGenerator<Part> {
  for (const entry of options.entries) yield* partsOf(entry, options)
}

async function* partsOf(entry: DataEntry, options: CopyOptions): AsyncGenerator<Part> {
  if (entry.kind !== 'file' || entry.sizeBytes === 0) {
    yield { entry, firstRegion: 0, isLast: true, units: [] }
    return
  }
  const relation = relationFile(entry.path)
  const checked = options.checkPages && relation !== undefined
  const firstBlock = checked ? relation.segment * RELATION_SEGMENT_BLOCKS : undefined
  if (entry.sizeBytes <= CHUNK_BYTES) {
    const unit = { path: entry.absolutePath, offset: 0, kind: 'chunk' as const }
    const how = relation === undefined ? { length: CHUNK_BYTES, asFound: true as const } : { length: entry.sizeBytes }
    yield {
      entry,
      firstRegion: 0,
      isLast: true,
      units: [{ ...unit, ...how, ...(firstBlock === undefined ? {} : { firstBlock }) }],
    }
    return
  }
  const regions = Math.ceil(entry.sizeBytes / REGION_BYTES)
  for (let firstRegion = 0; firstRegion < regions; firstRegion += REGIONS_PART) {
    const known = (await options.previous?.find(entry.path, firstRegion)) ?? []
    const count = Math.min(REGIONS_PART, regions - firstRegion)
    const units = Array.from({ length: count }, (_, index) => regionUnit(entry, firstRegion + index, firstBlock, known[index]))
    yield { entry, firstRegion, isLast: firstRegion + count === regions, units }
  }
}

function regionUnit(
  entry: DataEntry & { kind: 'file' },
  region: number,
  firstBlock: number | undefined,
  previous: Uint8Array | undefined,
): BackupUnit {
  const offset = region * REGION_BYTES
  return {
    path: entry.absolutePath,
    offset,
    length: Math.min(REGION_BYTES, entry.sizeBytes - offset),
    kind: 'region',
    ...(firstBlock === undefined ? {} : { firstBlock: firstBlock + offset / PIECE_BYTES }),
    ...(previous === undefined ? {} : { previous: Uint8Array.from(previous) }),
  }
}

async function runJob(options: CopyOptions, units: readonly BackupUnit[]): Promise<readonly UnitResult[]> {
  try {
    const result = await options.pool.run({ kind: 'units', units })
    await options.accept(result)
    return result.results
  } catch (error) {
    throw explain(error)
  }
}

/** A file that cannot be read is the configuration's or the disk's fault; Node's message names it. */
function explain(error: unknown): unknown {
  if (error instanceof Failure || !(error instanceof Error)) return error
  if (!/^(EACCES|EPERM|EIO)\b/.test(error.message)) return error
  return new Failure('DATA_DIRECTORY_UNREADABLE', `cannot read the data directory: ${error.message}`, {
    hint: 'run Resus as the user of the server (or as root); an EIO is the disk',
    cause: error,
  })
}
