import type { Appointment, Consent, Encounter, Invoice, Location, Patient, ServiceRequest } from '@medplum/fhirtypes'
import type { WithId } from '../generator/clinical-resources.ts'
import type { Charge } from '../generator/administrative-resources.ts'
import type { EncounterClass } from '../generator/codes.ts'
import type { Condition } from '../generator/conditions.ts'
import type { Random } from '../generator/random.ts'
import { CannotRun } from '../refusal.ts'
import { FhirClient, type Outcome } from './fhir-client.ts'
import { Pool } from './pool.ts'

/** Something that was written, and may be written again: what was sent, and the version that it has. */
export interface Kept<Resource> {
  readonly resource: WithId<Resource>
  readonly version: number
  readonly patient: string
}

export interface Sufferer {
  readonly id: string
  readonly gender: 'male' | 'female'
  readonly birthDate: string
}

/** Somebody who is being seen. */
export interface Seen extends Kept<Encounter> {
  readonly sufferer: Sufferer
  readonly condition: Condition
  readonly class: EncounterClass
  readonly startMs: number
  /** What is to be paid for when it is over. */
  readonly charges: readonly Charge[]
}

const PATIENTS_MAX = 2000
const OPEN_MAX = 500

/** One facility as its people know it: who is there, and what is to be done next. Rebuilt from the hospital whenever a recovery has changed the past. */
export class Site {
  readonly facility: string
  readonly client: FhirClient
  /** Where this facility may refer to. */
  readonly others: readonly string[]
  readonly patients = new Pool<Sufferer>(PATIENTS_MAX)
  readonly open = new Pool<Seen>(OPEN_MAX)
  readonly finished = new Pool<Seen>(OPEN_MAX)
  readonly unpaid = new Pool<Kept<Invoice>>(OPEN_MAX)
  readonly booked = new Pool<Kept<Appointment>>(OPEN_MAX)
  readonly consents = new Pool<Kept<Consent>>(OPEN_MAX)
  /** Referrals that have come in, and those that are being worked on. */
  readonly referred = new Pool<Kept<ServiceRequest>>(OPEN_MAX)
  locations: readonly string[] = []

  constructor(given: { readonly facility: string; readonly client: FhirClient; readonly others: readonly string[] }) {
    this.facility = given.facility
    this.client = given.client
    this.others = given.others
  }

  /** Reads who and what is there. Throws CannotRun when the hospital does not let it. */
  async load(random: Random): Promise<void> {
    const locations = requireDone(await this.client.search<Location>('Location?_count=20'))
    const patients = requireDone(await this.client.search<Patient>('Patient?_count=100'))
    const referrals = requireDone(await this.client.search<ServiceRequest>('ServiceRequest?_count=100'))
    for (const pool of [this.patients, this.open, this.finished, this.unpaid, this.booked, this.consents, this.referred])
      pool.clear()
    this.locations = locations.map(({ id }) => id)
    const own = `Organization/${this.facility}`
    for (const { id, gender, birthDate, managingOrganization } of patients) {
      // Not whoever was only referred here: this facility has no number for them yet.
      if (managingOrganization?.reference !== own) continue
      this.patients.add(random, { id, gender: gender === 'female' ? 'female' : 'male', birthDate: birthDate ?? '1990-01-01' })
    }
    for (const resource of referrals) {
      const version = Number(resource.meta?.versionId)
      const patient = (resource.subject.reference ?? '').replace('Patient/', '')
      const isHere = resource.performer?.[0]?.reference === own && ['active', 'on-hold'].includes(resource.status)
      if (isHere) this.referred.add(random, { resource, version, patient })
    }
  }
}

/** The facilities that these tokens are for. Throws CannotRun for a token that nobody holds, or that is the group's, which only reads. */
export async function openSites(url: string, tokens: readonly string[]): Promise<Site[]> {
  const sites = new Map<string, Site>()
  for (const token of tokens) {
    const client = new FhirClient(url, token)
    const { user, facility } = requireDone(await client.context())
    if (facility === null) {
      throw new CannotRun(`"${user}" works for the group, which writes nothing clinical`, {
        hint: "give tokens of a facility's people",
      })
    }
    const { facilities } = requireDone(await client.facilities())
    const others = facilities.filter(({ id, active }) => active && id !== facility).map(({ id }) => id)
    sites.set(facility, new Site({ facility, client, others }))
  }
  return [...sites.values()]
}

function requireDone<Value>(outcome: Outcome<Value>): Value {
  switch (outcome.kind) {
    case 'done':
      return outcome.value
    case 'refused':
      throw new CannotRun(`the hospital refuses: ${outcome.status} ${outcome.text}`, {
        hint: 'see --token, and `hospital token`',
      })
    case 'gone':
      throw new CannotRun(`the hospital does not answer: ${outcome.cause}`, { hint: 'see --url' })
    default:
      return outcome satisfies never
  }
}
