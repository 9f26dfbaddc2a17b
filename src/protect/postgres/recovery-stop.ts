import { Failure } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { formatMicros, msToMicros } from '../../postgres/timestamp.ts'
import type { WalFact } from '../../postgres/wal-record.ts'
import { RESTORE_POINTS_MAX, xidPrecedes } from '../../postgres/wal-summary.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import type { WalContents } from '../../repository/wal-note.ts'
import type { RecoveryTarget } from './recovery-target.ts'
import { recordBeginsFrom, searchWal, type FoundRecord, type WantedRecord } from './wal-search.ts'
import type { Reach, Stretch } from './wal-stretch.ts'

// Where recovery from one backup to a target stops, as PostgreSQL decides it (xlogrecovery.c: recoveryStopsBefore, recoveryStopsAfter).

/** Restore points of one name that are listed; PostgreSQL knows none but the first. */
const SAME_NAME_MAX = 1000

export interface RecoveryStop {
  /** What recovery reads: it need not go onto a timeline that began behind the stop. */
  readonly stretches: readonly [Stretch, ...Stretch[]]
  /** Recovery replays everything before it; null when it replays all there is. */
  readonly endLsn: Lsn | null
  readonly notices: readonly string[]
}

/** A backup from which a target is asked for. */
export interface StopQuestion {
  readonly manifest: BackupManifest
  readonly reach: Reach
  readonly target: RecoveryTarget
}

/** Matches behind the backups that were looked at before, so that no WAL is searched twice. */
export interface KnownMatches {
  /** In the order of the WAL. */
  readonly records: FoundRecord[]
  /** The WAL from here on was searched. */
  searchedFrom: Lsn | undefined
}

/**
 * Where recovery stops, or why this backup does not lead to the target: `early` when an older one may. Throws WAL_GAP when the target
 * lies behind a gap for sure.
 */
export async function findStop(question: StopQuestion, known: KnownMatches): Promise<RecoveryStop | 'early' | 'beyond'> {
  const { target, reach, manifest } = question
  switch (target.kind) {
    case 'latest':
      if (reach.hole !== undefined) throw gapBehind(manifest, reach.hole)
      return { stretches: reach.stretches, endLsn: null, notices: [] }
    case 'backup':
      return { stretches: [reach.stretches[0]], endLsn: manifest.stopLsn, notices: [] }
    case 'lsn':
      return manifest.stopLsn > target.lsn ? 'early' : await stopAtLsn(reach, target.lsn)
    case 'time':
      return await stopAtTime(question, target)
    case 'xid':
      return await stopAtTransaction(question, target, known)
    case 'name':
      return await stopAtName(question, target.name, known)
    default:
      return target satisfies never
  }
}

async function stopAtLsn(reach: Reach, lsn: Lsn): Promise<RecoveryStop | 'beyond'> {
  const at = reach.stretches.findIndex(({ to }) => lsn <= to)
  if (at < 0) return 'beyond'
  const stretches = upTo(reach.stretches, at)
  // PostgreSQL reaches an LSN only by a record that begins there or later, else it fails: the end of the WAL is simply its end.
  const isReached = await recordBeginsFrom(stretches, lsn)
  return { stretches, endLsn: isReached ? lsn : null, notices: [] }
}

/** A time is reached only by a later commit or abort; of these, by the first, whatever the times of those behind it. */
async function stopAtTime(
  { manifest, reach }: StopQuestion,
  target: RecoveryTarget & { kind: 'time' },
): Promise<RecoveryStop | 'early' | 'beyond'> {
  const { micros } = target
  const stop = msToMicros(Date.parse(manifest.stopTime))
  const isInclusive = target.exclusive !== true
  if (isInclusive ? stop > micros : stop >= micros) return 'early'
  const isLater = (time: bigint | null) => time !== null && (isInclusive ? time > micros : time >= micros)
  const wanted: WantedRecord = {
    mayHold: ({ greatestCommit }) => isLater(greatestCommit),
    matches: (fact) => (fact.kind === 'commit' || fact.kind === 'abort') && isLater(fact.timeMicros),
  }
  for await (const found of searchWal(reach.stretches, wanted)) {
    // PostgreSQL would not open a cluster that it has not replayed up to the backup's end.
    if (found.lsn < manifest.stopLsn) return 'early'
    return { stretches: stretchesTo(reach, found), endLsn: found.lsn, notices: [] }
  }
  return 'beyond'
}

