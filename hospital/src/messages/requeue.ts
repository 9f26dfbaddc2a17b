import type { Database, Transaction } from '../database/database.ts'
import { record } from '../events/record.ts'
import { Refusal } from '../refusal.ts'
import type { MessageKind } from './message.ts'
import { MESSAGE_SCHEMA_VERSION } from './queue.ts'

/** How many messages of a kind are queued, delivered or failed. */
export interface MessageCount {
  readonly kind: MessageKind
  readonly status: string
  readonly messages: number
}

/** A message that was given up after its last attempt, and why that failed. */
export interface FailedMessage {
  readonly id: string
  readonly facility: string
  readonly kind: MessageKind
  readonly attempts: number
  readonly failedAt: Date
  readonly reason: string | null
}

export interface MessageReport {
  readonly counts: readonly MessageCount[]
  /** The newest, as many as were asked for. */
  readonly failed: readonly FailedMessage[]
}

export interface RequeueOptions {
  readonly person: string
  readonly kind?: MessageKind
  /** These alone; all of them have to be failed ones. */
  readonly ids?: readonly string[]
  readonly reason?: string
}

/** How many are requeued in one transaction: what waits for it, as a checkpoint does, does not wait long. */
const BATCH = 500

/** What is queued, delivered and failed. The last error is the event's to say, and is not kept elsewhere. */
export async function reportMessages({ sql, client }: Transaction, failedMax: number): Promise<MessageReport> {
  const counts = await sql
    .selectFrom('messages')
    .select(['kind', 'status', (each) => each.fn.countAll<string>().as('messages')])
    .groupBy(['kind', 'status'])
    .orderBy('kind')
    .orderBy('status')
    .execute()
  const { rows } = await client.query<FailedMessage>(
    `select m.id, m.facility, m.kind, m.attempts, m.updated_at as "failedAt", e.payload ->> 'reason' as reason
     from hospital.messages m left join hospital.events e on e.stream = 'Message/' || m.id and e.version = m.version
     where m.status = 'failed' order by m.updated_at desc, m.id limit $1`,
    [failedMax],
  )
  return {
    counts: counts.map((each) => ({ ...each, kind: each.kind as MessageKind, messages: Number(each.messages) })),
    failed: rows,
  }
}

/**
 * Queues failed messages again, as if they had never been tried, in the name of a person; gives how many. What is held stays so: they wait for its release like
 * all others. Each batch is a transaction, so what was interrupted is done again for the rest. Throws BAD_REQUEST when nobody is named, and NOT_FOUND, with nothing
 * changed, for an id that is no failed message's.
 */
export async function requeueFailed(database: Database, options: RequeueOptions): Promise<number> {
  const { person, ids, kind } = options
  if (person.trim() === '') throw new Refusal('BAD_REQUEST', 'nobody is named', { hint: 'a named person requeues messages' })
  const context = { kind: 'worker', actor: person } as const
  if (ids !== undefined) await database.transaction(context, async (transaction) => requireFailed(transaction, ids, kind))
  for (let requeued = 0; ;) {
    const batch = await database.transaction(context, async (transaction) => requeueBatch(transaction, options))
    requeued += batch
    if (batch < BATCH) return requeued
  }
}

interface TakenMessage {
  readonly id: string
  readonly facility: string
  readonly kind: MessageKind
  readonly patient: string | null
  readonly recipient: string
  readonly body: string
  readonly cause: string
  readonly version: number
}

const FAILED = `from hospital.messages where status = 'failed' and ($1::text is null or kind = $1) and ($2::uuid[] is null or id = any ($2))`

async function requireFailed({ client }: Transaction, ids: readonly string[], kind: MessageKind | undefined): Promise<void> {
  const { rows } = await client.query<{ id: string }>(`select id ${FAILED}`, [kind ?? null, ids])
  const failed = new Set(rows.map(({ id }) => id))
  const missing = ids.filter((id) => !failed.has(id.toLowerCase()))
  if (missing.length === 0) return
  throw new Refusal('NOT_FOUND', `there is no failed ${kind ?? 'message'} ${missing.join(', ')}`, {
    hint: '`hospital messages` lists them',
  })
}

async function requeueBatch(transaction: Transaction, { person, reason, kind, ids }: RequeueOptions): Promise<number> {
  // Of two that requeue the same, the second waits, and then finds none that has failed.
  const { rows } = await transaction.client.query<TakenMessage>(
    `select id, facility, kind, patient_id as patient, recipient, body, cause, version ${FAILED} order by created_at, id limit $3 for update`,
    [kind ?? null, ids ?? null, BATCH],
  )
  for (const { id, facility, version, ...message } of rows) {
    await record(transaction, {
      stream: `Message/${id}`,
      expected: version,
      type: 'MessageRequeued',
      schemaVersion: MESSAGE_SCHEMA_VERSION,
      facility,
      payload: { ...message, status: 'queued', attempts: 0, person, ...(reason === undefined ? {} : { reason }) },
    })
  }
  return rows.length
}
