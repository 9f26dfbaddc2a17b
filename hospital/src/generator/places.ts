import type { Location } from '@medplum/fhirtypes'
import { LGAS, QUARTERS, TOWNS } from './names.ts'
import { Random } from './random.ts'
import { SYSTEMS } from './codes.ts'

export type FacilityType = 'PRIMARY' | 'SECONDARY' | 'TERTIARY'

/** A facility with the places in it where patients are seen, and who works there. */
export interface Facility {
  readonly id: string
  readonly name: string
  readonly lga: string
  readonly type: FacilityType
  readonly places: Readonly<Record<PlaceKind, string>>
  readonly clinician: string
  readonly clerk: string
}

export type PlaceKind = 'clinic' | 'emergency' | 'ward'

const PLACES: Readonly<Record<PlaceKind, { name: string; code: string; display: string }>> = {
  clinic: { name: 'Outpatient clinic', code: 'OF', display: 'Outpatient facility' },
  emergency: { name: 'Emergency room', code: 'ER', display: 'Emergency room' },
  ward: { name: 'General ward', code: 'HU', display: 'Hospital unit' },
}

export const PLACE_KINDS = Object.keys(PLACES) as readonly PlaceKind[]

/** Of patients, how many times those of a health centre a facility has. */
export const SIZES: Readonly<Record<FacilityType, number>> = { PRIMARY: 1, SECONDARY: 3, TERTIARY: 6 }

const PURPOSE = 1
/** One teaching hospital for so many facilities, and one general hospital for so many. */
const FACILITIES_PER_TERTIARY = 30
const FACILITIES_PER_SECONDARY = 4

/** The group's facilities, FAC001 the biggest. The same for the same seed, number and time. */
export function makeFacilities(options: {
  readonly seed: number
  readonly facilities: number
  readonly openedMs: number
}): Facility[] {
  const tertiary = options.facilities < 3 ? 0 : Math.ceil(options.facilities / FACILITIES_PER_TERTIARY)
  const secondary = Math.max(1, Math.round(options.facilities / FACILITIES_PER_SECONDARY))
  return Array.from({ length: options.facilities }, (_, number) => {
    const random = new Random(options.seed, PURPOSE, number)
    const type = number < tertiary ? 'TERTIARY' : number < tertiary + secondary ? 'SECONDARY' : 'PRIMARY'
    const id = `FAC${String(number + 1).padStart(3, '0')}`
    const lga = type === 'PRIMARY' ? random.pick(LGAS) : TOWNS[number % TOWNS.length]!
    return {
      id,
      name: nameOf(type, lga, random),
      lga,
      type,
      places: {
        clinic: random.uuid(options.openedMs),
        emergency: random.uuid(options.openedMs),
        ward: random.uuid(options.openedMs),
      },
      clinician: `clinician.${id.toLowerCase()}`,
      clerk: `clerk.${id.toLowerCase()}`,
    }
  })
}

export function locationOf(facility: Facility, kind: PlaceKind): Location {
  const { name, code, display } = PLACES[kind]
  return {
    resourceType: 'Location',
    id: facility.places[kind],
    status: 'active',
    name: `${name}, ${facility.name}`,
    mode: 'instance',
    type: [{ coding: [{ system: SYSTEMS.locationType, code, display }] }],
    managingOrganization: { reference: `Organization/${facility.id}` },
  }
}

function nameOf(type: FacilityType, lga: string, random: Random): string {
  switch (type) {
    case 'TERTIARY':
      return `Osun Teaching Hospital, ${lga}`
    case 'SECONDARY':
      return `General Hospital, ${lga}`
    case 'PRIMARY':
      return `${random.pick(QUARTERS)} Primary Health Centre, ${lga}`
    default:
      return type satisfies never
  }
}
