// How ready something is to be recovered (docs/readiness.md). Pure: who calls says what was measured, and when.

/** What was measured; null where it was not, with the reason. */
export interface Measurement {
  /** 0 to 1. */
  readonly value: number | null
  readonly why: string
  /** When it was measured, ISO 8601; null where it was not. */
  readonly asOf: string | null
}

export const WEIGHTS = {
  freshness: 0.25,
  'rpo headroom': 0.2,
  'rto headroom': 0.2,
  coverage: 0.1,
  replicas: 0.05,
  playbooks: 0.08,
  contacts: 0.05,
  actions: 0.07,
} as const
export type TermName = keyof typeof WEIGHTS

export const GATES = ['verified', 'key', 'immutable', 'rpo'] as const
export type GateName = (typeof GATES)[number]
/** What a gate that does not hold leaves. */
export const GATE_FACTOR = 0.5
export const HEALTHY_ABOVE = 0.8
export const FORMULA =
  'the worst gate (1 where it holds, 0.5 where it does not or nobody can tell) × the sum of weight × value of the terms / the sum of weights; what was not measured is 0'

export interface Gate {
  readonly holds: boolean | null
  readonly why: string
}

export interface ReadinessInput {
  readonly terms: Readonly<Record<TermName, Measurement>>
  readonly gates: Readonly<Record<GateName, Gate>>
}

export interface Readiness {
  readonly score: number
  readonly terms: readonly ({ readonly name: TermName; readonly weight: number } & Measurement)[]
  readonly gates: readonly ({ readonly name: GateName } & Gate)[]
  /** What raises it most; null where nothing is left to do. */
  readonly action: { readonly what: string; readonly gain: number } | null
}

const ADVICE: Readonly<Record<TermName | GateName, string>> = {
  verified: 'run a drill that is verified: "resus drill"',
  key: 'make the repository and its key reachable from here',
  immutable: 'keep a copy on storage that nobody can delete from (Object Lock)',
  rpo: 'bring the repository up to date: see the receiver, and the heartbeat',
  freshness: 'run a drill: "resus drill"',
  'rpo headroom': 'let WAL reach the repository sooner, and keep the heartbeat going',
  'rto headroom': 'make a recovery quicker, or agree on a longer RTO',
  coverage: 'let more be checked: see what the last drill lists as not tested',
  replicas: 'run a standby, and keep it close',
  playbooks: 'rehearse the steps of the playbooks',
  contacts: 'have the contacts confirmed',
  actions: 'close the corrective actions that are open',
}

/** The number, what it is made of, and what raises it most. */
export function readiness(input: ReadinessInput): Readiness {
  const terms = names(WEIGHTS).map((name) => ({ name, weight: WEIGHTS[name], ...input.terms[name] }))
  const gates = GATES.map((name) => ({ name, ...input.gates[name] }))
  return { score: scoreOf(input), terms, gates, action: bestAction(input) }
}

/** 1 up to half of what is allowed, then falling to 0 at its end. Sources: docs/readiness.md. */
export function headroom(actual: number, target: number): number {
  if (target <= 0) return actual <= 0 ? 1 : 0
  return clamp(2 - (2 * actual) / target)
}

/** The least ready of several: what one of them cannot bring back is missing. Undefined of none. */
export function leastReady<T extends { readonly score: number }>(all: readonly T[]): T | undefined {
  return all.toSorted((left, right) => left.score - right.score)[0]
}

function scoreOf({ terms, gates }: ReadinessInput): number {
  const total = names(WEIGHTS).reduce((sum, name) => sum + WEIGHTS[name], 0)
  const sum = names(WEIGHTS).reduce((all, name) => all + WEIGHTS[name] * clamp(terms[name].value ?? 0), 0)
  const gate = GATES.every((name) => gates[name].holds === true) ? 1 : GATE_FACTOR
  return round((gate * sum) / total)
}

function bestAction(input: ReadinessInput): Readiness['action'] {
  const now = scoreOf(input)
  const shut = GATES.filter((name) => input.gates[name].holds !== true)
  const byGate = shut.length === 1 ? [{ name: shut[0]!, gain: scoreOf(opened(input, shut)) - now }] : []
  const byTerm = names(WEIGHTS)
    .filter((name) => (input.terms[name].value ?? 0) < 1)
    .map((name) => ({ name, gain: scoreOf(perfect(input, name)) - now }))
  const [best] = [...byGate, ...byTerm].toSorted((left, right) => right.gain - left.gain)
  if (shut.length > 1) {
    const gain = round(scoreOf(opened(input, shut)) - now)
    const others = shut.length === 2 ? `"${shut[1]}" holds as well` : `${shut.length - 1} others hold as well`
    if (best === undefined || gain > best.gain) return { what: `${ADVICE[shut[0]!]} (counts once ${others})`, gain }
  }
  return best === undefined ? null : { what: ADVICE[best.name], gain: round(best.gain) }
}

function opened(input: ReadinessInput, shut: readonly GateName[]): ReadinessInput {
  const gates = Object.fromEntries(shut.map((name) => [name, { holds: true, why: '' }]))
  return { ...input, gates: { ...input.gates, ...gates } }
}

function perfect(input: ReadinessInput, name: TermName): ReadinessInput {
  return { ...input, terms: { ...input.terms, [name]: { value: 1, why: '', asOf: null } } }
}

function clamp(value: number): number {
  return Math.min(1, Math.max(0, value))
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000
}

function names(weights: typeof WEIGHTS): TermName[] {
  return Object.keys(weights) as TermName[]
}
