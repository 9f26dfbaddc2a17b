import { z } from 'zod'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { formatLsn, parseLsn, type Lsn } from '../../postgres/lsn.ts'
import { listBackups, readManifest, type BackupManifest } from '../../repository/backups.ts'
import type { Repository } from '../../repository/repository.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import { bytesLost, greatestAcknowledged, lossNotice } from './acknowledged-wal.ts'
import { markedNotice } from './marked-notice.ts'
import { lineFrom, lineToTimeline, newestLine, type Line } from './recovery-path.ts'
import { findStop, type KnownMatches, type RecoveryStop } from './recovery-stop.ts'
import { describeTarget, type RecoveryAction, type RecoveryTarget } from './recovery-target.ts'
import { describeWindows, windowsOf } from './recovery-window.ts'
import { findMadeTablespaces, type MadeTablespace } from './tablespaces-in-wal.ts'
import { lastRecordStart } from './wal-search.ts'
import { reachOf, type Reach, type Stretch } from './wal-stretch.ts'
import { repositoryWal, type WalSupply } from './wal-supply.ts'

// What a restore is going to do, decided before anything is written, and frozen: wal-get obeys it.

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
  /** The WAL that recovery reads, and where it ends: everything before is replayed. */
  readonly stretches: readonly Stretch[]
  readonly endLsn: Lsn
  /** The greatest that the receiver had acknowledged to the server, as far as notes near the end of the WAL tell. */
  readonly acknowledgedLsn: Lsn | null
  /** Acknowledged WAL that is not there, at least; null when nothing tells, or the target is not `latest`. */
  readonly bytesLost: number | null
  /** Tablespaces that replay makes, in the places that they have on their own host. */
  readonly madeTablespaces: readonly MadeTablespace[]
  /** What a person should know of the choice. */
  readonly notices: readonly string[]
}

export interface PlanOptions {
  readonly repository: Repository
  readonly component: string
  readonly target: RecoveryTarget
  readonly clock: Clock
  /** The timeline to recover along; by default that which the cluster went last. */
  readonly timeline?: number
  /** The backup to begin with; by default the best one. */
  readonly from?: string
  /** By default, promote. */
  readonly action?: RecoveryAction
  /** Where the WAL is; by default what the repository has. */
  readonly supply?: WalSupply
  readonly signal?: AbortSignal
}

/**
 * Chooses the best backup for a target and proves from names, notes and records that the WAL leads there without a gap. Touches nothing.
 * Throws BACKUP_ABSENT, BACKUP_UNKNOWN, TARGET_OUTSIDE_WINDOW, WAL_GAP.
 */
export async function planRecovery(options: PlanOptions): Promise<PlannedRecovery> {
  const supply = options.supply ?? repositoryWal(options.repository, options.component, options.signal)
  const choice = await listCandidates(options, supply)
  const { candidate, stop, notices } = await chooseBackup(options, supply, choice)
  const { manifest } = candidate
  const stretches = stop.stretches
  const recordEnd = await lastRecordEnd(stretches)
  const plan: RecoveryPlan = {
    format: 1,
    repository: options.repository.id,
    component: options.component,
    backup: manifest.id,
    target: describeTarget(options.target),
    createdAt: new Date(options.clock.now()).toISOString(),
    segmentSize: manifest.server.segmentSize,
    timeline: stretches.at(-1)!.branch.head.timeline,
    stretches: stretches.map(({ branch, from, to }) => ({ timeline: branch.head.timeline, path: branch.path, from, to })),
    histories: uniqueHistories(
      stretches.map(({ branch }) => branch),
      choice.branches,
    ),
    lastRecordEnd: recordEnd,
  }
  const acknowledgedLsn = await greatestAcknowledged(stretches)
  const missing = bytesLost({ target: options.target, stretches, acknowledgedLsn })
  return {
    manifest,
    plan,
    acknowledgedLsn,
    bytesLost: missing,
    target: await toldTarget(options, stop),
    stretches,
    madeTablespaces: await findMadeTablespaces({ stretches, target: options.target, endLsn: stop.endLsn }),
    endLsn: stop.endLsn ?? recordEnd ?? stretches.at(-1)!.to,
    notices: [
      ...(acknowledgedLsn !== null && missing !== null && missing > 0
        ? [lossNotice({ acknowledgedLsn, endLsn: stretches.at(-1)!.to, bytes: missing })]
        : []),
      ...notices,
      ...stop.notices,
      ...(await markedNotice(options.repository, manifest)),
    ],
  }
}

