import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '../../assert.ts'
import type { Clock } from '../../clock.ts'
import type { Installation } from '../../postgres/installation.ts'
import { formatLsn, parseLsn, type Lsn } from '../../postgres/lsn.ts'
import { historyFileName, parseTimelineHistory } from '../../postgres/timeline-history.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import type { Repository } from '../../repository/repository.ts'
import { Amcheck } from './amcheck.ts'
import type { CheckList, Finding, PlannedCheck } from './check-list.ts'
import { checkFiles } from './file-check.ts'
import { checkPages } from './page-check.ts'
import { runPostgresTool } from './postgres-tool.ts'
import { restorePostgres, type RestoredComponent, type RestoreOptions, type RestoreReport } from './restore.ts'
import type { ContentCheck } from './content/content-check.ts'
import { firstTransaction } from './content/first-transaction.ts'
import type { RecoveryTarget } from './recovery-target.ts'
import type { Failure } from '../../errors.ts'
import type { Place, ScratchDirectory } from './scratch.ts'
import { copyBytesMax, DiskLimit } from './scratch-limits.ts'
import type { IsolationFact } from './scratch-isolation.ts'
import { ScratchServer } from './scratch-server.ts'
import { ScratchWal } from './scratch-wal.ts'
import { readPlan } from './wal-get.ts'

// The order that proves a physical restore: what was written, what recovery makes of it, what is in it, and after a clean stop every page.

const RESTORE = { name: 'restore', expected: 'all of the backup, and the WAL up to the target, from the repository' }
const FILES = {
  name: 'files',
  expected: 'each file with the size and CRC of its backup, and no other',
  needs: [RESTORE.name],
}
const VERIFYBACKUP = { name: 'pg_verifybackup', expected: 'the same, by PostgreSQL', needs: [RESTORE.name] }
const RECOVERY = {
  name: 'recovery',
  expected: 'the server replays WAL up to the target, opens, and is the cluster that was backed up',
  needs: [RESTORE.name, FILES.name],
}
const TABLES = { name: 'tables (amcheck)', expected: 'no corrupt tuple in any database', needs: [RECOVERY.name] }
const INDEXES = {
  name: 'indexes (amcheck)',
  expected: 'each B-tree is sound and has every row of its table',
  needs: [RECOVERY.name],
}
const STOP = { name: 'clean stop', expected: 'the server stops in good order', needs: [RECOVERY.name] }
const PAGES = { name: 'page checksums', expected: 'every page of every relation', needs: [STOP.name] }
const CHECKSUMS = { name: 'pg_checksums', expected: 'the same, by PostgreSQL', needs: [STOP.name] }

/** All checks, in the order in which they are made. */
export const CHAIN: readonly PlannedCheck[] = [RESTORE, FILES, VERIFYBACKUP, RECOVERY, TABLES, INDEXES, STOP, PAGES, CHECKSUMS]
/** Without these nothing is proven. The others need what not every machine or cluster has. */
export const PROVING: readonly string[] = [RESTORE.name, FILES.name, RECOVERY.name, STOP.name]

/** Where replay ended. */
export interface Reached {
  readonly timeline: number
  readonly lsn: Lsn
  /** The first transaction that is not the cluster's own. */
  readonly nextTransaction: bigint
}

/** When, in milliseconds since 1970, how far it was. Each is there only if it was reached, and what comes before it was verified. */
export interface ProofMoments {
  /** The files are in place. */
  restoredMs?: number
  /** Recovery has ended. */
  dataReadyMs?: number
  /** All that is looked at before the server is stopped was looked at, and nothing failed. */
  dataVerifiedMs?: number
  firstTransactionMs?: number
}

export interface ProofProgress {
  readonly phase: string
  readonly bytesDone: number
  readonly bytesTotal: number
}

/** What proving takes beside a place to do it in. */
export interface ProofContext {
  readonly repository: Repository
  readonly component: RestoredComponent
  readonly target: RecoveryTarget
  readonly stateDirectory: string
  readonly configPath: string
  /** Roles that the cluster may have, to find a superuser by. */
  readonly roles: readonly string[]
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onProgress?: (progress: ProofProgress) => void
  readonly onNotice?: (text: string) => void
  /** What is looked at in the recovered copy, besides its structure. */
  readonly content?: readonly ContentCheck[]
  /** The moment that the target means, milliseconds since 1970; null, or left out, where it means none. */
  readonly askedMs?: number | null
  /** A pack of which something did not open. */
  readonly onDamagedPack?: (pack: string) => void
  /** What the restored copy may take, in MiB: of address space, each process of its server; of the disk, while it runs, all of it. */
  readonly memoryMegabytes?: number | undefined
  readonly diskMegabytes?: number | undefined
}

