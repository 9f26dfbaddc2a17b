import pg from 'pg'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'

// Who uses our slot: another receiver that is alive, or what is left on the server of one that is not.

const CONNECT_TIMEOUT_MS = 4000
/** A receiver tells the server how far it is at least every 10 s (ours every 5 s): in this time one that lives is heard. */
const WATCH_MS = 15_000
const POLL_MS = 1000
/** Only what is heard this long after the first look counts: a receiver that is just ending sends no more by then. */
const ENDING_MS = 4000

/** What the server says of the process that uses a slot. */
export interface SlotHolder {
  readonly pid: number
  readonly client: string
  readonly applicationName: string
  readonly since: string
  /** When the receiver's last message was sent; null while there was none, or when we may not see it. */
  readonly replyAt: string | null
}

export interface WatchSlotOptions {
  readonly connectionString: string
  readonly slot: string
  readonly clock: Clock
  readonly signal: AbortSignal
}

/**
 * Watches a busy slot for up to 15 s. Returns when it is free, or when its holder was not heard: the server lets go of a dead
 * receiver after wal_sender_timeout, and that is worth waiting for. Throws SLOT_BUSY, naming the holder, when it is alive: two
 * receivers on one slot would take it from each other for ever.
 */
export async function watchSlotHolder(options: WatchSlotOptions): Promise<void> {
  const { clock, signal, slot } = options
  const beganMs = clock.now()
  let last: SlotHolder | undefined
  while (clock.now() - beganMs < WATCH_MS) {
    const holder = await readSlotHolder(options)
    if (holder === undefined) return
    const same = last?.pid === holder.pid && last.since === holder.since
    const heard = same && holder.replyAt !== null && holder.replyAt !== last?.replyAt
    if (heard && clock.now() - beganMs >= ENDING_MS) throw busy(slot, holder)
    last = holder
    await clock.sleep(POLL_MS, signal)
  }
}

function busy(slot: string, { pid, client, applicationName, since }: SlotHolder): Failure {
  const what = `replication slot "${slot}" is in use by a living receiver: process ${pid} of the server serves "${applicationName}" at ${client} since ${since}`
  return new Failure('SLOT_BUSY', what, { hint: 'stop that one, or give this one a slot of its own: one slot has one receiver' })
}

/** Undefined when nobody uses the slot, or the server does not tell. */
async function readSlotHolder({ connectionString, slot }: WatchSlotOptions): Promise<SlotHolder | undefined> {
  const client = new pg.Client({
    connectionString,
    application_name: 'resus slot',
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: CONNECT_TIMEOUT_MS,
  })
  client.on('error', () => undefined)
  try {
    await client.connect()
    return (await client.query<{ pid: number } & SlotHolder>(HOLDER, [slot])).rows[0]
  } catch {
    // Only to know more than "busy": without an ordinary session the receiver simply tries again.
    return undefined
  } finally {
    await client.end().catch(() => undefined)
  }
}

const HOLDER = `
  select s.active_pid as pid, coalesce(host(r.client_addr) || ':' || r.client_port, 'a local socket') as client,
    coalesce(r.application_name, '') as "applicationName", r.backend_start::text as since, r.reply_time::text as "replyAt"
  from pg_replication_slots s left join pg_stat_replication r on r.pid = s.active_pid
  where s.slot_name = $1 and s.active_pid is not null`
