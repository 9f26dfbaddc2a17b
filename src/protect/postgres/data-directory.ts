import { lstatSync, readdirSync, readlinkSync, statSync, type Dirent, type Stats } from 'node:fs'
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
  const steps = readSteps(root, directory)
  const present = new Set(steps.map(({ path }) => path))
  /** Directories that are copied with what is in them: the second step of each goes down. */
  const entered = new Set<string>()
  for (const { path, step } of steps) {
    if (step === 'descend') {
      if (entered.has(path)) yield* walk(root, path)
      continue
    }
    const absolutePath = join(root, path)
    const stats = statUnlessGone(absolutePath)
    if (stats === undefined) {
      assertNoTablespace(absolutePath, directory)
      continue
    }
    const owner = { path, absolutePath, mode: stats.mode & 0o7777, uid: stats.uid, gid: stats.gid }
    if (step === 'directory') {
      const decision = classifyPath(path, { isDirectory: true })
      if (decision === 'copy') entered.add(path)
      if (decision !== 'skip') yield describeDirectory(owner, directory)
    } else if (stats.isFile()) {
      if (classifyPath(path, { isDirectory: false }) !== 'copy' || isUnloggedFork(path, (init) => present.has(init))) continue
      yield { ...owner, kind: 'file', sizeBytes: stats.size }
    }
  }
}

type Owner = Pick<DataEntry, 'path' | 'absolutePath' | 'mode' | 'uid' | 'gid'>

function describeDirectory(owner: Owner, directory: string): DataEntry {
  const target = directory === 'pg_tblspc' ? linkTarget(owner.absolutePath) : undefined
  return target === undefined ? { ...owner, kind: 'directory' } : { ...owner, kind: 'link', target }
}

/** A tablespace whose place is not there (not mounted) must not be passed over as if it had been dropped: its link is still there. */
function assertNoTablespace(absolutePath: string, directory: string): void {
  const target = directory === 'pg_tblspc' ? linkTarget(absolutePath) : undefined
  if (target === undefined) return
  throw new Failure('DATA_DIRECTORY_UNREADABLE', `the tablespace "${absolutePath}" leads to "${target}", which is not there`, {
    hint: 'is its disk mounted? A backup without it would lack all that is in it',
  })
}

interface Step {
  readonly path: string
  readonly step: 'file' | 'directory' | 'descend'
}

/** What to do in the order of paths' bytes: a directory comes at its name, what is in it at the name with a slash ("a" < "a.b" < "a/c"). */
function readSteps(root: string, directory: string): Step[] {
  const steps = readEntries(root, directory).flatMap((entry): { key: Buffer; path: string; step: Step['step'] }[] => {
    const path = directory === '' ? entry.name : `${directory}/${entry.name}`
    const leads = entry.isSymbolicLink() && statUnlessGone(join(root, path))?.isDirectory() === true
    if (!entry.isDirectory() && !leads) return [{ key: Buffer.from(entry.name), path, step: 'file' }]
    return [
      { key: Buffer.from(entry.name), path, step: 'directory' },
      { key: Buffer.from(`${entry.name}/`), path, step: 'descend' },
    ]
  })
  return steps.toSorted((left, right) => Buffer.compare(left.key, right.key))
}

/** Directories of databases and tablespaces, which a DROP takes away while we walk. */
const DROPPED = /^(base\/[0-9]+|pg_tblspc\/[0-9]+(\/PG_[^/]+(\/[0-9]+)?)?)$/

function readEntries(root: string, directory: string): Dirent[] {
  const path = join(root, directory)
  try {
    return readdirSync(path, { withFileTypes: true })
  } catch (cause) {
    if (systemErrorCode(cause) === 'ENOENT' && DROPPED.test(directory)) return []
    throw new Failure('DATA_DIRECTORY_UNREADABLE', `cannot list "${path}": ${systemErrorCode(cause) ?? String(cause)}`, {
      hint: 'run Resus on the host of the database, as the user of the server (or as root), and check "dataDirectory" in the configuration',
      cause,
    })
  }
}

function statUnlessGone(path: string): Stats | undefined {
  try {
    return statSync(path)
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

/** Where a symbolic link leads; undefined when it is none, or is gone. */
function linkTarget(path: string): string | undefined {
  try {
    return lstatSync(path).isSymbolicLink() ? readlinkSync(path) : undefined
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}