async function stopAtTransaction(
  question: StopQuestion,
  target: RecoveryTarget & { kind: 'xid' },
  known: KnownMatches,
): Promise<RecoveryStop | 'early'> {
  const { xid } = target
  const wanted: WantedRecord = {
    mayHold: ({ leastXid, greatestXid }) =>
      leastXid !== null && greatestXid !== null && !xidPrecedes(xid, leastXid) && !xidPrecedes(greatestXid, xid),
    matches: (fact) => (fact.kind === 'commit' || fact.kind === 'abort') && fact.xid === xid,
  }
  const found = await firstMatch(question, wanted, known)
  const endLsn = target.exclusive === true ? found?.lsn : found?.endLsn
  if (found === undefined || endLsn === undefined || endLsn < question.manifest.stopLsn) return 'early'
  const notices = found.fact.kind === 'abort' ? [`transaction ${xid} was rolled back at ${formatLsn(found.lsn)}`] : []
  return { stretches: stretchesTo(question.reach, found), endLsn, notices }
}

async function stopAtName(question: StopQuestion, name: string, known: KnownMatches): Promise<RecoveryStop | 'early'> {
  const isNamed = (contents: WalContents) =>
    // Of very many restore points in one stretch only the first are noted.
    contents.restorePoints.length >= RESTORE_POINTS_MAX || contents.restorePoints.some((point) => point.name === name)
  const matches = (fact: WalFact) => fact.kind === 'restore-point' && fact.name === name
  const found = await firstMatch(question, { mayHold: isNamed, matches }, known)
  if (found === undefined || found.endLsn < question.manifest.stopLsn) return 'early'
  const others = known.records.filter((record) => record !== found)
  const notices = [
    `restore point "${name}" is that of ${describePoint(found)}`,
    ...others.map((other) => `there is a later one of ${describePoint(other)}, which no backup lies directly before`),
  ]
  const hint = 'PostgreSQL stops at the first one behind the backup; for another say --target-lsn <its LSN> --exclusive'
  return {
    stretches: stretchesTo(question.reach, found),
    endLsn: found.endLsn,
    notices: others.length > 0 ? [...notices, hint] : notices,
  }
}

/** The first record that matches behind the start of the backup: there PostgreSQL stops. */
async function firstMatch(question: StopQuestion, wanted: WantedRecord, known: KnownMatches): Promise<FoundRecord | undefined> {
  const { manifest, reach, target } = question
  const before = known.searchedFrom
  const found: FoundRecord[] = []
  for await (const record of searchWal(clip(reach.stretches, before), wanted)) {
    if (before !== undefined && record.endLsn > before) break
    found.push(record)
    // An id occurs once; of a name all are told.
    if (target.kind !== 'name' || found.length >= SAME_NAME_MAX) break
  }
  known.records.unshift(...found)
  known.searchedFrom = manifest.startLsn
  const [first] = known.records
  // It was found behind a newer backup, to which no WAL leads from this one.
  if (first !== undefined && first.endLsn > reach.stretches.at(-1)!.to && reach.hole !== undefined) {
    throw gapBehind(manifest, reach.hole)
  }
  return first
}

function clip(stretches: readonly Stretch[], before: Lsn | undefined): Stretch[] {
  const earlier = stretches.filter(({ from }) => before === undefined || from < before)
  return earlier.map((stretch) => (before === undefined || stretch.to <= before ? stretch : { ...stretch, to: before }))
}

function stretchesTo(reach: Reach, found: FoundRecord): readonly [Stretch, ...Stretch[]] {
  const at = reach.stretches.findIndex(({ branch }) => branch.path.branch === found.stretch.branch.path.branch)
  return upTo(reach.stretches, at)
}

function upTo(stretches: Reach['stretches'], at: number): readonly [Stretch, ...Stretch[]] {
  const [first, ...more] = stretches
  return [first, ...more.slice(0, at)]
}

function describePoint({ fact, endLsn }: FoundRecord): string {
  const at = fact.kind === 'restore-point' ? formatMicros(fact.timeMicros) : ''
  return `${at} (LSN ${formatLsn(endLsn)})`
}

/** A gap that the target lies behind. */
export function gapBehind(manifest: BackupManifest, hole: { readonly from: Lsn; readonly to: Lsn }): Failure {
  return new Failure(
    'WAL_GAP',
    `there is a gap in the WAL behind backup ${manifest.id}: from ${formatLsn(hole.from)} to ${formatLsn(hole.to)}`,
    {
      hint: `what is behind it cannot be reached from this backup; to restore up to the gap, say --target-lsn ${formatLsn(hole.from)}`,
    },
  )
}
