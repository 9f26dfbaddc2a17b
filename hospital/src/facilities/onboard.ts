import type { Organization } from '@medplum/fhirtypes'
import { z } from 'zod'
import type { Transaction } from '../database/database.ts'
import { record, type RecordedEvent } from '../events/record.ts'
import { ORGANIZATION_TYPES } from './organization-types.ts'

export const FACILITY_ID = /^[A-Z]{3}\d{3,6}$/

export const newFacility = z.strictObject({
  id: z.string().regex(FACILITY_ID, 'three capitals and three to six digits, as FAC001'),
  name: z.string().trim().min(1).max(200),
  lga: z.string().trim().min(1).max(100),
  type: z.enum(['PRIMARY', 'SECONDARY', 'TERTIARY']),
  active: z.boolean().default(true),
})

export type NewFacility = z.input<typeof newFacility>

/** Adds a facility to the group's registry. Throws VERSION_CONFLICT when its id is taken, FORBIDDEN for anybody but the group. */
export async function onboardFacility(transaction: Transaction, given: NewFacility): Promise<RecordedEvent> {
  const facility = newFacility.parse(given)
  return await record(transaction, {
    stream: `Organization/${facility.id}`,
    expected: 0,
    type: 'FacilityOnboarded',
    schemaVersion: 2,
    facility: facility.id,
    payload: { resource: organizationOf(facility) },
  })
}

/** A facility as FHIR shows it. */
export function organizationOf(facility: z.output<typeof newFacility>): Organization {
  return {
    resourceType: 'Organization',
    id: facility.id,
    active: facility.active,
    identifier: [{ system: 'https://his.osun.example/facility', value: facility.id }],
    type: [{ coding: [ORGANIZATION_TYPES[facility.type]] }],
    name: facility.name,
    address: [{ district: facility.lga, state: 'Osun', country: 'NG' }],
  }
}
