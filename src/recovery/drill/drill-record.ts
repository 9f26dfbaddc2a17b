import { arch, platform, release } from 'node:os'
import type { Failure } from '../../errors.ts'
import { parseLsn } from '../../postgres/lsn.ts'
import { describeTarget } from '../../protect/postgres/recovery-target.ts'
import type { Proof } from '../../protect/postgres/verify.ts'
import { verdictExpiry } from '../../repository/verdicts.ts'
import { resusVersion } from '../../version.ts'
import type { Measured, NewRecord, RunPredicate, Timeline } from '../evidence/record.ts'
import type { Objectives } from '../objectives.ts'
import type { ChosenTarget } from './drill-target.ts'

// What a drill saw, as a record (docs/evidence.md).

export interface DrillFacts {
  readonly component: string
  readonly facilities: readonly string[]
  readonly objectives: Objectives
  readonly startedBy: string
  readonly validDays: number
  readonly node: string
  /** The fault, which is simulated: the drill begins with it. */
  readonly beganMs: number
  readonly chosen: ChosenTarget
  /** The newest in the copy. */
  heartbeat: Date | undefined
}

type DrillRecord = Extract<NewRecord, { kind: 'drill' }>

/** What no drill of a database alone can show. */
const NEVER_TESTED = [
  'the network, names and certificates that clients reach the system by',
  'the application itself, started against the copy, unless a command of the configuration does so',
  'other components of the system at the same moment',
  "the hardware of the recovery place, unless this drill ran there: its speed is this host's",
  "the restore_command of a real restore, as the server's account: here WAL was laid out for a server that may read neither key nor repository",
  'decisions of people: declaring, approving, informing',
]

/** The record of a drill whose chain has run. */
export function drillRecord(facts: DrillFacts, proof: Proof, details: RunPredicate['details']): DrillRecord {
  const { verdict } = proof
  return {
    ...commonOf(facts, verdict.software.postgres),
    recoveryPoint: {
      ...pointOf(facts),
      backup: verdict.backup,
      fingerprint: verdict.fingerprint,
      timeline: verdict.reached?.timeline ?? null,
      lsn: verdict.reached?.lsn ?? null,
    },
    timeline: timelineOf(facts, proof),
    measured: measuredOf(facts, proof),
    checks: [...verdict.checks],
    ...judge(proof),
    notTested: notTestedOf(proof),
    isolation: [...proof.isolation],
    leftovers: {
      removed: proof.remains.length === 0,
      seen:
        proof.remains.length === 0
          ? 'no process of it runs, so that its namespaces and mounts are gone; neither its directory nor its socket is there'
          : `still there: ${proof.remains.join(', ')}`,
    },
    details,
  }
}

/** The record of a drill that could not be made. */
export function unprovenRecord(facts: DrillFacts, failure: Failure, nowMs: number): DrillRecord {
  const why = `it could not be made: ${failure.code}: ${failure.message}`
  const nothing = 'the drill could not be made'
  return {
    ...commonOf(facts, null),
    recoveryPoint: { ...pointOf(facts), backup: 'none', fingerprint: null, timeline: null, lsn: null },
    timeline: { ...noTimeline(facts), tornDown: iso(nowMs) },
    measured: {
      ...NOTHING_MEASURED,
      why: Object.fromEntries(Object.keys(NOTHING_MEASURED).flatMap((name) => (name === 'rtoParts' ? [] : [[name, nothing]]))),
    },
    checks: [],
    verdict: 'not proven',
    why,
    notTested: ['everything', ...NEVER_TESTED],
    isolation: [],
    leftovers: { removed: null, seen: 'not looked at: the drill did not come to its end; what it leaves the next one removes' },
    details: null,
  }
}

function commonOf(facts: DrillFacts, postgres: string | null) {
  const { tier, scenario, values } = facts.objectives
  return {
    kind: 'drill' as const,
    component: facts.component,
    facilities: [...facts.facilities],
    startedBy: facts.startedBy,
    node: facts.node,
    objectives: { tier, scenario, rtoMinutes: values.rtoMinutes, rpoMinutes: values.rpoMinutes },
    expires: verdictExpiry(facts.beganMs, facts.validDays),
    software: {
      resus: resusVersion(),
      node: process.versions.node,
      postgres,
      system: `${platform()} ${release()} ${arch()}`,
    },
  }
}

function pointOf({ chosen, beganMs, heartbeat }: DrillFacts) {
  const askedMs = chosen.target.kind === 'latest' ? beganMs : chosen.askedMs
  return {
    target: describeTarget(chosen.target),
    turn: chosen.turn,
    asked: askedMs === null ? null : iso(askedMs),
    heartbeat: heartbeat === undefined ? null : heartbeat.toISOString(),
  }
}

/** Verified only with at least one check of the hospital's own content. */
function judge({ verdict, isContentVerified }: Proof): Pick<DrillRecord, 'verdict' | 'why'> {
  const failed = verdict.checks.filter((check) => check.verdict === 'failed')
  const [first] = failed
  if (first !== undefined) {
    const more = failed.length === 1 ? '' : `, and ${failed.length - 1} more`
    return { verdict: 'failed', why: `${first.name}: ${first.found}${more}` }
  }
  if (verdict.verdict !== 'verified') {
    const missing = verdict.checks.find((check) => check.verdict !== 'verified')
    return { verdict: 'not proven', why: `${missing?.name ?? 'the chain'}: ${missing?.found ?? 'it was not run'}` }
  }
  if (!isContentVerified) {
    return {
      verdict: 'not proven',
      why: "it was restored and is sound, but no check of the hospital's own content was verified: configure one (checks, in resus.yaml)",
    }
  }
  const others = verdict.checks.filter((check) => check.verdict !== 'verified').map(({ name }) => name)
  return {
    verdict: 'verified',
    why: `${verdict.checks.length - others.length} checks${others.length === 0 ? '' : `; not proven: ${others.join(', ')}`}`,
  }
}

