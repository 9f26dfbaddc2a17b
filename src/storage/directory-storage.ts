import { randomBytes } from 'node:crypto'
import { type Dirent } from 'node:fs'
import { lchown, link, mkdir, open, readdir, rm, stat, unlink, type FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Failure, systemErrorCode } from '../errors.ts'
import { sourcePieces, type CallOptions, type ObjectEntry, type ObjectSource, type Storage } from './storage.ts'

const READ_BYTES = 1024 * 1024
const STAGING = '.staging'
/** What a name of an object may have. A disk's own "lost+found" is none of ours, and not to be read by everybody. */
const NAME = /^[A-Za-z0-9._-]+$/
/** Entries of a folder whose sizes are asked for together: one by one, a folder of 100 000 takes a minute. */
const STATS_AT_ONCE = 64
const STALE_STAGING_MS = 24 * 3600 * 1000

/**
 * Objects as files below one directory. A put writes `.staging/<random>`, syncs it, links it under its name (link refuses what
 * exists, and is atomic), and syncs the directories: a crash leaves the whole object or a stray file in `.staging`.
 */
export class DirectoryStorage implements Storage {
  readonly description: string
  readonly #root: string
  /** Directories that this process has made sure of: that they are there, and durably. */
  readonly #directories = new Map<string, Promise<void>>()

  constructor(root: string) {
    this.#root = root
    this.description = `directory "${root}"`
  }

