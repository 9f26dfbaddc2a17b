import { join } from 'node:path'
import type { Clock } from '../../src/clock.ts'
import { systemClock } from '../../src/clock.ts'
import { verifyByRestore, type VerifyByRestoreOptions } from '../../src/protect/postgres/verify.ts'
import type { Check, Verdict } from '../../src/repository/verdicts.ts'
import type { ProtectedCluster } from './protected-cluster.ts'

/** A clock that a test moves. */
export class TestClock implements Clock {
  offsetMs = 0

  now(): number {
    return systemClock.now() + this.offsetMs
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    await systemClock.sleep(ms, signal)
  }
}

export function scratchRootOf(cluster: ProtectedCluster): string {
  return join(cluster.stateDirectory, 'scratch')
}

/** Proves a protected cluster's backup as the command line does. */
export async function prove(cluster: ProtectedCluster, options: Partial<VerifyByRestoreOptions> = {}): Promise<Verdict> {
  const { repository, component, stateDirectory, configPath } = cluster
  return await verifyByRestore({
    repository,
    component,
    target: { kind: 'latest' },
    scratchRoot: scratchRootOf(cluster),
    forbidden: [{ path: component.dataDirectory, what: 'the data directory' }],
    stateDirectory,
    configPath,
    roles: ['postgres'],
    clock: systemClock,
    signal: new AbortController().signal,
    ...options,
  })
}

/** `restore: verified` and so on, in order. */
export function outcomes(verdict: Verdict): string[] {
  return verdict.checks.map(({ name, verdict: each }) => `${name}: ${each}`)
}

export function checkNamed(verdict: Verdict, name: string): Check {
  const found = verdict.checks.find((check) => check.name === name)
  if (found === undefined) throw new Error(`no check "${name}" among ${outcomes(verdict).join(', ')}`)
  return found
}
