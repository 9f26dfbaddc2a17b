import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { availableParallelism } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { parseControlFile } from '../../postgres/control-file.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { listBackups, manifestBytes, putManifest, type BackupManifest, type BackupType } from '../../repository/backups.ts'
import type { BlobIndexSource } from '../../repository/blob-index.ts'
import { readDamage } from '../../repository/damage.ts'
import { listPacks, syncIndex, type PackSizes } from '../../repository/index-sync.ts'
import { BlobWriter } from '../../repository/blob-writer.ts'
import { backupId } from '../../repository/layout.ts'
import { assertPublishable, type PacksSeen } from '../../repository/publishable.ts'
import { Lease } from '../../repository/lease.ts'
import { listMarks, markedBackups, markedPacks } from '../../repository/marks.ts'
import { PackUploads } from '../../repository/pack-uploads.ts'
import { ReferenceWalker } from '../../repository/references.ts'
import type { Repository } from '../../repository/repository.ts'
import { MeteredStorage } from '../../storage/metered-storage.ts'
import { WorkerPool } from '../../stream/worker-pool.ts'
import { guardWal } from './backup-wal.ts'
import type { BackupJob, BackupJobResult } from './backup-worker.ts'
import { copyFiles } from './cluster-copy.ts'
import type { PostgresComponent } from './component.ts'
import { walkDataDirectory, type DataEntry, type PassedOver } from './data-directory.ts'
import { fingerprintFile, FingerprintReader, pruneFingerprints, writeFingerprints } from './fingerprints.ts'
import { ensureFingerprints } from './fingerprints-rebuild.ts'
import {
  CONFIGURATION_SETTINGS,
  configurationEntries,
  findConfiguration,
  mergeEntries,
  type HostConfiguration,
} from './host-configuration.ts'
import { findServerVersions } from './installed-versions.ts'
import { ManifestBuilder } from './manifest-builder.ts'
import { ServerSession, type ServerFacts } from './server-session.ts'
import { areWholePacksThere, wholePacksFile, writeWholePacks } from './whole-packs.ts'

/** More threads than this read no faster than a disk gives. */
const WORKERS_MAX = 4
/** Leftovers that a manifest names; each is told to the caller in any case. */
const PASSED_OVER_MAX = 100
/** Files of a data directory that are listed once and held: some 20 MB of memory. */
const ENTRIES_HELD_MAX = 50_000
const CONTROL_READS = 20
const CONTROL_REREAD_MS = 100

export interface BackupProgress {
  readonly phase: 'copying' | 'waiting for WAL' | 'publishing'
  readonly bytesDone: number
  readonly bytesTotal: number
}

/** What `backup --json` prints. Sizes in bytes; `bytesStored` is of all objects written for it but WAL. */
export interface BackupReport {
  readonly id: string
  readonly component: string
  readonly type: BackupType
  readonly startedAt: string
  readonly finishedAt: string
  readonly timeline: number
  readonly startLsn: string
  readonly stopLsn: string
  readonly bytesRead: number
  readonly bytesStored: number
  readonly walBytesStored: number
  readonly bytesReused: number
  readonly pagesChecked: number
  readonly corruptPages: readonly { path: string; block: number }[]
}

export interface BackupOptions {
  readonly repository: Repository
  readonly component: PostgresComponent
  readonly stateDirectory: string
  /** Incremental once there is a backup, else full. */
  readonly type?: BackupType
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onProgress?: (progress: BackupProgress) => void
  /** For what a person should know and that does not end the backup. */
  readonly onNotice?: (text: string) => void
}

/**
 * Backs up a cluster on its own host. What is there when the power goes out: before the manifest, packs that the next run reuses and WAL that
 * is good in any case, but no backup; after it, the backup. The server forgets a backup whose session ends.
 *
 * Throws POSTGRES_UNREACHABLE, SERVER_TOO_OLD, SERVER_SETTING, BACKUP_RUNNING, DATA_DIRECTORY_UNREADABLE, CONFIGURATION_UNREADABLE,
 * BACKUP_ABORTED, and what the storage throws.
 */
