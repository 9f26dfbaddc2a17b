import { chmod, mkdir, readdir, readFile, rm, stat, statfs, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Failure, systemErrorCode } from '../../errors.ts'
import { isRunning } from '../../postgres/cluster-process.ts'
import { findUse, findUsedDirectories } from '../../postgres/running-clusters.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { RECOVERY_DIRECTORY, TABLESPACE_MARK } from './data-directory.ts'
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
  | { readonly kind: 'missing' | 'empty' | 'interrupted' }
  | { readonly kind: 'occupied' | 'in use' | 'unreadable'; readonly why: string; readonly cause?: unknown }

/** The data directory first. */
export function placesOf(directory: string, tablespaces: readonly TablespacePlace[]): Place[] {
  const inTablespaces = tablespaces.map(({ oid, path }): Place => ({ path, mark: TABLESPACE_MARK, tablespace: oid }))
  return [{ path: directory, mark: RECOVERY_DIRECTORY, tablespace: undefined }, ...inTablespaces]
}

/**
 * Makes the places ready: empty but for their marks, and locked against another restore. Whoever calls it ends the locks. Throws
 * DIRECTORY_NOT_EMPTY, DIRECTORY_IN_USE, DISK_FULL; then nothing that was there is changed.
 */
export async function preparePlaces(options: {
  places: readonly Place[]
  manifest: BackupManifest
  onNotice: (text: string) => void
}): Promise<AsyncDisposableStack> {
  const { places, manifest } = options
  const { path: directory } = places[0]!
  await assertUsable(places, directory)
  await assertRoom(directory, manifest)
  await using locks = new AsyncDisposableStack()
  for (const place of places) {
    await mkdir(join(place.path, place.mark), { recursive: true, mode: 0o700 })
    locks.use(await lockPlace(place, options.onNotice))
  }
  // Whoever had the lock until now may have made a cluster here.
  await assertUsable(places, directory)
  for (const place of places) await emptyPlace(place, manifest.defaults.directoryMode)
  // It says whose the tablespace is, so that only a restore into the same directory may empty it.
  for (const { path, mark, tablespace } of places) {
    if (tablespace !== undefined) await writeFile(join(path, mark, MARK_OWNER), directory, { mode: 0o600, flush: true })
  }
  return locks.move()
}

/** Takes the marks and locks away, but for the plan's directory, which says that it is complete. */
export async function finishPlaces(places: readonly Place[]): Promise<void> {
  for (const { path, mark, tablespace } of places) {
    if (tablespace !== undefined) {
      await rm(join(path, mark), { recursive: true, force: true })
      continue
    }
    // The cluster is whole without it: it only keeps a directory that has lost its pg_control from being taken for an interrupted restore.
    await writeFile(join(path, mark, COMPLETE_FILE), '', { mode: 0o600, flush: true }).catch(() => undefined)
    await rm(join(path, mark, LOCK_FILE), { force: true })
  }
}

/** Looks, and touches nothing. */
export async function inspectPlaces(places: readonly Place[]): Promise<{ place: Place; state: PlaceState }[]> {
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
    else found.push({ place, state: await stateOf(place, places[0]!.path) })
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

async function assertUsable(places: readonly Place[], directory: string): Promise<void> {
  for (const { place, state } of await inspectPlaces(places)) {
    const failure = placeFailure(place, state, directory)
    if (failure !== undefined) throw failure
  }
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
        hint: `restore ${directory === path ? '' : 'it '}into an empty or new directory${elsewhere}; move what is there away, never delete the only copy of a cluster`,
      })
    default:
      return state satisfies never
  }
}

async function stateOf({ path, mark }: Place, directory: string): Promise<PlaceState> {
  let names: string[]
  try {
    names = await readdir(path)
  } catch (cause) {
    if (systemErrorCode(cause) === 'ENOENT') return { kind: 'missing' }
    return { kind: 'unreadable', why: systemErrorCode(cause) ?? String(cause), cause }
  }
  if (names.length === 0) return { kind: 'empty' }
  // A restore that was interrupted left its mark, and no pg_control, which comes last.
  const complete = (await exists(join(path, CONTROL_PATH))) || (await exists(join(path, mark, COMPLETE_FILE)))
  if ((await exists(join(path, mark))) && !complete && (await ownerOf({ path, mark, directory })) === directory) {
    return { kind: 'interrupted' }
  }
  return { kind: 'occupied', why: `it holds ${names.length} entries ("${names[0]}", ...)` }
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

/** What lies there is what an interrupted restore left: it goes, the mark's own directory last, and is begun anew. */
async function emptyPlace({ path, mark }: Place, mode: number): Promise<void> {
  const [top] = mark.split('/')
  for (const name of await readdir(path)) if (name !== top) await rm(join(path, name), { recursive: true, force: true })
  for (const name of await readdir(join(path, mark))) {
    if (name !== LOCK_FILE) await rm(join(path, mark, name), { recursive: true, force: true })
  }
  const beside = dirname(join(path, mark))
  for (const name of await readdir(beside)) {
    if (join(beside, name) !== join(path, mark)) await rm(join(beside, name), { recursive: true, force: true })
  }
  await chmod(path, mode)
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
