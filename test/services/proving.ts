import { spawn, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Clock } from '../../src/clock.ts'
import { systemClock } from '../../src/clock.ts'
import { verifyByRestore, type VerifyByRestoreOptions } from '../../src/protect/postgres/verify.ts'
import type { Check, Verdict } from '../../src/repository/verdicts.ts'
import type { ProtectedCluster } from './protected-cluster.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))

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

/** What restoring a protected cluster into a scratch place takes, as the command line gives it. */
export function scratchContext(cluster: ProtectedCluster) {
  const { repository, component, stateDirectory, configPath } = cluster
  return {
    repository,
    component,
    target: { kind: 'latest' as const },
    scratchRoot: scratchRootOf(cluster),
    forbidden: [{ path: component.dataDirectory, what: 'the data directory' }],
    stateDirectory,
    configPath,
    roles: ['postgres'],
    clock: systemClock,
    signal: new AbortController().signal,
  }
}

/** Proves a protected cluster's backup as the command line does. */
export async function prove(cluster: ProtectedCluster, options: Partial<VerifyByRestoreOptions> = {}): Promise<Verdict> {
  return await verifyByRestore({ ...scratchContext(cluster), ...options })
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

export interface RunningResus {
  readonly child: ChildProcess
  readonly ended: Promise<{ status: number | null; stdout: string; stderr: string }>
}

/** Starts the command line on a protected cluster's configuration. */
export function startResus(cluster: ProtectedCluster, ...args: string[]): RunningResus {
  const child = spawn(process.execPath, [MAIN, ...args, '--json', '--config', cluster.configPath], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString('utf8')))
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString('utf8')))
  const ended = new Promise<{ status: number | null; stdout: string; stderr: string }>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (status) => resolve({ status, stdout, stderr }))
  })
  return { child, ended }
}
