import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import type { Database } from '../database/database.ts'

/** What came of an attempt to make checkpoints. */
export type CheckpointOutcome =
  /** `made` of them, over so many events; none when nothing had happened since the last. */
  | { readonly kind: 'done'; readonly made: number; readonly events: number }
  /** A transaction that may still add an event below the position has not ended in time. Nothing was made; the next attempt will. */
  | { readonly kind: 'waiting' }

export interface CheckpointOptions {
  /** How long to wait for transactions that were running, at most. */
  readonly waitMs?: number
  readonly signal?: AbortSignal
  /** Events that one checkpoint is over at most: what is hashed at once is held in memory, 32 bytes for each. */
  readonly eventsMax?: number
}

const WORKER = { kind: 'worker', actor: 'checkpoints' } as const
const EVERY_MS = 60_000
const WAIT_MS = 30_000
const POLL_MS = 20
const EVENTS_MAX = 100_000
/** One checkpoint at a time, of however many services. Any number that nobody else takes. */
const LOCK = 7_310_040

/**
 * Makes checkpoints over all events that have settled since the last one. No writer waits for it: it reads how far positions are drawn, waits until
 * every transaction that was running then has ended, and hashes up to there. A crash in between leaves either the checkpoint or nothing.
 */
export async function takeCheckpoint(database: Database, options: CheckpointOptions = {}): Promise<CheckpointOutcome> {
  const upto = await settledPosition(
    async (text, values) => database.transaction(WORKER, async ({ client }) => (await client.query(text, values)).rows[0]),
    options,
  )
  if (upto === undefined) return { kind: 'waiting' }
  let made = 0
  let events = 0
  for (;;) {
    const count = await appendCheckpoint(database, upto, options.eventsMax ?? EVENTS_MAX)
    if (count === 0) return { kind: 'done', made, events }
    made += 1
    events += count
  }
}

/** Makes a checkpoint every minute until it is disposed of, which waits for one that is being made. An attempt that fails is told and tried again. */
export function startCheckpoints(
  database: Database,
  options: { readonly everyMs?: number; readonly onError?: (error: unknown) => void } = {},
): AsyncDisposable {
  const { everyMs = EVERY_MS, onError = () => undefined } = options
  const stop = new AbortController()
  const running = (async () => {
    while (!stop.signal.aborted) {
      await takeCheckpoint(database, { signal: stop.signal }).catch(onError)
      await delay(everyMs, undefined, { signal: stop.signal, ref: false }).catch(() => undefined)
    }
  })()
  return {
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      await running
    },
  }
}

/** Asks one statement in a transaction of its own, and gives its row. */
export type Ask = (text: string, values: unknown[]) => Promise<pg.QueryResultRow | undefined>

/** A position at or below which no event is still to come, the one drawn last; undefined when a transaction did not end in time. */
export async function settledPosition(
  ask: Ask,
  { waitMs = WAIT_MS, signal }: Pick<CheckpointOptions, 'waitMs' | 'signal'> = {},
): Promise<bigint | undefined> {
  const drawn = await ask('select upto, xmax::text as xmax from hospital.drawn_position()', [])
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    const row = await ask('select hospital.has_settled($1::text::xid8) as settled', [drawn?.['xmax']])
    if (row?.['settled'] === true) return BigInt(String(drawn?.['upto']))
    if (waitedMs >= waitMs || signal?.aborted === true) return undefined
    await delay(POLL_MS)
  }
}

/** Appends one checkpoint and gives how many events it is over; 0 when there are none, and no checkpoint then. */
async function appendCheckpoint(database: Database, upto: bigint, eventsMax: number): Promise<number> {
  return await database.transaction(WORKER, async ({ client }) => {
    // Before anything is read: who waited here sees the checkpoint of who came before.
    await client.query('select pg_advisory_xact_lock($1)', [LOCK])
    const { rows } = await client.query<{ events: string }>(APPEND, [String(upto), eventsMax])
    return Number(rows[0]?.events ?? 0)
  })
}

const APPEND = `
  with last as (
    select coalesce(max(number), 0) as number, coalesce(max(position), 0) as position,
      coalesce((select hash from hospital.checkpoints order by number desc limit 1), hospital.no_hash()) as hash
    from hospital.checkpoints
  ), range as (
    select position, hash from hospital.events
    where position > (select position from last) and position <= $1::bigint
    order by position limit $2
  )
  insert into hospital.checkpoints (number, at, position, events, previous_hash, hash)
  select last.number + 1, clock_timestamp(), covered.upto, covered.events, last.hash, sha256(last.hash || covered.hashes)
  from last, (select max(position) as upto, count(*) as events, string_agg(hash, ''::bytea order by position) as hashes from range) covered
  where covered.events > 0
  returning events`

/** A checkpoint that does not say what the events say. */
export interface BrokenCheckpoint {
  readonly number: string
  readonly problem: string
}

/**
 * Every checkpoint that is not its events' any more: one of its events was changed, removed or added behind everybody's back, or a checkpoint itself was.
 * Set-based, and in memory one checkpoint's hashes at a time.
 */
export const BROKEN_CHECKPOINTS = `
  select c.number::text as number, case
      when c.number <> c.expected_number then format('follows checkpoint %s', c.expected_number - 1)
      when c.previous_hash <> c.chain then 'does not follow the checkpoint before it'
      when c.events <> found.events then format('is over %s events, and there are %s of them', c.events, found.events)
      else 'is over events that are not the ones that are there'
    end as problem
  from (
    select *, row_number() over w as expected_number, coalesce(lag(hash) over w, hospital.no_hash()) as chain,
      coalesce(lag(position) over w, 0) as after
    from hospital.checkpoints window w as (order by number)
  ) c,
  lateral (
    select count(*) as events, coalesce(string_agg(e.hash, ''::bytea order by e.position), ''::bytea) as hashes
    from hospital.events e where e.position > c.after and e.position <= c.position
  ) found
  where c.number <> c.expected_number or c.previous_hash <> c.chain or c.events <> found.events
    or c.hash <> sha256(c.previous_hash || found.hashes)`
