import type { Context } from '../database/database.ts'
import { Refusal } from '../refusal.ts'
import { problem, type Problem } from './problem-list.ts'
import type { Json } from './rows.ts'
import type { ServedType } from './served-types.ts'

// What this hospital asks of a resource beyond FHIR, as far as it shows without the database.

/** Throws FORBIDDEN for whoever may not write resources of this type at all; gives the facility that they will belong to. */
export function facilityOfWriter({ name, written }: ServedType, context: Context): string | undefined {
  if (!written) {
    throw new Refusal('NOT_SUPPORTED', `each ${name} is made by the hospital itself, with what it is about`)
  }
  if (name === 'Organization') {
    if (context.kind === 'group') return undefined
    throw new Refusal('FORBIDDEN', "only the group's people change the registry of facilities")
  }
  if (context.kind === 'facility') return context.facility
  throw new Refusal('FORBIDDEN', `a ${name} is written by the people of a facility`, { hint: 'the group reads it' })
}

/** The resource as it will be stored: the client's `id` and what is the server's in `meta` are ignored, as FHIR has it. */
export function storedForm(content: Json, id: string): Json {
  const { resourceType, id: _ignored, meta, ...rest } = content
  const { versionId: _version, lastUpdated: _time, ...kept } = (meta ?? {}) as Json
  return { resourceType, id, ...(Object.keys(kept).length === 0 ? {} : { meta: kept }), ...rest }
}

/** Says to which facility the resource belongs, or finds that it says of another one. Consent may name several organizations, and all are this one. */
export function claimForFacility(resource: Json, { name, owner }: ServedType, facility: string): Problem[] {
  if (owner === undefined) return []
  const own = { reference: `Organization/${facility}` }
  const isList = name === 'Consent'
  const given = resource[owner]
  if (given === undefined) {
    resource[owner] = isList ? [own] : own
    return []
  }
  const all = Array.isArray(given) ? given : [given]
  return all.every((each) => (each as Json)['reference'] === own.reference)
    ? []
    : [problem(`${name}.${owner}`, 'business-rule', `this is ${own.reference}'s, and cannot be another's`, `leave ${owner} out`)]
}

/** The patient that a resource is about, "Patient/7f1c…"; a problem when it says of none. */
export function patientOf(resource: Json, { name, patient }: ServedType): string | Problem | undefined {
  if (patient === undefined) return undefined
  const candidates =
    patient === 'participant'
      ? ((resource['participant'] ?? []) as Json[]).map((each) => each['actor'] as Json | undefined)
      : [resource[patient] as Json | undefined]
  const found = candidates
    .map((each) => each?.['reference'])
    .find((each) => typeof each === 'string' && each.startsWith('Patient/'))
  if (typeof found === 'string') return found
  return problem(`${name}.${patient}`, 'required', 'a patient of this facility is wanted', 'refer to it as "Patient/ID"')
}
