import { lstatSync, readdirSync, readlinkSync, statSync, type Stats } from 'node:fs'
import { join } from 'node:path'
import { Failure, systemErrorCode } from '../../errors.ts'
import { classifyPath, isUnloggedFork } from '../../postgres/relation-file.ts'

/** Something in a data directory that belongs into a backup, as it was when it was listed. */
export type DataEntry = {
  /** Relative to the data directory, with slashes; a tablespace's files are below `pg_tblspc/<oid>/`. */
  readonly path: string
  readonly absolutePath: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
} & (
  | { readonly kind: 'file'; readonly sizeBytes: number }
  | { readonly kind: 'directory' }
  /** A tablespace: the link in `pg_tblspc`. */
  | { readonly kind: 'link'; readonly target: string }
)

/** Where a restore keeps its plan and WAL: in `pg_wal`, which neither a backup copies nor PostgreSQL's `pg_verifybackup` looks into. */
export const RECOVERY_DIRECTORY = 'pg_wal/resus_recovery'
/** Marks the directory of a tablespace as ours while a restore writes it. */
export const TABLESPACE_MARK = 'resus_recovery'

/**
 * All that a physical backup takes of a data directory, tablespaces included, in the order of paths. `pg_control` is left out: it is
 * read last, by itself. Holds the names of one directory at each level. Throws DATA_DIRECTORY_UNREADABLE.
 */
export function* walkDataDirectory(dataDirectory: string): Generator<DataEntry> {
  yield* walk(dataDirectory, '')
}

function* walk(root: string, directory: string): Generator<DataEntry> {
  const names = readNames(join(root, directory))
  const present = new Set(names.map(({ name }) => (directory === '' ? name : `${directory}/${name}`)))
  for (const { name, sortName } of names) {
    const path = directory === '' ? name : `${directory}/${name}`
    const absolutePath = join(root, path)
    const stats = statUnlessGone(absolutePath)
    if (stats === undefined) continue
    const owner = { path, absolutePath, mode: stats.mode & 0o7777, uid: stats.uid, gid: stats.gid }
    if (sortName.endsWith('/')) {
      yield* walkDirectory({ root, owner, name, directory })
      continue
    }
    if (!stats.isFile()) continue
    if (classifyPath(path, { isDirectory: false }) !== 'copy' || isUnloggedFork(path, (init) => present.has(init))) continue
    yield { ...owner, kind: 'file', sizeBytes: stats.size }
  }
}

type Owner = Pick<DataEntry, 'path' | 'absolutePath' | 'mode' | 'uid' | 'gid'>

function* walkDirectory(at: { root: string; owner: Owner; name: string; directory: string }): Generator<DataEntry> {
  const { root, owner, directory } = at
  const decision = classifyPath(owner.path, { isDirectory: true })
  if (decision === 'skip') return
  const target = directory === 'pg_tblspc' ? linkTarget(owner.absolutePath) : undefined
  yield target === undefined ? { ...owner, kind: 'directory' } : { ...owner, kind: 'link', target }
  if (decision === 'copy') yield* walk(root, owner.path)
}

/** Names in the order of their bytes; a directory counts as its name with a slash, as it does in every path below it. */
function readNames(path: string): { name: string; sortName: string }[] {
  let entries
  try {
    entries = readdirSync(path, { withFileTypes: true })
  } catch (cause) {
    if (systemErrorCode(cause) === 'ENOENT' && path.includes('/base/')) return []
    throw new Failure('DATA_DIRECTORY_UNREADABLE', `cannot list "${path}": ${systemErrorCode(cause) ?? String(cause)}`, {
      hint: 'run Resus on the host of the database, as the user of the server (or as root), and check "dataDirectory" in the configuration',
      cause,
    })
  }
  const named = entries.map((entry) => {
    const isDirectory =
      entry.isDirectory() || (entry.isSymbolicLink() && statUnlessGone(join(path, entry.name))?.isDirectory() === true)
    return { name: entry.name, sortName: isDirectory ? `${entry.name}/` : entry.name }
  })
  return named.toSorted((left, right) => Buffer.compare(Buffer.from(left.sortName), Buffer.from(right.sortName)))
}

function statUnlessGone(path: string): Stats | undefined {
  try {
    return statSync(path)
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

function linkTarget(path: string): string | undefined {
  return lstatSync(path).isSymbolicLink() ? readlinkSync(path) : undefined
}
