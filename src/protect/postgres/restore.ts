import { chmod, chown, mkdir, open, readdir, readFile, rm, stat, statfs, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import type { Clock } from '../../clock.ts'
import { Failure, systemErrorCode } from '../../errors.ts'
import { BackupManifestWriter } from '../../postgres/backup-manifest.ts'
import { crc32c } from '../../postgres/crc32c.ts'
import { findInstallation } from '../../postgres/installation.ts'
import { formatLsn } from '../../postgres/lsn.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { syncIndex } from '../../repository/index-sync.ts'
import { BlobReader } from '../../repository/blob-reader.ts'
import type { Repository } from '../../repository/repository.ts'
import { walkTree } from '../../repository/tree.ts'
import { WorkerPool } from '../../stream/worker-pool.ts'
import { streamSpool, type PostgresComponent } from './component.ts'
import { RECOVERY_DIRECTORY, TABLESPACE_MARK } from './data-directory.ts'
import { drainSpool } from './drain.ts'
import { arrangeConfiguration, missingPlaces } from './kept-configuration.ts'
import { describeTarget, encodePlan, planRecovery, type PlannedRecovery, type RecoveryTarget } from './recovery-plan.ts'
import { primeRecovery } from './recovery-prime.ts'
import { quoteShell, recoverySettings } from './recovery-settings.ts'
import { explainWrite, restoreFiles, type RestoredFile } from './restore-copy.ts'
import type { RestoreJob } from './restore-unit.ts'
import type { RestoreJobResult } from './restore-worker.ts'

const WORKERS_MAX = 4
const PLAN_FILE = 'plan.json'
const CONTROL_PATH = 'global/pg_control'
/** Beside the plan, once the restore has ended: from then on the directory is a cluster, and is never emptied again. */
const COMPLETE_FILE = 'complete'
const MARK_OWNER = 'data-directory'
/** Room that must be left beside the files: WAL that is fetched and replayed. */
const ROOM_FOR_WAL_BYTES = 256 * 1024 * 1024

export interface RestoreProgress {
  readonly phase: 'writing' | 'syncing'
  readonly bytesDone: number
  readonly bytesTotal: number
}

/** What `restore --json` prints. */
export interface RestoreReport {
  readonly backup: string
  readonly target: string
  readonly directory: string
  readonly bytesWritten: number
  /** Bytes of files that were right already; always 0 in an empty directory. */
  readonly bytesKept: number
  readonly startCommand: string
  readonly seconds: number
  readonly timeline: number
  /** Where the WAL that the plan counts on ends. */
  readonly walEndLsn: string
  /** End of the last complete record in it; null when that is not known. */
  readonly lastRecordEnd: string | null
  readonly plan: string
}

/** A restore connects to no server. */
export type RestoredComponent = Pick<PostgresComponent, 'name' | 'workers' | 'binaries'>

export interface RestoreOptions {
  readonly repository: Repository
  readonly component: RestoredComponent
  readonly to: string
  readonly target: RecoveryTarget
  readonly stateDirectory: string
  /** Of the configuration that `restore_command` will use. */
  readonly configPath: string
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onProgress?: (progress: RestoreProgress) => void
  readonly onNotice?: (text: string) => void
}

/**
 * Restores a cluster into an empty directory, ready to be started. The order makes every crash harmless: the plan first (it marks the
 * directory as ours), the files, the settings, everything durable, and `pg_control` last: without it PostgreSQL does not start. Run again
 * into the same directory, it begins anew.
 *
 * Throws BACKUP_ABSENT, BACKUP_UNKNOWN, TARGET_OUTSIDE_WINDOW, WAL_GAP, DIRECTORY_NOT_EMPTY, DISK_FULL, OBJECT_DAMAGED, BLOB_MISSING.
 */
export async function restorePostgres(options: RestoreOptions): Promise<RestoreReport> {
  try {
    return await restoreCluster(options)
  } catch (error) {
    // Any of the writes may find the disk full, the smallest too.
    throw explainWrite(error)
  }
}

async function restoreCluster(options: RestoreOptions): Promise<RestoreReport> {
  const { repository, component, clock, target } = options
  const startedMs = clock.now()
  const directory = resolve(options.to)
  await publishSpool(options)
  const planned = await planRecovery({ repository, component: component.name, target, clock })
  const { manifest, plan } = planned
  for (const notice of planned.notices) options.onNotice?.(notice)
  if (manifest.totals.corruptPages > 0) {
    options.onNotice?.(
      `backup ${manifest.id} holds ${manifest.totals.corruptPages} pages that were corrupt on the server already`,
    )
  }
  await prepareDirectory(directory, manifest)
  await writeSynced(join(directory, RECOVERY_DIRECTORY, PLAN_FILE), encodePlan(plan))

  const made = await writeCluster(options, directory, manifest)
  for (const notice of missingPlaces(directory)) options.onNotice?.(notice)
  await writeRecovery(options, directory, planned)
  await primeRecovery({ directory, plan, configPath: options.configPath, owner: manifest.defaults, signal: options.signal })
  options.onProgress?.({ phase: 'syncing', bytesDone: made.bytesWritten, bytesTotal: made.bytesWritten })
  for (const path of made.directories.toReversed()) await syncDirectory(path)
  await syncDirectory(directory)
  await syncDirectory(dirname(directory))
  // Last: until then PostgreSQL refuses to start on a half-restored directory.
  await putControl(directory, manifest)
  // The cluster is whole without it: it only keeps a directory that has lost its pg_control from being taken for an interrupted restore.
  await writeSynced(join(directory, RECOVERY_DIRECTORY, COMPLETE_FILE), '').catch(() => undefined)
  for (const { path } of manifest.tablespaces) await rm(join(path, TABLESPACE_MARK), { recursive: true, force: true })

  return {
    backup: manifest.id,
    target: describeTarget(target),
    directory,
    bytesWritten: made.bytesWritten,
    bytesKept: 0,
    startCommand: await startCommand(component, manifest, directory),
    seconds: (clock.now() - startedMs) / 1000,
    timeline: plan.timeline,
    walEndLsn: formatLsn(plan.stretches.at(-1)!.to),
    lastRecordEnd: plan.lastRecordEnd === null ? null : formatLsn(plan.lastRecordEnd),
    plan: join(directory, RECOVERY_DIRECTORY, PLAN_FILE),
  }
}

/** What a receiver on this host acknowledged and could not store any more goes into the repository first. */
async function publishSpool(options: RestoreOptions): Promise<void> {
  const spoolDirectory = streamSpool(options.stateDirectory, options.component.name)
  await drainSpool({ ...options, spoolDirectory, component: options.component.name })
}

interface Place {
  readonly path: string
  /** A directory in it that says, until the restore has ended, that what lies here is ours. */
  readonly mark: string
}

/** Makes the directory, or takes an empty one, or one that an interrupted restore left. Throws DIRECTORY_NOT_EMPTY, DISK_FULL. */
async function prepareDirectory(directory: string, manifest: BackupManifest): Promise<void> {
  const tablespaces = manifest.tablespaces.map(({ path }): Place => ({ path, mark: TABLESPACE_MARK }))
  const places = [{ path: directory, mark: RECOVERY_DIRECTORY }, ...tablespaces]
  for (const place of places) await assertUsable(place, directory)
  await assertRoom(directory, manifest)
  for (const place of places) await emptyPlace(place, manifest.defaults.directoryMode)
  // It says whose the tablespace is, so that only a restore into the same directory may empty it.
  for (const { path, mark } of tablespaces) await writeSynced(join(path, mark, MARK_OWNER), directory)
}

async function assertUsable({ path, mark }: Place, directory: string): Promise<void> {
  const names = await readdir(path).catch((error: unknown): string[] => {
    if (systemErrorCode(error) === 'ENOENT') return []
    const what = `cannot restore into "${path}": ${systemErrorCode(error) ?? String(error)}`
    throw new Failure('DIRECTORY_NOT_EMPTY', what, {
      hint: 'name a directory that this user may make, or an empty one',
      cause: error,
    })
  })
  if (names.length === 0) return
  // A restore that was interrupted left its mark, and no pg_control, which comes last.
  const complete = (await exists(join(path, CONTROL_PATH))) || (await exists(join(path, mark, COMPLETE_FILE)))
  const owner = path === directory ? directory : await readFile(join(path, mark, MARK_OWNER), 'utf8').catch(() => undefined)
  if ((await exists(join(path, mark))) && !complete && owner === directory) return
  const what = `cannot restore into "${path}": it holds ${names.length} entries ("${names[0]}", ...)`
  throw new Failure('DIRECTORY_NOT_EMPTY', what, {
    hint: 'restore into an empty or new directory; move what is there away, never delete the only copy of a cluster',
  })
}

/** What lies there is what an interrupted restore left: it goes, the mark's own directory last, and is begun anew. */
async function emptyPlace({ path, mark }: Place, mode: number): Promise<void> {
  await mkdir(join(path, mark), { recursive: true, mode: 0o700 })
  const [top] = mark.split('/')
  for (const name of await readdir(path)) if (name !== top) await rm(join(path, name), { recursive: true, force: true })
  for (const name of await readdir(join(path, mark))) await rm(join(path, mark, name), { recursive: true, force: true })
  const beside = dirname(join(path, mark))
  for (const name of await readdir(beside)) {
    if (join(beside, name) !== join(path, mark)) await rm(join(beside, name), { recursive: true, force: true })
  }
  await chmod(path, mode)
}

async function assertRoom(directory: string, manifest: BackupManifest): Promise<void> {
  let existing = directory
  while (!(await exists(existing))) existing = dirname(existing)
  const { bavail, bsize } = await statfs(existing)
  const needed = manifest.totals.bytes + ROOM_FOR_WAL_BYTES
  if (bavail * bsize >= needed || manifest.tablespaces.length > 0) return
  const mib = (bytes: number) => `${Math.round(bytes / 1024 ** 2)} MiB`
  throw new Failure(
    'DISK_FULL',
    `there is no room for the restored cluster in "${directory}": ${mib(bavail * bsize)} are free, ${mib(needed)} are needed`,
    {
      hint: 'make room or choose a directory on another disk; nothing was written',
    },
  )
}

async function writeCluster(options: RestoreOptions, directory: string, manifest: BackupManifest) {
  const { repository, component, signal } = options
  const index = await syncIndex({ repository, stateDirectory: options.stateDirectory, signal })
  const reader = new BlobReader(repository, index)
  const pool = new WorkerPool<RestoreJob, RestoreJobResult>({
    script: new URL('./restore-worker.ts', import.meta.url),
    size: component.workers ?? Math.min(availableParallelism(), WORKERS_MAX),
    workerData: { ring: repository.ring },
  })
  const directories: string[] = []
  let bytesWritten = 0
  const onBytes = (bytes: number) => {
    bytesWritten += bytes
    options.onProgress?.({ phase: 'writing', bytesDone: bytesWritten, bytesTotal: manifest.totals.bytes })
  }
  try {
    const entries = walkTree(reader, manifest.tree, manifest.defaults)
    const onDirectory = (path: string) => directories.push(path)
    const restored = restoreFiles({ repository, reader, pool, directory, entries, signal, onBytes, onDirectory })
    const files = arrangeConfiguration({ ...options, directory, manifest, files: restored, onDirectory })
    await writeBackupManifest(directory, manifest, files)
    return { bytesWritten, directories }
  } finally {
    await pool.close()
    reader.close()
  }
}

/** Writes PostgreSQL's own `backup_manifest`, so that its tools can judge what we have written. */
async function writeBackupManifest(
  directory: string,
  manifest: BackupManifest,
  files: AsyncIterable<RestoredFile>,
): Promise<void> {
  const { major, systemIdentifier } = manifest.server
  const writer = new BackupManifestWriter({ major, systemIdentifier: BigInt(systemIdentifier) })
  const modified = new Date(manifest.finishedAt)
  const text = async function* () {
    yield writer.begin()
    for await (const { path, sizeBytes, crc32c: crc } of files) {
      // PostgreSQL's tools pass this one over; we append to it.
      if (path !== 'postgresql.auto.conf') yield writer.addFile({ path, sizeBytes, modified, crc32c: crc })
    }
    const control = Buffer.from(manifest.control, 'base64')
    for (const [path, content] of [...Object.entries(labelFiles(manifest)), [CONTROL_PATH, control] as const]) {
      const bytes = Buffer.from(content)
      yield writer.addFile({ path, sizeBytes: bytes.length, modified, crc32c: crc32c(bytes) })
    }
    yield writer.end([{ timeline: manifest.timeline, startLsn: manifest.startLsn, endLsn: manifest.stopLsn }])
  }
  await writeSynced(join(directory, 'backup_manifest'), text())
}

function labelFiles(manifest: BackupManifest): Record<string, string> {
  const map = manifest.tablespaceMap === '' ? {} : { tablespace_map: manifest.tablespaceMap }
  return { backup_label: manifest.backupLabel, ...map }
}

async function writeRecovery(options: RestoreOptions, directory: string, planned: PlannedRecovery): Promise<void> {
  const { manifest } = planned
  for (const [name, content] of Object.entries(labelFiles(manifest))) await writeSynced(join(directory, name), content)
  const settings = recoverySettings({ ...options, ...planned })
  await appendSynced(join(directory, 'postgresql.auto.conf'), settings)
  await writeSynced(join(directory, 'recovery.signal'), '')
  if (process.getuid?.() === 0) await giveAway(directory, manifest)
}

/** What we add has to belong to the server's user as well. */
async function giveAway(directory: string, manifest: BackupManifest): Promise<void> {
  const { uid, gid } = manifest.defaults
  const added = [
    '.',
    RECOVERY_DIRECTORY,
    `${RECOVERY_DIRECTORY}/${PLAN_FILE}`,
    'backup_manifest',
    'recovery.signal',
    'postgresql.auto.conf',
  ]
  for (const name of [...added, ...Object.keys(labelFiles(manifest))]) await chown(join(directory, name), uid, gid)
  for (const tablespace of manifest.tablespaces) await chown(tablespace.path, uid, gid)
}

async function putControl(directory: string, manifest: BackupManifest): Promise<void> {
  const path = join(directory, CONTROL_PATH)
  await writeSynced(path, Buffer.from(manifest.control, 'base64'))
  const { fileMode, uid, gid } = manifest.defaults
  await chmod(path, fileMode)
  if (process.getuid?.() === 0) {
    await chown(path, uid, gid)
  }
  await syncDirectory(dirname(path))
}

/** What starts the restored server, as its own user: PostgreSQL refuses root. */
async function startCommand(component: RestoredComponent, manifest: BackupManifest, directory: string): Promise<string> {
  const installation = await findInstallation(manifest.server.major, component.binaries)
  const program = installation === undefined ? 'pg_ctl' : join(installation.binDirectory, 'pg_ctl')
  const log = join(directory, RECOVERY_DIRECTORY, 'server.log')
  const command = [program, '-D', directory, '-l', log, '-w', '-t', '86400', 'start'].map(quoteShell).join(' ')
  return process.getuid?.() === 0
    ? `setpriv --reuid=${manifest.defaults.uid} --regid=${manifest.defaults.gid} --init-groups -- ${command}`
    : command
}

async function writeSynced(path: string, content: string | Uint8Array | AsyncIterable<string>): Promise<void> {
  await writeFile(path, content, { mode: 0o600, flush: true })
}

async function appendSynced(path: string, text: string): Promise<void> {
  await writeFile(path, text, { flag: 'a', mode: 0o600, flush: true })
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}
