import type { ObjectiveName } from '../config/objectives-settings.ts'
import type { Exposure } from '../protect/postgres/heartbeat-tracker.ts'
import type { Availability } from './availability.ts'
import { objectiveNames, type Objectives } from './objectives.ts'

// Whether objectives are met. Measured, never declared: what was not measured is not proven.

/** What would be lost now, by the heartbeat. */
export type ActualRpo =
  | { readonly kind: 'measured'; readonly seconds: number; readonly beating: boolean; readonly lastBeatAt: string }
  /** `atLeastSeconds`: no heartbeat of so long is safe, as far as anybody has looked. */
  | { readonly kind: 'not proven'; readonly why: string; readonly atLeastSeconds?: number; readonly beating?: boolean }

/** What is needed of `Exposures`: they may have come from another process. */
type ExposureSaid =
  | { readonly kind: 'measured'; readonly seconds: number; readonly beat: { readonly at: Date } }
  | Extract<Exposure, { kind: 'not proven' }>
export interface ExposuresSaid {
  readonly repository: ExposureSaid
  readonly spool: ExposureSaid
  readonly beating: boolean
}

/** What a heartbeat's tracker says, with the repository alone or with the receiver's spool besides. */
export function actualRpo(exposures: ExposuresSaid, place: 'repository' | 'spool'): ActualRpo {
  const { [place]: exposure, beating } = exposures
  if (exposure.kind === 'not proven') return { ...exposure, beating }
  return { kind: 'measured', seconds: exposure.seconds, beating, lastBeatAt: exposure.beat.at.toISOString() }
}

/** The last recovery that was proven, from the fault to the first verified transaction. */
export interface ProvenRecovery {
  readonly seconds: number
  readonly at: string
  readonly expires: string
  /** What had happened; null for a recovery of no scenario in particular. */
  readonly scenario: string | null
}

/** Whether nothing that was acknowledged can be lost: why it is so, or why not. */
export interface ZeroLoss {
  readonly holds: boolean
  readonly why: string
}

export interface Actual {
  readonly rpo: ActualRpo
  /** Null where nobody can tell. */
  readonly zeroLoss: ZeroLoss | null
  readonly recovery: ProvenRecovery | null
  readonly availability: Availability | null
}

/** `target` and `actual` are in the unit of the objective's name. */
export interface Judgement {
  readonly target: number | null
  readonly actual: number | null
  readonly verdict: 'met' | 'broken' | 'not proven'
  /** What it was measured by, or why it is not proven. */
  readonly why: string
}

const JUDGES: Readonly<Record<ObjectiveName, (target: number, input: JudgeInput) => Omit<Judgement, 'target'>>> = {
  rtoMinutes: judgeRto,
  rpoMinutes: judgeRpo,
  maximumTolerableDowntimeMinutes: judgeDowntime,
  availabilityPercent: judgeAvailability,
}

interface JudgeInput {
  readonly scenario: string | null
  readonly actual: Actual
  readonly nowMs: number
}

/** What of the objectives is met now. One that nobody has set is judged by nobody: null. */
export function judge(objectives: Objectives, actual: Actual, nowMs: number): Readonly<Record<ObjectiveName, Judgement | null>> {
  const input = { scenario: objectives.scenario, actual, nowMs }
  const judged = objectiveNames.map((name) => {
    const target = objectives.values[name]?.value
    return [name, target === undefined ? null : { target, ...JUDGES[name](target, input) }] as const
  })
  return Object.fromEntries(judged) as Record<ObjectiveName, Judgement | null>
}

function judgeRto(target: number, { actual: { recovery }, scenario, nowMs }: JudgeInput): Omit<Judgement, 'target'> {
  if (recovery === null) return unproven('no recovery was proven yet')
  if (scenario !== null && recovery.scenario !== scenario) return unproven(`no recovery from "${scenario}" was proven`)
  if (Date.parse(recovery.expires) <= nowMs) return unproven(`the proof of ${recovery.at} expired at ${recovery.expires}`)
  const actual = recovery.seconds / 60
  return { actual, verdict: actual <= target ? 'met' : 'broken', why: `the recovery that was proven at ${recovery.at}` }
}

