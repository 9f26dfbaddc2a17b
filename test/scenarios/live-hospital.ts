import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { claimDirectory, type DemoDirectory } from '../../src/demo/demo-directory.ts'
import { startHeartbeat } from '../../src/demo/heartbeat.ts'
import { COMPONENT, createServer, isReceiving, useServer, writeConfiguration } from '../../src/demo/hospital-server.ts'
import {
  copyCheck,
  generateHospital,
  readAcknowledged,
  startActivity,
  startService,
  writeBaseline,
  type Hospital,
} from '../../src/demo/reference-hospital.ts'
import { judgeByResus, runResus, startReceiver } from '../../src/demo/resus-command.ts'
import { stopCluster } from '../../src/postgres/cluster-process.ts'
import { waitUntil } from '../services/wait-until.ts'

const PATIENTS = 300
const RATE = 30

interface Drilled {
  readonly sequence: number
  readonly digest: string
  readonly verdict: string
  readonly why: string
  readonly measured: { readonly rtoSeconds: number | null; readonly rpoSeconds: number | null }
  readonly recoveryPoint: { readonly backup: string; readonly heartbeat: string | null; readonly asked: string | null }
  readonly checks: readonly { readonly name: string; readonly verdict: string; readonly found: string }[]
}

/** The reference hospital, protected by Resus and in use. */
export interface LiveHospital extends AsyncDisposable {
  readonly hospital: Hospital
  readonly directory: DemoDirectory
  /** Clinical events begin, and go on until they are ended. */
  work(): Promise<AsyncDisposable>
  backup(): Promise<string>
  resus<T>(verb: string, ...args: string[]): Promise<T>
  /** Of a verb that judges: status 1 is an answer too. */
  judged<T>(verb: string, ...args: string[]): Promise<T>
  drill(...args: string[]): Promise<Drilled>
  /** As an auditor does who has the bundle and the fingerprint of the sheet alone. */
  audit(): Promise<{ readonly verdict: string; readonly records: number }>
}

export async function liveHospital(t: TestContext): Promise<LiveHospital> {
  const { signal } = new AbortController()
  const home = await mkdtemp(join(tmpdir(), 'h-'))
  const stack = new AsyncDisposableStack()
  stack.defer(async () => rm(home, { recursive: true, force: true, maxRetries: 5 }))
  const directory = await claimDirectory(join(home, 'h'), { keep: false })
  const server = await createServer(directory)
  stack.defer(async () => stopCluster({ directory: directory.cluster, mode: 'immediate' }).catch(() => undefined))
  const hospital = await generateHospital(server, { facilities: 2, patients: PATIENTS, seed: 7, signal })
  await writeBaseline(hospital, signal)
  await writeConfiguration(directory, copyCheck(directory))
  await runResus(directory, 'init', [], signal)
  const receiver = startReceiver(directory, COMPONENT)
  stack.defer(async () => receiver.close())
  await useServer(server, async (client) => receiver.ready(async () => isReceiving(client), signal))
  stack.use(await startHeartbeat(server))
  const service = stack.use(await startService(hospital, signal))
  let bundles = 0
  return {
    hospital,
    directory,
    work: async () => {
      const { count: before } = await readAcknowledged(directory.acknowledgedLog)
      const activity = startActivity(hospital, service, { rate: RATE, seed: 7 })
      await activity.ready(async () => (await readAcknowledged(directory.acknowledgedLog)).count > before, signal)
      return { [Symbol.asyncDispose]: async () => activity.close() }
    },
    backup: async () => (await runResus<{ id: string }>(directory, 'backup', [COMPONENT], signal)).id,
    resus: async (verb, ...args) => runResus(directory, verb, args, signal),
    judged: async <T>(verb: string, ...args: string[]) => (await judgeByResus(directory, verb, args, signal)) as T,
    drill: async (...args) => {
      const drilled = (await judgeByResus(directory, 'drill', [COMPONENT, ...args], signal)) as Drilled
      t.diagnostic(JSON.stringify(drilled))
      return drilled
    },
    audit: async () => {
      bundles += 1
      const bundle = join(directory.root, `evidence-${bundles}`)
      const { fingerprint } = await runResus<{ fingerprint: string }>(directory, 'evidence', ['key'], signal)
      await runResus(directory, 'evidence', ['bundle', '--to', bundle], signal)
      const args = ['verify', bundle, '--fingerprint', fingerprint]
      return (await judgeByResus(directory, 'evidence', args, signal)) as { verdict: string; records: number }
    },
    [Symbol.asyncDispose]: async () => stack[Symbol.asyncDispose](),
  }
}

/** Waits until so many more writes were acknowledged. */
export async function moreWrites({ directory }: LiveHospital, count: number): Promise<void> {
  const { count: before } = await readAcknowledged(directory.acknowledgedLog)
  await waitUntil(`${count} more writes`, async () => (await readAcknowledged(directory.acknowledgedLog)).count >= before + count)
}

/** The checks that failed. */
export function failedChecks({ checks }: Drilled): Map<string, string> {
  const failed = checks.filter(({ verdict }) => verdict === 'failed')
  assert.ok(failed.every(({ found }) => found !== ''))
  return new Map(failed.map(({ name, found }) => [name, found]))
}
