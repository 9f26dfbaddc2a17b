import { constants, type Stats } from 'node:fs'
import { copyFile, lchown, mkdir, open, readlink, rename, rm, symlink, type FileHandle } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { Failure, systemErrorCode } from '../../errors.ts'
import { forEachConcurrent } from '../../stream/for-each-concurrent.ts'
import {
  byDescriptor,
  entriesOf,
  joined,
  measureCluster,
  openCluster,
  type DirectoryEntry,
  type EntryOf,
  type FileEntry,
  type OpenDirectory,
} from './cluster-files.ts'
import { salvage } from './salvage.ts'
import { isRoot, syncAncestors, writeNew } from './durable-file.ts'
import { assertFree, assertRoomForCopy, lockPartial, PARTIAL, removeAbandoned } from './safety-place.ts'

// What a restore goes over is copied first, byte for byte and in whatever state it is: a cluster that is corrupt today may hold what nobody has missed yet.

/** In the copy: of what it is, and what of it could not be read. */
export const SAFETY_COPY_FILE = 'resus-safety-copy.json'
const FILES_AT_ONCE = 4
const UNREADABLE_MAX = 10_000
const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_DIRECTORY } = constants
const { COPYFILE_EXCL, COPYFILE_FICLONE } = constants

export interface SafetyCopyOptions {
  /** A data directory, of which nothing runs. */
  readonly directory: string
  /** Where the copy goes: missing, or an empty directory, and apart from the cluster's own. */
  readonly to: string
  readonly nowMs: number
  readonly signal: AbortSignal
  readonly onProgress?: (copied: { readonly bytesDone: number; readonly bytesTotal: number }) => void
}

/** What the disk did not give, and is zero in the copy. `path` is relative to the directory. */
export interface UnreadableRange {
  readonly path: string
  readonly offset: number
  readonly bytes: number
}

export interface SafetyCopy {
  readonly path: string
  readonly bytes: number
  readonly files: number
  /** The first 10 000. */
  readonly unreadable: readonly UnreadableRange[]
}

/**
 * Copies a data directory, with its tablespaces and its WAL wherever links lead to them, into one that can be started by itself: the tablespaces lie in `pg_tblspc`, the WAL in `pg_wal`. Where
 * the file system can, both share their blocks (FICLONE), which costs neither time nor room. The copy has its name once all of it is durable; until then it is called `.partial`,
 * and one that nobody writes any more is removed. Nothing is read through any other link. What the disk does not give (EIO) is zero in the copy, and `unreadable` names it.
 *
 * Throws DISK_FULL, DIRECTORY_IN_USE (another restore is making one), DIRECTORY_NOT_EMPTY, SAFETY_COPY_FAILED; then there is no copy.
 */
export async function takeSafetyCopy(options: SafetyCopyOptions): Promise<SafetyCopy> {
  const directory = resolve(options.directory)
  const to = resolve(options.to)
  const partial = to + PARTIAL
  try {
    await mkdir(dirname(to), { recursive: true })
    await assertFree(directory, to)
    await removeAbandoned(directory, to)
    await mkdir(partial, { mode: 0o700 })
    try {
      // By its descriptor: whoever may change names beside it leads us nowhere else.
      await using made = await openOwn(partial)
      const at = byDescriptor(made, Buffer.from(partial))
      await using lock = await lockPartial(at.toString())
      const copy = await copyInto({ ...options, directory, to }, at)
      await rename(partial, to)
      await syncAncestors(to)
      await lock.remove()
      return { path: to, ...copy }
    } catch (error) {
      await rm(partial, { recursive: true, force: true }).catch(() => undefined)
      throw error
    }
  } catch (error) {
    throw explain(error, directory, to)
  }
}

async function openOwn(directory: string): Promise<FileHandle> {
  const opened = await open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  if ((await opened.stat()).uid === (process.getuid?.() ?? 0)) return opened
  await opened.close()
  throw new Failure('SAFETY_COPY_FAILED', `"${directory}" was made by us, and is somebody else's now`, {
    hint: 'see who changes names there, or name another place with --safety-copy',
  })
}

async function copyInto(options: SafetyCopyOptions, at: Buffer): Promise<Omit<SafetyCopy, 'path'>> {
  const bytesTotal = await measureCluster(options.directory)
  await assertRoomForCopy({ directory: options.directory, partial: at.toString(), to: options.to, bytes: bytesTotal })
  const copier = new Copier(options, bytesTotal)
  await using top = await openCluster(options.directory)
  await copier.copyDirectory(top, at, async () => {
    const { bytes, files, links, unreadable } = copier
    const note = { format: 1, of: options.directory, at: new Date(options.nowMs).toISOString(), bytes, files, links, unreadable }
    await writeNew(join(at.toString(), SAFETY_COPY_FILE), `${JSON.stringify(note, undefined, 2)}\n`)
  })
  return { bytes: copier.bytes, files: copier.files, unreadable: copier.unreadable }
}

