import type { Organization } from '@medplum/fhirtypes'
import { newFacility } from '../facilities/onboard.ts'
import { ORGANIZATION_TYPES } from '../facilities/organization-types.ts'
import { problem, type Problem } from './problem-list.ts'
import type { Json } from './rows.ts'

const SYSTEM = 'https://his.osun.example/facility'
const FIELDS: Readonly<Record<string, string>> = {
  id: 'identifier',
  name: 'name',
  lga: 'address[0].district',
  type: 'type[0].coding[0].code',
}

/** The registry's id of a facility, which its Organization has as an identifier. */
export function facilityIdOf(resource: Json): string | undefined {
  return (resource as unknown as Organization).identifier?.find(({ system }) => system === SYSTEM)?.value
}

/** A facility in the registry has what POST /facilities asks for; `id` is the one that it is or will be known by. */
export function checkFacility(resource: Json, id: string | undefined): Problem[] {
  const organization = resource as unknown as Organization
  resource['active'] ??= true
  const coding = organization.type?.[0]?.coding?.[0]
  const known = Object.values(ORGANIZATION_TYPES).find((each) => each.system === coding?.system && each.code === coding.code)
  const { error } = newFacility.safeParse({
    id: facilityIdOf(resource),
    name: organization.name,
    lga: organization.address?.[0]?.district,
    type: known?.code,
  })
  const problems = (error?.issues ?? []).map(({ path, message }) =>
    problem(
      `Organization.${FIELDS[String(path[0])] ?? String(path[0])}`,
      'business-rule',
      `a facility of the registry: ${message}`,
    ),
  )
  if (id !== undefined && facilityIdOf(resource) !== id) {
    problems.push(
      problem('Organization.identifier', 'business-rule', `the facility's identifier of ${SYSTEM} is ${id}, for good`),
    )
  }
  return problems
}

export function facilityEvent(before: Json | undefined, after: Json): string {
  if (before === undefined) return 'FacilityOnboarded'
  const wasActive = before['active'] !== false
  if (wasActive === (after['active'] !== false)) return 'FacilityChanged'
  return wasActive ? 'FacilityClosed' : 'FacilityReopened'
}