  /** Makes the directory, and clears what crashed puts left in staging more than a day ago. Throws STORAGE_UNREACHABLE. */
  async prepare(): Promise<void> {
    const staging = join(this.#root, STAGING)
    try {
      const first = await mkdir(staging, { recursive: true, mode: 0o700 })
      await giveTo(await this.#ownerOfRoot(), (uid, gid) => lchown(staging, uid, gid))
      await this.#syncAbove(staging, first)
      for (const name of await readdir(staging)) {
        // A put of another process may end now, and take its file away.
        const changedMs = await changedUnlessGone(join(staging, name))
        if (changedMs !== undefined && Date.now() - changedMs > STALE_STAGING_MS) await rm(join(staging, name), { force: true })
      }
    } catch (cause) {
      throw this.#failure(`cannot prepare ${this.description}`, cause)
    }
  }

  async put(key: string, source: ObjectSource, options: CallOptions = {}): Promise<void> {
    const path = join(this.#root, key)
    const temporary = join(this.#root, STAGING, randomBytes(12).toString('hex'))
    try {
      await this.#makeDirectory(dirname(path))
      await writeDurably(temporary, source, { signal: options.signal, owner: await this.#ownerOfRoot() })
      await link(temporary, path)
      await unlink(temporary)
      // The name is durable only once its directory is.
      await syncDirectory(dirname(path))
    } catch (cause) {
      await rm(temporary, { force: true })
      if (systemErrorCode(cause) === 'EEXIST') {
        // Whoever put it may have died before its name was durable, and the caller counts on it being there.
        await this.#syncParent(key)
        throw new Failure('OBJECT_EXISTS', `cannot put "${key}": it exists in ${this.description}`, { cause })
      }
      throw this.#failure(`cannot put "${key}" into ${this.description}`, cause)
    }
  }

  async *get(key: string, options: CallOptions = {}): AsyncGenerator<Uint8Array> {
    const file = await this.#open(key)
    try {
      for (let offset = 0; ; offset += READ_BYTES) {
        options.signal?.throwIfAborted()
        const piece = await readAt(file, offset, READ_BYTES)
        if (piece.length > 0) yield piece
        if (piece.length < READ_BYTES) return
      }
    } catch (cause) {
      throw this.#failure(`cannot read "${key}" from ${this.description}`, cause)
    } finally {
      await file.close()
    }
  }

  async getRange(key: string, range: { offset: number; length: number }): Promise<Buffer> {
    const file = await this.#open(key)
    try {
      const { size } = await file.stat()
      return await readAt(file, range.offset, Math.max(0, Math.min(range.length, size - range.offset)))
    } catch (cause) {
      throw this.#failure(`cannot read "${key}" from ${this.description}`, cause)
    } finally {
      await file.close()
    }
  }

  async *list(prefix: string): AsyncGenerator<ObjectEntry> {
    // A prefix may end in the middle of a name: list its directory and filter.
    const directory = prefix.includes('/') ? prefix.slice(0, prefix.lastIndexOf('/') + 1) : ''
    yield* this.#walk(directory, prefix)
  }

  async delete(key: string): Promise<void> {
    try {
      await rm(join(this.#root, key), { force: true })
    } catch (cause) {
      throw this.#failure(`cannot delete "${key}" from ${this.description}`, cause)
    }
  }

  async *#walk(directory: string, prefix: string): AsyncGenerator<ObjectEntry> {
    let entries: Dirent[]
    try {
      entries = await readdir(join(this.#root, directory), { withFileTypes: true })
    } catch (cause) {
      if (systemErrorCode(cause) === 'ENOENT' && directory !== '') return
      throw this.#failure(`cannot list "${directory}" in ${this.description}`, cause)
    }
    // A directory sorts as its name with the slash that follows it in every key below.
    const named = entries
      .filter((entry) => NAME.test(entry.name))
      .map((entry) => ({ entry, name: entry.isDirectory() ? `${entry.name}/` : entry.name }))
      // Before anything is asked of the file system: a folder of WAL has many names, and one segment of it is wanted each time.
      .filter(({ entry, name }) => {
        const key = directory + name
        return key.startsWith(prefix) || (entry.isDirectory() && prefix.startsWith(key))
      })
    named.sort((left, right) => Buffer.compare(Buffer.from(left.name), Buffer.from(right.name)))
    for (let at = 0; at < named.length; at += STATS_AT_ONCE) {
      const some = named.slice(at, at + STATS_AT_ONCE)
      const sizes = await Promise.all(
        some.map(async ({ entry, name }) =>
          entry.isDirectory() ? undefined : await sizeUnlessGone(join(this.#root, directory, name)),
        ),
      )
      for (const [index, { entry, name }] of some.entries()) {
        const sizeBytes = sizes[index]
        if (sizeBytes !== undefined) yield { key: directory + name, sizeBytes }
        else if (entry.isDirectory() && (directory !== '' || entry.name !== STAGING)) yield* this.#walk(directory + name, prefix)
      }
    }
  }

  async #open(key: string): Promise<FileHandle> {
    try {
      return await open(join(this.#root, key), 'r')
    } catch (cause) {
      if (systemErrorCode(cause) === 'ENOENT') {
        // The storage itself may be gone (not mounted): that is not a missing object.
        const there = await sizeUnlessGone(this.#root)
        if (there === undefined) throw this.#failure(`cannot read "${key}" from ${this.description}`, cause)
        throw new Failure('OBJECT_MISSING', `cannot read "${key}": it is not in ${this.description}`, { cause })
      }
      throw this.#failure(`cannot read "${key}" from ${this.description}`, cause)
    }
  }

  async #makeDirectory(path: string): Promise<void> {
    // The root is made by prepare() alone: a put must not make it where the storage is not mounted.
    if (path === this.#root || !path.startsWith(this.#root)) return
    const known = this.#directories.get(path)
    if (known !== undefined) return await known
    const making = this.#makeDurable(path)
    this.#directories.set(path, making)
    making.catch(() => this.#directories.delete(path))
    await making
  }

  /** Also makes durable what is there: whoever made it may have died between the two. */
  async #makeDurable(path: string): Promise<void> {
    const parent = dirname(path)
    await this.#makeDirectory(parent)
    try {
      await mkdir(path, { mode: 0o700 })
    } catch (error) {
      if (systemErrorCode(error) !== 'EEXIST') throw error
    }
    await giveTo(await this.#ownerOfRoot(), (uid, gid) => lchown(path, uid, gid))
    await syncDirectory(parent)
  }

  /**
   * What root puts into somebody's storage is that account's, like all else in it: a server's restore_command reads what root's restore has published, and
   * a receiver writes beside it.
   */
  async #ownerOfRoot(): Promise<FileOwner | undefined> {
    if (process.getuid?.() !== 0) return undefined
    const { uid, gid } = await stat(this.#root)
    return uid === 0 ? undefined : { uid, gid }
  }

  async #syncParent(key: string): Promise<void> {
    try {
      await syncDirectory(dirname(join(this.#root, key)))
    } catch (cause) {
      throw this.#failure(`cannot put "${key}" into ${this.description}`, cause)
    }
  }

  /** Makes durable the names of all directories that were made, from `first` down to `last`. */
  async #syncAbove(last: string, first: string | undefined): Promise<void> {
    await syncDirectory(this.#root)
    if (first === undefined) return
    for (let path = last; path.length >= first.length; path = dirname(path)) await syncDirectory(dirname(path))
  }

  #failure(action: string, cause: unknown): Error {
    if (cause instanceof Failure) return cause
    const code = systemErrorCode(cause)
    if (code === undefined || code === 'ABORT_ERR') return cause instanceof Error ? cause : new Error(action, { cause })
    if (code === 'ENOSPC' || code === 'EDQUOT') {
      return new Failure('STORAGE_FULL', `${action}: no room is left (${code})`, {
        hint: 'make room there, then run it again',
        cause,
      })
    }
    const hint = `does ${basename(this.#root)} exist, is it mounted, and may this user read and write it?`
    return new Failure('STORAGE_UNREACHABLE', `${action}: ${code}`, { hint, cause })
  }
}

interface FileOwner {
  readonly uid: number
  readonly gid: number
}

async function giveTo(owner: FileOwner | undefined, give: (uid: number, gid: number) => Promise<void>): Promise<void> {
  if (owner === undefined) return
  try {
    await give(owner.uid, owner.gid)
  } catch (error) {
    // A network file system may know no owners, or not take root for root: what is made there is whose it says.
    if (!['EPERM', 'EINVAL', 'ENOTSUP', 'EOPNOTSUPP'].includes(systemErrorCode(error) ?? '')) throw error
  }
}

async function writeDurably(
  path: string,
  source: ObjectSource,
  { signal, owner }: { signal: AbortSignal | undefined; owner: FileOwner | undefined },
): Promise<void> {
  const file = await open(path, 'wx', 0o600)
  try {
    for await (const piece of sourcePieces(source)) {
      signal?.throwIfAborted()
      await writeAll(file, piece)
    }
    await giveTo(owner, (uid, gid) => file.chown(uid, gid))
    await file.sync()
  } finally {
    await file.close()
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done)
    done += bytesWritten
  }
}

async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length)
  let done = 0
  while (done < length) {
    const { bytesRead } = await file.read(buffer, done, length - done, offset + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return buffer.subarray(0, done)
}

async function sizeUnlessGone(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

async function changedUnlessGone(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
