import { isUtf8 } from 'node:buffer'
import { lstatSync, readdirSync, readFileSync, readlinkSync, realpathSync, statSync, type Stats } from 'node:fs'
import { dirname, join } from 'node:path'
import { Failure, systemErrorCode } from '../../errors.ts'
import { readCatalogVersion } from '../../postgres/control-file.ts'
import { classifyPath, isUnloggedFork } from '../../postgres/relation-file.ts'

/** Something in a data directory that belongs into a backup, as it was when it was listed. */
export type DataEntry = {
  /** Relative to the data directory, with slashes; a tablespace's files are below `pg_tblspc/<oid>/`. */
  readonly path: string
  readonly absolutePath: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** No WAL brings it back: a backup without it must not come to be. */
  readonly isRequired?: true
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

/** Something in a data directory that a backup cannot take and PostgreSQL does not know. */
export interface PassedOver {
  /** As a person reads it: bytes that are no plain ASCII as `\xNN`. */
  readonly path: string
  readonly why: string
}

export interface WalkOptions {
  readonly onPassedOver?: (passedOver: PassedOver) => void
}

/** A data directory that is walked. */
interface Walked extends WalkOptions {
  readonly root: string
  /** What PostgreSQL calls its own directory in a tablespace. After an upgrade, those of other majors lie beside it. */
  readonly versionDirectory: () => string
}

/** A directory that is entered. */
interface Entered {
  /** Relative; empty for the data directory itself. */
  readonly path: string
  /** The real paths of those that hold a link on the way here, and of this one: a link to what holds one of them never ends. */
  readonly realPaths: readonly string[]
}

/**
 * All that a physical backup takes of a data directory, tablespaces included, in the order of paths. `pg_control` is left out: it is
 * read last, by itself. Links are followed. Holds the names of one directory at each level. Throws DATA_DIRECTORY_UNREADABLE.
 */
export function* walkDataDirectory(dataDirectory: string, options: WalkOptions = {}): Generator<DataEntry> {
  let version: string | undefined
  const walked: Walked = {
    ...options,
    root: dataDirectory,
    versionDirectory: () => (version ??= tablespaceVersionDirectory(dataDirectory)),
  }
  yield* walk(walked, { path: '', realPaths: [explained(dataDirectory, () => realpathSync(dataDirectory))] })
}

function* walk(walked: Walked, directory: Entered): Generator<DataEntry> {
  const steps = listSteps(walked, directory.path)
  const present = new Set(steps.map(({ name }) => join(directory.path, name)))
  // What was decided about directories whose contents are still to come.
  const entered = new Map<string, Entered>()
  for (const { name, kind } of steps) {
    const path = join(directory.path, name)
    if (kind === 'contents') {
      const below = entered.get(name)
      entered.delete(name)
      if (below !== undefined) yield* walk(walked, below)
      continue
    }
    const absolutePath = join(walked.root, path)
    const stats = statUnlessGone(absolutePath)
    if (stats === undefined) {
      assertNoTablespace(absolutePath, directory.path)
      continue
    }
    const owner = { path, absolutePath, mode: stats.mode & 0o7777, uid: stats.uid, gid: stats.gid }
    if (kind === 'directory') {
      const found = isForeign(walked, directory.path, name) ? undefined : findDirectory(walked, owner, directory)
      if (found !== undefined) yield found.entry
      if (found?.below !== undefined) entered.set(name, found.below)
    } else if (stats.isFile() && isWanted(path, present)) yield { ...owner, kind: 'file', sizeBytes: stats.size }
  }
}

function isWanted(path: string, present: ReadonlySet<string>): boolean {
  if (isTablespace(dirname(path)) || classifyPath(path, { isDirectory: false }) !== 'copy') return false
  return !isUnloggedFork(path, (init) => present.has(init))
}

type Owner = Pick<DataEntry, 'path' | 'absolutePath' | 'mode' | 'uid' | 'gid'>

/** The entry of a directory, or of a link to one, and whether it is to be entered; undefined when it is left out. */
function findDirectory(walked: Walked, owner: Owner, directory: Entered): { entry: DataEntry; below?: Entered } | undefined {
  const decision = classifyPath(owner.path, { isDirectory: true })
  if (decision === 'skip') return undefined
  const target = linkTarget(owner.absolutePath)
  const realPaths = target === undefined ? directory.realPaths : followLink(walked, owner, directory)
  if (realPaths === undefined) return undefined
  const isTablespaceLink = directory.path === 'pg_tblspc' && target !== undefined
  const entry: DataEntry = isTablespaceLink ? { ...owner, kind: 'link', target } : { ...owner, kind: 'directory' }
  return decision === 'copy' ? { entry, below: { path: owner.path, realPaths } } : { entry }
}

/** The real paths behind a link to a directory; undefined when it leads back to where we are, so that following it would never end. */
function followLink(walked: Walked, { path, absolutePath }: Owner, directory: Entered): readonly string[] | undefined {
  return explained(absolutePath, () => {
    const above = [...directory.realPaths, realpathSync(dirname(absolutePath))]
    const here = realpathSync(absolutePath)
    if (!above.some((each) => `${each}/`.startsWith(here === '/' ? here : `${here}/`))) return [...above, here]
    walked.onPassedOver?.({ path, why: `a link that leads back to "${here}"` })
    return undefined
  })
}

/** A tablespace whose place is not there (not mounted) must not be passed over as if it had been dropped: its link is still there. */
function assertNoTablespace(absolutePath: string, directory: string): void {
  const target = directory === 'pg_tblspc' ? linkTarget(absolutePath) : undefined
  if (target === undefined) return
  throw new Failure('DATA_DIRECTORY_UNREADABLE', `the tablespace "${absolutePath}" leads to "${target}", which is not there`, {
    hint: 'is its disk mounted? A backup without it would lack all that is in it',
  })
}

function isTablespace(directory: string): boolean {
  return /^pg_tblspc\/[^/]+$/.test(directory)
}

function isForeign(walked: Walked, directory: string, name: string): boolean {
  return isTablespace(directory) && name !== walked.versionDirectory()
}

/** `PG_15_202209061`: TABLESPACE_VERSION_DIRECTORY of the cluster. */
function tablespaceVersionDirectory(dataDirectory: string): string {
  return explained(dataDirectory, () => {
    const major = readFileSync(join(dataDirectory, 'PG_VERSION'), 'utf8').trim()
    return `PG_${major}_${readCatalogVersion(readFileSync(join(dataDirectory, 'global/pg_control')))}`
  })
}

interface Step {
  readonly name: string
  readonly kind: 'file' | 'directory' | 'contents'
}

/**
 * The steps that give all paths below a directory in the order of their bytes: a directory first, and what is in it where its name with a
 * slash belongs. Between the two lie names like `base-old`, because `-` comes before the slash.
 */
function listSteps(walked: Walked, directory: string): Step[] {
  const steps: (Step & { readonly key: Buffer })[] = []
  for (const { name, isDirectory } of readNames(walked, directory)) {
    steps.push({ name, kind: isDirectory ? 'directory' : 'file', key: Buffer.from(name) })
    if (isDirectory) steps.push({ name, kind: 'contents', key: Buffer.from(`${name}/`) })
  }
  return steps.toSorted((left, right) => Buffer.compare(left.key, right.key))
}

/** Directories of databases and tablespaces, which a DROP takes away while we walk. */
const DROPPED = /^(base\/[0-9]+|pg_tblspc\/[0-9]+(\/PG_[^/]+(\/[0-9]+)?)?)$/

function readNames(walked: Walked, directory: string): { name: string; isDirectory: boolean }[] {
  const path = join(walked.root, directory)
  const entries = explained(path, () => {
    try {
      return readdirSync(path, { withFileTypes: true, encoding: 'buffer' })
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT' && DROPPED.test(directory)) return []
      throw error
    }
  })
  const names: { name: string; isDirectory: boolean }[] = []
  for (const entry of entries) {
    const name = entry.name.toString('utf8')
    if (!isUtf8(entry.name)) {
      walked.onPassedOver?.({ path: join(directory, printable(entry.name)), why: 'its name is not UTF-8' })
      continue
    }
    const leadsToDirectory = () => statUnlessGone(join(path, name))?.isDirectory() === true
    names.push({ name, isDirectory: entry.isDirectory() || (entry.isSymbolicLink() && leadsToDirectory()) })
  }
  return names
}

function printable(name: Buffer): string {
  return Array.from(name, (byte) =>
    byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`,
  ).join('')
}

function statUnlessGone(path: string): Stats | undefined {
  return explained(path, () => {
    try {
      return statSync(path)
    } catch (error) {
      // A link that leads in a circle leads nowhere.
      if (['ENOENT', 'ELOOP'].includes(systemErrorCode(error) ?? '')) return undefined
      throw error
    }
  })
}

/** Where a symbolic link leads; undefined when it is none, or is gone. */
function linkTarget(path: string): string | undefined {
  return explained(path, () => {
    try {
      return lstatSync(path).isSymbolicLink() ? readlinkSync(path) : undefined
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined
      throw error
    }
  })
}

function explained<T>(path: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    const code = systemErrorCode(cause)
    if (code === undefined) throw cause
    throw new Failure('DATA_DIRECTORY_UNREADABLE', `cannot read "${path}": ${code}`, {
      hint: 'run Resus on the host of the database, as the user of the server (or as root), and check "dataDirectory" in the configuration',
      cause,
    })
  }
}
