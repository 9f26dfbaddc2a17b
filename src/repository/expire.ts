import type { Clock } from '../clock.ts'
import { forEachConcurrent } from '../stream/for-each-concurrent.ts'
import { removeOldDamage } from './damage.ts'
import { putExpired } from './expired.ts'
import {
  CLOCK_DIFFERENCE_MAX_MS,
  GRACE_MS_MIN,
  markedBy,
  marksToEnd,
  marksToRemove,
  ORPHANS_KEPT_MS,
  packsToDelete,
  packsToMark,
  runsAtWork,
} from './expiry-protocol.ts'
import { NeededPacks, surveyRepository, type Survey, type SurveyedBackup } from './expiry-survey.ts'
import { compactIndex } from './index-compaction.ts'
import { keyedName } from './key-ring.ts'
import { BACKUP_PREFIX, packKey, verdictPrefix } from './layout.ts'
import { markedBackups, putMarks } from './marks.ts'
import type { Repository } from './repository.ts'
import { decideRetention, windowStart, type Keep, type KeepReason } from './retention.ts'
import { newestProvenBackup, provenBackups } from './verdicts.ts'
import { listBranches, type Branch } from './wal-branch.ts'
import { expirableWal, lastCommitMs, markedRanges, namedBy, type ExpirableWal } from './wal-expiry.ts'
import { retainedLine, type WalBackup } from './wal-retention.ts'

const DELETES_AT_ONCE = 4
/** A closed name stays so long: nobody sleeps longer between a look at the marks and a put. */
const CLOSED_KEPT_MS = 90 * 24 * 3600 * 1000

export interface ExpireOptions {
  readonly repository: Repository
  readonly stateDirectory: string
  /** What is kept of which component, by name. Of others nothing expires. */
  readonly keep: ReadonlyMap<string, Keep>
  /** Says what would be done, and touches nothing. */
  readonly dryRun?: boolean
  /** Between a mark and the deletion: 24 hours, and shorter only in tests, which have one clock. */
  readonly graceMs?: number
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onNotice?: (text: string) => void
}

/** `stays`: for the reasons given. `expires`: it is marked by this run. `marked`: by an earlier one, and waits. `goes`: it is deleted by this run. */
export interface BackupFate {
  readonly id: string
  readonly finishedAt: string
  readonly fate: 'stays' | 'expires' | 'marked' | 'goes'
  readonly reasons: readonly KeepReason[]
  /** From when on a run of expire deletes it; null for one that stays or goes. */
  readonly deletableFrom: string | null
}

/** What `expire --json` prints. A dry run says what would be. Bytes are those of stored objects. */
export interface ExpireReport {
  readonly dryRun: boolean
  readonly components: readonly {
    readonly component: string
    readonly backups: readonly BackupFate[]
    readonly wal: {
      readonly markedObjects: number
      readonly markedBytes: number
      readonly deletedObjects: number
      readonly deletedBytes: number
    }
  }[]
  readonly packs: {
    readonly marked: number
    readonly markedBytes: number
    readonly deleted: number
    readonly deletedBytes: number
  }
  /** Bytes in packs that stay that no backup that stays refers to; null when they were too many to count. */
  readonly deadBytes: number | null
  readonly indexObjectsReplaced: number
}

/**
 * One run of expiry: what earlier runs marked, and whose grace has passed, is deleted, if it still may; what may go by now is marked. It never waits. Killed anywhere it leaves
 * marks, which the next run goes on with, and objects that nobody refers to; never a backup that lacks something.
 *
 * Throws OBJECT_DAMAGED, before anything is touched, for a repository that cannot be read as a whole.
 */
export async function expireRepository(options: ExpireOptions): Promise<ExpireReport> {
  const graceMs = options.graceMs ?? GRACE_MS_MIN
  const survey = await surveyRepository({ ...options, graceMs, close: options.dryRun !== true })
  const components: ComponentExpiry[] = []
  for (const [name, keep] of options.keep) components.push(await judgeComponent(options, survey, { name, keep }))
  const plan = await planExpiry(options, survey, components)
  if (options.dryRun !== true) {
    await sweep(options, survey, plan)
    await mark(options, survey, plan)
    await tidy(options, survey, { plan, graceMs })
  }
  return reportOf(options, survey, plan, graceMs)
}

