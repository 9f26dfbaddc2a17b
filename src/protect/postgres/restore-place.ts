import { chmod, lstat, mkdir, readdir, readFile, rm, stat, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Clock } from '../../clock.ts'
import { Failure, systemErrorCode } from '../../errors.ts'
import { isRunning } from '../../postgres/cluster-process.ts'
import { findUse, findUsedDirectories } from '../../postgres/running-clusters.ts'
import { WAL_ASIDE } from '../../postgres/relation-file.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import type { TreeDefaults } from '../../repository/tree.ts'
import { RECOVERY_DIRECTORY, TABLESPACE_MARK } from './data-directory.ts'
import { disarmCluster, whyNotDelta } from './delta-place.ts'
import { giveDirectory, isRoot, takeDirectory, writeNew } from './durable-file.ts'
import { FileLock } from './restore-lock.ts'
import type { TablespacePlace } from './tablespace-map.ts'

// Where a restore writes: the data directory and the tablespaces. What is there is judged, locked, and, if it is ours, emptied.

/** Beside the plan, once the restore has ended: from then on the directory is a cluster, and is never emptied again. */
export const COMPLETE_FILE = 'complete'
const CONTROL_PATH = 'global/pg_control'
const MARK_OWNER = 'data-directory'
const LOCK_FILE = 'lock'
/** Room that must be left beside the files: WAL that is fetched and replayed. */
export const ROOM_FOR_WAL_BYTES = 256 * 1024 * 1024

export interface Place {
  readonly path: string
  /** A directory in it that says, until the restore has ended, that what lies here is ours. */
  readonly mark: string
  /** Undefined for the data directory. */
  readonly tablespace: string | undefined
}

/** What is there: nothing, an empty directory, what an interrupted restore left, or what must not be touched (and why). */
export type PlaceState =
  /** `cluster`: a stopped cluster that a restore with `delta` may make into the one that is restored. */
  | { readonly kind: 'missing' | 'empty' | 'interrupted' | 'cluster' }
  | { readonly kind: 'occupied' | 'in use' | 'unreadable'; readonly why: string; readonly cause?: unknown }

/** The data directory first. */
export function placesOf(directory: string, tablespaces: readonly TablespacePlace[]): Place[] {
  const inTablespaces = tablespaces.map(({ oid, path }): Place => ({ path, mark: TABLESPACE_MARK, tablespace: oid }))
  return [{ path: directory, mark: RECOVERY_DIRECTORY, tablespace: undefined }, ...inTablespaces]
}

export interface PlacesToPrepare {
  readonly places: readonly Place[]
  readonly manifest: BackupManifest
  /** Keep what is there, for a restore that writes only what differs. */
  readonly delta: boolean
  readonly clock: Clock
  readonly onNotice: (text: string) => void
  /** Called before anything of a cluster that is there is changed. */
  readonly beforeChange: () => Promise<void>
}

/**
 * Makes the places ready: empty but for their marks, or, for `delta`, a cluster that cannot be started any more; and locked against another
 * restore. Whoever calls it ends the locks. Throws DIRECTORY_NOT_EMPTY, DIRECTORY_IN_USE, DISK_FULL; then nothing that was there is changed.
 */
export async function preparePlaces(options: PlacesToPrepare): Promise<AsyncDisposableStack> {
  const { places, manifest, delta } = options
  const [data] = places
  const directory = data!.path
  const isCluster = await assertUsable(options)
  // What a cluster has already is not written once more.
  if (!delta) await assertRoom(directory, manifest)
  await using locks = new AsyncDisposableStack()
  // A restore that is under way, or that made this cluster, has its lock here; what it wrote goes aside with pg_wal.
  const marked = delta && (await exists(join(directory, data!.mark)))
  if (marked) locks.use(await lockPlace(data!, options.onNotice))
  if (isCluster) {
    await options.beforeChange()
    // That took its time: somebody may have started the cluster.
    await assertUsable(options)
  }
  const movedWal = delta && (await disarmCluster({ ...options, directory }))
  for (const place of places) {
    // Above it the server's user has to come through, as after `mkdir -p`.
    await mkdir(dirname(place.path), { recursive: true })
    await mkdir(join(place.path, place.mark), { recursive: true, mode: 0o700 })
    await assertNoLink(place)
    if (place !== data || !marked || movedWal) locks.use(await lockPlace(place, options.onNotice))
  }
  // Whoever had the lock until now may have made a cluster here.
  await assertUsable(options)
  for (const place of places) {
    await takeDirectory(place.path)
    await assertNoLink(place)
    if (delta) await clearMark(place)
    else await emptyPlace(place)
    if (!isRoot()) await chmod(place.path, manifest.defaults.directoryMode)
  }
  // It says whose the tablespace is, so that only a restore into the same directory may empty it.
  for (const { path, mark, tablespace } of places) {
    if (tablespace !== undefined) await writeNew(join(path, mark, MARK_OWNER), directory)
  }
  return locks.move()
}

