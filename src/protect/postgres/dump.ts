import { join } from 'node:path'
import { Failure } from '../../errors.ts'
import { requireInstallation, toolPath, type Installation } from '../../postgres/installation.ts'
import { formatLsn, parseLsn } from '../../postgres/lsn.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { assertNoFile, checkArchive, dumpToFile, type DumpTool } from './dump-file.ts'
import type { ProofContext } from './proof.ts'
import { planRecovery } from './recovery-plan.ts'
import { describeTarget, type RecoveryTarget } from './recovery-target.ts'
import { publishSpool } from './restore-spool.ts'
import { restorePostgres } from './restore.ts'
import { scratchAccount } from './scratch-account.ts'
import { assertOutside, assertScratchRoom, removeAbandoned, ScratchDirectory, scratchBytes, type Place } from './scratch.ts'
import { ScratchServer } from './scratch-server.ts'
import { ScratchWal } from './scratch-wal.ts'
import { readPlan } from './wal-get.ts'

// A logical dump of any restore point. It is taken from a restored copy, not from the living server: it costs that server nothing, it has an exact place
// in the WAL, and a dump that succeeds has also restored a backup. For what a physical backup cannot do: one table, another major version, another system.

/** `custom` is pg_dump's own, for pg_restore; `plain` is SQL, compressed by gzip. */
export const DUMP_FORMATS = ['custom', 'plain'] as const
export type DumpFormat = (typeof DUMP_FORMATS)[number]

export type DumpSubject =
  /** A database, the only one when it is not named; or what of it pg_dump's patterns choose. */
  | {
      readonly kind: 'database'
      readonly database?: string
      readonly schemas: readonly string[]
      readonly tables: readonly string[]
    }
  /** Roles with their passwords' hashes, and tablespaces: what no database holds. Plain. */
  | { readonly kind: 'globals' }

export interface DumpOptions extends Omit<ProofContext, 'target'> {
  readonly target: RecoveryTarget
  readonly timeline?: number
  /** Begin with this backup. */
  readonly from?: string
  readonly subject: DumpSubject
  readonly format: DumpFormat
  /** gzip's, 0 to 9. */
  readonly level: number
  /** The file, absolute. It must not exist. */
  readonly to: string
  readonly scratchRoot: string
  /** Where the scratch directory must not be. */
  readonly forbidden: readonly Place[]
}

/** What `dump --json` prints. */
export interface DumpReport {
  readonly component: string
  readonly backup: string
  readonly target: string
  /** Where replay ended, and the time of the last transaction that it replayed: the dump's recovery point. */
  readonly reached: { readonly lsn: string; readonly time: string | null }
  /** Null for globals. */
  readonly database: string | null
  readonly format: DumpFormat
  readonly file: string
  readonly bytes: number
  readonly sha256: string
  /** Of pg_dump. */
  readonly postgres: string
  readonly seconds: number
}

/**
 * Restores a component into a scratch directory, recovers it to the target, and dumps it into a file that is there whole, checked and durable, or
 * not at all. Everything else is taken away again, however it ends.
 *
 * Throws what `restorePostgres` throws, ARGUMENTS_INVALID for a file that exists and a database that does not, POSTGRES_MISSING where this host has no
 * pg_dump of the cluster's major version, POSTGRES_FAILED with what pg_dump said, DISK_FULL.
 */
export async function dumpPostgres(options: DumpOptions): Promise<DumpReport> {
  const { component, target, scratchRoot, clock, signal } = options
  const beganMs = clock.now()
  await assertNoFile(options.to)
  await assertOutside(scratchRoot, options.forbidden)
  for (const notice of await removeAbandoned(scratchRoot)) options.onNotice?.(notice)
  // The target may lie in WAL that only this host's spool has.
  await publishSpool({ ...options, component: component.name })
  const { manifest } = await planRecovery({ ...options, component: component.name })
  const installation = await requireInstallation(manifest.server.major, component.binaries)
  const programs = dumpPrograms(installation, options.subject)
  await assertScratchRoom(scratchRoot, scratchBytes(manifest))
  await using scratch = await ScratchDirectory.make({
    purpose: 'resus dump',
    root: scratchRoot,
    component: component.name,
    backup: manifest.id,
    account: await scratchAccount(manifest.defaults),
    nowMs: beganMs,
  })
  const server = await recoverCopy(options, { manifest, installation, scratch })
  const reached = await readReached(server)
  const database = options.subject.kind === 'globals' ? null : await chooseDatabase(server, options.subject.database)
  const tool: DumpTool = {
    program: programs.dump,
    args: toolArguments(options),
    env: await server.toolEnvironment(database),
    owner: scratch.account,
    signal,
  }
  const onBytes = (bytesDone: number) => options.onProgress?.({ phase: 'dumping', bytesDone, bytesTotal: 0 })
  const plain = isPlain(options)
  const written = await dumpToFile(tool, {
    path: options.to,
    ...(plain ? { gzipLevel: options.level } : {}),
    onBytes,
    // Before the file has its name.
    check: async (path) => {
      options.onProgress?.({ phase: 'reading the dump back', bytesDone: 0, bytesTotal: 0 })
      await checkArchive(path, plain ? { kind: 'plain', signal } : { kind: 'custom', program: programs.restore, signal })
    },
  })
  await server.stop()
  return {
    component: component.name,
    backup: manifest.id,
    target: describeTarget(target),
    reached,
    database,
    format: plain ? 'plain' : 'custom',
    file: options.to,
    ...written,
    postgres: installation.version,
    seconds: Math.max(0, clock.now() - beganMs) / 1000,
  }
}

