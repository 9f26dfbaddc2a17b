import { z } from 'zod'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { formatLsn, parseLsn, type Lsn } from '../../postgres/lsn.ts'
import { listBackups, readManifest, type BackupManifest } from '../../repository/backups.ts'
import type { Repository } from '../../repository/repository.ts'
import { coverage, readNote, type Coverage } from '../../repository/wal-archive.ts'
import { listBranches, type Branch } from '../../repository/wal-branch.ts'
import { lineFrom, lineUpTo, newestLine, switchLsn, type Line } from './recovery-path.ts'

// What a restore is going to do, decided before anything is written, and frozen: wal-get obeys it.

export type RecoveryTarget =
  | { readonly kind: 'latest' }
  | { readonly kind: 'time'; readonly timeMs: number }
  | { readonly kind: 'lsn'; readonly lsn: Lsn }
  | { readonly kind: 'backup'; readonly backup: string }

const lsn = z.union([z.bigint(), z.string().transform(parseLsn)])

export const planSchema = z.object({
  format: z.literal(1),
  repository: z.string(),
  component: z.string(),
  backup: z.string(),
  target: z.string(),
  createdAt: z.string(),
  segmentSize: z.number().int().positive(),
  timeline: z.number().int().positive(),
  /** WAL that recovery reads, in order: of each timeline from `from` up to `to`. */
  stretches: z
    .array(
      z.object({
        timeline: z.number().int().positive(),
        path: z.object({ component: z.string(), incarnation: z.string(), branch: z.string() }),
        from: lsn,
        to: lsn,
      }),
    )
    .min(1),
  /** History files that are handed out; any other does not exist. */
  histories: z.array(z.object({ timeline: z.number().int(), text: z.string() })),
  /** End of the last record known to be complete, or null when the notes do not tell. */
  lastRecordEnd: lsn.nullable(),
})
export type RecoveryPlan = z.infer<typeof planSchema>

export interface PlannedRecovery {
  readonly manifest: BackupManifest
  readonly plan: RecoveryPlan
  /** What PostgreSQL is told to recover to. */
  readonly target: RecoveryTarget
  /** What a person should know of the choice. */
  readonly notices: readonly string[]
}

/**
 * Chooses the best backup for a target and proves from names and notes that the WAL leads there without a gap. Touches nothing. Throws
 * BACKUP_ABSENT, BACKUP_UNKNOWN, TARGET_OUTSIDE_WINDOW, WAL_GAP.
 */
export async function planRecovery(options: {
  repository: Repository
  component: string
  target: RecoveryTarget
  clock: Clock
}): Promise<PlannedRecovery> {
  const { repository, component, target } = options
  const { manifest, path, branches, notices } = await chooseStart(repository, component, target)
  const { stretches, last } = await proveStretches(repository, { manifest, path, target })
  await proveTarget({ repository, manifest, target, last })
  const histories = branches.filter((branch) => branch.head.history !== '')
  const recordEnd = await lastRecordEnd(repository, last)
  const plan: RecoveryPlan = {
    format: 1,
    repository: repository.id,
    component,
    backup: manifest.id,
    target: describeTarget(target),
    createdAt: new Date(options.clock.now()).toISOString(),
    segmentSize: manifest.server.segmentSize,
    timeline: path.at(-1)!.head.timeline,
    stretches,
    histories: uniqueHistories(path, histories),
    lastRecordEnd: recordEnd,
  }
  // PostgreSQL reaches an LSN only by a record that begins there or later, else it stops: the end of the planned WAL is simply its end.
  const atEnd = target.kind === 'lsn' && recordEnd !== null && target.lsn >= recordEnd
  return { manifest, plan, target: atEnd ? { kind: 'latest' } : target, notices }
}

/** The target as a person reads it. */
export function describeTarget(target: RecoveryTarget): string {
  switch (target.kind) {
    case 'latest':
      return 'latest'
    case 'time':
      return `time ${new Date(target.timeMs).toISOString()}`
    case 'lsn':
      return `LSN ${formatLsn(target.lsn)}`
    case 'backup':
      return `backup ${target.backup}`
    default:
      return target satisfies never
  }
}

/** A plan as JSON. */
export function encodePlan(plan: RecoveryPlan): string {
  return JSON.stringify(plan, (_, value: unknown) => (typeof value === 'bigint' ? formatLsn(value) : value), 2)
}

