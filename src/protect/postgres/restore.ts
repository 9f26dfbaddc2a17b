import { lchown } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import type { Clock } from '../../clock.ts'
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
import type { PostgresComponent } from './component.ts'
import { RECOVERY_DIRECTORY } from './data-directory.ts'
import { sweepDirectory } from './delta-sweep.ts'
import { appendDurably, isRoot, syncAncestors, syncDirectory, writeNew } from './durable-file.ts'
import { AHEAD_DIRECTORY } from './fetcher-lock.ts'
import type { RestoredFile } from './file-finisher.ts'
import { arrangeConfiguration, missingPlaces } from './kept-configuration.ts'
import { encodePlan, planRecovery, type PlannedRecovery, type RecoveryPlan } from './recovery-plan.ts'
import { primeRecovery } from './recovery-prime.ts'
import { quoteShell, recoverySettings } from './recovery-settings.ts'
import { describeTarget, type RecoveryAction, type RecoveryTarget } from './recovery-target.ts'
import { explainWrite, restoreFiles } from './restore-copy.ts'
import { Safeguard } from './restore-safeguard.ts'
import { publishLocalWal } from './restore-local-wal.ts'
import { publishSpool } from './restore-spool.ts'
import { finishPlaces, placesOf, preparePlaces } from './restore-place.ts'
import { keepRestore, wholeRestore, type RestoreRequest } from './restore-record.ts'
import type { SafetyCopy } from './safety-copy.ts'
import type { RestoreWorkerJob, RestoreWorkerResult } from './restore-worker.ts'
import { judgeMadeTablespaces, makeTablespaceDirectories } from './tablespaces-in-wal.ts'
import {
  linkTablespaces,
  placeTablespaces,
  rewriteTablespaceMap,
  type TablespaceMapping,
  type TablespacePlace,
} from './tablespace-map.ts'

const WORKERS_MAX = 4
const PLAN_FILE = 'plan.json'
const CONTROL_PATH = 'global/pg_control'
const AHEAD = `${RECOVERY_DIRECTORY}/${AHEAD_DIRECTORY}`

export interface RestoreProgress {
  readonly phase: 'safety copy' | 'writing' | 'syncing'
  readonly bytesDone: number
  readonly bytesTotal: number
}

/** What `restore --json` prints. */
export interface RestoreReport {
  readonly backup: string
  readonly target: string
  readonly directory: string
  readonly bytesWritten: number
  /** Bytes that were right already; always 0 in an empty directory. */
  readonly bytesKept: number
  readonly startCommand: string
  /** What PostgreSQL does when it has reached the target. */
  readonly action: RecoveryAction
  /** Where the tablespaces were, and where they are now. */
  readonly tablespaces: readonly TablespacePlace[]
  readonly seconds: number
  readonly timeline: number
  /** Where the WAL that the plan counts on ends. */
  readonly walEndLsn: string
  /** End of the last complete record in it; null when that is not known. */
  readonly lastRecordEnd: string | null
  /** The greatest LSN that the receiver had acknowledged to the server, as far as the WAL's notes tell. */
  readonly acknowledgedLsn: string | null
  /** Acknowledged WAL that was not there to be restored, at least; null when nothing tells, or the target is not `latest`. */
  readonly bytesLost: number | null
  /** WAL that only the pg_wal of the cluster that was there had; it was stored first. */
  readonly localWalBytes: number
  /** The cluster that was there, as it was; null when none was, or no copy was wanted. */
  readonly safetyCopy: SafetyCopy | null
  readonly plan: string
}

/** A restore connects to no server. */
export type RestoredComponent = Pick<PostgresComponent, 'name' | 'workers' | 'binaries'>

