/** What a physical backup does with an entry of the data directory. `directory-only`: the directory, without what is in it. */
export type PathClass = 'copy' | 'skip' | 'directory-only'

/** Directories whose contents are made anew at a start or belong to the running server (basebackup.c, excludeDirContents). */
const EMPTIED_DIRECTORIES: ReadonlySet<string> = new Set([
  // A slot in a copy would hold back WAL for a receiver that follows the original.
  'pg_replslot',
  'pg_dynshmem',
  'pg_notify',
  'pg_serial',
  'pg_snapshots',
  'pg_stat_tmp',
  'pg_subtrans',
])

/** WAL comes from the archive; PostgreSQL does not start without the first of these, nor without pg_wal itself. */
const KEPT_IN_WAL: ReadonlySet<string> = new Set(['pg_wal/archive_status', 'pg_wal/summaries'])

/** Files at the top of the data directory that must not come with a copy (basebackup.c, excludeFiles, and our own). */
const SKIPPED_FILES: ReadonlySet<string> = new Set([
  'postmaster.pid',
  'postmaster.opts',
  'postgresql.auto.conf.tmp',
  'current_logfiles.tmp',
  // They belong to another backup: ours come from pg_backup_stop and are written by the restore.
  'backup_label',
  'backup_label.old',
  'tablespace_map',
  'tablespace_map.old',
  'backup_manifest',
  'backup_manifest.tmp',
  // The restore decides whether there is a recovery.
  'recovery.signal',
  'standby.signal',
  // SAFETY_NOTE and DISARMED_CONTROL, of a restore that was given up.
  'resus-safety-copy.json',
  'resus_pg_control',
  // Copied by its own rules: last, and read again until its CRC holds.
  'global/pg_control',
])

/** A directory of WAL that a restore found in a data directory and set aside begins with this. */
export const WAL_ASIDE = 'pg_wal.before-'
/** In a data directory that a restore has begun to go over: where its safety copy is, and what its pg_control is called now. */
export const SAFETY_NOTE = 'resus-safety-copy.json'
export const DISARMED_CONTROL = 'resus_pg_control'

const CACHE_PREFIX = 'pg_internal.init'
const TEMPORARY_PREFIX = 'pgsql_tmp'

/**
 * Decides about one entry by its path, relative to the data directory with `/` between names; a tablespace's entries are given
 * under `pg_tblspc/<oid>/`. Contents of a directory that is `skip` or `directory-only` are never copied, so that the walk need
 * not enter it. Unlogged relations are copied as far as this function knows: see `isUnloggedFork`.
 */
export function classifyPath(path: string, { isDirectory }: { isDirectory: boolean }): PathClass {
  const names = path.split('/')
  const [top = ''] = names
  const name = names.at(-1) ?? ''
  if (isDirectory) return classifyDirectory(path, name)
  if (EMPTIED_DIRECTORIES.has(top) && names.length > 1) return 'skip'
  if (top === 'pg_wal') return 'skip'
  if (SKIPPED_FILES.has(path) || name.startsWith(CACHE_PREFIX)) return 'skip'
  if (names.some((each) => each.startsWith(TEMPORARY_PREFIX))) return 'skip'
  return relationFile(path)?.temporary === true ? 'skip' : 'copy'
}

function classifyDirectory(path: string, name: string): PathClass {
  const [top = '', ...below] = path.split('/')
  if (name.startsWith(TEMPORARY_PREFIX) || top.startsWith(WAL_ASIDE)) return 'skip'
  if (EMPTIED_DIRECTORIES.has(top)) return below.length === 0 ? 'directory-only' : 'skip'
  // pg_wal is copied in the sense that it is entered: two of its directories are wanted.
  if (top === 'pg_wal' && below.length > 0) return KEPT_IN_WAL.has(path) ? 'directory-only' : 'skip'
  return 'copy'
}

export type Fork = 'main' | 'fsm' | 'vm' | 'init'

/** A file that holds pages of a relation. */
export interface RelationFile {
  /** 0 for shared relations. */
  readonly databaseOid: number
  /** Undefined for the default tablespace (`base`) and the shared one (`global`). */
  readonly tablespaceOid: number | undefined
  readonly relfilenode: number
  readonly fork: Fork
  /** Each but the last has `relationSegmentBlocks` pages: block number = segment x that + page. */
  readonly segment: number
  /** Of a session that is or was connected: never worth a copy. */
  readonly temporary: boolean
}

const OID = '[1-9][0-9]{0,9}'
const RELATION_PATH = new RegExp(
  `^(?:global|base/(?<database>${OID})|pg_tblspc/(?<tablespace>${OID})/PG_[^/]+/(?<database2>${OID}))` +
    `/(?<temporary>t[0-9]+_)?(?<node>${OID})(?:_(?<fork>fsm|vm|init))?(?:\\.(?<segment>${OID}))?$`,
)

/** Undefined when the path is not that of a relation's file: `PG_VERSION`, `pg_filenode.map`, anything outside of databases. */
export function relationFile(path: string): RelationFile | undefined {
  const groups = RELATION_PATH.exec(path)?.groups
  if (groups === undefined) return undefined
  return {
    databaseOid: Number(groups['database'] ?? groups['database2'] ?? 0),
    tablespaceOid: groups['tablespace'] === undefined ? undefined : Number(groups['tablespace']),
    relfilenode: Number(groups['node']),
    fork: (groups['fork'] ?? 'main') as Fork,
    segment: Number(groups['segment'] ?? 0),
    temporary: groups['temporary'] !== undefined,
  }
}

/**
 * True for a file of an unlogged relation that a copy leaves out: all of its forks but `init`, from which recovery makes the
 * relation anew, empty. `hasInit` tells whether the directory has a file of that path; read it before the files, as a relation
 * that becomes unlogged meanwhile is then copied, and emptied by the replay.
 */
export function isUnloggedFork(path: string, hasInit: (path: string) => boolean): boolean {
  const file = relationFile(path)
  if (file === undefined || file.fork === 'init' || file.temporary) return false
  return hasInit(`${path.slice(0, path.lastIndexOf('/') + 1)}${file.relfilenode}_init`)
}