interface ComponentExpiry {
  readonly name: string
  readonly keep: Keep
  readonly backups: readonly SurveyedBackup[]
  readonly reasons: ReadonlyMap<string, readonly KeepReason[]>
  readonly walGoing: readonly ExpirableWal[]
  readonly walToMark: readonly ExpirableWal[]
}

interface Plan {
  readonly components: readonly ComponentExpiry[]
  readonly backupsGoing: readonly SurveyedBackup[]
  readonly backupsToMark: readonly SurveyedBackup[]
  readonly packsGoing: readonly string[]
  readonly packsToMark: readonly string[]
  readonly deadBytes: number | null
  /** Index objects replaced; known once it is done. */
  indexesReplaced: number
}

async function judgeComponent(
  options: ExpireOptions,
  survey: Survey,
  component: { name: string; keep: Keep },
): Promise<ComponentExpiry> {
  const { repository, signal } = options
  const { name, keep } = component
  const folder = keyedName(repository.ring, 'component', name)
  const backups = survey.backups
    .filter((backup) => backup.folder === folder)
    .toSorted((left, right) => right.manifest.sequence - left.manifest.sequence)
  const [newest] = backups
  // Without a backup nothing tells which WAL the first one will need.
  if (newest === undefined) return { ...component, backups, reasons: new Map(), walGoing: [], walToMark: [] }
  const branches = await listBranches(repository, name, { signal })
  const startMs = windowStart(keep, survey.nowMs)
  const lines = []
  for (const branch of branches) {
    if (await isAlive(options, { branch, branches, newest, startMs })) lines.push(retainedLine(branches, branch))
  }
  const reasons = decideRetention({
    keep,
    backups: backups.map(({ manifest }) => ({ ...manifest, timeMs: restorableFromMs(manifest) })),
    lines,
    proven: await provenIds(repository, name, survey.nowMs),
    nowMs: survey.nowMs,
  })
  const going = new Set(goingOf(survey, backups, reasons).map((backup) => backup.name))
  const wal = await expirableWal({
    repository,
    branches,
    backups: backups.filter((backup) => !going.has(backup.name)).map(({ manifest }) => walBackup(manifest, reasons)),
    newestBackupMs: Date.parse(newest.manifest.startedAt) - CLOCK_DIFFERENCE_MAX_MS,
    windowStartMs: startMs,
    atWork: survey.leases.some((lease) => lease.backup.startsWith(`${folder}/`) && lease.expiresAtMs > survey.nowMs),
    signal,
  })
  const dueNames = new Set(survey.due.map((each) => each.name))
  const walGoing = namedBy(
    survey.marks.filter((each) => dueNames.has(each.name)),
    wal,
  )
  const named = new Set(namedBy(survey.marks, wal))
  return { ...component, backups, reasons, walGoing, walToMark: wal.filter((each) => !named.has(each)) }
}

/** Whether instants of the window lie on a branch: it is the one that grows, it began in the window, or its last commit lies there. */
async function isAlive(
  options: ExpireOptions,
  question: { branch: Branch; branches: readonly Branch[]; newest: SurveyedBackup; startMs: number },
): Promise<boolean> {
  const { branch, branches, newest, startMs } = question
  const { incarnation, branch: own } = newest.manifest
  if (branch.path.branch === own || Date.parse(branch.head.createdAt) >= startMs) return true
  const last = branches.findLast((each) => each.path.incarnation === incarnation)
  return branch === last || (await lastCommitMs(options.repository, branch, options.signal)) >= startMs
}

async function provenIds(repository: Repository, component: string, nowMs: number): Promise<Set<string>> {
  const ids = new Set<string>()
  for await (const { backup } of provenBackups(repository, component, nowMs)) {
    ids.add(backup)
    break
  }
  const current = await newestProvenBackup(repository, component, nowMs)
  if (current !== undefined) ids.add(current.backup)
  return ids
}

/** By the later of two clocks: from then on it surely can be restored. */
function restorableFromMs(manifest: SurveyedBackup['manifest']): number {
  return Math.max(Date.parse(manifest.finishedAt), Date.parse(manifest.stopTime))
}