export interface RestoreOptions {
  readonly repository: Repository
  readonly component: RestoredComponent
  readonly to: string
  readonly target: RecoveryTarget
  /** The timeline to recover along; by default that which the cluster went last. */
  readonly timeline?: number
  /** The backup to begin with; by default the best one. */
  readonly from?: string
  /** By default, promote. */
  readonly action?: RecoveryAction
  readonly tablespaceMappings?: readonly TablespaceMapping[]
  /** Refuse WAL that makes a tablespace anywhere: recovery shall write nowhere but where it is told to. */
  readonly confined?: boolean
  /** The restore_command that is written is not tried: whoever starts the server has another, and the configuration may be out of its reach. */
  readonly withoutPriming?: boolean
  /** Go over a stopped cluster that is there, and write only what differs. */
  readonly delta?: boolean
  /** With `delta`: where the cluster that is there is copied to first; by default beside it. */
  readonly safetyCopy?: string
  /** With `delta`: what is there may be lost. */
  readonly withoutSafetyCopy?: boolean
  readonly stateDirectory: string
  /** Names this restore: asked for again under this name when it is whole, it is reported and nothing is done. */
  readonly request?: string
  /** Go on when what this host's spool holds cannot be stored, or read: acknowledged WAL is then left out. */
  readonly withoutSpool?: boolean
  /** With `delta`: go on when WAL that only the cluster's own pg_wal has cannot be stored, or is not wanted: it is then left out. */
  readonly withoutLocalWal?: boolean
  /** Of the configuration that `restore_command` will use. */
  readonly configPath: string
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onProgress?: (progress: RestoreProgress) => void
  readonly onNotice?: (text: string) => void
  /** A pack of which something did not open; of what another pack has as well, the restore goes on. */
  readonly onDamagedPack?: (pack: string) => void
}

/**
 * Restores a cluster into an empty directory, ready to be started. The order makes every crash harmless: the plan first (it marks the
 * directory as ours), the files, the settings, everything durable, and `pg_control` last: without it PostgreSQL does not start. Run again
 * into the same directory, it begins anew. With `delta` the directory may hold a stopped cluster: that loses its `pg_control` first.
 *
 * Throws SPOOL_UNPUBLISHED, LOCAL_WAL_UNPUBLISHED, BACKUP_ABSENT, BACKUP_UNKNOWN, TARGET_OUTSIDE_WINDOW, WAL_GAP, DIRECTORY_NOT_EMPTY, DIRECTORY_IN_USE, DISK_FULL, SAFETY_COPY_FAILED, OBJECT_DAMAGED,
 * BLOB_MISSING, TABLESPACE_IN_WAL, and ARGUMENTS_INVALID for tablespaces that cannot go where they are told to.
 */
export async function restorePostgres(options: RestoreOptions): Promise<RestoreReport> {
  try {
    const asked = requestOf(options)
    const whole = asked === undefined ? undefined : await wholeRestore(asked)
    if (whole === undefined) return await restoreCluster(options)
    options.onNotice?.(`this restore was whole already: "${whole.directory}" is left as it is`)
    return whole
  } catch (error) {
    // Any of the writes may find the disk full, the smallest too.
    throw explainWrite(error)
  }
}

