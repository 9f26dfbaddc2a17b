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
import { isRoot, syncAncestors, writeNew } from './durable-file.ts'
import { assertFree, assertRoomForCopy, lockPartial, PARTIAL, removeAbandoned } from './safety-place.ts'

// What a restore goes over is copied first, byte for byte and in whatever state it is: a cluster that is corrupt today may hold what nobody has missed yet.

/** In the copy: of what it is, and what of it could not be read. */
export const SAFETY_COPY_FILE = 'resus-safety-copy.json'
const FILES_AT_ONCE = 4
/** What is read at once of a file that the disk does not give as a whole. */
const SALVAGE_BYTES = 64 * 1024
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
      const copy = await copyLocked({ ...options, directory, to }, partial)
      await rename(partial, to)
      await syncAncestors(to)
      return { path: to, ...copy }
    } catch (error) {
      await rm(partial, { recursive: true, force: true }).catch(() => undefined)
      throw error
    }
  } catch (error) {
    throw explain(error, directory, to)
  }
}

async function copyLocked(options: SafetyCopyOptions, partial: string): Promise<Omit<SafetyCopy, 'path'>> {
  await using lock = await lockPartial(partial)
  const bytesTotal = await measureCluster(options.directory)
  await assertRoomForCopy(options.directory, partial, bytesTotal)
  const copier = new Copier(options, bytesTotal)
  await using top = await openCluster(options.directory)
  await copier.copyDirectory(top, Buffer.from(partial), async () => {
    const { bytes, files, links, unreadable } = copier
    const note = { format: 1, of: options.directory, at: new Date(options.nowMs).toISOString(), bytes, files, links, unreadable }
    await writeNew(join(partial, SAFETY_COPY_FILE), `${JSON.stringify(note, undefined, 2)}\n`)
    await lock.remove()
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
    await using made = await open(target, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
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
    await using copy = await open(target, O_WRONLY | O_NOFOLLOW)
    await becomeLike(copy, entry.info)
    await copy.sync()
    this.files += 1
    this.bytes += entry.info.size
    this.#options.onProgress?.({ bytesDone: this.bytes, bytesTotal: this.#bytesTotal })
  }

  async #salvage(source: FileHandle, { path, info }: FileEntry, target: Buffer): Promise<void> {
    await using copy = await open(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    await copy.truncate(info.size)
    for (let offset = 0; offset < info.size; offset += SALVAGE_BYTES) {
      this.#options.signal.throwIfAborted()
      const wanted = Math.min(SALVAGE_BYTES, info.size - offset)
      const buffer = Buffer.alloc(wanted)
      try {
        const { bytesRead } = await source.read(buffer, 0, wanted, offset)
        await copy.write(buffer, 0, bytesRead, offset)
      } catch (error) {
        if (systemErrorCode(error) !== 'EIO') throw error
        if (this.unreadable.length < UNREADABLE_MAX) {
          this.unreadable.push({ path: path.toString(), offset, bytes: wanted })
        }
      }
    }
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