function walBackup(manifest: SurveyedBackup['manifest'], reasons: ReadonlyMap<string, readonly KeepReason[]>): WalBackup {
  const { branch, startLsn, stopLsn } = manifest
  const open = reasons.get(manifest.id)?.some((reason) => reason === 'newest' || reason === 'pitr') === true
  return { branch, startLsn, stopLsn, open }
}

/** Those that a mark whose grace has passed names, and that no reason keeps by now. */
function goingOf(
  survey: Survey,
  backups: readonly SurveyedBackup[],
  reasons: ReadonlyMap<string, readonly KeepReason[]>,
): SurveyedBackup[] {
  const due = markedBackups(survey.due)
  return backups.filter(({ name, manifest }) => due.has(name) && reasons.get(manifest.id)?.length === 0)
}

async function planExpiry(options: ExpireOptions, survey: Survey, components: readonly ComponentExpiry[]): Promise<Plan> {
  const marked = markedBackups(survey.marks)
  const backupsGoing = components.flatMap(({ backups, reasons }) => goingOf(survey, backups, reasons))
  const backupsToMark = components.flatMap(({ backups, reasons }) =>
    backups.filter(({ name, manifest }) => reasons.get(manifest.id)?.length === 0 && !marked.has(name)),
  )
  const unkept = new Set(
    components.flatMap(({ backups, reasons }) => backups.filter(({ manifest }) => reasons.get(manifest.id)?.length === 0)),
  )
  const needed = new NeededPacks(options.repository, survey)
  try {
    // Those that stay for good first: what only the others need may be marked.
    await needed.add(
      survey.backups.filter((backup) => !unkept.has(backup)),
      options.signal,
    )
    const kept = new Set(needed.packs)
    const { liveBytes } = needed
    const goes = new Set(backupsGoing)
    await needed.add(
      [...unkept].filter((backup) => !goes.has(backup)),
      options.signal,
    )
    const published = new Set(survey.backups.map((backup) => backup.name))
    const view = { present: new Set(survey.packs.keys()), marked: markedBy(survey.marks) }
    const bytes = sumOf(kept, (pack) => survey.packs.get(pack) ?? 0)
    return {
      components,
      backupsGoing,
      backupsToMark,
      packsGoing: packsToDelete(survey.due, view, needed.packs),
      packsToMark: packsToMark(view, kept, runsAtWork(survey.leases, published, survey.nowMs)),
      deadBytes: liveBytes === null ? null : Math.max(0, bytes - liveBytes),
      indexesReplaced: 0,
    }
  } finally {
    needed.close()
  }
}

/** Deletes, in the order that makes a crash harmless: a backup before what it refers to, what names a pack before the pack. */
async function sweep(options: ExpireOptions, survey: Survey, plan: Plan): Promise<void> {
  const { repository, signal } = options
  const { storage } = repository
  for (const { name, folder, manifest } of plan.backupsGoing) {
    // First: a backup that is missing without this was stolen.
    await putExpired(repository, { folder, manifest, nowMs: survey.nowMs }, signal)
    await storage.delete(BACKUP_PREFIX + name, { signal })
    for await (const { key } of storage.list(verdictPrefix(folder, manifest.id), { signal }))
      await storage.delete(key, { signal })
  }
  const wal = plan.components.flatMap((component) => component.walGoing)
  await deleteAll(
    options,
    wal.map(({ key }) => key),
  )
  plan.indexesReplaced = await compactIndex({ repository, going: new Set(plan.packsGoing), signal })
  await deleteAll(options, plan.packsGoing.map(packKey))
}

async function deleteAll(options: ExpireOptions, keys: readonly string[]): Promise<void> {
  const { signal } = options
  await forEachConcurrent(keys, { limit: DELETES_AT_ONCE, signal }, (key) => options.repository.storage.delete(key, { signal }))
}

async function mark(options: ExpireOptions, survey: Survey, plan: Plan): Promise<void> {
  const { repository, signal } = options
  const wal = plan.components.flatMap((component) => markedRanges(component.walToMark))
  const backups = plan.backupsToMark.map(({ name }) => name)
  const packs = plan.packsToMark
  const when = { nowMs: survey.nowMs, signal }
  if (backups.length + packs.length > 0) await putMarks(repository, { backups, packs, wal: [] }, when)
  // A mark of its own: it ends with its sweep, whatever becomes of packs.
  if (wal.length > 0) await putMarks(repository, { backups: [], packs: [], wal }, when)
}