/** A plan as JSON. */
export function encodePlan(plan: RecoveryPlan): string {
  return JSON.stringify(plan, (_, value: unknown) => (typeof value === 'bigint' ? formatLsn(value) : value), 2)
}

interface Candidate {
  readonly manifest: BackupManifest
  /** The timelines that recovery may go along, the backup's own first. */
  readonly line: Line
}

interface Choice {
  /** The newest first. */
  readonly candidates: readonly Candidate[]
  /** All branches of the incarnation. */
  readonly branches: readonly Branch[]
  /** Undefined when only one backup is asked for. */
  readonly line: Line | undefined
  readonly notices: readonly string[]
}

async function listCandidates(options: PlanOptions, supply: WalSupply): Promise<Choice> {
  const { repository, component, target } = options
  const all = await supply.branches()
  if (target.kind === 'backup') {
    const manifest = await readManifest(repository, component, target.backup)
    const line = all.filter((branch) => branch.path.branch === manifest.branch)
    if (line.length === 0) throw lost(manifest)
    return { candidates: [{ manifest, line }], branches: ofIncarnation(all, manifest), line: undefined, notices: [] }
  }
  const notices: string[] = []
  const backups = await readableBackups(options, notices)
  const newest = backups[0]!
  const branches = ofIncarnation(all, newest)
  const line = wantedLine(options, branches, newest)
  const own = options.from === undefined ? undefined : await readManifest(repository, component, options.from)
  const considered = own === undefined ? backups : [own]
  const candidates = considered.flatMap((manifest): Candidate[] => {
    const path = manifest.incarnation === newest.incarnation ? lineFrom(line, manifest) : undefined
    return path === undefined ? [] : [{ manifest, line: path }]
  })
  const end = line.at(-1)!.head.timeline
  if (own !== undefined && candidates.length === 0) {
    throw outside(target, `backup ${own.id} does not lie on the way to timeline ${end}`)
  }
  if (own === undefined && candidates[0]?.manifest.id !== newest.id) {
    notices.push(`backup ${newest.id} is not used: it does not lie on the way to timeline ${end}`)
  }
  return { candidates, branches, line, notices }
}

/** Newest first, at least one. Those that are damaged are passed over. */
async function readableBackups({ repository, component }: PlanOptions, notices: string[]): Promise<BackupManifest[]> {
  const damage: Failure[] = []
  const backups = await listBackups(repository, component, (failure) => damage.push(failure))
  notices.push(...damage.map((failure) => `passed over: ${failure.message}`))
  if (backups.length > 0) return backups
  if (damage[0] !== undefined) throw damage[0]
  throw new Failure('BACKUP_ABSENT', `there is no backup of "${component}"`, { hint: `take one: "resus backup ${component}"` })
}

function wantedLine({ timeline, target }: PlanOptions, branches: readonly Branch[], newest: BackupManifest): Line {
  if (timeline === undefined) {
    const line = newestLine(branches)
    if (line === undefined) throw lost(newest)
    return line
  }
  const line = lineToTimeline(branches, timeline)
  if (line !== undefined) return line
  const known = [...new Set(branches.map(({ head }) => head.timeline))]
  throw outside(target, `there is no WAL of timeline ${timeline}; there is of ${known.join(', ')}`)
}

