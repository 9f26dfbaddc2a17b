import { Failure } from '../../errors.ts'
import { requireInstallation, type Installation } from '../../postgres/installation.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { listBackups, newestBackupId, readManifest, type BackupManifest } from '../../repository/backups.ts'
import type { Repository } from '../../repository/repository.ts'
import { backupFingerprint, verdictExpiry, type Verdict } from '../../repository/verdicts.ts'
import { resusVersion } from '../../version.ts'
import type { CheckDetail } from './bounded-findings.ts'
import { CheckList, isJudgement } from './check-list.ts'
import { CHAIN, PROVING, ProvingChain, type ProofContext, type ProofMoments, type Reached } from './proof.ts'
import { planRecovery } from './recovery-plan.ts'
import type { RestoreReport } from './restore.ts'
import { scratchAccount } from './scratch-account.ts'
import type { IsolationFact } from './scratch-isolation.ts'
import { assertOutside, assertScratchRoom, removeAbandoned, scratchBytes, ScratchDirectory, type Place } from './scratch.ts'

export interface VerifyByRestoreOptions extends ProofContext {
  /** Where the scratch directory is made. */
  readonly scratchRoot: string
  /** Where it must not be: the data directories of the configuration, its storages. */
  readonly forbidden: readonly Place[]
}

/** A proof, and what was seen on the way. */
export interface Proof {
  readonly verdict: Verdict
  /** What may name rows. */
  readonly details: readonly CheckDetail[]
  /** Whether at least one check of the hospital's own content was verified. */
  readonly isContentVerified: boolean
  readonly moments: ProofMoments
  /** Undefined until everything was written. */
  readonly restore: RestoreReport | undefined
  /** From where WAL was replayed: the beginning of the backup. */
  readonly startLsn: Lsn | undefined
  /** Of the scratch place, as it was seen while the server ran; empty when it did not. */
  readonly isolation: readonly IsolationFact[]
  /** Of the scratch place, after it was taken away: what is still there. */
  readonly remains: readonly string[]
  readonly tornDownMs: number
}

/** The verdict of `proveByRestore`, alone. */
export async function verifyByRestore(options: VerifyByRestoreOptions): Promise<Verdict> {
  return (await proveByRestore(options)).verdict
}

/**
 * Proves a backup: restores it into a scratch directory, starts it with no way out, recovers it to the target, checks all that can be
 * checked, and takes everything away again, however it ends. Gives the verdict; keeping it (`putVerdict`) is the caller's. What keeps it from judging
 * is thrown: BACKUP_UNKNOWN, BACKUP_ABSENT, ARGUMENTS_INVALID, DISK_FULL, POSTGRES_MISSING, STORAGE_UNREACHABLE, INTERRUPTED.
 */
export async function proveByRestore(options: VerifyByRestoreOptions): Promise<Proof> {
  const { scratchRoot, clock } = options
  const limit = new AbortController()
  const signal = AbortSignal.any([options.signal, limit.signal])
  const beganMs = clock.now()
  await assertOutside(scratchRoot, options.forbidden)
  for (const notice of await removeAbandoned(scratchRoot)) options.onNotice?.(notice)
  const subject = await findSubject(options)
  const checks = new CheckList(clock, signal)
  if (subject.manifest === undefined) {
    const { problem } = subject
    for (const planned of CHAIN) await checks.run(planned, () => Promise.reject(problem))
    const verdict = verdictOf(options, { subject, checks, beganMs })
    const nothing = { restore: undefined, isolation: [], startLsn: undefined, remains: [], tornDownMs: clock.now() }
    return { verdict, details: checks.details, isContentVerified: false, moments: {}, ...nothing }
  }
  const { manifest } = subject
  const installation = await requireInstallation(manifest.server.major, options.component.binaries)
  await assertScratchRoom(scratchRoot, scratchBytes(manifest))

  const scratch = await ScratchDirectory.make({
    purpose: 'resus verify --by-restore',
    root: scratchRoot,
    component: manifest.component,
    backup: manifest.id,
    account: await scratchAccount(manifest.defaults),
    nowMs: beganMs,
  })
  const chain = new ProvingChain({
    ...options,
    manifest,
    installation,
    scratch,
    checks,
    signal,
    onLimit: (failure) => limit.abort(failure),
  })
  try {
    await chain.run()
  } finally {
    await chain[Symbol.asyncDispose]()
    await scratch[Symbol.asyncDispose]()
  }
  return {
    verdict: verdictOf(options, { subject, checks, beganMs, installation, reached: chain.reached }),
    details: checks.details,
    isContentVerified: checks.isContentVerified,
    moments: chain.moments,
    restore: chain.report,
    isolation: chain.isolation,
    startLsn: manifest.startLsn,
    remains: await scratch.remains(),
    tornDownMs: clock.now(),
  }
}

/** What is to be judged: a backup with its manifest, or with what keeps us from it. */
type Subject =
  | { readonly backup: string; readonly manifest: BackupManifest }
  | { readonly backup: string; readonly manifest?: undefined; readonly problem: Failure }

async function findSubject(options: VerifyByRestoreOptions): Promise<Subject> {
  const { repository, target, clock } = options
  const component = options.component.name
  try {
    if (target.kind === 'backup') {
      return { backup: target.backup, manifest: await readManifest(repository, component, target.backup) }
    }
    const { manifest } = await planRecovery({ repository, component, target, clock })
    return { backup: manifest.id, manifest }
  } catch (error) {
    if (!isJudgement(error)) throw error
    const backup = target.kind === 'backup' ? target.backup : await newestBackup(repository, component)
    return { backup, problem: error }
  }
}

/** The newest by its number; where none opens, by its id. */
async function newestBackup(repository: Repository, component: string): Promise<string> {
  const [newest] = await listBackups(repository, component, () => undefined)
  const backup = newest?.id ?? (await newestBackupId(repository, component))
  if (backup !== undefined) return backup
  throw new Failure('BACKUP_ABSENT', `there is no backup of "${component}"`, { hint: `take one: "resus backup ${component}"` })
}

interface Judged {
  readonly subject: Subject
  readonly checks: CheckList
  readonly beganMs: number
  readonly installation?: Installation
  readonly reached?: Reached | undefined
}

function verdictOf(options: VerifyByRestoreOptions, judged: Judged): Verdict {
  const { subject, checks, installation, reached } = judged
  const atMs = options.clock.now()
  return {
    format: 1,
    backup: subject.backup,
    component: options.component.name,
    verdict: checks.verdict(PROVING),
    by: 'restore',
    target: options.target.kind,
    reached: reached === undefined ? null : { timeline: reached.timeline, lsn: formatLsn(reached.lsn) },
    fingerprint: subject.manifest === undefined ? null : backupFingerprint(subject.manifest),
    at: new Date(atMs).toISOString(),
    expires: verdictExpiry(atMs),
    seconds: Math.max(0, atMs - judged.beganMs) / 1000,
    checks: [...checks.checks],
    software: { resus: resusVersion(), node: process.versions.node, postgres: installation?.version ?? null },
  }
}
