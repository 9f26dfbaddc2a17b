import { isOverdue, type RunPredicate } from './evidence/record.ts'
import type { Judgement } from './judgement.ts'
import { headroom, type Gate, type Measurement, type ReadinessInput } from './readiness.ts'

// The terms and gates of a component, from what is known of it (docs/readiness.md). Pure.

/** What is needed of a drill or a recovery. */
export interface ReadinessRun extends Pick<RunPredicate, 'verdict' | 'why' | 'madeAt' | 'expires' | 'measured'> {
  readonly sequence: number
  readonly checks: { readonly verified: number; readonly all: number }
}

/** How many of a run's checks were verified, of how many. */
export function countChecks({ checks }: Pick<RunPredicate, 'checks'>): ReadinessRun['checks'] {
  return { verified: checks.filter(({ verdict }) => verdict === 'verified').length, all: checks.length }
}

export interface ReadinessFacts {
  /** Null where there is none, which `unknown` explains. */
  readonly lastRun: ReadinessRun | null
  /** The last that went to the newest moment: only its time says what a recovery would take. */
  readonly lastOfNewest: ReadinessRun | null
  readonly unknown: string
  /** Null where no objective is set, or nobody here measures it. */
  readonly rpo: Judgement | null
  readonly rtoMinutes: number | null
  /** Of the standby that is farthest behind; null without one. */
  readonly standbyLagSeconds: number | null
  readonly key: Gate
  /** Null where they could not be read. */
  readonly openActions: readonly { readonly due: string }[] | null
  readonly nowMs: number
}

export function readinessInput(facts: ReadinessFacts): ReadinessInput {
  const { lastRun, lastOfNewest, unknown, rpo, rtoMinutes, standbyLagSeconds, key, openActions, nowMs } = facts
  const asOf = new Date(nowMs).toISOString()
  const ofRun = (look: (run: ReadinessRun) => Measurement) => (lastRun === null ? missing(unknown) : look(lastRun))
  return {
    terms: {
      freshness: ofRun((run) => freshnessOf(run, nowMs)),
      'rpo headroom': headroomOf(rpo, asOf),
      'rto headroom':
        lastOfNewest === null ? missing('no drill of the newest moment yet') : rtoHeadroom(lastOfNewest, rtoMinutes),
      coverage: ofRun(coverageOf),
      replicas: replicasOf(standbyLagSeconds, rpo, asOf),
      playbooks: missing('this release has no playbooks'),
      contacts: missing('this release keeps no contacts'),
      actions: actionsOf(openActions, { asOf, nowMs }),
    },
    gates: {
      verified: verifiedGate(lastRun, unknown, nowMs),
      key,
      immutable: { holds: null, why: 'nothing proves that what is kept cannot be deleted before its time' },
      rpo: rpoGate(rpo),
    },
  }
}

function verifiedGate(last: ReadinessRun | null, unknown: string, nowMs: number): Gate {
  if (last === null) return { holds: false, why: unknown }
  if (last.verdict !== 'verified') return { holds: false, why: `record ${last.sequence}: ${last.verdict}: ${last.why}` }
  if (Date.parse(last.expires) <= nowMs)
    return { holds: false, why: `the verdict of record ${last.sequence} expired at ${last.expires}` }
  return { holds: true, why: `record ${last.sequence}, until ${last.expires}` }
}

function actionsOf(
  open: ReadinessFacts['openActions'],
  { asOf, nowMs }: { readonly asOf: string; readonly nowMs: number },
): Measurement {
  if (open === null) return missing('the evidence cannot be read')
  const overdue = open.filter((action) => isOverdue(action, nowMs))
  if (overdue.length > 0) return { value: 0, why: `${overdue.length} overdue, the first was due ${overdue[0]!.due}`, asOf }
  return open.length > 0 ? { value: 0.5, why: `${open.length} open`, asOf } : { value: 1, why: 'none is open', asOf }
}

function missing(why: string): Measurement {
  return { value: null, why, asOf: null }
}

function freshnessOf({ verdict, madeAt, expires, sequence }: ReadinessRun, nowMs: number): Measurement {
  if (verdict !== 'verified') return { value: 0, why: `record ${sequence} was ${verdict}`, asOf: madeAt }
  const [fromMs, toMs] = [Date.parse(madeAt), Date.parse(expires)]
  return {
    value: headroom(nowMs - fromMs, toMs - fromMs),
    why: `record ${sequence} of ${madeAt}, until ${expires}`,
    asOf: madeAt,
  }
}

function coverageOf({ verdict, sequence, madeAt, checks: { verified, all } }: ReadinessRun): Measurement {
  if (all === 0) return { value: 0, why: `record ${sequence} has no check: ${verdict}`, asOf: madeAt }
  return { value: verified / all, why: `${verified} of ${all} checks of record ${sequence} were verified`, asOf: madeAt }
}

function headroomOf(judgement: Judgement | null, asOf: string): Measurement {
  if (judgement === null || judgement.target === null) return missing('no objective is set, or nobody here measures it')
  if (judgement.verdict === 'not proven' || judgement.actual === null) return missing(judgement.why)
  return { value: headroom(judgement.actual, judgement.target), why: judgement.why, asOf }
}

/** Of the last drill, and of no other proof. */
function rtoHeadroom({ verdict, measured, sequence, madeAt }: ReadinessRun, targetMinutes: number | null): Measurement {
  if (targetMinutes === null) return missing('no objective is set')
  if (verdict !== 'verified') return { value: 0, why: `record ${sequence} was ${verdict}`, asOf: madeAt }
  if (measured.rtoSeconds === null) return missing(`record ${sequence}: ${measured.why.rtoSeconds ?? 'it was not measured'}`)
  const value = headroom(measured.rtoSeconds / 60, targetMinutes)
  return { value, why: `${measured.rtoSeconds.toFixed(1)} s of ${targetMinutes * 60} s, record ${sequence}`, asOf: madeAt }
}

function replicasOf(lagSeconds: number | null, rpo: Judgement | null, asOf: string): Measurement {
  if (lagSeconds === null) return missing('no standby is known')
  if (rpo === null || rpo.target === null) return missing('no objective is set')
  return { value: headroom(lagSeconds / 60, rpo.target), why: `a standby is ${lagSeconds.toFixed(1)} s behind`, asOf }
}

function rpoGate(rpo: Judgement | null): Gate {
  if (rpo === null) return { holds: null, why: 'no objective is set, or nobody here measures it' }
  if (rpo.verdict === 'not proven') return { holds: null, why: rpo.why }
  return { holds: rpo.verdict === 'met', why: rpo.why }
}
