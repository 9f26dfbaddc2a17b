import type { ObjectiveName, ObjectiveSettings } from '../config/objectives-settings.ts'
import type { Tier } from '../protect/postgres/component.ts'

// What was promised of each component, and where each promise comes from. Whether it is kept: judgement.ts.

export interface TierObjectives {
  readonly rtoMinutes: number
  readonly rpoMinutes: number
}

export const TIERS: Readonly<Record<Tier, TierObjectives>> = {
  critical: { rtoMinutes: 15, rpoMinutes: 5 },
  high: { rtoMinutes: 60, rpoMinutes: 15 },
  medium: { rtoMinutes: 240, rpoMinutes: 60 },
  low: { rtoMinutes: 1440, rpoMinutes: 240 },
}

export const objectiveNames = [
  'rtoMinutes',
  'rpoMinutes',
  'maximumTolerableDowntimeMinutes',
  'availabilityPercent',
] as const satisfies readonly ObjectiveName[]

/** What the words mean here, for every reply that uses them. */
export const DEFINITIONS = {
  rto: 'Recovery time objective: the longest that may pass from the fault to the first verified transaction. The actual RTO is that of the last proven recovery, and only while its proof holds; else it is not proven.',
  rpo: 'Recovery point objective: the longest stretch of time whose changes may be lost. The actual RPO is the time of the fault, or now, less that of the newest heartbeat that a recovery has or would have; without the heartbeat it is not proven.',
  maximumTolerableDowntime:
    'Maximum tolerable downtime: how long a single outage may last before the harm to the hospital is lasting. The actual figure is the longest outage measured.',
  availability:
    'Availability: the share of time in which health checks found the component up. Time in which nobody could tell does not count as up.',
  backupAge:
    'Backup age: the time since the newest backup was finished. It says nothing of what would be lost, and is never called RPO.',
} as const

/** The most particular first: what happens comes before what it happens to, and a value that somebody wrote before one of the tier. */
export type ObjectiveSource = 'component scenario' | 'system scenario' | 'component' | 'system' | 'tier'

export interface ResolvedObjective {
  readonly value: number
  readonly from: ObjectiveSource
}

export interface Objectives {
  readonly tier: Tier
  readonly scenario: string | null
  /** Null where nobody has set one. */
  readonly values: Readonly<Record<ObjectiveName, ResolvedObjective | null>>
  /** Where they contradict each other. */
  readonly remarks: readonly string[]
}

export interface ObjectiveOwner {
  readonly objectives?: ObjectiveSettings | undefined
}

/** What is promised of a component, in general or for a scenario, each value with where it comes from. */
export function resolveObjectives(
  system: ObjectiveOwner,
  component: ObjectiveOwner & { readonly tier: Tier },
  scenario?: string,
): Objectives {
  const particular = (owner: ObjectiveOwner) => (scenario === undefined ? undefined : owner.objectives?.scenarios?.[scenario])
  const sources = [
    ['component scenario', particular(component)],
    ['system scenario', particular(system)],
    ['component', component.objectives],
    ['system', system.objectives],
    ['tier', TIERS[component.tier] as Partial<Record<ObjectiveName, number>>],
  ] as const
  const resolve = (name: ObjectiveName): ResolvedObjective | null => {
    for (const [from, own] of sources) {
      const value = own?.[name]
      if (value !== undefined) return { value, from }
    }
    return null
  }
  const values = {
    rtoMinutes: resolve('rtoMinutes'),
    rpoMinutes: resolve('rpoMinutes'),
    maximumTolerableDowntimeMinutes: resolve('maximumTolerableDowntimeMinutes'),
    availabilityPercent: resolve('availabilityPercent'),
  }
  return { tier: component.tier, scenario: scenario ?? null, values, remarks: contradictions(values) }
}

function contradictions({ rtoMinutes, maximumTolerableDowntimeMinutes: longest }: Objectives['values']): string[] {
  if (rtoMinutes === null || longest === null || rtoMinutes.value <= longest.value) return []
  return [
    `a return may take ${rtoMinutes.value} min (from the ${rtoMinutes.from}), which is longer than the tolerable downtime of ${longest.value} min (from the ${longest.from})`,
  ]
}
