import assert from 'node:assert/strict'
import { checksSchema, type ChecksSettings } from '../../src/protect/postgres/content/checks-schema.ts'
import { drill, type DrillOptions } from '../../src/recovery/drill/drill.ts'
import type { StoredRecord } from '../../src/recovery/evidence/chain.ts'
import type { RunPredicate } from '../../src/recovery/evidence/record.ts'
import { resolveObjectives } from '../../src/recovery/objectives.ts'
import type { z } from 'zod'
import { scratchContext } from './proving.ts'
import type { ProtectedCluster } from './protected-cluster.ts'

export interface Rehearsal {
  readonly record: StoredRecord
  readonly predicate: RunPredicate
  /** `name: verdict`, in order. */
  readonly outcomes: readonly string[]
  readonly found: (name: string) => RunPredicate['checks'][number]
}

export type ChecksInput = z.input<typeof checksSchema>

/** Drills a protected cluster as the command line does; the newest moment unless a target is given. */
export async function rehearse(
  cluster: ProtectedCluster,
  checks: ChecksInput = {},
  options: Partial<DrillOptions> = {},
): Promise<Rehearsal> {
  const settings: ChecksSettings = checksSchema.parse(checks)
  const record = await drill({
    ...scratchContext(cluster),
    system: 'test-his',
    facilities: ['ila', 'ede'],
    objectives: resolveObjectives({}, cluster.component),
    checks: settings,
    database: 'postgres',
    target: 'latest',
    startedBy: 'a test',
    validDays: 7,
    limitMinutes: 10,
    ...options,
  })
  const { predicate } = record
  assert.ok(predicate.kind === 'drill')
  return {
    record,
    predicate,
    outcomes: predicate.checks.map(({ name, verdict }) => `${name}: ${verdict}`),
    found: (name) => {
      const check = predicate.checks.find((each) => each.name === name)
      assert.ok(check !== undefined, `no check "${name}" among ${predicate.checks.map((each) => each.name).join(', ')}`)
      return check
    },
  }
}

/** Whether the server of a drill had a network and files of its own: not every system allows it. */
export function isConfined({ isolation }: RunPredicate): boolean {
  const wanted = ['no way out to the network', 'key, configuration and repository out of reach']
  return wanted.every((name) => isolation.some(({ what, holds }) => what === name && holds === true))
}
