import type { Transaction } from '../database/database.ts'
import { Refusal } from '../refusal.ts'
import { append, type Draft } from './append.ts'
import { checkFacility, facilityEvent } from './organization-rules.ts'
import { checkMrn } from './patient-rules.ts'
import { problem, refuseAll, textOf, type Problem } from './problem-list.ts'
import { findRow } from './read.ts'
import type { Received } from './receive.ts'
import { checkEnds, requesterOf, requireStatusOnly } from './referral-rules.ts'
import { referenceProblems, type Known } from './references.ts'
import type { Json, ResourceRow } from './rows.ts'
import { claimForFacility, facilityOfWriter, patientOf, storedForm } from './rules.ts'
import type { ServedType } from './served-types.ts'
import { eventWhenChanged, LIFECYCLES, mayFollow, RECEIVED_REFERRAL } from './statuses.ts'
import type { ClinicalTypeName } from './type-names.ts'

/**
 * Brings a resource to what the client sent: one event. `expected` is the version of If-Match. Refuses as createResource does, and VERSION_CONFLICT for
 * another version, NOT_SUPPORTED for a resource that is not there or not to be seen: ids are the server's to give.
 */
export async function updateResource(
  transaction: Transaction,
  received: Received,
  id: string,
  { expected, known }: { readonly expected: number | undefined; readonly known: Known },
): Promise<ResourceRow> {
  const { served, content } = received
  const writer = facilityOfWriter(served, transaction.context)
  if (content['id'] !== id) {
    throw new Refusal('BAD_REQUEST', `the resource has the id "${textOf(content['id'])}", and the URL "${id}"`, {
      expression: `${served.name}.id`,
    })
  }
  const current = await findRow(transaction, served, id)
  if (current === undefined) {
    throw new Refusal('NOT_SUPPORTED', `there is no ${served.name}/${id.slice(0, 64)}, and a client cannot choose an id`, {
      hint: `POST it to /fhir/${served.name}`,
    })
  }
  if (expected !== undefined && expected !== current.version) {
    throw new Refusal('VERSION_CONFLICT', `${served.name}/${id} is at version ${current.version}, not ${expected}`, {
      hint: 'read it again, and change what is there now',
    })
  }
  const before = current.content as Json
  const resource = storedForm(content, id)
  const change = { resource, before, version: current.version }
  try {
    return await applyChange(transaction, received, { ...change, id, known, writer })
  } catch (error) {
    throw isRaced(error) ? raced(`${served.name}/${id}`, expected, error) : error
  }
}

interface Applied extends Omit<Draft, 'type' | 'facility'> {
  readonly before: Json
  readonly id: string
  readonly known: Known
  /** The facility that writes; undefined for the group. */
  readonly writer: string | undefined
}

async function applyChange(
  transaction: Transaction,
  received: Received,
  { id, known, writer, ...change }: Applied,
): Promise<ResourceRow> {
  const { served } = received
  const { resource, before } = change
  const facility = writer ?? id
  if (served.name === 'ServiceRequest' && requesterOf(before) !== facility) {
    return await answerReferral(transaction, received, { ...change, facility })
  }
  if (writer !== undefined) requireOwn(served, before, writer)
  refuseAll([
    ...(writer === undefined ? checkFacility(resource, id) : changeProblems(served, change, writer)),
    ...(await referenceProblems(transaction, received, { known, own: facility })),
  ])
  const type = writer === undefined ? facilityEvent(before, resource) : typeWhenChanged(served, before, resource)
  return await append(transaction, received, { ...change, facility, type })
}

/** Somebody else's change came between reading and writing. */
function isRaced(error: unknown): boolean {
  if (!(error instanceof Refusal)) return false
  return (
    error.code === 'VERSION_CONFLICT' ||
    (error.cause as { constraint?: string } | undefined)?.constraint === 'events_stream_version_key'
  )
}

/** 412 for who named a version, and 409 for who did not. */
function raced(stream: string, expected: number | undefined, cause: unknown): Refusal {
  return new Refusal(
    expected === undefined ? 'CONFLICT' : 'VERSION_CONFLICT',
    `${stream} was changed by somebody else at the same time`,
    {
      hint: 'read it again, and try again',
      cause,
    },
  )
}

/** By the facility that the patient was referred to. */
async function answerReferral(transaction: Transaction, received: Received, change: Omit<Draft, 'type'>): Promise<ResourceRow> {
  const [before, resource] = [change.before ?? {}, change.resource]
  requireStatusOnly(before, resource)
  refuseAll(statusProblems(received.served, RECEIVED_REFERRAL, [before, resource]))
  const type = eventWhenChanged(RECEIVED_REFERRAL, textOf(before['status']), textOf(resource['status']))
  return await append(transaction, received, { ...change, type })
}

/** A patient is seen where it is known, and changed at home. */
function requireOwn({ name, owner }: ServedType, before: Json, writer: string): void {
  const home = owner === undefined || name === 'Consent' ? undefined : (before[owner] as Json | undefined)?.['reference']
  if (home === undefined || home === `Organization/${writer}`) return
  throw new Refusal('FORBIDDEN', `the record of this ${name} is kept by ${textOf(home)}, which alone changes it`)
}

function changeProblems(
  served: ServedType,
  { resource, before }: Pick<Draft, 'resource' | 'before'>,
  facility: string,
): Problem[] {
  const [old, patient] = [before ?? {}, patientOf(resource, served)]
  const [wasOf, isOf] = [patientOf(old, served), typeof patient === 'object' ? undefined : patient]
  const lifecycle = LIFECYCLES[served.name as ClinicalTypeName] as (typeof LIFECYCLES)[ClinicalTypeName] | undefined
  return [
    ...claimForFacility(resource, served, facility),
    ...(typeof patient === 'object' ? [patient] : []),
    ...(isOf !== undefined && isOf !== wasOf
      ? [
          problem(
            `${served.name}.${served.patient}`,
            'business-rule',
            `this is about ${textOf(wasOf)}, and cannot become another patient's`,
          ),
        ]
      : []),
    ...(lifecycle === undefined ? [] : statusProblems(served, lifecycle, [old, resource])),
    ...(served.name === 'Patient' ? checkMrn(resource, facility, old) : []),
    ...(served.name === 'ServiceRequest' ? checkEnds(old, resource) : []),
  ]
}

function statusProblems(
  { name }: ServedType,
  lifecycle: typeof RECEIVED_REFERRAL,
  [before, after]: readonly [Json, Json],
): Problem[] {
  const [from, to] = [textOf(before['status']), textOf(after['status'])]
  return mayFollow(lifecycle, from, to) ? [] : [problem(`${name}.status`, 'business-rule', `"${from}" cannot become "${to}"`)]
}

function typeWhenChanged({ name }: ServedType, before: Json, after: Json): string {
  if (name === 'Patient') return 'PatientAmended'
  if (name === 'Location') return 'LocationChanged'
  return eventWhenChanged(LIFECYCLES[name as ClinicalTypeName], textOf(before['status']), textOf(after['status']))
}