class Copier {
  bytes = 0
  files = 0
  /** Links that were followed, and where they led. */
  readonly links: Record<string, string> = {}
  readonly unreadable: UnreadableRange[] = []
  readonly #options: SafetyCopyOptions
  readonly #bytesTotal: number

  constructor(options: SafetyCopyOptions, bytesTotal: number) {
    this.#options = options
    this.#bytesTotal = bytesTotal
  }

  /** Into a directory that is there. Its owner and mode come last: until then nobody else changes a name in it. */
  async copyDirectory(from: OpenDirectory, target: Buffer, beforeLast?: () => Promise<void>): Promise<void> {
    const { signal } = this.#options
    const below: { entry: DirectoryEntry; target: Buffer }[] = []
    await forEachConcurrent(entriesOf(from), { limit: FILES_AT_ONCE, signal }, async (entry) => {
      const place = joined(target, entry.name)
      if (entry.kind === 'directory') below.push({ entry, target: place })
      else if (entry.kind === 'file') await this.#copyFile(entry, place)
      else await copyLink(entry, place)
    })
    for (const { entry, target: place } of below) {
      if (entry.followed !== undefined) this.links[entry.path.toString()] = entry.followed
      await mkdir(place, { mode: 0o700 })
      await using opened = await entry.open()
      await this.copyDirectory(opened, place)
    }
    await beforeLast?.()
    // The top is a path of a descriptor, which is a link of its own kind.
    await using made = await open(target, O_RDONLY | O_DIRECTORY | (beforeLast === undefined ? O_NOFOLLOW : 0))
    await becomeLike(made, await from.handle.stat())
    await made.sync()
  }

  async #copyFile(entry: FileEntry, target: Buffer): Promise<void> {
    const source = await entry.open()
    if (source === undefined) return
    await using closing = source
    try {
      await copyFile(byDescriptor(closing, entry.absolute), target, COPYFILE_EXCL | COPYFILE_FICLONE)
    } catch (error) {
      if (systemErrorCode(error) !== 'EIO') throw error
      await rm(target, { force: true })
      await this.#salvage(closing, entry, target)
    }
    // Owner, mode, times and sync need no right to write, which the file's own mode may refuse.
    await using copy = await open(target, O_RDONLY | O_NOFOLLOW)
    await becomeLike(copy, entry.info)
    await copy.sync()
    this.files += 1
    this.bytes += entry.info.size
    this.#options.onProgress?.({ bytesDone: this.bytes, bytesTotal: this.#bytesTotal })
  }

  async #salvage(source: FileHandle, { path, info }: FileEntry, target: Buffer): Promise<void> {
    await using copy = await open(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    await copy.truncate(info.size)
    const missing = await salvage({
      size: info.size,
      read: async (buffer, offset) => (await source.read(buffer, 0, buffer.length, offset)).bytesRead,
      write: async (buffer, offset) => writeAll(copy, buffer, offset),
      signal: this.#options.signal,
    })
    const room = UNREADABLE_MAX - this.unreadable.length
    this.unreadable.push(...missing.slice(0, room).map((range) => ({ path: path.toString(), ...range })))
  }
}

async function writeAll(file: FileHandle, buffer: Buffer, offset: number): Promise<void> {
  for (let done = 0; done < buffer.length;) {
    done += (await file.write(buffer, done, buffer.length - done, offset + done)).bytesWritten
  }
}

async function copyLink({ absolute, info }: EntryOf<'link'>, target: Buffer): Promise<void> {
  const leadsTo = await readlink(absolute, { encoding: 'buffer' })
  await symlink(leadsTo, target)
  if (isRoot()) await lchown(target, info.uid, info.gid)
}

async function becomeLike(made: FileHandle, info: Stats): Promise<void> {
  if (isRoot()) await made.chown(info.uid, info.gid)
  await made.chmod(info.mode & 0o7777)
  await made.utimes(info.atime, info.mtime)
}

function explain(error: unknown, directory: string, to: string): unknown {
  const code = systemErrorCode(error)
  if (error instanceof Failure || code === undefined) return error
  const full = code === 'ENOSPC' || code === 'EDQUOT'
  return new Failure(
    full ? 'DISK_FULL' : 'SAFETY_COPY_FAILED',
    `cannot copy "${directory}" to "${to}" before it is restored over: ${(error as Error).message}`,
    {
      hint: 'name another place with --safety-copy; or, when what is there may be lost, say --without-safety-copy. Nothing was changed',
      cause: error,
    },
  )
}