interface Start {
  readonly manifest: BackupManifest
  /** The timelines that recovery goes along, the backup's own first. */
  readonly path: Line
  /** All of the incarnation. */
  readonly branches: readonly Branch[]
  readonly notices: readonly string[]
}

/** The best backup for a target: the newest that lies on the line which the cluster went last, and ends before the target. */
async function chooseStart(repository: Repository, component: string, target: RecoveryTarget): Promise<Start> {
  const notices: string[] = []
  const all = await listBranches(repository, component)
  if (target.kind === 'backup') {
    const manifest = await readManifest(repository, component, target.backup)
    const own = all.filter((branch) => branch.path.branch === manifest.branch)
    return { manifest, path: own.length > 0 ? own : lost(manifest), branches: ofIncarnation(all, manifest), notices }
  }
  const damage: Failure[] = []
  const backups = await listBackups(repository, component, (failure) => damage.push(failure))
  const [newest] = backups
  if (newest === undefined && damage[0] !== undefined) throw damage[0]
  if (newest === undefined) {
    throw new Failure('BACKUP_ABSENT', `there is no backup of "${component}"`, { hint: `take one: "resus backup ${component}"` })
  }
  notices.push(...damage.map((failure) => `passed over: ${failure.message}`))
  const branches = ofIncarnation(all, newest)
  const line = newestLine(branches) ?? lost(newest)
  const onLine = backups.filter((backup) => backup.incarnation === newest.incarnation && lineFrom(line, backup) !== undefined)
  if (onLine[0]?.id !== newest.id)
    notices.push(`backup ${newest.id} is not used: it lies beyond where timeline ${line.at(-1)!.head.timeline} began`)
  const manifest = chooseBackup(onLine, target)
  const path = lineFrom(line, manifest)!
  return { manifest, path: target.kind === 'lsn' ? lineUpTo(path, target.lsn) : path, branches, notices }
}

function ofIncarnation(branches: readonly Branch[], manifest: BackupManifest): Branch[] {
  return branches.filter((branch) => branch.path.incarnation === manifest.incarnation)
}

function lost(manifest: BackupManifest): never {
  throw new Failure('WAL_GAP', `the WAL of backup ${manifest.id} is not in the repository`, {
    hint: 'its branch was deleted or lost: choose another backup, or bring the objects back from another copy of the storage',
  })
}

/** The newest of these backups that ends before the target. Throws TARGET_OUTSIDE_WINDOW. */
function chooseBackup(backups: readonly BackupManifest[], target: RecoveryTarget): BackupManifest {
  const chosen = backups.find((backup) => {
    if (target.kind === 'time') return Date.parse(backup.stopTime) <= target.timeMs
    return target.kind !== 'lsn' || backup.stopLsn <= target.lsn
  })
  if (chosen !== undefined) return chosen
  const oldest = backups.at(-1)
  const why =
    oldest === undefined
      ? 'no backup lies on the timeline that the cluster went last, or before it began'
      : `it is before anything that can be restored: the oldest backup ends at ${oldest.stopTime} (LSN ${formatLsn(oldest.stopLsn)})`
  throw new Failure('TARGET_OUTSIDE_WINDOW', `${describeTarget(target)} cannot be reached: ${why}`, {
    hint: 'choose a later target, or restore a backup by its id (--backup)',
  })
}

interface LastStretch {
  readonly branch: Branch
  readonly covered: Coverage
}

/** Proves that the WAL of the path is there from the backup's start on. */
async function proveStretches(
  repository: Repository,
  options: { manifest: BackupManifest; path: readonly Branch[]; target: RecoveryTarget },
): Promise<{ stretches: RecoveryPlan['stretches']; last: LastStretch }> {
  const { manifest, path, target } = options
  const stretches: RecoveryPlan['stretches'] = []
  let from = manifest.startLsn
  let before: LastStretch | undefined
  for (const [index, branch] of path.entries()) {
    const covered = await coverage(repository, branch, from)
    const next = path[index + 1]
    const needed = next === undefined ? undefined : switchLsn(next, branch)
    const to = needed ?? covered.endLsn
    const backupIsWhole = index > 0 || covered.endLsn >= manifest.stopLsn
    // A timeline of which nothing is stored yet: everything up to where it began is all that there is.
    const isEmpty = covered.endLsn === from && (target.kind === 'time' || (needed === undefined && covered.holes.length === 0))
    if (isEmpty && before !== undefined) return { stretches, last: before }
    // A time before a gap is reached without what is behind it; whether it is before, `proveTarget` finds out.
    if (target.kind === 'time' && covered.endLsn < to && backupIsWhole) {
      stretches.push({ timeline: branch.head.timeline, path: branch.path, from, to: covered.endLsn })
      return { stretches, last: { branch, covered } }
    }
    if (covered.endLsn < to || !backupIsWhole) throw gap(manifest, branch, covered)
    stretches.push({ timeline: branch.head.timeline, path: branch.path, from, to })
    if (needed === undefined) return { stretches, last: { branch, covered } }
    before = { branch, covered: coveredUpTo(covered, needed) }
    from = needed
  }
  throw new Error('internal error: expected that a path ends')
}