export async function backupPostgres(options: BackupOptions): Promise<BackupReport> {
  const { component, clock, signal } = options
  const metered = new MeteredStorage(options.repository.storage)
  const repository = { ...options.repository, storage: metered }
  const startedMs = clock.now()
  await using server = await ServerSession.connect(component, signal)
  const facts = await server.facts()
  await assertSameServer(component, facts)
  const configuration = findConfiguration({
    major: facts.major,
    serverDirectory: facts.dataDirectory,
    dataDirectory: component.dataDirectory,
    settings: await server.settings(CONFIGURATION_SETTINGS),
  })
  for (const { problem } of configuration?.manifest.problems ?? []) options.onNotice?.(`configuration of the server: ${problem}`)
  const versions = await findServerVersions(component, server)
  await server.lock()
  const run = { ...options, repository, facts, configuration, id: backupId(startedMs) }

  // From here on a sweeper knows of us, and we of what it is about to delete.
  const lease = new Lease(repository, { component: component.name, backup: run.id, purpose: 'backup', clock })
  await lease.renew(signal)
  const previous = await choosePrevious(run)
  // The receiver is there before the backup begins: no WAL of it can be missed.
  await using wal = await guardWal({ ...run, server })

  const startLsn = await server.startBackup(`resus ${run.id}`)
  await assertCheckpointed(component, startLsn)
  const copied = await copyCluster({ ...run, previous: previous.compareWith, lease })
  // Last of the files, and before the backup ends: on a standby it says up to where the files need the WAL.
  const control = await readControl(component.dataDirectory)
  const { stopLsn, label, tablespaceMap, time } = await server.stopBackup()
  options.onProgress?.({ phase: 'waiting for WAL', bytesDone: copied.bytes, bytesTotal: copied.bytes })
  const branch = await wal.waitFor({ startLsn, stopLsn, timeline: labelTimeline(label) })

  options.onProgress?.({ phase: 'publishing', bytesDone: copied.bytes, bytesTotal: copied.bytes })
  const walBytesStored = metered.putBytes('wal')
  const manifest: BackupManifest = {
    format: 1,
    id: run.id,
    component: component.name,
    kind: 'postgres',
    type: previous.type,
    previous: previous.compareWith?.id ?? null,
    sequence: previous.newestSequence + 1,
    startedAt: new Date(startedMs).toISOString(),
    finishedAt: new Date(clock.now()).toISOString(),
    server: { ...facts, versions },
    incarnation: branch.path.incarnation,
    branch: branch.path.branch,
    timeline: branch.head.timeline,
    startLsn,
    stopLsn,
    stopTime: time,
    backupLabel: label,
    tablespaceMap,
    tablespaces: copied.tablespaces,
    inPlaceTablespaces: copied.inPlaceTablespaces,
    configuration: configuration?.manifest ?? null,
    control: control.toString('base64'),
    tree: copied.tree,
    defaults: copied.defaults,
    totals: { ...copied.totals, bytesStored: metered.putBytes() - walBytesStored, walBytesStored },
    corruptPages: copied.corruptPages,
    passedOver: copied.passedOver,
  }
  const published = await publish(run, manifest, { lease, seen: copied.seen })
  await keepForNext(run, previous, published.packs)
  return backupReport(published.manifest)
}

/** Makes the backup visible. Gives it as it was put, and the packs that it may refer to. */
async function publish(run: Run, manifest: BackupManifest, { lease, seen }: { lease: Lease; seen: PacksSeen }) {
  const { repository, stateDirectory, signal } = run
  const counted = await countManifest(repository, manifest)
  // Not between the look and the put: a lease that is good says that its run has yet to look.
  await lease.renew(signal)
  const packs = await assertPublishable({ repository, manifest: counted, stateDirectory, seen, signal })
  await putManifest(repository, counted, signal)
  return { manifest: counted, packs }
}

