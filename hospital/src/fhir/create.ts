import type { Transaction } from '../database/database.ts'
import { Refusal } from '../refusal.ts'
import { append } from './append.ts'
import { checkFacility, facilityEvent, facilityIdOf } from './organization-rules.ts'
import { checkMrn, giveMrn } from './patient-rules.ts'
import { refuseAll, textOf } from './problem-list.ts'
import type { Received } from './receive.ts'
import { checkReceiver } from './referral-rules.ts'
import { referenceProblems, type Known } from './references.ts'
import type { Json, ResourceRow } from './rows.ts'
import { claimForFacility, facilityOfWriter, patientOf, storedForm } from './rules.ts'
import type { ServedType } from './served-types.ts'
import { eventWhenMade, LIFECYCLES } from './statuses.ts'
import type { ClinicalTypeName } from './type-names.ts'

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

function typeWhenMade({ name }: ServedType, resource: Json): string {
  if (name === 'Patient') return 'PatientRegistered'
  if (name === 'Location') return 'LocationAdded'
  return eventWhenMade(LIFECYCLES[name as ClinicalTypeName], textOf(resource['status']))
}
