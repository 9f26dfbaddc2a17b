import { lstat, readdir, readlink, rm, symlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { systemErrorCode } from '../../errors.ts'
import { WAL_ASIDE } from '../../postgres/relation-file.ts'
import type { TreeEntry } from '../../repository/tree.ts'

const TABLESPACES = 'pg_tblspc'

/** A directory that the entries have entered and not left: what it should hold. */
interface Level {
  readonly path: string
  readonly kinds: Map<string, TreeEntry['kind']>
}

/**
 * Removes from a directory what a backup does not have there: other files, slots, signal files, and what is there as another kind of thing (a
 * symbolic link where a file belongs would lead a restore to write elsewhere). Links of tablespaces are put right on the way, so that those are
 * swept too. pg_wal and WAL that was set aside are left alone. Holds the names of one directory at each level.
 *
 * Files that stay are not looked at: a restore compares and writes them afterwards, all of them, so that nothing hangs on this being right.
 */
export async function sweepDirectory(options: {
  readonly directory: string
  readonly entries: AsyncIterable<TreeEntry>
  readonly signal: AbortSignal
}): Promise<void> {
  const { directory, signal } = options
  const levels: Level[] = [{ path: '', kinds: new Map() }]
  for await (const entry of options.entries) {
    signal.throwIfAborted()
    const parent = dirname(entry.path) === '.' ? '' : dirname(entry.path)
    while (levels.length > 1 && !isWithin(levels.at(-1)!.path, parent)) await sweepLevel(directory, levels.pop()!)
    if (levels.at(-1)!.path !== parent) levels.push({ path: parent, kinds: new Map() })
    levels.at(-1)!.kinds.set(basename(entry.path), entry.kind)
    if (entry.kind === 'link') await putLink(join(directory, entry.path), entry.target)
    if (entry.kind === 'directory' && entry.path !== 'pg_wal') await clearWay(join(directory, entry.path))
    // One that is empty in the backup has to be swept as well.
    if (entry.kind !== 'file') levels.push({ path: entry.path, kinds: new Map() })
  }
  for (let level = levels.pop(); level !== undefined; level = levels.pop()) await sweepLevel(directory, level)
}

async function sweepLevel(directory: string, { path, kinds }: Level): Promise<void> {
  if (path === 'pg_wal' || path.startsWith('pg_wal/')) return
  // Beside its own, a tablespace's directory may hold that of a cluster of another version.
  if (dirname(path) === TABLESPACES) return
  for (const name of await namesIn(join(directory, path))) {
    if (path === '' && (name === 'pg_wal' || name.startsWith(WAL_ASIDE))) continue
    const found = join(directory, path, name)
    const wanted = kinds.get(name)
    if (wanted !== undefined && (await kindOf(found)) === wanted) continue
    await rm(found, { recursive: true, force: true })
  }
}

/** Removes what is there in a directory's place: behind a symbolic link lies what is somebody else's, and is never swept. */
async function clearWay(path: string): Promise<void> {
  const kind = await kindOf(path)
  if (kind !== undefined && kind !== 'directory') await rm(path, { force: true })
}

async function putLink(path: string, target: string): Promise<void> {
  if ((await kindOf(path)) === 'link' && (await readlink(path)) === target) return
  await rm(path, { recursive: true, force: true })
  await symlink(target, path).catch((error: unknown) => {
    // The directory that it belongs into is made later, and the link with it.
    if (systemErrorCode(error) !== 'ENOENT') throw error
  })
}

async function kindOf(path: string): Promise<TreeEntry['kind'] | 'other' | undefined> {
  const stats = await lstat(path).catch((error: unknown) => {
    if (systemErrorCode(error) === 'ENOENT' || systemErrorCode(error) === 'ENOTDIR') return undefined
    throw error
  })
  if (stats === undefined) return undefined
  // Another name of the same file may be somebody's copy of this cluster: writing here would change it there.
  if (stats.isFile()) return stats.nlink === 1 ? 'file' : 'other'
  if (stats.isDirectory()) return 'directory'
  return stats.isSymbolicLink() ? 'link' : 'other'
}

/** A directory that is not there, or something else by that name, which the level above removes: nothing to sweep. */
async function namesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path)
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT' || systemErrorCode(error) === 'ENOTDIR') return []
    throw error
  }
}

function isWithin(outer: string, inner: string): boolean {
  return outer === '' || inner === outer || inner.startsWith(`${outer}/`)
}