export interface ProvingOptions extends ProofContext {
  readonly manifest: BackupManifest
  readonly installation: Installation
  readonly scratch: ScratchDirectory
  readonly checks: CheckList
  /** What must not be within the server's reach. */
  readonly forbidden: readonly Place[]
  /** It takes more of the disk than it may. Whoever is told aborts the signal. */
  readonly onLimit: (failure: Failure) => void
}

/** Makes all checks of one backup in one scratch directory. */
export class ProvingChain implements AsyncDisposable {
  readonly #options: ProvingOptions
  #report: RestoreReport | undefined
  #wal: ScratchWal | undefined
  #disk: DiskLimit | undefined
  #diskBytesMax = 0
  #server: ScratchServer | undefined
  #isolation: readonly IsolationFact[] = []
  #reached: Reached | undefined
  readonly #moments: ProofMoments = {}

  constructor(options: ProvingOptions) {
    this.#options = options
  }

  /** Undefined until recovery was verified. */
  get reached(): Reached | undefined {
    return this.#reached
  }

  get moments(): ProofMoments {
    return this.#moments
  }

  /** Empty until it runs. */
  get isolation(): readonly IsolationFact[] {
    return this.#isolation
  }

  /** Undefined until everything was written. */
  get report(): RestoreReport | undefined {
    return this.#report
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#disk?.[Symbol.asyncDispose]()
    await this.#wal?.[Symbol.asyncDispose]()
  }

