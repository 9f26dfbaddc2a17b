import type { ComponentConfiguration, Configuration } from '../config/configuration.ts'
import { recordsBackwards } from '../recovery/evidence/chain.ts'
import { resolveObjectives } from '../recovery/objectives.ts'
import { countChecks, readinessInput, type ReadinessRun } from '../recovery/readiness-input.ts'
import { HEALTHY_ABOVE, leastReady, readiness, type Readiness } from '../recovery/readiness.ts'
import type { Repository } from '../repository/repository.ts'
import type { Context } from './verb.ts'

/** So many of the newest records are read: a status has to come soon. */
const RECORDS_MAX = 500

export interface ComponentReadiness extends Readiness {
  readonly component: string
}

/**
 * How ready components are, by the repository alone: what only a running control plane measures (the RPO, standbys) is missing, and lowers the number.
 */
export async function readReadiness(
  context: Context,
  {
    configuration,
    repository,
    components,
  }: {
    readonly configuration: Configuration
    readonly repository: Repository
    readonly components: readonly ComponentConfiguration[]
  },
): Promise<ComponentReadiness[]> {
  const { runs, newest, openActions } = await readEvidence(context, repository, new Set(components.map(({ name }) => name)))
  const nowMs = context.clock.now()
  return components.map((component) => {
    const input = readinessInput({
      lastRun: runs.get(component.name) ?? null,
      lastOfNewest: newest.get(component.name) ?? null,
      unknown: 'there was no drill yet',
      rpo: null,
      rtoMinutes: resolveObjectives(configuration, component).values.rtoMinutes?.value ?? null,
      standbyLagSeconds: null,
      key: { holds: true, why: 'the repository was opened with its key now' },
      openActions,
      nowMs,
    })
    return { component: component.name, ...readiness(input) }
  })
}

async function readEvidence(context: Context, repository: Repository, wanted: ReadonlySet<string>) {
  const runs = new Map<string, ReadinessRun>()
  const newest = new Map<string, ReadinessRun>()
  const actions = new Map<string, { readonly state: string; readonly due: string }>()
  let read = 0
  const warn = (sequence: number) => context.warn(`record ${sequence} of the evidence is damaged, and is passed over`)
  for await (const { sequence, predicate } of recordsBackwards(repository, warn, { signal: context.signal })) {
    if (predicate.kind === 'action' && !actions.has(predicate.action)) actions.set(predicate.action, predicate)
    if ((predicate.kind === 'drill' || predicate.kind === 'recovery') && wanted.has(predicate.component)) {
      const run = { ...predicate, sequence, checks: countChecks(predicate) }
      if (!runs.has(predicate.component)) runs.set(predicate.component, run)
      if (predicate.recoveryPoint.target === 'latest' && !newest.has(predicate.component)) newest.set(predicate.component, run)
    }
    read += 1
    if (read === RECORDS_MAX) break
  }
  return { runs, newest, openActions: [...actions.values()].filter(({ state }) => state === 'open') }
}

/** What a status begins with. */
export function describeReadiness(all: readonly ComponentReadiness[]): readonly (readonly [string, string])[] {
  const least = leastReady(all)
  if (least === undefined) return []
  const which = all.length === 1 ? '' : `, by "${least.component}"`
  const shut = least.gates.filter(({ holds }) => holds !== true).map(({ name, why }) => `${name} (${why})`)
  return [
    ['readiness', `${least.score.toFixed(2)} of 1 (healthy above ${HEALTHY_ABOVE.toFixed(1)})${which}`],
    ...(shut.length === 0 ? [] : [['held back by', shut.join('; ')] as const]),
    ...(least.action === null ? [] : [['to do first', `${least.action.what} (+${least.action.gain.toFixed(2)})`] as const]),
  ]
}
