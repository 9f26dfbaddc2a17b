import type { Patient } from '@medplum/fhirtypes'
import type { WithId } from './clinical-resources.ts'
import { FAMILIES, GIVEN, LGAS } from './names.ts'
import type { Random } from './random.ts'

/** Somebody before any system knows them. */
export interface Person {
  readonly gender: 'male' | 'female'
  readonly birthDate: string
  readonly family: string
  readonly given: readonly string[]
  readonly phone: string | undefined
  readonly lga: string
}

const DAY_MS = 86_400_000
const YEAR_MS = 365.25 * DAY_MS
/** A young country: how many of a hundred are born within each span of years before today. */
const AGES = [
  { upTo: 5, share: 17 },
  { upTo: 15, share: 23 },
  { upTo: 30, share: 27 },
  { upTo: 45, share: 17 },
  { upTo: 65, share: 11 },
  { upTo: 90, share: 5 },
] as const
const SHARES = AGES.map(({ share }) => share)
const AT_HOME = 0.6
const WITH_PHONE = 0.85

/** Somebody who may come to a hospital in this LGA at this time. */
export function makePerson(random: Random, lga: string, nowMs: number): Person {
  const gender = random.chance(0.46) ? 'male' : 'female'
  const span = random.weighted(SHARES)
  const youngest = AGES[span - 1]?.upTo ?? 0
  const years = youngest + random.fraction() * (AGES[span]!.upTo - youngest)
  const names = GIVEN[gender]
  const first = random.pick(names)
  const second = random.pick(names)
  return {
    gender,
    birthDate: new Date(nowMs - years * YEAR_MS).toISOString().slice(0, 10),
    family: random.pick(FAMILIES),
    given: second === first ? [first] : [first, second],
    phone: random.chance(WITH_PHONE) ? makePhone(random) : undefined,
    lga: random.chance(AT_HOME) ? lga : random.pick(LGAS),
  }
}

/**
 * Looks like a mobile number of Nigeria and reaches nobody: those are +234 and ten digits (Nigerian Communications Commission, National Numbering Plan), and this
 * has one too few. There is no range kept free for such use as other countries have.
 */
export function makePhone(random: Random): string {
  return `+234${random.pick(['803', '805', '806', '813', '703', '902'])}${String(random.whole(0, 999_999)).padStart(6, '0')}`
}

export interface Registration {
  readonly id: string
  readonly facility: string
  readonly mrn: string
  readonly person: Person
}

/** Eight digits, as hospital.next_mrn gives them to those who come later. */
export function mrnOf(number: number): string {
  return String(number).padStart(8, '0')
}

const MRN_TYPE = { coding: [{ system: 'http://terminology.hl7.org/CodeSystem/v2-0203', code: 'MR' }] }
export const MRN_SYSTEM = 'https://his.osun.example/mrn/'

export function patientResource({ id, facility, mrn, person }: Registration): WithId<Patient> {
  return {
    resourceType: 'Patient',
    id,
    active: true,
    identifier: [{ use: 'usual', type: MRN_TYPE, system: `${MRN_SYSTEM}${facility}`, value: mrn }],
    name: [{ use: 'official', family: person.family, given: [...person.given] }],
    gender: person.gender,
    birthDate: person.birthDate,
    ...(person.phone === undefined ? {} : { telecom: [{ system: 'phone', use: 'mobile', value: person.phone }] }),
    address: [{ use: 'home', district: person.lga, state: 'Osun', country: 'NG' }],
    managingOrganization: { reference: `Organization/${facility}` },
  }
}

/** The same as the first version of the software wrote it; hospital.upcast gives it today's shape. */
export function patientOfSchema1({ mrn, person }: Registration): object {
  return {
    patient: {
      surname: person.family,
      forenames: person.given,
      sex: person.gender === 'male' ? 'M' : 'F',
      born: person.birthDate,
      mobile: person.phone,
      lga: person.lga,
      mrn,
    },
  }
}

export function ageYears(birthDate: string, nowMs: number): number {
  return (nowMs - Date.parse(birthDate)) / YEAR_MS
}
