import type pg from 'pg'
import { pause } from '../pause.ts'
import { lacks, resume, targetsOf, type Progress } from './resume.ts'
import { becomePublisher, workerClient } from './session.ts'
import type { TopicRecord, TopicSink } from './sink.ts'

/** A look at one sequence. NOTIFY instead would make all writers commit one after the other: they share one lock in PostgreSQL. */
const POLL_MS = 150
const SETTLE_POLL_MS = 20
const BATCH_EVENTS = 500
const BATCH_BYTES = 8 * 1024 * 1024
const EXPIRE_EVERY_MS = 3_600_000
const RETRY_MS_MIN = 250
const RETRY_MS_MAX = 10_000

export interface PublishOptions {
  /** Of a user that is, or may become, `hospital_worker`. */
  readonly connectionString: string
  /** Opens the sink; the client is the publisher's, for a sink in the same database. */
  readonly openSink: (client: pg.ClientBase) => TopicSink
  readonly signal: AbortSignal
  /** One line for people. */
  readonly report: (line: string) => void
  /** Ends as soon as everything is published, instead of waiting for more. */
  readonly untilCaughtUp?: boolean
  /** How many events are published at once, at most. */
  readonly batchEvents?: number | undefined
}

/**
 * Publishes events to topics until it is told to end: at least once, and in order for each stream. Where it was is not remembered anywhere: each start, and
 * each start after a failure, asks the sink. A second publisher of the same hospital waits for the first to end.
 */
export async function publishTopics(options: PublishOptions): Promise<void> {
  const { signal, report } = options
  let retryMs = RETRY_MS_MIN
  while (!signal.aborted) {
    try {
      await publishUntilFailure(options, () => {
        retryMs = RETRY_MS_MIN
      })
      return
    } catch (error) {
      if (signal.aborted) return
      report(`topics: ${said(error)}; tried again in ${retryMs} ms`)
      await pause(retryMs, signal)
      retryMs = Math.min(retryMs * 2, RETRY_MS_MAX)
    }
  }
}

async function publishUntilFailure(options: PublishOptions, succeeded: () => void): Promise<void> {
  const { connectionString, openSink, signal, report, untilCaughtUp = false, batchEvents = BATCH_EVENTS } = options
  await using stack = new AsyncDisposableStack()
  const client = await workerClient(connectionString, 'hospital topics')
  stack.defer(async () => client.end())
  if (!(await becomePublisher(client, signal))) return
  const sink = stack.use(openSink(client))
  const touched = await sink.prepare()
  if (touched.length > 0) report(`topics: made or corrected ${touched.join(', ')} in ${sink.place}`)
  const progress = await resume(client, sink, await settledPosition(client, signal))
  report(`topics: publishing to ${sink.place} behind position ${progress.after}`)
  if (progress.ahead > 0) {
    report(
      `topics: ${sink.place} has ${progress.ahead} records of events that THIS DATABASE DOES NOT HAVE: see \`hospital topics status\``,
    )
  }
  let expiredAt = 0
  while (!signal.aborted) {
    // A look that costs nothing first: asking what has settled takes a transaction id.
    const upto = (await drawnPosition(client)) > progress.after ? await settledPosition(client, signal) : progress.after
    while (progress.after < upto && !signal.aborted) await publishBatch({ client, sink, progress, batchEvents }, upto)
    succeeded()
    if (untilCaughtUp) return
    if (Date.now() - expiredAt > EXPIRE_EVERY_MS) {
      await sink.expire()
      expiredAt = Date.now()
    }
    await pause(POLL_MS, signal)
  }
}

async function drawnPosition(client: pg.ClientBase): Promise<bigint> {
  const { rows } = await client.query<{ drawn: string }>(
    'select case when is_called then last_value else 0 end as drawn from hospital.events_position_seq',
  )
  return BigInt(rows[0]!.drawn)
}

/** A position at and below which no event is still to come. */
async function settledPosition(client: pg.ClientBase, signal: AbortSignal): Promise<bigint> {
  const { rows } = await client.query<{ upto: string; xmax: string }>('select d.upto, d.xmax from hospital.drawn_position() d')
  const { upto, xmax } = rows[0]!
  while (!signal.aborted) {
    const settled = await client.query<{ settled: boolean }>('select hospital.has_settled($1::xid8) as settled', [xmax])
    if (settled.rows[0]?.settled === true) return BigInt(upto)
    await pause(SETTLE_POLL_MS, signal)
  }
  return 0n
}

interface EventRow {
  readonly position: string
  readonly id: string
  readonly stream: string
  readonly value: string
  readonly audit_value: string
}

interface Publication {
  readonly client: pg.ClientBase
  readonly sink: TopicSink
  readonly progress: Progress
  readonly batchEvents: number
}

/** Publishes the next events up to `upto`, of each to the partitions that lack it. The audit topic is last: what it has, the others have. */
async function publishBatch({ client, sink, progress, batchEvents }: Publication, upto: bigint): Promise<void> {
  const { rows } = await client.query<EventRow>({
    name: 'events to publish',
    text: 'select position, id, stream, value, audit_value from hospital.events_to_publish($1, $2, $3, $4)',
    values: [String(progress.after), String(upto), batchEvents, BATCH_BYTES],
  })
  const records = rows.flatMap((row) => recordsOf(sink, row)).filter((each) => lacks(progress, placeOf(each), each.position))
  await publishAll(
    sink,
    progress,
    records.filter(({ topic }) => topic !== 'audit'),
  )
  await publishAll(
    sink,
    progress,
    records.filter(({ topic }) => topic === 'audit'),
  )
  const last = rows.at(-1)
  progress.after = last === undefined ? upto : BigInt(last.position)
}

async function publishAll(sink: TopicSink, progress: Progress, records: readonly TopicRecord[]): Promise<void> {
  if (records.length === 0) return
  await sink.publish(records)
  for (const each of records) progress.reached.set(placeOf(each), each.position)
}

function recordsOf(sink: TopicSink, row: EventRow): TopicRecord[] {
  const { id, stream: key, value, audit_value: auditValue } = row
  return targetsOf(sink, key).map(({ topic, partition }) => ({
    topic,
    partition,
    key,
    value: topic === 'audit' ? auditValue : value,
    id,
    position: BigInt(row.position),
  }))
}

function placeOf({ topic, partition }: TopicRecord): string {
  return `${topic}/${partition}`
}

/** Kafka's client wraps what went wrong several times. */
function said(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return `${error.message} ${said(error.errors[0])}`
  return error instanceof Error ? error.message : String(error)
}
