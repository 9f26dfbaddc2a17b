import pg from 'pg'
import { pause } from '../pause.ts'

/** The advisory lock that the one publisher of a hospital holds. Any number that nobody else takes. */
const PUBLISHER_LOCK = 7_310_030
const CONNECT_TIMEOUT_MS = 10_000
const LOCK_POLL_MS = 1_000

/** A connection of its own, working as `hospital_worker` from its start. The caller ends it. */
export async function workerClient(connectionString: string, applicationName: string): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString,
    application_name: applicationName,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    // By the index on positions, always: with old statistics a plan that sorts all that is left, for each batch, looks cheaper.
    options:
      '-c role=hospital_worker -c search_path=hospital,pg_temp -c timezone=UTC -c jit=off -c enable_seqscan=off -c enable_bitmapscan=off',
  })
  // A connection that breaks says so at its next query.
  client.on('error', () => undefined)
  await client.connect()
  return client
}

/**
 * Waits until this connection is the hospital's publisher; false when it was told to end first. The lock ends with the connection, and a publisher does
 * all its reading on that connection: whoever lost the lock reads nothing more that it could publish.
 */
export async function becomePublisher(client: pg.ClientBase, signal: AbortSignal): Promise<boolean> {
  while (!signal.aborted) {
    const { rows } = await client.query<{ taken: boolean }>('select pg_try_advisory_lock($1) as taken', [PUBLISHER_LOCK])
    if (rows[0]?.taken === true) return true
    await pause(LOCK_POLL_MS, signal)
  }
  return false
}