/** Beats come every second, and the repository follows within one or two of them. */
const BEATS_SECONDS = 10

/**
 * That nothing at all is lost no clock can show: it is so when no commit is acknowledged before the repository has it. That something is, the heartbeat shows: one that is
 * not safe long after it was written.
 */
function judgeZeroLoss({ rpo, zeroLoss }: Actual): Omit<Judgement, 'target'> {
  if (rpo.kind === 'not proven') {
    const atLeast = rpo.atLeastSeconds ?? 0
    if (rpo.beating === true && atLeast > BEATS_SECONDS) return { actual: atLeast / 60, verdict: 'broken', why: rpo.why }
    return unproven(`${rpo.why}: without that nobody can tell what would be lost`)
  }
  if (rpo.beating && rpo.seconds > BEATS_SECONDS) {
    return { actual: rpo.seconds / 60, verdict: 'broken', why: `the newest heartbeat that is safe is of ${rpo.lastBeatAt}` }
  }
  if (zeroLoss?.holds === true) return { actual: 0, verdict: 'met', why: zeroLoss.why }
  const why = zeroLoss?.why ?? 'nobody can tell whether commits wait for the repository'
  return unproven(`${why}; by the heartbeat ${seconds(rpo.seconds)} at most`)
}

function judgeRpo(target: number, { actual }: JudgeInput): Omit<Judgement, 'target'> {
  const { rpo } = actual
  if (target === 0) return judgeZeroLoss(actual)
  if (rpo.kind === 'not proven') {
    const atLeast = (rpo.atLeastSeconds ?? 0) / 60
    return rpo.beating === true && atLeast > target ? { actual: atLeast, verdict: 'broken', why: rpo.why } : unproven(rpo.why)
  }
  const lost = rpo.seconds / 60
  if (lost <= target) return { actual: lost, verdict: 'met', why: `the newest heartbeat that is safe is of ${rpo.lastBeatAt}` }
  // A server that is down loses nothing more; one that only keeps us from beating does. Nobody can tell from here.
  if (!rpo.beating) return unproven(`the heartbeat has stopped: the newest one that is safe is of ${rpo.lastBeatAt}`)
  return { actual: lost, verdict: 'broken', why: `the newest heartbeat that is safe is of ${rpo.lastBeatAt}` }
}

function judgeDowntime(target: number, { actual: { availability } }: JudgeInput): Omit<Judgement, 'target'> {
  if (availability === null || availability.percentAtLeast === null) return unproven('its health was not measured yet')
  const [down, notUp] = [availability.longestDownSeconds / 60, availability.longestNotUpSeconds / 60]
  if (down > target) return { actual: down, verdict: 'broken', why: 'the longest outage measured' }
  if (notUp <= target) return { actual: notUp, verdict: 'met', why: 'the longest time in which it was not seen to be up' }
  return unproven(`for ${seconds(availability.longestNotUpSeconds)} in a row nobody could tell whether it was up`)
}

function judgeAvailability(target: number, { actual: { availability } }: JudgeInput): Omit<Judgement, 'target'> {
  if (availability === null) return unproven('its health was not measured yet')
  const { percentAtLeast: least, percentAtMost: most, unknownSeconds } = availability
  if (least === null || most === null) return unproven('its health was not measured yet')
  if (least >= target) return { actual: least, verdict: 'met', why: 'time that nobody could tell counts as down' }
  if (most < target) return { actual: most, verdict: 'broken', why: 'even if it was up whenever nobody could tell' }
  return unproven(`between ${least.toFixed(3)} and ${most.toFixed(3)} %: for ${seconds(unknownSeconds)} nobody could tell`)
}

function unproven(why: string): Omit<Judgement, 'target'> {
  return { actual: null, verdict: 'not proven', why }
}

function seconds(count: number): string {
  return `${Math.round(count)} s`
}
