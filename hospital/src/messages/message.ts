import type { Appointment, Invoice, Observation, Resource } from '@medplum/fhirtypes'
import { createHash } from 'node:crypto'
import { uuidFrom } from '../uuid.ts'

export const MESSAGE_KINDS = ['sms', 'laboratory-order', 'claim'] as const
export type MessageKind = (typeof MESSAGE_KINDS)[number]

/** An event that may ask for messages; what `record` was given and gave has all of it. */
export interface Cause {
  readonly id: string
  readonly stream: string
  readonly type: string
  readonly facility: string
}

/** A message that an event asks for. An SMS has no recipient yet: the patient's telephone number is the patient's record to say. */
export interface MessageDraft {
  readonly id: string
  readonly kind: MessageKind
  readonly patient: string | undefined
  readonly recipient: string | undefined
  readonly body: string
}

/** Who pays for those whom the state insures. */
const CLAIMS_RECIPIENT = 'claims:osun-health-insurance'

/** The event that a new order of the laboratory is; one that was made with a result is none. */
const ORDER_TYPES: ReadonlySet<string> = new Set(['ObservationRegistered', 'ObservationRecorded'])

/** Which messages a recorded change asks for. Nothing else decides that. An event's type says what happened, the status what it is now. */
export function messagesOf(cause: Cause, resource: Resource): readonly MessageDraft[] {
  switch (resource.resourceType) {
    case 'Appointment':
      return cause.type === 'AppointmentBooked' && resource.status === 'booked' ? [reminder(cause, resource)] : []
    case 'Observation':
      return ORDER_TYPES.has(cause.type) && resource.status === 'registered' && isOfLaboratory(resource)
        ? [laboratoryOrder(cause, resource)]
        : []
    case 'Invoice':
      return cause.type === 'InvoiceIssued' && resource.status === 'issued' ? [claim(cause, resource)] : []
    default:
      return []
  }
}

function isOfLaboratory({ category = [] }: Observation): boolean {
  return category.some(({ coding = [] }) => coding.some(({ code }) => code === 'laboratory'))
}

/**
 * The same for the same event: so what is asked for twice is one message, and one that was delivered before a restore is known again. Not made of the stream's
 * version: after a restore, another change takes that number, and its message is another.
 */
export function messageId(eventId: string, kind: MessageKind): string {
  const bytes = createHash('sha256').update(`${eventId} ${kind}`).digest().subarray(0, 16)
  return uuidFrom(Number.parseInt(eventId.replaceAll('-', '').slice(0, 12), 16), bytes)
}

function reminder(cause: Cause, appointment: Appointment): MessageDraft {
  const patient = appointment.participant.map(({ actor }) => idIn(actor?.reference, 'Patient')).find((id) => id !== undefined)
  // An SMS is read by whoever holds the telephone: when and where, and not why.
  const [day, time] = [appointment.start?.slice(0, 10), appointment.start?.slice(11, 16)]
  const when = day === undefined ? 'at a time that we will tell you' : `on ${day}${time ? ` at ${time}` : ''}`
  const body = `You have an appointment at ${cause.facility} ${when}.`
  return { id: messageId(cause.id, 'sms'), kind: 'sms', patient, recipient: undefined, body }
}

function laboratoryOrder(cause: Cause, observation: Observation): MessageDraft {
  const patient = idIn(observation.subject?.reference, 'Patient')
  const order = { order: cause.stream, facility: cause.facility, patient, code: observation.code }
  return {
    id: messageId(cause.id, 'laboratory-order'),
    kind: 'laboratory-order',
    patient,
    recipient: `laboratory:${cause.facility}`,
    body: JSON.stringify(order),
  }
}

function claim(cause: Cause, invoice: Invoice): MessageDraft {
  const patient = idIn(invoice.subject?.reference, 'Patient')
  const body = { invoice: cause.stream, facility: cause.facility, patient, date: invoice.date, total: invoice.totalNet }
  return { id: messageId(cause.id, 'claim'), kind: 'claim', patient, recipient: CLAIMS_RECIPIENT, body: JSON.stringify(body) }
}

function idIn(reference: string | undefined, type: string): string | undefined {
  return reference?.startsWith(`${type}/`) === true ? reference.slice(type.length + 1) : undefined
}
