import { readFile, rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { Failure } from '../errors.ts'
import { killCluster } from '../postgres/cluster-process.ts'
import type { RestoreReport } from '../protect/postgres/restore.ts'
import { COMPONENT, connect, startServer, type HospitalServer } from './hospital-server.ts'
import { runResus } from './resus-command.ts'
import { readAcknowledged, type AcknowledgedWrite, type WriteStream } from './write-stream.ts'

const RECOVERY_TIMEOUT_MS = 120_000
const POLL_MS = 10
/** The feed of our own first write after the recovery. */
export const PROBE_FEED = 0

/** When each phase of a recovery ended, in ms since 1970; they follow each other. */
export interface RecoveryTimes {
  readonly fault: number
  readonly detected: number
  readonly restoreBegun: number
  readonly dataReady: number
  readonly recoveryEnded: number
  readonly firstVerifiedTransaction: number
}

export interface Recovery {
  readonly times: RecoveryTimes
  readonly restore: RestoreReport
  readonly acknowledged: readonly AcknowledgedWrite[]
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

/** From the fault to the first verified transaction: a read of the newest acknowledged write, and a new one. */
export async function recover(
  server: HospitalServer,
  options: { writes: WriteStream; fault: number; signal: AbortSignal },
): Promise<Recovery> {
  const { writes, fault, signal } = options
  const { directory } = server
  await writes.ended()
  const detected = writes.failedAtMs ?? Date.now()
  const acknowledged = readAcknowledged(directory.acknowledgedLog)
  const newest = acknowledged.at(-1)
  if (newest === undefined)
    throw new Failure('NOT_VERIFIED', 'no write was acknowledged before the disaster: nothing can be proven')

  const restoreBegun = Date.now()
  const restore = await runResus<RestoreReport>(directory, 'restore', [COMPONENT, '--to', directory.cluster], signal)
  const dataReady = Date.now()
  const logStart = (await readFile(directory.serverLog)).length
  await startServer(server, signal)
  const client = await connect(server)
  try {
    await waitForRecovery(client, signal)
    const recoveryEnded = Date.now()
    await verifyFirstTransaction(client, newest)
    const times = { fault, detected, restoreBegun, dataReady, recoveryEnded, firstVerifiedTransaction: Date.now() }
    return { times, restore, acknowledged, ...(await readRedo(directory.serverLog, logStart)) }
  } finally {
    await client.end()
  }
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

async function verifyFirstTransaction(client: pg.Client, newest: AcknowledgedWrite): Promise<void> {
  const found = await client.query('select 1 from observation where feed = $1 and feed_sequence = $2', [
    newest.feed,
    newest.sequence,
  ])
  if (found.rowCount !== 1) {
    throw new Failure('NOT_VERIFIED', `the newest acknowledged write (feed ${newest.feed}, number ${newest.sequence}) was lost`)
  }
  const written = await client.query(
    `insert into observation (encounter_id, patient_id, facility_id, code, value, observed_at, feed, feed_sequence)
      select id, patient_id, facility_id, '8867-4', 72, clock_timestamp(), $1, 1 from encounter where id = 1`,
    [PROBE_FEED],
  )
  if (written.rowCount !== 1) throw new Failure('NOT_VERIFIED', 'the restored server took no new write')
}

/** `redo done at 0/5000120 ...` and `last completed transaction was at log time ...` of the server's log. */
async function readRedo(logFile: string, from: number): Promise<{ redoDone: string | null; lastTransactionAt: string | null }> {
  const text = (await readFile(logFile)).subarray(from).toString('utf8')
  return {
    redoDone: /redo done at ([0-9A-F]+\/[0-9A-F]+)/.exec(text)?.[1] ?? null,
    lastTransactionAt: /last completed transaction was at log time ([\d-]+ [\d:.]+\S*(?: \S+)?)/.exec(text)?.[1] ?? null,
  }
}