/** Marks of which nothing is left are ended, and a grace period later removed; leases and closed names that mean nothing any more go. */
async function tidy(options: ExpireOptions, survey: Survey, { plan, graceMs }: { plan: Plan; graceMs: number }): Promise<void> {
  const { repository, signal } = options
  const { nowMs, leases, closed } = survey
  const left = {
    packs: new Set([...survey.packs.keys()].filter((pack) => !plan.packsGoing.includes(pack))),
    backups: new Set(survey.backups.filter((backup) => !plan.backupsGoing.includes(backup)).map(({ name }) => name)),
  }
  for (const { name } of marksToEnd(survey.due, survey.marks, left)) {
    await putMarks(repository, { packs: [], backups: [], wal: [], ends: name }, { nowMs, signal })
  }
  const published = new Set(survey.backups.map(({ name }) => name))
  const endedLeases = leases.filter(({ backup, expiresAtMs }) => {
    const over = nowMs >= expiresAtMs + CLOCK_DIFFERENCE_MAX_MS
    const orphaned = nowMs >= expiresAtMs + CLOCK_DIFFERENCE_MAX_MS + ORPHANS_KEPT_MS
    return (over && published.has(backup)) || (orphaned && (closed.has(backup) || backup.includes('/?')))
  })
  const openedNames = [...closed]
    .filter(([, closedMs]) => nowMs >= closedMs + CLOSED_KEPT_MS)
    .map(([name]) => BACKUP_PREFIX + name)
  const marks = marksToRemove(survey.marks, nowMs, graceMs)
  for (const key of [...marks, ...endedLeases.map(({ key: lease }) => lease), ...openedNames]) {
    await repository.storage.delete(key, { signal })
  }
  await removeOldDamage(repository, left.packs, signal)
}

function reportOf(options: ExpireOptions, survey: Survey, plan: Plan, graceMs: number): ExpireReport {
  const size = (packs: Iterable<string>) => sumOf(packs, (pack) => survey.packs.get(pack) ?? 0)
  return {
    dryRun: options.dryRun === true,
    components: plan.components.map(({ name, backups, reasons, walGoing, walToMark }) => ({
      component: name,
      backups: backups.map((backup) => fateOf(backup, reasons.get(backup.manifest.id) ?? [], { survey, plan, graceMs })),
      wal: {
        markedObjects: walToMark.length,
        markedBytes: sumOf(walToMark, ({ sizeBytes }) => sizeBytes),
        deletedObjects: walGoing.length,
        deletedBytes: sumOf(walGoing, ({ sizeBytes }) => sizeBytes),
      },
    })),
    packs: {
      marked: plan.packsToMark.length,
      markedBytes: size(plan.packsToMark),
      deleted: plan.packsGoing.length,
      deletedBytes: size(plan.packsGoing),
    },
    deadBytes: plan.deadBytes,
    indexObjectsReplaced: plan.indexesReplaced,
  }
}

function fateOf(
  backup: SurveyedBackup,
  reasons: readonly KeepReason[],
  context: { survey: Survey; plan: Plan; graceMs: number },
): BackupFate {
  const { survey, plan, graceMs } = context
  const { id, finishedAt } = backup.manifest
  if (reasons.length > 0) return { id, finishedAt, fate: 'stays', reasons, deletableFrom: null }
  if (plan.backupsGoing.includes(backup)) return { id, finishedAt, fate: 'goes', reasons, deletableFrom: null }
  const markedMs = markedBackups(survey.marks).get(backup.name)
  const deletableFrom = new Date((markedMs ?? survey.nowMs) + graceMs).toISOString()
  return { id, finishedAt, fate: markedMs === undefined ? 'expires' : 'marked', reasons, deletableFrom }
}

function sumOf<T>(items: Iterable<T>, of: (item: T) => number): number {
  let sum = 0
  for (const item of items) sum += of(item)
  return sum
}
