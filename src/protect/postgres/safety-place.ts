import { constants } from 'node:fs'
import { copyFile, lstat, readdir, realpath, rm, rmdir } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { Failure } from '../../errors.ts'
import { directoriesOf, ignoreMissing } from './cluster-files.ts'
import { FileLock } from './restore-lock.ts'
import { freeBytes, ROOM_FOR_WAL_BYTES } from './restore-place.ts'

// Where a safety copy goes.

/** What a copy is called until it is whole. */
export const PARTIAL = '.partial'
const LOCK_FILE = 'resus-safety-copy.lock'

/** Where a safety copy goes: beside the directory when nobody says. */
export function safetyCopyPlace(directory: string, named: string | undefined, nowMs: number): string {
  if (named !== undefined) return resolve(named)
  return `${resolve(directory)}.before-${new Date(nowMs).toISOString().replaceAll(/[-:.]/g, '')}`
}

/** Nothing is there, and it lies in none of the cluster's directories: the restore would sweep it away. */
export async function assertFree(directory: string, to: string): Promise<void> {
  const names = await readdir(to).catch(ignoreMissing)
  if (names !== undefined && names.length > 0) {
    throw new Failure('DIRECTORY_NOT_EMPTY', `cannot put the safety copy into "${to}": it holds ${names.length} entries`, {
      hint: 'name an empty or new directory with --safety-copy',
    })
  }
  const place = join(await realpath(dirname(to)), basename(to))
  for (const own of await directoriesOf(directory)) {
    if (place !== own && !place.startsWith(`${own}/`) && !own.startsWith(`${place}/`)) continue
    throw new Failure(
      'ARGUMENTS_INVALID',
      `the safety copy cannot lie in "${to}": that is in "${own}", which the restore changes`,
      {
        hint: 'name a directory outside of the cluster with --safety-copy',
      },
    )
  }
}

/** Copies that nobody finished: of a restore that was killed. */
export async function removeAbandoned(directory: string, to: string): Promise<void> {
  const parent = dirname(to)
  const prefix = `${basename(directory)}.before-`
  for (const name of await readdir(parent)) {
    if (name !== `${basename(to)}${PARTIAL}` && !(name.startsWith(prefix) && name.endsWith(PARTIAL))) continue
    const path = join(parent, name)
    const info = await lstat(path)
    // In a directory of our own nobody else puts links.
    if (!info.isDirectory() || info.uid !== (process.getuid?.() ?? 0)) continue
    // It was made, and nothing else yet.
    if (await removedEmpty(path)) continue
    if ((await lstat(join(path, LOCK_FILE)).catch(ignoreMissing)) === undefined) continue
    await using lock = await takeLock(path)
    if (lock === undefined) throw inUse(path)
    await rm(path, { recursive: true, force: true })
  }
}

async function removedEmpty(path: string): Promise<boolean> {
  return await rmdir(path).then(
    () => true,
    () => false,
  )
}

/** Throws DIRECTORY_IN_USE when another restore is making this copy. */
export async function lockPartial(partial: string): Promise<FileLock> {
  const lock = await takeLock(partial)
  if (lock === undefined) throw inUse(partial)
  return lock
}

/** Throws DISK_FULL when there is no room for `bytes` and for the restore's own WAL, and the file system cannot share them. */
export async function assertRoomForCopy(copy: {
  readonly directory: string
  readonly partial: string
  readonly to: string
  readonly bytes: number
}): Promise<void> {
  const free = await freeBytes(copy.partial)
  const needed = copy.bytes + ROOM_FOR_WAL_BYTES
  if (free >= needed || (await sharesBlocks(copy.directory, copy.partial))) return
  throw noRoom(copy.to, free, needed)
}

export function noRoom(to: string, free: number, bytes: number): Failure {
  const mib = (size: number) => `${Math.ceil(size / 1024 ** 2)} MiB`
  return new Failure(
    'DISK_FULL',
    `there is no room for the safety copy "${to}": ${mib(free)} are free, ${mib(bytes)} are needed`,
    {
      hint: 'name a directory on another disk with --safety-copy; or, when what is there may be lost, say --without-safety-copy',
    },
  )
}

async function sharesBlocks(directory: string, partial: string): Promise<boolean> {
  const trial = join(partial, 'trial')
  try {
    await copyFile(join(directory, 'PG_VERSION'), trial, constants.COPYFILE_FICLONE_FORCE)
    return true
  } catch {
    return false
  } finally {
    await rm(trial, { force: true })
  }
}

async function takeLock(partial: string): Promise<FileLock | undefined> {
  return await FileLock.take(join(partial, LOCK_FILE), () => undefined)
}

function inUse(partial: string): Failure {
  return new Failure('DIRECTORY_IN_USE', `another restore is making the safety copy "${partial}"`, {
    hint: 'wait until it has ended, or choose another place with --safety-copy',
  })
}
