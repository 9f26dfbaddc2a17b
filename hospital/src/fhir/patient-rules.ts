import type { Identifier } from '@medplum/fhirtypes'
import type { Transaction } from '../database/database.ts'
import { problem, type Problem } from './problem-list.ts'
import type { Json } from './rows.ts'

const SYSTEM = 'https://his.osun.example/mrn/'

/**
 * A patient has one medical record number of its home facility, for good: one that was given out is on papers and wristbands, and is never another's.
 * `before` is the record as it was, for a change.
 */
export function checkMrn(resource: Json, facility: string, before: Json | undefined): Problem[] {
  const identifiers = (resource['identifier'] ?? []) as Identifier[]
  const given = identifiers.flatMap((each, index) => (each.system?.startsWith(SYSTEM) ? [{ ...each, path: pathOf(index) }] : []))
  const kept = before === undefined ? undefined : mrnIn(before, facility)
  if (kept !== undefined && !given.some(({ system }) => system === kept.system)) resource['identifier'] = [kept, ...identifiers]
  return given.flatMap(({ system, value, path }, index) => {
    if (system !== SYSTEM + facility)
      return [problem(path, 'business-rule', `a number of ${system} is given by that facility alone`)]
    if (index > 0) return [problem(path, 'business-rule', 'a patient has one medical record number at a facility')]
    if (value === undefined || value.trim() === '') return [problem(path, 'required', 'a medical record number has a value')]
    if (kept !== undefined && value !== kept.value) {
      return [problem(path, 'business-rule', `the medical record number of this patient is ${kept.value}, for good`)]
    }
    return []
  })
}

/** Gives the patient the facility's next number, when it came without one. */
export async function giveMrn({ client }: Transaction, resource: Json, facility: string): Promise<void> {
  if (mrnIn(resource, facility) !== undefined) return
  const identifier: Identifier = {
    use: 'usual',
    type: { coding: [{ system: 'http://terminology.hl7.org/CodeSystem/v2-0203', code: 'MR' }] },
    system: SYSTEM + facility,
    value: await nextMrn(client),
  }
  resource['identifier'] = [identifier, ...((resource['identifier'] ?? []) as Identifier[])]
}

export async function nextMrn(client: Transaction['client']): Promise<string> {
  const { rows } = await client.query<{ mrn: string }>({ name: 'next-mrn', text: 'select hospital.next_mrn() as mrn' })
  return rows[0]!.mrn
}

function mrnIn(resource: Json, facility: string): Identifier | undefined {
  return ((resource['identifier'] ?? []) as Identifier[]).find(({ system }) => system === SYSTEM + facility)
}

function pathOf(index: number): string {
  return `Patient.identifier[${index}]`
}
