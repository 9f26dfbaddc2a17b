import { chmod, lchown, mkdir, open, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../../errors.ts'
import { crc32cCombine } from '../../postgres/crc32c.ts'
import { type BlobReader, openStoredBlob, type StoredBlob } from '../../repository/blob-reader.ts'
import { fileRegions } from '../../repository/file-regions.ts'
import { decodeBase, REGION_BYTES } from '../../repository/region.ts'
import type { Repository } from '../../repository/repository.ts'
import type { TreeEntry } from '../../repository/tree.ts'
import { UnitQueue } from '../../stream/unit-queue.ts'
import type { WorkerPool } from '../../stream/worker-pool.ts'
import type { JobBlob, RestoreJob, RestoreUnit } from './restore-unit.ts'
import type { RestoreJobResult } from './restore-worker.ts'

// Writes the files of a backup: units, jobs, and each file made durable when its last unit is there.

const JOB_UNITS = 64
const FILES_WAITING = 1024
const FILES_FINISHING = 16

/** A file that is written and durable. */
export interface RestoredFile {
  readonly path: string
  readonly sizeBytes: number
  readonly crc32c: number
}

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
  readonly pool: WorkerPool<RestoreJob, RestoreJobResult>
  /** An empty directory that is there. */
  readonly directory: string
  readonly entries: AsyncIterable<TreeEntry>
  readonly signal: AbortSignal
  readonly onBytes: (bytes: number) => void
  /** Called for each directory that was made, so that it can be made durable when all is in it. */
  readonly onDirectory: (path: string) => void
}

/** Writes all entries of a manifest below a directory. Gives each file out when it is durable, in the order of paths. */
export async function* restoreFiles(options: RestoreCopyOptions): AsyncGenerator<RestoredFile> {
  const queue = new UnitQueue<WantedUnit, number>({
    jobs: options.pool.capacity,
    unitsPerJob: JOB_UNITS,
    bytesPerJob: REGION_BYTES,
    signal: options.signal,
    run: (units) => runJob(options, units),
  })
  const finisher = new FileFinisher()
  const waiting: { queued: number; finished: Promise<RestoredFile> }[] = []
  try {
    for await (const entry of options.entries) {
      options.signal.throwIfAborted()
      if (entry.kind !== 'file') {
        await makeEntry(options, entry)
        continue
      }
      const crcs = await queueFile(options, queue, entry)
      const finished = finisher.finish(options.directory, entry, crcs)
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

interface UnitCrc {
  readonly length: number
  readonly crc: Promise<number>
}

async function queueFile(
  options: RestoreCopyOptions,
  queue: UnitQueue<WantedUnit, number>,
  entry: TreeEntry & { kind: 'file' },
): Promise<UnitCrc[]> {
  const path = join(options.directory, entry.path)
  const crcs: UnitCrc[] = []
  const add = async (unit: WantedUnit) => {
    const { result } = await queue.add(unit, unit.length)
    crcs.push({ length: unit.length, crc: result })
  }
  if (entry.content.kind === 'chunk') {
    await add({ path, offset: 0, length: entry.sizeBytes, content: entry.content })
  }
  for await (const { base, overlays, offset, length } of fileRegions(options.reader, entry)) {
    const identities = overlays.map((overlay) => overlay.identity)
    await add({ path, offset, length, content: { kind: 'region', base, overlays: identities } })
  }
  return crcs
}

async function makeEntry(options: RestoreCopyOptions, entry: Exclude<TreeEntry, { kind: 'file' }>): Promise<void> {
  const path = join(options.directory, entry.path)
  if (entry.kind === 'link') {
    await symlink(entry.target, path)
    options.onDirectory(path)
    return
  }
  // pg_wal is there already, with the plan in it.
  await mkdir(path, { recursive: true, mode: 0o700 })
  await setOwner(path, entry)
  options.onDirectory(path)
}

/** Gives files their owner and mode and makes them durable, some at a time. */
class FileFinisher {
  #running = 0
  readonly #waiting: (() => void)[] = []

  async finish(directory: string, entry: TreeEntry & { kind: 'file' }, units: readonly UnitCrc[]): Promise<RestoredFile> {
    let crc = 0
    for (const unit of units) crc = crc32cCombine(crc, await unit.crc, unit.length)
    while (this.#running >= FILES_FINISHING) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#running += 1
    try {
      const path = join(directory, entry.path)
      const file = await open(path, 'a', 0o600)
      try {
        await file.sync()
      } finally {
        await file.close()
      }
      await setOwner(path, entry)
      return { path: entry.path, sizeBytes: entry.sizeBytes, crc32c: crc }
    } finally {
      this.#running -= 1
      this.#waiting.shift()?.()
    }
  }
}

async function setOwner(path: string, entry: TreeEntry): Promise<void> {
  // Only root may give files away; anybody else restores as the user that the server will run as.
  if (process.getuid?.() === 0) await lchown(path, entry.uid, entry.gid)
  await chmod(path, entry.mode)
}

async function runJob(options: RestoreCopyOptions, units: readonly WantedUnit[]): Promise<readonly number[]> {
  const { repository, reader, signal } = options
  const what = `file "${units[0]!.path}"`
  const bases = units.flatMap(({ content }) => (content.kind === 'region' ? [content.base] : []))
  const baseBlobs = await reader.fetch(bases, what, signal)
  const wanted = units.map(({ content }) => {
    if (content.kind === 'chunk') return { chunks: [content.identity], overlays: [] }
    const base = decodeBase(openStoredBlob(repository, baseBlobs.get(content.base.toString('hex'))!, 'region'))
    return { chunks: base.chunks, overlays: content.overlays }
  })
  const blobs = await reader.fetch(
    wanted.flatMap(({ chunks, overlays }) => [...chunks, ...overlays]),
    what,
    signal,
  )
  const job = packJob(blobs)
  const restoreUnits = units.map(({ path, offset, length }, index): RestoreUnit => {
    const { chunks, overlays } = wanted[index]!
    const place = (identity: Buffer) => job.places.get(identity.toString('hex'))!
    return { path, offset, length, chunks: chunks.map(place), overlays: overlays.map(place) }
  })
  try {
    const crcs = await options.pool.run({ units: restoreUnits, bytes: job.bytes, packs: job.packs }, [job.bytes.buffer])
    options.onBytes(units.reduce((sum, unit) => sum + unit.length, 0))
    return crcs
  } catch (error) {
    throw explainWrite(error)
  }
}

/** Puts the stored bytes of all blobs into one buffer, which is then handed to a thread. */
function packJob(blobs: ReadonlyMap<string, StoredBlob>) {
  const total = [...blobs.values()].reduce((sum, { stored }) => sum + stored.length, 0)
  const bytes = new Uint8Array(total)
  const places = new Map<string, JobBlob>()
  const packs = new Map<string, Uint8Array>()
  let at = 0
  for (const [identity, { location, stored, packHeader }] of blobs) {
    bytes.set(stored, at)
    places.set(identity, { ...location, at })
    packs.set(location.pack, packHeader)
    at += stored.length
  }
  return { bytes, places, packs }
}

/** A disk that is full is an expected failure; Node's message names the file. */
export function explainWrite(error: unknown): unknown {
  if (error instanceof Failure || !(error instanceof Error) || !/^(ENOSPC|EDQUOT)\b/.test(error.message)) return error
  return new Failure('DISK_FULL', `there is no room for the restored cluster: ${error.message}`, {
    hint: 'make room, or choose another directory, and run the restore again: it begins anew and the cluster cannot be started before it is whole',
    cause: error,
  })
}