  async run(): Promise<void> {
    const { checks, scratch, installation, signal } = this.#options
    const directory = scratch.dataDirectory
    await checks.run(RESTORE, () => this.#restore())
    await checks.run(FILES, () => checkFiles({ directory, signal, onBytes: this.#progress('checking files') }))
    await checks.run(VERIFYBACKUP, () =>
      runPostgresTool({ installation, signal, tool: 'pg_verifybackup', args: ['-n', '-q', directory] }),
    )
    await checks.run(RECOVERY, () => this.#recover())
    await checks.run(TABLES, () => this.#amcheckOf('checking tables').checkTables())
    await checks.run(INDEXES, () => this.#amcheckOf('checking indexes').checkIndexes())
    await this.#lookInside()
    await checks.run(STOP, () => this.#stop())
    await checks.run(PAGES, () => checkPages({ directory, signal, onBytes: this.#progress('checking pages') }))
    await checks.run(CHECKSUMS, async (): Promise<Finding> => {
      // Without checksums the tool says that they are not enabled, and fails.
      if (!this.#options.manifest.server.dataChecksums)
        return { verdict: 'not proven', found: 'the cluster has no page checksums' }
      return await runPostgresTool({ installation, signal, tool: 'pg_checksums', args: ['--check', '-D', directory] })
    })
  }

  /** The content, and then a first transaction: nobody is let in before everything was looked at. */
  async #lookInside(): Promise<void> {
    const { checks, content, askedMs = null, clock, signal, onProgress } = this.#options
    if (content === undefined) return
    const look = (check: ContentCheck) => async () => {
      assert(this.#server !== undefined && this.#reached !== undefined, 'content is looked at after recovery')
      onProgress?.({ phase: `checking ${check.name}`, bytesDone: 0, bytesTotal: 0 })
      const { lsn: replayed, nextTransaction } = this.#reached
      const isTimed = this.#options.target.kind === 'time'
      return await check.look({ server: this.#server, askedMs, isTimed, replayed, nextTransaction, clock, signal })
    }
    for (const check of content) await checks.run({ ...check, needs: [RECOVERY.name, ...(check.needs ?? [])] }, look(check))
    const failed = checks.checks.some(({ verdict }) => verdict === 'failed')
    if (this.#reached !== undefined && !failed) this.#moments.dataVerifiedMs = clock.now()
    const served = await checks.run({ ...firstTransaction, needs: [RECOVERY.name] }, look(firstTransaction))
    if (served && !failed) this.#moments.firstTransactionMs = clock.now()
  }

  async #restore(): Promise<Finding> {
    const { scratch, target, onProgress, manifest } = this.#options
    const options: RestoreOptions = {
      ...this.#options,
      to: scratch.dataDirectory,
      confined: true,
      withoutPriming: true,
      target,
      // A newer backup that has come since may have tablespaces that are mapped nowhere.
      ...(target.kind === 'backup' ? {} : { from: manifest.id }),
      tablespaceMappings: manifest.tablespaces.map(({ oid }) => ({ old: oid, new: join(scratch.tablespaceDirectory, oid) })),
      onProgress: ({ phase, ...bytes }) => onProgress?.({ phase: `restoring: ${phase}`, ...bytes }),
    }
    const report = await restorePostgres(options)
    // A newer backup may have come since; it would not be the one that is judged.
    if (report.backup !== manifest.id)
      return { verdict: 'not proven', found: `a newer backup has come meanwhile: ${report.backup}` }
    const plan = await readPlan(report.plan)
    this.#wal = await ScratchWal.open({ ...this.#options, plan, home: scratch.path, account: scratch.account })
    this.#diskBytesMax =
      this.#options.diskMegabytes === undefined ? copyBytesMax(manifest, plan) : this.#options.diskMegabytes * 1024 ** 2
    this.#report = report
    this.#moments.restoredMs = this.#options.clock.now()
    const corrupt = manifest.totals.corruptPages
    const known = corrupt === 0 ? '' : `; ${corrupt} of its pages were corrupt on the server already`
    return { verdict: 'verified', found: `${report.bytesWritten} bytes written${known}` }
  }

  async #recover(): Promise<Finding> {
    const { scratch, onProgress, onLimit, memoryMegabytes } = this.#options
    onProgress?.({ phase: 'recovering', bytesDone: 0, bytesTotal: 0 })
    assert(this.#wal !== undefined, 'recovery comes after the restore')
    this.#disk = new DiskLimit({ ...this.#options, path: scratch.path, bytesMax: this.#diskBytesMax }, onLimit)
    this.#server = await ScratchServer.recover({ ...this.#options, wal: this.#wal })
    const memory = memoryMegabytes === undefined ? 'none set for memory' : `${memoryMegabytes} MiB of memory for each process`
    const disk = `${Math.round(this.#diskBytesMax / 1024 ** 2)} MiB of disk, and no more than leaves some free`
    this.#isolation = await this.#server.isolation(`${disk}; ${memory}`)
    const found = await readRecovered(this.#server, scratch.dataDirectory)
    const problem = this.#judgeRecovery(found)
    const where = `replayed up to ${formatLsn(found.replayed)} on timeline ${found.parent}, opened as timeline ${found.timeline}`
    if (problem !== undefined) return { verdict: 'failed', found: `${problem} (${where})` }
    this.#reached = { timeline: found.parent, lsn: found.replayed, nextTransaction: found.nextTransaction }
    this.#moments.dataReadyMs = this.#options.clock.now()
    return { verdict: 'verified', found: where }
  }

  #judgeRecovery(found: Recovered): string | undefined {
    const { manifest, target } = this.#options
    const report = this.#report
    assert(report !== undefined, 'recovery comes after the restore')
    const { lastRecordEnd } = report
    const wanted = target.kind === 'latest' && lastRecordEnd !== null ? parseLsn(lastRecordEnd) : manifest.stopLsn
    if (found.recovering) return 'it is in recovery still'
    if (found.systemIdentifier !== manifest.server.systemIdentifier)
      return `it is the cluster ${found.systemIdentifier}, not ${manifest.server.systemIdentifier}`
    if (found.replayed < wanted) return `replay ended before ${formatLsn(wanted)}`
    if (found.parent !== report.timeline) return `it came from timeline ${found.parent}, planned was ${report.timeline}`
    return undefined
  }

  #amcheckOf(phase: string): Amcheck {
    assert(this.#server !== undefined, 'amcheck comes after recovery')
    return new Amcheck(this.#server, this.#adding(phase))
  }

  async #stop(): Promise<Finding> {
    assert(this.#server !== undefined, 'what is stopped was started')
    await this.#server.stop()
    return { verdict: 'verified', found: 'stopped' }
  }

  #progress(phase: string): (bytesDone: number) => void {
    const { onProgress, manifest } = this.#options
    return (bytesDone) => onProgress?.({ phase, bytesDone, bytesTotal: manifest.totals.bytes })
  }

  #adding(phase: string): (bytes: number) => void {
    let done = 0
    return (bytes) => {
      done += bytes
      this.#options.onProgress?.({ phase, bytesDone: done, bytesTotal: 0 })
    }
  }
}

interface Recovered {
  readonly recovering: boolean
  readonly replayed: Lsn
  readonly systemIdentifier: string
  readonly nextTransaction: bigint
  readonly timeline: number
  /** The timeline that recovery followed, by the history of the new one. */
  readonly parent: number
}

async function readRecovered(server: ScratchServer, dataDirectory: string): Promise<Recovered> {
  const row = await server.anySession(async (client) => {
    const { rows } = await client.query<{ recovering: boolean; replayed: string; system: string; wal: string; next: string }>(`
      select pg_is_in_recovery() as recovering, pg_last_wal_replay_lsn()::text as replayed,
        system_identifier::text as system, pg_walfile_name(pg_current_wal_lsn()) as wal,
        pg_snapshot_xmax(pg_current_snapshot())::text as next from pg_control_system()`)
    return rows[0]!
  })
  const timeline = Number.parseInt(row.wal.slice(0, 8), 16)
  const history = await readFile(join(dataDirectory, 'pg_wal', historyFileName(timeline)), 'utf8')
  const parent = parseTimelineHistory(timeline, history).at(-1)?.timeline ?? 0
  const { recovering, system: systemIdentifier } = row
  return { recovering, replayed: parseLsn(row.replayed), systemIdentifier, nextTransaction: BigInt(row.next), timeline, parent }
}