async function restoreCluster(options: RestoreOptions): Promise<RestoreReport> {
  const { component, clock } = options
  const startedMs = clock.now()
  const directory = resolve(options.to)
  const names = { ...options, component: component.name }
  await publishSpool(names)
  const localWal = options.delta === true ? await publishLocalWal({ ...names, directory }) : []
  const planned = await planRecovery(names)
  const { manifest, plan } = planned
  for (const notice of planned.notices) options.onNotice?.(notice)
  if (manifest.totals.corruptPages > 0) {
    options.onNotice?.(
      `backup ${manifest.id} holds ${manifest.totals.corruptPages} pages that were corrupt on the server already`,
    )
  }
  const mappings = options.tablespaceMappings ?? []
  const tablespaces = placeTablespaces({ tablespaces: manifest.tablespaces, mappings, directory })
  const places = placesOf(directory, tablespaces)
  const made = planned.madeTablespaces
  const judged = await judgeMadeTablespaces({ made, directory, tablespaces, confined: options.confined === true })
  if (judged.problems[0] !== undefined) throw judged.problems[0]
  for (const notice of judged.notices) options.onNotice?.(notice)
  const safety = new Safeguard(options, directory)
  await using locks = await preparePlaces({
    places,
    manifest,
    delta: options.delta === true,
    clock,
    onNotice: (text) => options.onNotice?.(text),
    beforeChange: async () => safety.take(),
  })
  await writeNew(join(directory, RECOVERY_DIRECTORY, PLAN_FILE), encodePlan(plan), { owner: manifest.defaults })

  const restored: Restored = { directory, manifest, tablespaces }
  const written = await writeCluster(options, restored)
  await makeTablespaceDirectories(judged.directories, manifest, (text) => options.onNotice?.(text))
  for (const notice of missingPlaces(directory)) options.onNotice?.(notice)
  await writeRecovery(options, restored, planned)
  await prime(options, restored, plan)
  options.onProgress?.({ phase: 'syncing', bytesDone: manifest.totals.bytes, bytesTotal: manifest.totals.bytes })
  for (const path of written.directories.toReversed()) await syncDirectory(path)
  await syncDirectory(join(directory, RECOVERY_DIRECTORY))
  for (const { path } of places) await syncDirectory(path)
  for (const { path } of places) await syncAncestors(path)
  const report = await reportOf(options, restored, { planned, localWal, written, startedMs, safetyCopy: safety.copy ?? null })
  const asked = requestOf(options)
  if (asked !== undefined) await keepRestore(asked, { report, defaults: manifest.defaults })
  // Last: until then PostgreSQL refuses to start on a half-restored directory.
  await putControl(directory, manifest)
  await finishPlaces(places, manifest.defaults)
  await locks.disposeAsync()
  return report
}

/** Makes durable what it has fetched. */
async function prime(options: RestoreOptions, { directory, manifest }: Restored, plan: RecoveryPlan): Promise<void> {
  if (options.withoutPriming === true) return
  await primeRecovery({ directory, plan, configPath: options.configPath, owner: manifest.defaults, signal: options.signal })
  await syncDirectory(join(directory, AHEAD))
}

function requestOf({ request, to, stateDirectory }: RestoreOptions): RestoreRequest | undefined {
  return request === undefined ? undefined : { request, directory: resolve(to), stateDirectory }
}

async function reportOf(
  { component, target, clock, action = 'promote' }: RestoreOptions,
  { directory, manifest, tablespaces }: Restored,
  done: {
    readonly planned: PlannedRecovery
    readonly localWal: readonly { readonly sizeBytes: number }[]
    readonly written: { readonly bytesWritten: number; readonly bytesKept: number }
    readonly startedMs: number
    readonly safetyCopy: SafetyCopy | null
  },
): Promise<RestoreReport> {
  const { planned, localWal, written, startedMs, safetyCopy } = done
  const { plan } = planned
  return {
    backup: manifest.id,
    target: describeTarget(target),
    directory,
    bytesWritten: written.bytesWritten,
    bytesKept: written.bytesKept,
    startCommand: await startCommand(component, manifest, directory),
    action,
    tablespaces,
    seconds: (clock.now() - startedMs) / 1000,
    timeline: plan.timeline,
    walEndLsn: formatLsn(plan.stretches.at(-1)!.to),
    lastRecordEnd: plan.lastRecordEnd === null ? null : formatLsn(plan.lastRecordEnd),
    acknowledgedLsn: planned.acknowledgedLsn === null ? null : formatLsn(planned.acknowledgedLsn),
    bytesLost: planned.bytesLost,
    localWalBytes: localWal.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    safetyCopy,
    plan: join(directory, RECOVERY_DIRECTORY, PLAN_FILE),
  }
}

interface Restored {
  readonly directory: string
  readonly manifest: BackupManifest
  readonly tablespaces: readonly TablespacePlace[]
}

