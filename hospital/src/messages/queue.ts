import type { Resource } from '@medplum/fhirtypes'
import type { Transaction } from '../database/database.ts'
import { record } from '../events/record.ts'
import { messagesOf, type Cause } from './message.ts'

export const MESSAGE_SCHEMA_VERSION = 1

/**
 * Queues what a recorded change asks to be sent, in the transaction that recorded it: so a change and its messages are both there or neither. To be called
 * after `record`, with its change and its result as one: `queueMessages(transaction, { ...change, ...event }, resource)`. Gives how many it queued. A
 * message that is queued already is left alone, and a patient without a telephone number is sent none.
 */
export async function queueMessages(transaction: Transaction, cause: Cause, resource: object): Promise<number> {
  let queued = 0
  // It was validated before it was recorded.
  for (const { id, kind, patient = null, recipient, body } of messagesOf(cause, resource as Resource)) {
    const to = recipient ?? (await telephoneOf(transaction, patient))
    if (to === undefined || (await isQueued(transaction, id))) continue
    await record(transaction, {
      stream: `Message/${id}`,
      expected: 0,
      type: 'MessageQueued',
      schemaVersion: MESSAGE_SCHEMA_VERSION,
      facility: cause.facility,
      payload: { kind, patient, recipient: to, body, cause: cause.stream, status: 'queued', attempts: 0 },
    })
    queued += 1
  }
  return queued
}

async function telephoneOf({ sql }: Transaction, patient: string | null): Promise<string | undefined> {
  if (patient === null) return undefined
  const found = await sql.selectFrom('patients').select('phone').where('id', '=', patient).executeTakeFirst()
  return found?.phone ?? undefined
}

async function isQueued({ sql }: Transaction, id: string): Promise<boolean> {
  return (await sql.selectFrom('messages').select('id').where('id', '=', id).executeTakeFirst()) !== undefined
}