/** The timeline on which a backup began, by its label. What pg_control says is that of the last checkpoint before, on a server that was promoted just now another one. */
function labelTimeline(label: string): number {
  const line = /^START TIMELINE: (\d+)$/m.exec(label)
  if (line !== null) return Number(line[1])
  throw new Failure('BACKUP_ABORTED', `the server's backup label names no timeline: "${label.slice(0, 200)}"`)
}

/** Adds the manifest's own object to what was stored for the backup; the number itself may change its size by a byte or two. */
async function countManifest(repository: Repository, manifest: BackupManifest): Promise<BackupManifest> {
  const bytesStored = manifest.totals.bytesStored + (await manifestBytes(repository, manifest))
  return { ...manifest, totals: { ...manifest.totals, bytesStored } }
}

/** The fields of a manifest that `backup --json` and `backups --json` print. */
export function backupReport(manifest: BackupManifest): BackupReport {
  const { id, component, type, startedAt, finishedAt, timeline, corruptPages, totals } = manifest
  const { bytesRead, bytesStored, walBytesStored, bytesReused, pagesChecked } = totals
  const [startLsn, stopLsn] = [formatLsn(manifest.startLsn), formatLsn(manifest.stopLsn)]
  const sizes = { bytesRead, bytesStored, walBytesStored, bytesReused, pagesChecked }
  return { id, component, type, startedAt, finishedAt, timeline, startLsn, stopLsn, ...sizes, corruptPages }
}

type Run = Omit<BackupOptions, 'repository'> & {
  repository: Repository
  facts: ServerFacts
  configuration: HostConfiguration | undefined
  id: string
}

interface Previous {
  readonly type: BackupType
  /** The backup whose fingerprints decide what has changed; undefined when everything is read as new. */
  readonly compareWith: BackupManifest | undefined
  readonly newestSequence: number
  /** Backups whose fingerprints a later one may be compared with. */
  readonly keep: readonly string[]
}

async function choosePrevious(run: Run): Promise<Previous> {
  const backups = await listBackups(run.repository, run.component.name, (failure) =>
    run.onNotice?.(`passed over: ${failure.message}`),
  )
  const newest = backups[0]
  // What is about to be deleted is no ground to build on: most of its blobs count as absent.
  const marked = new Set(
    [...markedBackups(await listMarks(run.repository, run.signal)).keys()].map((name) => name.split('/').at(-1)),
  )
  const usable = backups.filter((backup) => !marked.has(backup.id))
  const newestFull = usable.find((backup) => backup.type === 'full')
  const newestUsable = usable[0]
  const wanted = run.type ?? (newestFull === undefined ? 'full' : 'incremental')
  const type = newestFull === undefined ? 'full' : wanted
  if (type !== wanted) run.onNotice?.(`there is no full backup of "${run.component.name}" to build on: this one is full`)
  const compareWith = type === 'full' ? undefined : type === 'differential' ? newestFull : newestUsable
  const full = type === 'full' ? run.id : newestFull?.id
  return { type, compareWith, newestSequence: newest?.sequence ?? 0, keep: [run.id, ...(full === undefined ? [] : [full])] }
}