async function writeCluster(options: RestoreOptions, restored: Restored) {
  const { repository, component, signal } = options
  const { directory, manifest, tablespaces } = restored
  const index = await syncIndex({ repository, stateDirectory: options.stateDirectory, signal })
  const damagedPacks = new Set<string>()
  const reader = new BlobReader(repository, index, ({ pack, problem }) => {
    if (damagedPacks.has(pack)) return
    damagedPacks.add(pack)
    options.onDamagedPack?.(pack)
    options.onNotice?.(
      `${problem}; other copies are looked for. Run "resus verify --all", and take a backup, to have it stored again`,
    )
  })
  const pool = new WorkerPool<RestoreWorkerJob, RestoreWorkerResult>({
    script: new URL('./restore-worker.ts', import.meta.url),
    size: component.workers ?? Math.min(availableParallelism(), WORKERS_MAX),
    workerData: { ring: repository.ring },
  })
  const directories: string[] = []
  const delta = options.delta === true
  let [bytesWritten, bytesKept] = [0, 0]
  const onBytes = ({ written, kept }: { written: number; kept: number }) => {
    bytesWritten += written
    bytesKept += kept
    options.onProgress?.({ phase: 'writing', bytesDone: bytesWritten + bytesKept, bytesTotal: manifest.totals.bytes })
  }
  const walk = () => linkTablespaces(walkTree(reader, manifest.tree, manifest.defaults), tablespaces)
  try {
    if (delta) await sweepDirectory({ directory, entries: walk(), signal })
    const entries = walk()
    const onDirectory = (path: string) => directories.push(path)
    const copied = restoreFiles({ repository, reader, pool, directory, entries, delta, signal, onBytes, onDirectory })
    const files = arrangeConfiguration({ ...options, directory, manifest, files: copied, onDirectory })
    await writeBackupManifest(restored, files)
    return { bytesWritten, bytesKept, directories }
  } finally {
    await pool.close()
    reader.close()
  }
}

/** Writes PostgreSQL's own `backup_manifest`, so that its tools can judge what we have written. */
async function writeBackupManifest(restored: Restored, files: AsyncIterable<RestoredFile>): Promise<void> {
  const { directory, manifest } = restored
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
    for (const [path, content] of [...Object.entries(labelFiles(restored)), [CONTROL_PATH, control] as const]) {
      const bytes = Buffer.from(content)
      yield writer.addFile({ path, sizeBytes: bytes.length, modified, crc32c: crc32c(bytes) })
    }
    yield writer.end([{ timeline: manifest.timeline, startLsn: manifest.startLsn, endLsn: manifest.stopLsn }])
  }
  await writeNew(join(directory, 'backup_manifest'), text(), { owner: manifest.defaults })
}

function labelFiles({ manifest, tablespaces }: Restored): Record<string, string> {
  const map = manifest.tablespaceMap === '' ? {} : { tablespace_map: rewriteTablespaceMap(manifest.tablespaceMap, tablespaces) }
  return { backup_label: manifest.backupLabel, ...map }
}

async function writeRecovery(options: RestoreOptions, restored: Restored, planned: PlannedRecovery): Promise<void> {
  const { directory, manifest } = restored
  const owner = manifest.defaults
  for (const [name, content] of Object.entries(labelFiles(restored))) await writeNew(join(directory, name), content, { owner })
  const settings = recoverySettings({ ...options, ...planned })
  await appendDurably(join(directory, 'postgresql.auto.conf'), settings, owner)
  await writeNew(join(directory, 'recovery.signal'), '', { owner })
  // The restore_command works here as the server's user.
  if (isRoot()) await lchown(join(directory, RECOVERY_DIRECTORY), owner.uid, owner.gid)
}

async function putControl(directory: string, manifest: BackupManifest): Promise<void> {
  const path = join(directory, CONTROL_PATH)
  const owner = manifest.defaults
  await writeNew(path, Buffer.from(manifest.control, 'base64'), { owner, mode: owner.fileMode })
  await syncDirectory(dirname(path))
}

/** What starts the restored server, as its own user: PostgreSQL refuses root. */
async function startCommand(component: RestoredComponent, manifest: BackupManifest, directory: string): Promise<string> {
  const installation = await findInstallation(manifest.server.major, component.binaries)
  const program = installation === undefined ? 'pg_ctl' : join(installation.binDirectory, 'pg_ctl')
  const log = join(directory, RECOVERY_DIRECTORY, 'server.log')
  const command = [program, '-D', directory, '-l', log, '-w', '-t', '86400', 'start'].map(quoteShell).join(' ')
  return isRoot()
    ? `setpriv --reuid=${manifest.defaults.uid} --regid=${manifest.defaults.gid} --init-groups -- ${command}`
    : command
}