/** Takes the marks and locks away, but for the plan's directory, which says that it is complete; and gives the places to the server's user. */
export async function finishPlaces(places: readonly Place[], defaults: TreeDefaults): Promise<void> {
  for (const { path, mark, tablespace } of places) {
    if (tablespace === undefined) await rm(join(path, mark, LOCK_FILE), { force: true })
    else await rm(join(path, mark), { recursive: true, force: true })
  }
  for (const { path } of places.toReversed()) await giveDirectory(path, defaults.directoryMode, defaults)
  const [data] = places
  // The cluster is whole without it: it only keeps a directory that has lost its pg_control from being taken for an interrupted restore.
  await writeNew(join(data!.path, data!.mark, COMPLETE_FILE), '', { owner: defaults }).catch(() => undefined)
}

/** Whether a restore into this directory has put all that makes it a cluster; root's has then also given it away. */
export async function isFinished(directory: string): Promise<'yes' | 'but for its marks' | 'no'> {
  if (!(await hasControl(directory))) return 'no'
  return (await exists(join(directory, RECOVERY_DIRECTORY, COMPLETE_FILE))) ? 'yes' : 'but for its marks'
}

/** Looks, and touches nothing. With `delta`, what holds a stopped cluster of this manifest is a `cluster`, not `occupied`. */
export async function inspectPlaces(
  places: readonly Place[],
  delta?: BackupManifest,
): Promise<{ place: Place; state: PlaceState }[]> {
  const used = await findUsedDirectories()
  const found: { place: Place; state: PlaceState }[] = []
  for (const place of places) {
    const use = await findUse(place.path, used)
    const isServed = use === undefined && (await isRunning(place.path).catch(() => false))
    const why =
      use === undefined
        ? 'a server runs on it'
        : `process ${use.pid} of a running server uses ${use.path === place.path ? 'it' : `"${use.path}"`} as its ${use.role}`
    if (use !== undefined || isServed) found.push({ place, state: { kind: 'in use', why } })
    else found.push({ place, state: await stateOf(place, places[0]!.path, delta) })
  }
  return found
}

/** Bytes that are free where a directory is, or will be. */
export async function freeBytes(directory: string): Promise<number> {
  let existing = directory
  while (!(await exists(existing))) existing = dirname(existing)
  const { bavail, bsize } = await statfs(existing)
  return bavail * bsize
}

/** Gives whether a cluster is there. */
async function assertUsable({ places, manifest, delta }: PlacesToPrepare): Promise<boolean> {
  const found = await inspectPlaces(places, delta ? manifest : undefined)
  for (const { place, state } of found) {
    const failure = placeFailure(place, state, places[0]!.path)
    if (failure !== undefined) throw failure
  }
  return found[0]?.state.kind === 'cluster'
}

/** Why a place cannot be restored into; undefined when it can. */
export function placeFailure(place: Place, state: PlaceState, directory: string): Failure | undefined {
  const { path, tablespace } = place
  const what = `cannot restore ${tablespace === undefined ? '' : `tablespace ${tablespace} `}into "${path}"`
  const elsewhere = tablespace === undefined ? '' : `, or map the tablespace: --tablespace-map ${tablespace}=/new/place`
  switch (state.kind) {
    case 'missing':
    case 'empty':
    case 'interrupted':
    case 'cluster':
      return undefined
    case 'in use':
      return new Failure('DIRECTORY_IN_USE', `${what}: ${state.why}`, {
        hint: `a cluster that runs is never restored over: choose another directory${elsewhere}`,
      })
    case 'unreadable':
      return new Failure('DIRECTORY_NOT_EMPTY', `${what}: ${state.why}`, {
        hint: `name a directory that this user may make, or an empty one${elsewhere}`,
        cause: state.cause,
      })
    case 'occupied':
      return new Failure('DIRECTORY_NOT_EMPTY', `${what}: ${state.why}`, {
        hint: `restore ${directory === path ? '' : 'it '}into an empty or new directory${elsewhere}; over a stopped cluster of the same backups with --delta; never delete the only copy of a cluster`,
      })
    default:
      return state satisfies never
  }
}

