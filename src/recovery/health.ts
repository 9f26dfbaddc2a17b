// Health of one thing that is watched: a database, a receiver, a storage. Pure.
//
//            good            slow            failed          third in a row as bad as "slow" / third failed
//   unknown  up              degraded        unknown         - / down
//   up       up              up              up              degraded / down
//   degraded up              degraded        degraded        - / down
//   down     up              degraded        down            - / -
//
// Worse only after three in a row, better at once: one lost packet wakes nobody, and a recovery is not kept waiting.

const STRIKES = 3

export type HealthState = 'unknown' | 'up' | 'degraded' | 'down'

/** What one look at it found. `slow`: it answers, but a figure is beyond its threshold. */
export type Observation =
  { readonly kind: 'good' } | { readonly kind: 'slow'; readonly why: string } | { readonly kind: 'failed'; readonly why: string }

export interface Health {
  readonly state: HealthState
  readonly sinceMs: number
  /** Observations in a row that were not good, and of them the last that failed. */
  readonly notGood: number
  readonly failed: number
  readonly lookedMs: number
  /** When it answered last; null when it never has. */
  readonly answeredMs: number | null
  /** What the last look found wrong. */
  readonly why: string | null
}

export function unknownHealth(atMs: number): Health {
  return { state: 'unknown', sinceMs: atMs, notGood: 0, failed: 0, lookedMs: atMs, answeredMs: null, why: null }
}

export function nextHealth(health: Health, observation: Observation, atMs: number): Health {
  const notGood = observation.kind === 'good' ? 0 : health.notGood + 1
  const failed = observation.kind === 'failed' ? health.failed + 1 : 0
  const state = nextState(health.state, observation, { notGood, failed })
  return {
    state,
    sinceMs: state === health.state ? health.sinceMs : atMs,
    notGood,
    failed,
    lookedMs: atMs,
    answeredMs: observation.kind === 'failed' ? health.answeredMs : atMs,
    why: observation.kind === 'good' ? null : observation.why,
  }
}

function nextState(state: HealthState, { kind }: Observation, counts: { notGood: number; failed: number }): HealthState {
  if (counts.failed >= STRIKES) return 'down'
  switch (kind) {
    case 'good':
      return 'up'
    case 'slow':
      return state === 'up' && counts.notGood < STRIKES ? 'up' : 'degraded'
    case 'failed':
      return state === 'up' && counts.notGood >= STRIKES ? 'degraded' : state
    default:
      return kind satisfies never
  }
}

/** A figure beyond which something is slow: `most` for what must not grow, `least` for what must not shrink. */
export interface Threshold {
  readonly name: string
  readonly unit: string
  readonly most?: number
  readonly least?: number
}

/** What figures say against thresholds; one that is not known says nothing. */
export function observeFigures(figures: Readonly<Record<string, number | null>>, thresholds: readonly Threshold[]): Observation {
  const beyond = thresholds.flatMap(({ name, unit, most, least }) => {
    const figure = figures[name] ?? null
    if (figure === null) return []
    if (most !== undefined && figure > most) return [`${name} is ${figure} ${unit}, more than ${most}`]
    if (least !== undefined && figure < least) return [`${name} is ${figure} ${unit}, less than ${least}`]
    return []
  })
  return beyond.length === 0 ? { kind: 'good' } : { kind: 'slow', why: beyond.join('; ') }
}