function coveredUpTo(covered: Coverage, to: Lsn): Coverage {
  return { endLsn: to, objects: covered.objects.filter(({ startLsn }) => startLsn < to), holes: [] }
}

function gap(manifest: BackupManifest, branch: Branch, covered: Coverage): Failure {
  const where = `timeline ${branch.head.timeline} ends at ${formatLsn(covered.endLsn)}`
  const [hole] = covered.holes
  const behind = hole === undefined ? 'nothing is stored behind it' : `the next stored WAL begins at ${formatLsn(hole.to)}`
  return new Failure('WAL_GAP', `the WAL that backup ${manifest.id} needs is not whole: ${where}, ${behind}`, {
    hint: 'choose another backup or an earlier target; "resus verify --all" says what is missing',
  })
}

async function proveTarget(options: {
  repository: Repository
  manifest: BackupManifest
  target: RecoveryTarget
  last: LastStretch
}): Promise<void> {
  const { target, last, manifest } = options
  const end = last.covered.endLsn
  if (target.kind === 'lsn' && target.lsn > end) {
    throw outside(target, `the WAL ends at ${formatLsn(end)}`)
  }
  if (target.kind === 'time') {
    const newest = await newestCommitMs(options.repository, last, target.timeMs)
    if (newest === undefined || newest <= target.timeMs) {
      const at =
        newest === undefined ? 'no commit is known' : `the newest commit in the WAL is of ${new Date(newest).toISOString()}`
      throw outside(target, `${at}, and PostgreSQL reaches a time only by a later commit`)
    }
  }
  const [hole] = last.covered.holes
  if (target.kind === 'latest' && hole !== undefined) {
    throw new Failure(
      'WAL_GAP',
      `there is a gap in the WAL behind backup ${manifest.id}: from ${formatLsn(hole.from)} to ${formatLsn(hole.to)}`,
      {
        hint: `what is behind it cannot be reached from this backup; to restore up to the gap, say --target-lsn ${formatLsn(hole.from)}`,
      },
    )
  }
}

function outside(target: RecoveryTarget, why: string): Failure {
  return new Failure('TARGET_OUTSIDE_WINDOW', `${describeTarget(target)} cannot be reached: ${why}`, {
    hint: 'say --latest for the last moment that there is, or choose an earlier target',
  })
}

const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1)

/** The greatest commit time of the stored WAL, searched from its end until one is after `beyondMs`. */
async function newestCommitMs(repository: Repository, last: LastStretch, beyondMs: number): Promise<number | undefined> {
  let newest: number | undefined
  for (const object of last.covered.objects.toReversed()) {
    const { greatestCommit } = await readNote(repository, last.branch, object)
    if (greatestCommit === null) continue
    newest = Math.max(newest ?? Number.NEGATIVE_INFINITY, POSTGRES_EPOCH_MS + Number(greatestCommit) / 1000)
    if (newest > beyondMs) break
  }
  return newest
}

async function lastRecordEnd(repository: Repository, last: LastStretch): Promise<Lsn | null> {
  for (const object of last.covered.objects.toReversed()) {
    const note = await readNote(repository, last.branch, object)
    if (note.lastRecordEnd !== null) return note.lastRecordEnd < last.covered.endLsn ? note.lastRecordEnd : last.covered.endLsn
  }
  return null
}

function uniqueHistories(path: readonly Branch[], branches: readonly Branch[]): RecoveryPlan['histories'] {
  const histories = new Map<number, string>()
  for (const branch of [...branches, ...path]) {
    if (branch.head.history !== '') histories.set(branch.head.timeline, branch.head.history)
  }
  return [...histories].map(([timeline, text]) => ({ timeline, text }))
}