async function stateOf(place: Place, directory: string, delta: BackupManifest | undefined): Promise<PlaceState> {
  const { path, mark } = place
  let names: string[]
  try {
    names = await readdir(path)
  } catch (cause) {
    if (systemErrorCode(cause) === 'ENOENT') return { kind: 'missing' }
    return { kind: 'unreadable', why: systemErrorCode(cause) ?? String(cause), cause }
  }
  if (names.length === 0) return { kind: 'empty' }
  // A restore that was interrupted left its mark, and no pg_control, which comes last.
  const complete = (await hasControl(path)) || (await exists(join(path, mark, COMPLETE_FILE)))
  if ((await exists(join(path, mark))) && !complete && (await ownerOf({ path, mark, directory })) === directory) {
    return { kind: 'interrupted' }
  }
  if (delta === undefined) return { kind: 'occupied', why: `it holds ${names.length} entries ("${names[0]}", ...)` }
  const why = await whyNotDelta({ ...place, directory, manifest: delta })
  return why === undefined ? { kind: 'cluster' } : { kind: 'occupied', why }
}

/** A data directory that is root's is no cluster yet: PostgreSQL does not run as root, and a restore by root gives it away last. */
async function hasControl(directory: string): Promise<boolean> {
  return (await exists(join(directory, CONTROL_PATH))) && !(isRoot() && (await stat(directory)).uid === 0)
}

/** The directories of a mark must lie in the place: root would empty what a link leads to. */
async function assertNoLink({ path, mark }: Place): Promise<void> {
  const parts = mark.split('/')
  for (const [index] of parts.entries()) {
    const at = join(path, ...parts.slice(0, index + 1))
    if ((await lstat(at)).isDirectory()) continue
    throw new Failure('DIRECTORY_NOT_EMPTY', `cannot restore into "${path}": "${at}" is a link to somewhere else`, {
      hint: 'look where it leads, and remove the link; or choose an empty directory',
    })
  }
}

/** The data directory that the mark of a tablespace names. A mark without a name was made by a restore that had written nothing yet. */
async function ownerOf(at: { path: string; mark: string; directory: string }): Promise<string> {
  const { path, mark, directory } = at
  if (path === directory) return directory
  const owner = await readFile(join(path, mark, MARK_OWNER), 'utf8').catch(() => '')
  if (owner !== '') return owner
  const inPlace = await readdir(path)
  const inMark = await readdir(join(path, mark)).catch((): string[] => [])
  return inPlace.length === 1 && inMark.every((name) => name === LOCK_FILE || name === MARK_OWNER) ? directory : ''
}

async function lockPlace({ path, mark }: Place, onNotice: (text: string) => void): Promise<FileLock> {
  const lock = await FileLock.take(join(path, mark, LOCK_FILE), (why) =>
    onNotice(`warning: nothing keeps another restore out of "${path}": ${why}`),
  )
  if (lock !== undefined) return lock
  throw new Failure('DIRECTORY_IN_USE', `cannot restore into "${path}": another restore is writing there`, {
    hint: 'wait until it has ended, or choose another directory',
  })
}

/** What the mark's directory still holds is of a restore that was interrupted, or of the one that made this cluster. */
async function clearMark({ path, mark }: Pick<Place, 'path' | 'mark'>): Promise<void> {
  for (const name of await readdir(join(path, mark))) {
    if (name !== LOCK_FILE) await rm(join(path, mark, name), { recursive: true, force: true })
  }
}

/** What lies there is what an interrupted restore left: it goes, the mark's own directory last, and is begun anew. */
async function emptyPlace({ path, mark }: Pick<Place, 'path' | 'mark'>): Promise<void> {
  const [top] = mark.split('/')
  for (const name of await readdir(path)) {
    // WAL that was set aside may be there only once.
    if (name !== top && !name.startsWith(WAL_ASIDE)) await rm(join(path, name), { recursive: true, force: true })
  }
  await clearMark({ path, mark })
  const beside = dirname(join(path, mark))
  for (const name of await readdir(beside)) {
    if (join(beside, name) !== join(path, mark)) await rm(join(beside, name), { recursive: true, force: true })
  }
}

async function assertRoom(directory: string, manifest: BackupManifest): Promise<void> {
  const free = await freeBytes(directory)
  const needed = manifest.totals.bytes + ROOM_FOR_WAL_BYTES
  if (free >= needed || manifest.tablespaces.length > 0) return
  const mib = (bytes: number) => `${Math.round(bytes / 1024 ** 2)} MiB`
  throw new Failure(
    'DISK_FULL',
    `there is no room for the restored cluster in "${directory}": ${mib(free)} are free, ${mib(needed)} are needed`,
    { hint: 'make room or choose a directory on another disk; nothing was written' },
  )
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}
