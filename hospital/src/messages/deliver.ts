import type { Database, Transaction } from '../database/database.ts'
import { record } from '../events/record.ts'
import { pause } from '../pause.ts'
import { DeliveryLog, type OutgoingMessage } from './deliveries.ts'
import { isHeld } from './hold.ts'
import { MESSAGE_SCHEMA_VERSION } from './queue.ts'
import { clusterState, holdIfRestored } from './restored.ts'

const ACTOR = 'Worker/messages'
const BATCH = 20
const POLL_MS = 500
const ATTEMPTS_MAX = 10
/** After the first attempt; it doubles with each. */
const BACK_OFF_MS = 5_000
const BACK_OFF_MS_MAX = 3_600_000
const RETRY_MS = 5_000

/** Where messages go. It knows what it has taken. */
export type DeliverySink = Pick<DeliveryLog, 'has' | 'deliver'>

export interface DeliverOptions {
  readonly database: Database
  readonly sink: DeliverySink
  readonly attemptsMax?: number
  readonly backOffMs?: number
}

export type BatchOutcome =
  | { readonly kind: 'done'; readonly messages: number }
  | { readonly kind: 'held' }
  /** Nothing was delivered: this database was restored, and now it is held. */
  | { readonly kind: 'restored'; readonly reason: string }

/** Delivers messages until it is told to end. `home` is where the log of deliveries lies; failures are reported, and tried again. */
export async function deliverMessages(options: {
  readonly database: Database
  readonly home: string
  readonly signal: AbortSignal
  readonly report: (line: string) => void
}): Promise<void> {
  const { database, home, signal, report } = options
  while (!signal.aborted) {
    try {
      await using log = await DeliveryLog.open(home)
      await deliverUntilFailure({ database, sink: log, signal, report })
      return
    } catch (error) {
      report(`messages: ${error instanceof Error ? error.message : String(error)}; tried again in ${RETRY_MS} ms`)
      await pause(RETRY_MS, signal)
    }
  }
}

async function deliverUntilFailure(
  options: DeliverOptions & { signal: AbortSignal; report: (line: string) => void },
): Promise<void> {
  let held = false
  while (!options.signal.aborted) {
    const outcome = await deliverBatch(options)
    if (outcome.kind === 'restored') options.report(`messages: HELD until a person releases it: ${outcome.reason}`)
    if (outcome.kind === 'held' && !held) options.report('messages: held; `hospital release --by NAME` lets them go')
    held = outcome.kind !== 'done'
    if (outcome.kind !== 'done' || outcome.messages < BATCH) await pause(POLL_MS, options.signal)
  }
}

/** Delivers the messages that are due, in one transaction, unless there is a hold or has to be one. */
export async function deliverBatch(options: DeliverOptions): Promise<BatchOutcome> {
  const { database } = options
  const restored = await holdIfRestored(database, ACTOR)
  if (restored !== undefined) return { kind: 'restored', reason: restored.reason }
  return await database.transaction({ kind: 'worker', actor: ACTOR }, async (transaction) => {
    // Once more, in the transaction that delivers: a server may have been restored since.
    if ((await clusterState(transaction)).kind !== 'known' || (await isHeld(transaction))) return { kind: 'held' }
    const due = await takeDue(transaction, options.backOffMs ?? BACK_OFF_MS)
    for (const message of due) await deliverOne(transaction, options, message)
    return { kind: 'done', messages: due.length }
  })
}

interface DueMessage extends OutgoingMessage {
  readonly cause: string
  readonly attempts: number
  readonly version: number
}

/** Locked until the transaction ends; what another worker has locked is left to it. */
async function takeDue({ client }: Transaction, backOffMs: number): Promise<readonly DueMessage[]> {
  const { rows } = await client.query<DueMessage>({
    name: 'due messages',
    text: `select id, facility, kind, patient_id as patient, recipient, body, cause, attempts, version from hospital.messages
      where status = 'queued'
        and (attempts = 0 or updated_at + least($1 * power(2, attempts - 1), $2) * interval '1 millisecond' <= clock_timestamp())
      order by created_at, id limit $3 for update skip locked`,
    values: [backOffMs, BACK_OFF_MS_MAX, BATCH],
  })
  return rows
}

/** The sink first, and then the event: killed between the two, the next worker finds the message at the sink, and does not deliver it again. */
async function deliverOne(
  transaction: Transaction,
  { sink, attemptsMax = ATTEMPTS_MAX }: DeliverOptions,
  message: DueMessage,
): Promise<void> {
  const attempts = message.attempts + 1
  const { recognised, reason } = await giveTo(sink, message)
  if (reason === undefined) {
    await recordAttempt(transaction, message, { type: 'MessageDelivered', status: 'delivered', attempts, recognised })
  } else if (attempts < attemptsMax) {
    await recordAttempt(transaction, message, { type: 'MessageAttempted', status: 'queued', attempts, reason })
  } else {
    await recordAttempt(transaction, message, { type: 'MessageFailed', status: 'failed', attempts, reason })
  }
}

/** Whether the sink had it already, and why it did not take it. */
async function giveTo(sink: DeliverySink, message: DueMessage): Promise<{ recognised: boolean; reason?: string }> {
  const { id, facility, kind, patient, recipient, body } = message
  try {
    if (await sink.has(id)) return { recognised: true }
    await sink.deliver({ id, facility, kind, patient, recipient, body })
    return { recognised: false }
  } catch (error) {
    return { recognised: false, reason: error instanceof Error ? error.message : String(error) }
  }
}

interface Attempt {
  readonly type: 'MessageDelivered' | 'MessageAttempted' | 'MessageFailed'
  readonly status: 'delivered' | 'queued' | 'failed'
  readonly attempts: number
  /** The sink had it already. */
  readonly recognised?: boolean
  readonly reason?: string
}

async function recordAttempt(transaction: Transaction, message: DueMessage, { type, ...attempt }: Attempt): Promise<void> {
  const { id, facility, kind, patient, recipient, body, cause, version } = message
  await record(transaction, {
    stream: `Message/${id}`,
    expected: version,
    type,
    schemaVersion: MESSAGE_SCHEMA_VERSION,
    facility,
    payload: { kind, patient, recipient, body, cause, ...attempt },
  })
}