/** The newest backup from which the target is reached. Throws TARGET_OUTSIDE_WINDOW, WAL_GAP. */
async function chooseBackup(
  options: PlanOptions,
  supply: WalSupply,
  choice: Choice,
): Promise<{ candidate: Candidate; stop: RecoveryStop; notices: readonly string[] }> {
  const { target } = options
  const known: KnownMatches = { records: [], searchedFrom: undefined }
  const notices = [...choice.notices]
  const gaps: Failure[] = []
  for (const candidate of choice.candidates) {
    const found = await stopFrom({ supply, candidate, target, known })
    if (found instanceof Failure) {
      // An older backup would not reach the newest moment either, but end before the gap, and nobody would notice.
      if (target.kind === 'latest') throw found
      gaps.push(found)
      notices.push(`backup ${candidate.manifest.id} is passed over: ${found.message}`)
      continue
    }
    if (typeof found === 'object') return { candidate, stop: found, notices }
    // What lies behind the newest WAL that this backup leads to is not reached from an older one either.
    if (found === 'beyond') break
  }
  if (gaps[0] !== undefined) throw gaps[0]
  throw await outsideWindow(options, supply, choice)
}

async function stopFrom(question: {
  supply: WalSupply
  candidate: Candidate
  target: RecoveryTarget
  known: KnownMatches
}): Promise<RecoveryStop | 'early' | 'beyond' | Failure> {
  const { supply, candidate, target, known } = question
  const { manifest, line } = candidate
  try {
    const reach: Reach = await reachOf(supply, manifest, line)
    return await findStop({ manifest, reach, target }, known)
  } catch (error) {
    if (error instanceof Failure && error.code === 'WAL_GAP') return error
    throw error
  }
}

async function outsideWindow(options: PlanOptions, supply: WalSupply, choice: Choice): Promise<Failure> {
  const { target } = options
  const { line, candidates } = choice
  const why = {
    latest: 'no backup lies on the way there',
    backup: 'its WAL is not there',
    time: 'PostgreSQL reaches a time only by a later commit',
    lsn: 'no WAL leads there',
    xid: 'no transaction of that id ends in the WAL behind a backup',
    name: 'no restore point of that name is in the WAL behind a backup',
  }[target.kind]
  if (line === undefined || candidates.length === 0) return outside(target, why)
  const windows = await windowsOf(
    supply,
    line,
    candidates.map(({ manifest }) => manifest),
  )
  return outside(target, `${why}. Along timeline ${line.at(-1)!.head.timeline}, ${describeWindows(windows)}`)
}

function outside(target: RecoveryTarget, why: string): Failure {
  return new Failure('TARGET_OUTSIDE_WINDOW', `${describeTarget(target)} cannot be reached: ${why}`, {
    hint: 'choose a target inside, say --latest for the last moment that there is, or name another way with --target-timeline',
  })
}

function ofIncarnation(branches: readonly Branch[], manifest: BackupManifest): Branch[] {
  return branches.filter((branch) => branch.path.incarnation === manifest.incarnation)
}

function lost(manifest: BackupManifest): Failure {
  return new Failure('WAL_GAP', `the WAL of backup ${manifest.id} is not in the repository`, {
    hint: 'its branch was deleted or lost: choose another backup, or bring the objects back from another copy of the storage',
  })
}

/**
 * What PostgreSQL is told. The end of the planned WAL needs no target; but without one PostgreSQL always promotes, so that anything else
 * is asked for by the last record, behind which it then stops.
 */
async function toldTarget({ target, action = 'promote' }: PlanOptions, stop: RecoveryStop): Promise<RecoveryTarget> {
  if (stop.endLsn !== null) return target
  if (action === 'promote') return { kind: 'latest' }
  const last = await lastRecordStart(stop.stretches)
  if (last !== undefined) return { kind: 'lsn', lsn: last }
  throw new Failure('ARGUMENTS_INVALID', `"${action}" is not possible: the last record of the WAL is not known`, {
    hint: 'name a target, or let it promote',
  })
}

async function lastRecordEnd(stretches: readonly Stretch[]): Promise<Lsn | null> {
  const { parts, to } = stretches.at(-1)!
  for (const part of parts.toReversed()) {
    if (part.startLsn >= to) continue
    const { lastRecordEnd: end } = await part.note()
    // What a timeline went on with where another left it does not count; there a record ends.
    if (end !== null) return end < to ? end : to
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