function isPlain({ subject, format }: DumpOptions): boolean {
  return format === 'plain' || subject.kind === 'globals'
}

/** pg_dump of the cluster's own version; the one that reads a dump back lies beside it. */
function dumpPrograms(installation: Installation, subject: DumpSubject): { dump: string; restore: string } {
  const find = (tool: string) => {
    const path = toolPath(installation, tool)
    if (path !== undefined) return path
    const what = `PostgreSQL ${installation.major} has no ${tool} in "${installation.binDirectory}"`
    throw new Failure('POSTGRES_MISSING', `cannot dump: ${what}`, {
      hint: `install the client programs of PostgreSQL ${installation.major} (postgresql-client-${installation.major}), or name their directory: "binaries" in the configuration`,
    })
  }
  return { dump: find(subject.kind === 'globals' ? 'pg_dumpall' : 'pg_dump'), restore: find('pg_restore') }
}

/** The database comes by the environment: as an argument its name could look like an option, or a connection string. */
function toolArguments({ subject, format, level }: DumpOptions): string[] {
  if (subject.kind === 'globals') return ['--globals-only', '--no-password']
  const how = format === 'custom' ? ['--format=custom', `--compress=${level}`] : ['--format=plain']
  const part = [...subject.schemas.map((name) => `--schema=${name}`), ...subject.tables.map((name) => `--table=${name}`)]
  return [...how, ...part, '--no-password']
}

async function recoverCopy(
  options: DumpOptions,
  restored: { manifest: BackupManifest; installation: Installation; scratch: ScratchDirectory },
): Promise<ScratchServer> {
  const { onProgress, target } = options
  const { manifest, scratch } = restored
  const { plan } = await restorePostgres({
    ...options,
    to: scratch.dataDirectory,
    confined: true,
    withoutPriming: true,
    // A newer backup that has come since may have tablespaces that are mapped nowhere.
    ...(target.kind === 'backup' ? {} : { from: manifest.id }),
    tablespaceMappings: manifest.tablespaces.map(({ oid }) => ({ old: oid, new: join(scratch.tablespaceDirectory, oid) })),
    onProgress: ({ phase, ...bytes }) => onProgress?.({ phase: `restoring: ${phase}`, ...bytes }),
  })
  onProgress?.({ phase: 'recovering', bytesDone: 0, bytesTotal: 0 })
  await using wal = await ScratchWal.open({
    ...options,
    plan: await readPlan(plan),
    home: scratch.path,
    account: scratch.account,
  })
  return await ScratchServer.recover({ ...options, ...restored, wal })
}

async function readReached(server: ScratchServer): Promise<DumpReport['reached']> {
  return await server.anySession(async (client) => {
    const { rows } = await client.query<{ lsn: string; time: Date | null }>(
      'select pg_last_wal_replay_lsn()::text as lsn, pg_last_xact_replay_timestamp() as time',
    )
    const { lsn, time } = rows[0]!
    return { lsn: formatLsn(parseLsn(lsn)), time: time?.toISOString() ?? null }
  })
}

async function chooseDatabase(server: ScratchServer, named: string | undefined): Promise<string> {
  const names = await server.anySession(async (client) => {
    const { rows } = await client.query<{ name: string }>(
      'select datname::text as name from pg_database where datallowconn and not datistemplate order by 1',
    )
    return rows.map(({ name }) => name)
  })
  // "postgres" is there in every cluster, and nobody's data.
  const own = names.filter((name) => name !== 'postgres')
  const only = own.length === 0 ? names : own
  if (named === undefined && only.length === 1) return only[0]!
  if (named !== undefined && names.includes(named)) return named
  const known = `there it has ${names.map((name) => `"${name}"`).join(', ')}`
  const what = named === undefined ? 'which database?' : `the cluster has no database "${named}" at this target:`
  throw new Failure('ARGUMENTS_INVALID', `${what} ${known}`, { hint: 'name one: --database' })
}
