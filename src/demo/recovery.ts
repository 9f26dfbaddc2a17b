import { readFile, rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { Failure } from '../errors.ts'
import { killCluster } from '../postgres/cluster-process.ts'
import type { RestoreReport } from '../protect/postgres/restore.ts'
import { COMPONENT, connect, startServer, type HospitalServer } from './hospital-server.ts'
import { ask, readAcknowledged, verifyTransaction, type Hospital, type HospitalService } from './reference-hospital.ts'
import { runResus } from './resus-command.ts'

const DETECTION_TIMEOUT_MS = 30_000
const RECOVERY_TIMEOUT_MS = 120_000
const SERVICE_TIMEOUT_MS = 60_000
const POLL_MS = 10

/** When each phase of a recovery ended, in ms since 1970; they follow each other. */
export interface RecoveryTimes {
  readonly fault: number
  readonly detected: number
  readonly dataReady: number
  readonly recoveryEnded: number
  readonly firstVerifiedTransaction: number
}

export interface Recovery {
  readonly times: RecoveryTimes
  readonly restore: RestoreReport
  /** Acknowledged before the fault. */
  readonly acknowledged: number
  /** As the server's log says: up to where WAL was replayed, and the last transaction in it. */
  readonly redoDone: string | null
  readonly lastTransactionAt: string | null
}

/** The disaster: every process of the server is killed and its data directory is deleted, while writes go on. When it began. */
export async function destroyServer(server: HospitalServer): Promise<number> {
  const fault = Date.now()
  await killCluster(server.directory.cluster)
  await rm(server.directory.cluster, { recursive: true })
  return fault
}

/** From the fault to the first verified transaction: over HTTP, a read of the newest acknowledged write, and a new one. */
export async function recover(
  hospital: Hospital,
  options: { service: HospitalService; fault: number; signal: AbortSignal },
): Promise<Recovery> {
  const { service, fault, signal } = options
  const { server } = hospital
  const { directory } = server
  await untilHealth(service, { up: false, timeoutMs: DETECTION_TIMEOUT_MS, signal })
  const detected = Date.now()
  const { count, last } = await readAcknowledged(directory.acknowledgedLog)
  if (last === undefined)
    throw new Failure('NOT_VERIFIED', 'no write was acknowledged before the disaster: nothing can be proven')

  const restore = await runResus<RestoreReport>(directory, 'restore', [COMPONENT, '--to', directory.cluster], signal)
  const dataReady = Date.now()
  const logStart = (await readFile(directory.serverLog)).length
  await startServer(server, signal)
  const client = await connect(server)
  try {
    await waitForRecovery(client, signal)
  } finally {
    await client.end()
  }
  const recoveryEnded = Date.now()
  await untilHealth(service, { up: true, timeoutMs: SERVICE_TIMEOUT_MS, signal })
  await verifyTransaction(hospital, service, last)
  const times = { fault, detected, dataReady, recoveryEnded, firstVerifiedTransaction: Date.now() }
  return { times, restore, acknowledged: count, ...(await readRedo(directory.serverLog, logStart)) }
}

/** As a monitor would: until the hospital's service says that it is up, or down. */
async function untilHealth(
  service: HospitalService,
  wanted: { up: boolean; timeoutMs: number; signal: AbortSignal },
): Promise<void> {
  const deadline = performance.now() + wanted.timeoutMs
  while (performance.now() < deadline) {
    wanted.signal.throwIfAborted()
    const answer = await ask(service, { path: '/health' })
    if ((answer?.status === 200) === wanted.up) return
    await delay(POLL_MS, undefined, { signal: wanted.signal })
  }
  throw new Failure(
    'NOT_VERIFIED',
    `the hospital's service was still ${wanted.up ? 'down' : 'up'} after ${wanted.timeoutMs / 1000} s`,
  )
}

async function waitForRecovery(client: pg.Client, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + RECOVERY_TIMEOUT_MS
  while (performance.now() < deadline) {
    const { rows } = await client.query<{ recovering: boolean }>('select pg_is_in_recovery() as recovering')
    if (rows[0]?.recovering === false) return
    await delay(POLL_MS, undefined, { signal })
  }
  throw new Failure('POSTGRES_FAILED', `the restored server was still in recovery after ${RECOVERY_TIMEOUT_MS / 1000} s`)
}

/** `redo done at 0/5000120 ...` and `last completed transaction was at log time ...` of the server's log. */
async function readRedo(logFile: string, from: number): Promise<{ redoDone: string | null; lastTransactionAt: string | null }> {
  const text = (await readFile(logFile)).subarray(from).toString('utf8')
  return {
    redoDone: /redo done at ([0-9A-F]+\/[0-9A-F]+)/.exec(text)?.[1] ?? null,
    lastTransactionAt: /last completed transaction was at log time ([\d-]+ [\d:.]+\S*(?: \S+)?)/.exec(text)?.[1] ?? null,
  }
}