function notTestedOf({ verdict }: Proof): string[] {
  const passedOver = verdict.checks.filter((check) => check.verdict === 'skipped' || check.verdict === 'not proven')
  return [...passedOver.map(({ name, found }) => `${name}: ${found}`), ...NEVER_TESTED]
}

function timelineOf(facts: DrillFacts, { moments, tornDownMs, verdict }: Proof): Timeline {
  // What came to light behind the first transaction (pages, PostgreSQL's own tools) takes it back.
  const isWhole = verdict.verdict === 'verified'
  return {
    ...noTimeline(facts),
    dataReady: isoOrNull(moments.dataReadyMs),
    dataVerified: isWhole ? isoOrNull(moments.dataVerifiedMs) : null,
    firstVerifiedTransaction: isWhole ? isoOrNull(moments.firstTransactionMs) : null,
    tornDown: iso(tornDownMs),
  }
}

function noTimeline({ beganMs }: DrillFacts): Timeline {
  const never = { detected: null, declared: null, approved: null, dataReady: null, dataVerified: null }
  return {
    simulated: true,
    fault: iso(beganMs),
    began: iso(beganMs),
    ...never,
    serviceUp: null,
    firstVerifiedTransaction: null,
    tornDown: null,
  }
}

const NOTHING_MEASURED: Omit<Measured, 'why'> = {
  rtoSeconds: null,
  rtoParts: {},
  rpoSeconds: null,
  bytesRestored: null,
  restoreBytesPerSecond: null,
  walBytesReplayed: null,
  replayBytesPerSecond: null,
  acknowledgedLost: null,
}

function measuredOf(facts: DrillFacts, proof: Proof): Measured {
  const { moments, restore, startLsn, verdict } = proof
  const why: Record<string, string> = { acknowledgedLost: 'nobody keeps a log of acknowledged writes that this drill could ask' }
  const served = verdict.verdict === 'verified' ? moments.firstTransactionMs : undefined
  if (served === undefined) why.rtoSeconds = 'no verified transaction was reached'
  const restoreSeconds = moments.restoredMs === undefined ? null : seconds(facts.beganMs, moments.restoredMs)
  const replaySeconds =
    moments.restoredMs === undefined || moments.dataReadyMs === undefined
      ? null
      : seconds(moments.restoredMs, moments.dataReadyMs)
  const bytesRestored = restore?.bytesWritten ?? null
  const replayed = verdict.reached === null || startLsn === undefined ? null : Number(parseLsn(verdict.reached.lsn) - startLsn)
  const rpo = rpoOf(facts, why)
  for (const [name, value] of [
    ['bytesRestored', bytesRestored],
    ['restoreBytesPerSecond', bytesRestored],
    ['walBytesReplayed', replayed],
    ['replayBytesPerSecond', replayed],
  ] as const)
    if (value === null) why[name] = 'the restore did not come so far'
  return {
    rtoSeconds: served === undefined ? null : seconds(facts.beganMs, served),
    rtoParts: partsOf(facts.beganMs, moments),
    rpoSeconds: rpo,
    bytesRestored,
    restoreBytesPerSecond: rate(bytesRestored, restoreSeconds),
    walBytesReplayed: replayed,
    replayBytesPerSecond: rate(replayed, replaySeconds),
    acknowledgedLost: null,
    why,
  }
}

/** The moment asked for less the newest beat in the copy. */
function rpoOf({ chosen, beganMs, heartbeat }: DrillFacts, why: Record<string, string>): number | null {
  const askedMs = chosen.target.kind === 'latest' ? beganMs : chosen.askedMs
  if (askedMs === null) why.rpoSeconds = 'the target is no moment: nothing is lost of what was asked for'
  else if (heartbeat === undefined) why.rpoSeconds = 'there is no heartbeat in the copy'
  if (askedMs === null || heartbeat === undefined) return null
  // Beats that came while the drill had begun already were not lost.
  return Math.max(0, seconds(heartbeat.getTime(), askedMs))
}

function partsOf(beganMs: number, moments: Proof['moments']): Record<string, number> {
  const steps = [
    ['restore', moments.restoredMs],
    ['recovery', moments.dataReadyMs],
    ['checks', moments.dataVerifiedMs],
    ['first transaction', moments.firstTransactionMs],
  ] as const
  const parts: Record<string, number> = {}
  let fromMs = beganMs
  for (const [name, atMs] of steps) {
    if (atMs === undefined) break
    parts[name] = seconds(fromMs, atMs)
    fromMs = atMs
  }
  return parts
}

function seconds(fromMs: number, toMs: number): number {
  return (toMs - fromMs) / 1000
}

function rate(bytes: number | null, time: number | null): number | null {
  return bytes === null || time === null || time <= 0 ? null : bytes / time
}

function iso(ms: number): string {
  return new Date(ms).toISOString()
}

function isoOrNull(ms: number | undefined): string | null {
  return ms === undefined ? null : iso(ms)
}