async function copyCluster(run: Run & { previous: BackupManifest | undefined; lease: Lease }) {
  const { repository, component, stateDirectory, signal } = run
  const marked = await absentForReuse(run)
  const index = await syncIndex({ repository, stateDirectory, marked, signal })
  const packs = await listPacks(repository, { signal })
  const packSuffix = run.lease.packSuffix
  const workerData = { ring: repository.ring, index, compressionLevel: component.compressionLevel, packSuffix }
  const usable = new Map([...packs].filter(([pack]) => !marked.has(pack)))
  const whole = run.previous !== undefined && (await isWhole(run, run.previous, { index, usable }))
  const previous = run.previous === undefined || !whole ? undefined : await openFingerprints(run, run.previous, index)
  const uploads = new PackUploads(repository, signal)
  const pool = new WorkerPool<BackupJob, BackupJobResult>({
    script: new URL('./backup-worker.ts', import.meta.url),
    size: component.workers ?? Math.min(availableParallelism(), WORKERS_MAX),
    workerData,
  })
  const writer = new BlobWriter(workerData)
  const builder = new ManifestBuilder({ writer, uploads, dataDirectory: component.dataDirectory })
  try {
    const passedOver: PassedOver[] = []
    const onPassedOver = (each: PassedOver) => {
      run.onNotice?.(`passed over: "${each.path}" in the data directory: ${each.why}`)
      if (passedOver.length < PASSED_OVER_MAX) passedOver.push(each)
    }
    const { bytesTotal, walked } = listData(component.dataDirectory, onPassedOver)
    const accept = async (result: BackupJobResult) => {
      await uploads.accept(result.outputs)
      builder.countRead(result)
      run.onProgress?.({ phase: 'copying', bytesDone: builder.bytesDone, bytesTotal })
      await run.lease.renew(signal)
    }
    const beside = run.configuration === undefined ? [] : configurationEntries(run.configuration, component.dataDirectory)
    const entries = mergeEntries(walked, beside)
    const parts = copyFiles({ entries, pool, checkPages: run.facts.dataChecksums, previous, accept, signal })
    const file = { path: fingerprintPath(run, run.id), backup: run.id }
    await writeFingerprints(repository, file, builder.collect(parts))
    const ended = await pool.runOnEach({ kind: 'finish' })
    for (const { outputs } of ended) await uploads.accept(outputs)
    const copied = await builder.finish(ended.reduce((sum, { reusedBytes }) => sum + reusedBytes, 0))
    await uploads.finish()
    return { ...copied, passedOver, bytes: copied.totals.bytes, seen: { marked, packs: new Set(packs.keys()) } }
  } catch (error) {
    await uploads.cancel()
    throw error
  } finally {
    await pool.close()
    await previous?.close()
    writer.close()
  }
}

/** Packs that must not be built upon: those about to be deleted, and those that a verification found damaged. */
async function absentForReuse({ repository, signal, onNotice }: Run): Promise<Set<string>> {
  const { packs, unreadable } = await readDamage(repository, signal)
  for (const problem of unreadable) onNotice?.(`passed over: ${problem}`)
  if (packs.size > 0)
    onNotice?.(`${packs.size} packs of the repository are damaged: what this backup needs of them is stored again`)
  return new Set([...packs, ...(await markedPacks(repository, signal))])
}

/**
 * Whether all that the previous backup refers to is there to be reused. A region that did not change is reused as a whole, by its base:
 * nobody would look for the base's chunks, and a backup that counts on a lost or marked pack would look right.
 */
async function isWhole(
  run: Run,
  previous: BackupManifest,
  { index, usable }: { index: BlobIndexSource; usable: PackSizes },
): Promise<boolean> {
  const noted = { path: wholePacksFile(fingerprintPath(run, previous.id)), backup: previous.id }
  if (index.damage.length === 0 && (await areWholePacksThere(run.repository, noted, usable))) return true
  const walker = new ReferenceWalker(run.repository, index)
  try {
    for await (const location of walker.walk(previous, run.signal)) void location
    return true
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'BLOB_MISSING') throw error
    run.onNotice?.(
      `backup ${previous.id} has lost something: ${error.message}; this one reuses only what it finds, and stores the rest again`,
    )
    return false
  } finally {
    walker.close()
  }
}

async function openFingerprints(run: Run, previous: BackupManifest, index: BlobIndexSource) {
  const path = await ensureFingerprints({ ...run, manifest: previous, index })
  return new FingerprintReader(run.repository, { path, backup: previous.id }, run.onNotice)
}

