import { constants, type Stats } from 'node:fs'
import { lstat, open, readdir, realpath, type FileHandle } from 'node:fs/promises'
import { systemErrorCode } from '../../errors.ts'

// All files of a cluster as they lie there, whatever state it is in. Read by descriptors: names that somebody changes meanwhile lead nowhere else.

const { O_RDONLY, O_NOFOLLOW, O_DIRECTORY, O_NONBLOCK } = constants

/** A directory of the cluster. */
export interface OpenDirectory extends AsyncDisposable {
  readonly handle: FileHandle
  /** Relative to the data directory. */
  readonly path: Buffer
  readonly absolute: Buffer
}

export interface EntryOf<Kind extends string> {
  readonly kind: Kind
  readonly name: Buffer
  readonly path: Buffer
  readonly absolute: Buffer
  readonly info: Stats
}
export interface FileEntry extends EntryOf<'file'> {
  /** Undefined when it has gone. */
  open(): Promise<FileHandle | undefined>
}
export interface DirectoryEntry extends EntryOf<'directory'> {
  /** Where the link led that it is in the cluster. */
  readonly followed: string | undefined
  open(): Promise<OpenDirectory>
}
export type ClusterEntry = FileEntry | DirectoryEntry | EntryOf<'link'>

/** Opens a data directory. */
export async function openCluster(directory: string): Promise<OpenDirectory> {
  return await openDirectory(Buffer.from(directory), Buffer.alloc(0))
}

async function openDirectory(absolute: Buffer, path: Buffer, flags = 0): Promise<OpenDirectory> {
  const handle = await open(absolute, O_RDONLY | O_DIRECTORY | flags)
  return { handle, path, absolute, [Symbol.asyncDispose]: async () => handle.close() }
}

/** Files, directories and links; sockets and pipes are of a server that is gone. The links of tablespaces and pg_wal are the directories that they lead to. */
export async function* entriesOf(directory: OpenDirectory): AsyncGenerator<ClusterEntry> {
  const at = byDescriptor(directory.handle, directory.absolute)
  for (const name of await readdir(at, { encoding: 'buffer' })) {
    const absolute = joined(at, name)
    const path = directory.path.length === 0 ? name : joined(directory.path, name)
    const info = await lstat(absolute).catch(ignoreMissing)
    if (info === undefined) continue
    const entry = { name, path, absolute, info }
    if (info.isFile()) {
      yield { ...entry, kind: 'file', open: async () => open(absolute, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).catch(ignoreMissing) }
    } else if (info.isDirectory()) {
      yield { ...entry, kind: 'directory', followed: undefined, open: async () => openDirectory(absolute, path, O_NOFOLLOW) }
    } else if (info.isSymbolicLink()) {
      const followed = isFollowed(path) ? await realpath(absolute).catch(ignoreMissing) : undefined
      const isDirectory = followed !== undefined && (await lstat(followed)).isDirectory()
      if (!isDirectory) yield { ...entry, kind: 'link' }
      else yield { ...entry, kind: 'directory', followed, open: async () => openDirectory(Buffer.from(followed), path) }
    }
  }
}

function isFollowed(path: Buffer): boolean {
  return /^(?:pg_wal|pg_tblspc\/\d+)$/.test(path.toString())
}

/** Bytes of the files that a copy of this directory would hold. Touches nothing. */
export async function measureCluster(directory: string): Promise<number> {
  let bytes = 0
  await using top = await openCluster(directory)
  const visit = async (from: OpenDirectory) => {
    for await (const entry of entriesOf(from)) {
      if (entry.kind === 'file') bytes += entry.info.size
      if (entry.kind !== 'directory') continue
      await using below = await entry.open()
      await visit(below)
    }
  }
  await visit(top)
  return bytes
}

/** A path that leads to what is open, and to nothing else, where the system has such paths. */
export function byDescriptor(handle: FileHandle, absolute: Buffer): Buffer {
  return process.platform === 'linux' ? Buffer.from(`/proc/self/fd/${handle.fd}`) : absolute
}

export function joined(left: Buffer, right: Buffer): Buffer {
  return Buffer.concat([left, Buffer.from('/'), right])
}

export function ignoreMissing(error: unknown): undefined {
  if (systemErrorCode(error) !== 'ENOENT') throw error
  return undefined
}

/** Real paths of the data directory and of what its links to tablespaces and WAL lead to. */
export async function directoriesOf(directory: string): Promise<string[]> {
  const found = [await realpath(directory)]
  await using top = await openCluster(directory)
  for await (const entry of entriesOf(top)) {
    if (entry.kind !== 'directory') continue
    if (entry.followed !== undefined) found.push(entry.followed)
    if (entry.name.toString() !== 'pg_tblspc') continue
    await using links = await entry.open()
    for await (const link of entriesOf(links)) {
      if (link.kind === 'directory' && link.followed !== undefined) found.push(link.followed)
    }
  }
  return found
}
