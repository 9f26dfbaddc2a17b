import type { Context, Transaction } from '../database/database.ts'
import { record, type Change } from '../events/record.ts'
import type { DocumentStore, StoredFile } from '../files/document-store.ts'
import { Refusal } from '../refusal.ts'
import { settleFile, takeInData } from './document-rules.ts'
import { checkFacility, facilityEvent, facilityIdOf } from './organization-rules.ts'
import { checkMrn, giveMrn } from './patient-rules.ts'
import { problem, refuseAll, textOf, type Problem } from './problem-list.ts'
import { findRow } from './read.ts'
import { checkEnds, checkReceiver, receiverOf, requesterOf, requireStatusOnly } from './referral-rules.ts'
import type { Json, ResourceRow } from './rows.ts'
import { referenceProblems, type Known } from './references.ts'
import { claimForFacility, facilityOfWriter, patientOf, storedForm } from './rules.ts'
import type { ServedType } from './served-types.ts'
import { eventWhenChanged, eventWhenMade, LIFECYCLES, mayFollow, RECEIVED_REFERRAL } from './statuses.ts'
import type { ClinicalTypeName } from './type-names.ts'
import { validate } from './validate.ts'
import type { FoundReference } from './walk.ts'

/** A resource that a client sent, right by FHIR's rules, with what came with it already on disk. */
export interface Received {
  readonly served: ServedType
  readonly content: Json
  readonly references: readonly FoundReference[]
  readonly file: StoredFile | undefined
}

/** What taking a resource in needs, besides the resource. */
export interface Intake {
  readonly context: Context
  readonly documents: DocumentStore
}

/**
 * Reads what a client sent, before a transaction begins. Throws FORBIDDEN or NOT_SUPPORTED for who may not write it, and refuses (INVALID) all that is
 * wrong with it at once.
 */
export async function receive(served: ServedType, content: unknown, { context, documents }: Intake): Promise<Received> {
  facilityOfWriter(served, context)
  const { problems, references } = await validate(content, served.name)
  refuseAll(problems)
  // A copy: the hospital adds to it.
  const copy = { ...(content as Json) }
  const file = served.name === 'DocumentReference' ? await takeInData(copy, documents) : undefined
  return { served, content: copy, references, file }
}

/**
 * Makes a resource with this id: one event. Refuses what breaks the hospital's rules (INVALID), who may not (FORBIDDEN), and numbers that are taken
 * (CONFLICT).
 */
export async function createResource(
  transaction: Transaction,
  received: Received,
  id: string,
  known: Known,
): Promise<ResourceRow> {
  const { served, content } = received
  const facility = facilityOfWriter(served, transaction.context)
  if (facility === undefined) return await onboard(transaction, received, known)
  const resource = storedForm(content, id)
  const patient = patientOf(resource, served)
  refuseAll([
    ...claimForFacility(resource, served, facility),
    ...(typeof patient === 'object' ? [patient] : []),
    ...(served.name === 'Patient' ? checkMrn(resource, facility, undefined) : []),
    ...(served.name === 'ServiceRequest' ? await checkReceiver(transaction, resource, facility) : []),
    ...(await referenceProblems(transaction, received, { known, own: facility })),
  ])
  if (served.name === 'Patient') await giveMrn(transaction, resource, facility)
  const type = typeWhenMade(served, resource)
  return await append(transaction, received, { resource, before: undefined, version: 0, facility, type })
}

async function onboard(transaction: Transaction, received: Received, known: Known): Promise<ResourceRow> {
  const id = facilityIdOf(received.content) ?? ''
  const resource = storedForm(received.content, id)
  refuseAll([...checkFacility(resource, undefined), ...(await referenceProblems(transaction, received, { known, own: id }))])
  const type = facilityEvent(undefined, resource)
  return await append(transaction, received, { resource, before: undefined, version: 0, facility: id, type }).catch(
    (error: unknown) => {
      if (!(error instanceof Refusal) || error.code !== 'VERSION_CONFLICT') throw error
      throw new Refusal('CONFLICT', `there is a facility "${id}" already`, {
        expression: 'Organization.identifier',
        cause: error,
      })
    },
  )
}

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
  if (writer === undefined) {
    refuseAll([...checkFacility(resource, id), ...(await referenceProblems(transaction, received, { known, own: id }))])
    return await append(transaction, received, { ...change, facility: id, type: facilityEvent(before, resource) })
  }
  if (served.name === 'ServiceRequest' && requesterOf(before) !== writer) {
    return await answerReferral(transaction, received, { ...change, facility: writer })
  }
  requireOwn(served, before, writer)
  refuseAll([
    ...changeProblems(served, change, writer),
    ...(await referenceProblems(transaction, received, { known, own: writer })),
  ])
  return await append(transaction, received, { ...change, facility: writer, type: typeWhenChanged(served, before, resource) })
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

function typeWhenMade({ name }: ServedType, resource: Json): string {
  if (name === 'Patient') return 'PatientRegistered'
  if (name === 'Location') return 'LocationAdded'
  return eventWhenMade(LIFECYCLES[name as ClinicalTypeName], textOf(resource['status']))
}

function typeWhenChanged({ name }: ServedType, before: Json, after: Json): string {
  if (name === 'Patient') return 'PatientAmended'
  if (name === 'Location') return 'LocationChanged'
  return eventWhenChanged(LIFECYCLES[name as ClinicalTypeName], textOf(before['status']), textOf(after['status']))
}

/** What is about to become an event. */
interface Draft {
  readonly resource: Json
  readonly before: Json | undefined
  /** The version that was seen. */
  readonly version: number
  readonly facility: string
  readonly type: string
}

async function append(transaction: Transaction, { served, file: taken }: Received, draft: Draft): Promise<ResourceRow> {
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
  return { id: textOf(resource['id']), version: recorded.version, updated_at: recorded.at, content: resource }
}

function otherEnd(resource: Json, facility: string): string | undefined {
  const receiver = receiverOf(resource)
  return receiver === facility ? requesterOf(resource) : receiver
}