/** Sums up the sizes of all files. Where they are not very many, those that were seen are those that are read: to look for them again takes as long. */
function listData(
  dataDirectory: string,
  onPassedOver: (each: PassedOver) => void,
): { bytesTotal: number; walked: Iterable<DataEntry> } {
  const passedOver: PassedOver[] = []
  const entries: DataEntry[] = []
  let bytesTotal = 0
  for (const entry of walkDataDirectory(dataDirectory, { onPassedOver: (each) => passedOver.push(each) })) {
    if (entry.kind === 'file') bytesTotal += entry.sizeBytes
    if (entries.length <= ENTRIES_HELD_MAX) entries.push(entry)
  }
  if (entries.length > ENTRIES_HELD_MAX) return { bytesTotal, walked: walkDataDirectory(dataDirectory, { onPassedOver }) }
  for (const each of passedOver) onPassedOver(each)
  return { bytesTotal, walked: entries }
}

/** Reads `pg_control` until it is whole: the server may be writing it. Throws DATA_DIRECTORY_UNREADABLE. */
async function readControl(dataDirectory: string): Promise<Buffer> {
  for (let reads = 1; ; reads++) {
    const bytes = await readFile(join(dataDirectory, 'global/pg_control'))
    try {
      parseControlFile(bytes)
      return bytes
    } catch (error) {
      if (reads === CONTROL_READS) throw error
      await delay(CONTROL_REREAD_MS)
    }
  }
}

/**
 * The connection and the data directory of the configuration have to be of one server. A primary and its standbys have the same
 * system identifier: the files of one and the WAL of the other make a backup that looks right and has lost changes.
 */
async function assertSameServer(component: PostgresComponent, facts: ServerFacts): Promise<void> {
  const control = parseControlFile(await readControlBytes(component))
  const found = control.systemIdentifier.toString()
  if (found !== facts.systemIdentifier) {
    throw otherServer(component, `is of the cluster ${found}, the connection leads to ${facts.systemIdentifier}`)
  }
  const isStandby = control.state === 'in archive recovery'
  if (isStandby === facts.inRecovery) return
  const leads = facts.inRecovery ? 'a standby' : 'a primary'
  throw otherServer(
    component,
    `is of another server than the connection leads to: it is "${control.state}", and that is ${leads}`,
  )
}

/** The checkpoint that begins a backup is in the data directory's own pg_control, or the directory is another server's. */
async function assertCheckpointed(component: PostgresComponent, startLsn: Lsn): Promise<void> {
  const { redoLsn } = parseControlFile(await readControl(component.dataDirectory))
  if (redoLsn >= startLsn) return
  const what = `its last checkpoint is of ${formatLsn(redoLsn)}, the one that began this backup of ${formatLsn(startLsn)}`
  throw otherServer(component, `is of another server than the connection leads to: ${what}`)
}

async function readControlBytes(component: PostgresComponent): Promise<Buffer> {
  try {
    return await readControl(component.dataDirectory)
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    throw otherServer(component, `cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`, cause)
  }
}

function otherServer(component: PostgresComponent, what: string, cause?: unknown): Failure {
  const where = `the data directory "${component.dataDirectory}" of "${component.name}"`
  return new Failure('DATA_DIRECTORY_UNREADABLE', `${where} ${what}`, {
    hint: 'run Resus on the host of the database, as its user (or as root); "connection" has to lead to the server of "dataDirectory" itself, not through a proxy or to whichever is the primary',
    cause,
  })
}

/** Leaves on this host what a later backup compares with, and no more. */
async function keepForNext(run: Run, previous: Previous, packs: PackSizes): Promise<void> {
  const path = fingerprintPath(run, run.id)
  try {
    await writeWholePacks(run.repository, { path: wholePacksFile(path), backup: run.id }, packs)
  } catch (error) {
    // The backup is made. Without this note the next one walks, and takes longer.
    run.onNotice?.(`which packs the backup is in could not be noted for the next one: ${(error as Error).message}`)
  }
  await pruneFingerprints(dirname(path), new Set(previous.keep.flatMap((id) => [id, wholePacksFile(id)])))
}

function fingerprintPath(run: Run, backup: string): string {
  return fingerprintFile(run.repository, run.stateDirectory, run.component.name, backup)
}
