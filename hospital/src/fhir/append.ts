import type { Transaction } from '../database/database.ts'
import { record, type Change } from '../events/record.ts'
import { queueMessages } from '../messages/queue.ts'
import { settleFile } from './document-rules.ts'
import { textOf } from './problem-list.ts'
import type { Received } from './receive.ts'
import { receiverOf, requesterOf } from './referral-rules.ts'
import type { Json, ResourceRow } from './rows.ts'

/** What is about to become an event. */
export interface Draft {
  readonly resource: Json
  readonly before: Json | undefined
  /** The version that was seen. */
  readonly version: number
  readonly facility: string
  readonly type: string
}

/** Appends the one event that a write is, with the messages that it asks for. */
export async function append(transaction: Transaction, { served, file: taken }: Received, draft: Draft): Promise<ResourceRow> {
  const { resource, before, version, facility, type } = draft
  const file =
    served.name === 'DocumentReference' ? await settleFile(transaction, resource, { facility, taken, before }) : undefined
  const otherFacility = served.name === 'ServiceRequest' ? otherEnd(resource, facility) : undefined
  const change: Change = {
    stream: `${served.name}/${textOf(resource['id'])}`,
    expected: version,
    type,
    schemaVersion: served.name === 'Patient' || served.name === 'Organization' ? 2 : 1,
    facility,
    ...(otherFacility === undefined ? {} : { otherFacility }),
    payload: { resource, ...(file === undefined ? {} : { file: { sha256: file.sha256, sizeBytes: file.sizeBytes } }) },
  }
  const recorded = await record(transaction, change)
  await queueMessages(transaction, { ...change, ...recorded }, resource)
  return { id: textOf(resource['id']), version: recorded.version, updated_at: recorded.at, content: resource }
}

function otherEnd(resource: Json, facility: string): string | undefined {
  const receiver = receiverOf(resource)
  return receiver === facility ? requesterOf(resource) : receiver
}
