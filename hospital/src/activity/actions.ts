import type { Resource } from '@medplum/fhirtypes'
import { appointmentResource, consentResource, invoiceResource, referralResource } from '../generator/administrative-resources.ts'
import {
  encounterResource,
  instant,
  measure,
  medicationResource,
  observationResource,
  rangeFor,
  reference,
  type WithId,
} from '../generator/clinical-resources.ts'
import { DOCUMENT_TYPES, LABORATORY_TESTS, SYSTEMS, type TestName } from '../generator/codes.ts'
import { likelyTime } from '../generator/day-curve.ts'
import { pdf } from '../generator/document.ts'
import { makePerson, patientResource } from '../generator/person.ts'
import { LGAS } from '../generator/names.ts'
import type { Random } from '../generator/random.ts'
import { chargesOf, pickClass, pickCondition } from '../generator/visit.ts'
import type { Outcome, Written } from './fhir-client.ts'
import type { Kept, Site } from './site.ts'

/** What one action wrote, and about whom. */
export interface Done {
  readonly patient: string
  readonly outcome: Outcome<readonly Written[]>
}

export interface Moment {
  readonly site: Site
  readonly random: Random
  readonly nowMs: number
  /** Tells another facility of this activity that a patient is coming. */
  readonly tell: (facility: string, referral: Kept<ReturnType<typeof referralResource>>) => void
}

/** Undefined when nobody is there whom it could happen to. */
export type Action = (moment: Moment) => Promise<Done | undefined>

const DAY_MS = 86_400_000
/** The server gives ids; what is made here needs one to be complete. */
const NO_ID = '00000000-0000-0000-0000-000000000000'

/** What happens in a hospital, and how often against the rest. */
export const ACTIONS: readonly { readonly weight: number; readonly action: Action }[] = [
  { weight: 6, action: register },
  { weight: 15, action: arrive },
  { weight: 24, action: measureSome },
  { weight: 13, action: prescribe },
  { weight: 12, action: leave },
  { weight: 11, action: bill },
  { weight: 6, action: pay },
  { weight: 6, action: book },
  { weight: 3, action: keep },
  { weight: 4, action: consent },
  { weight: 1, action: withdraw },
  { weight: 3, action: refer },
  { weight: 3, action: answerReferral },
  { weight: 2, action: file },
]

async function register({ site, random, nowMs }: Moment): Promise<Done> {
  const person = makePerson(random, random.pick(LGAS), nowMs)
  const {
    id: _id,
    identifier: _identifier,
    ...resource
  } = patientResource({ id: NO_ID, facility: site.facility, mrn: '', person })
  const outcome = await site.client.create(resource)
  if (outcome.kind !== 'done') return { patient: '', outcome }
  const { id } = outcome.value
  site.patients.add(random, { id, gender: person.gender, birthDate: person.birthDate })
  return { patient: id, outcome: { kind: 'done', value: [outcome.value] } }
}

async function arrive({ site, random, nowMs }: Moment): Promise<Done | undefined> {
  const sufferer = site.patients.peek(random)
  if (sufferer === undefined || site.locations.length === 0) return undefined
  const condition = pickCondition(random, sufferer, nowMs)
  const stay = {
    class: pickClass(random, condition, 'SECONDARY'),
    location: random.pick(site.locations),
    condition,
    startMs: nowMs,
  }
  const resource = encounterResource({ facility: site.facility, patient: sufferer.id }, { ...stay, id: NO_ID })
  return await create({ site, patient: sufferer.id, resource }, (kept, version) => {
    site.open.add(random, { resource: kept, version, patient: sufferer.id, sufferer, charges: [], ...stay })
  })
}

/** One result, or a panel of them as one transaction. */
async function measureSome({ site, random, nowMs }: Moment): Promise<Done | undefined> {
  const seen = site.open.peek(random)
  if (seen === undefined) return undefined
  const names: readonly TestName[] = seen.condition.tests.length === 0 ? ['hemoglobin'] : seen.condition.tests
  const chosen = random.chance(0.25) ? names : [random.pick(names)]
  const setting = { facility: site.facility, patient: seen.patient, encounter: seen.resource.id }
  const resources = chosen.map((name) => {
    const test = LABORATORY_TESTS[name]
    const range = rangeFor(test, seen.sufferer, nowMs)
    const value = measure(random, test, range, seen.condition.shows[name] ?? 0)
    const effectiveMs = nowMs - random.whole(20, 300) * 60_000
    return observationResource(setting, { id: NO_ID, test, value, range, effectiveMs, issuedMs: nowMs, status: 'final' })
  })
  const [only] = resources
  if (resources.length === 1 && only !== undefined) return await create({ site, patient: seen.patient, resource: only })
  return { patient: seen.patient, outcome: await site.client.createAll(resources.map(withoutId)) }
}

async function prescribe({ site, random, nowMs }: Moment): Promise<Done | undefined> {
  const seen = site.open.peek(random)
  if (seen === undefined) return undefined
  const setting = { facility: site.facility, patient: seen.patient, encounter: seen.resource.id }
  const medicine = random.pick(seen.condition.medicines)
  const resource = medicationResource(setting, { id: NO_ID, medicine, atMs: nowMs, finished: false })
  return await create({ site, patient: seen.patient, resource })
}

async function leave({ site, random, nowMs }: Moment): Promise<Done | undefined> {
  const seen = site.open.take(random)
  if (seen === undefined) return undefined
  const { resource, version, patient, condition, startMs } = seen
  const endMs = Math.max(nowMs, startMs + 1)
  const location = resource.location?.[0]?.location.reference?.replace('Location/', '') ?? ''
  const stay = { id: resource.id, class: seen.class, location, condition, startMs, endMs }
  const finished = encounterResource({ facility: site.facility, patient }, stay)
  const charges = chargesOf({ class: seen.class, startMs, endMs }, condition.tests.length, condition.medicines)
  return await update({ site, patient, resource: finished, version }, (after) => {
    site.finished.add(random, { ...seen, resource: finished, version: after, charges })
  })
}

async function bill({ site, random, nowMs }: Moment): Promise<Done | undefined> {
  const seen = site.finished.take(random)
  if (seen === undefined) return undefined
  const { patient, charges } = seen
  const resource = invoiceResource({ id: NO_ID, facility: site.facility, patient, atMs: nowMs, charges, status: 'issued' })
  return await create({ site, patient, resource }, (kept, version) =>
    site.unpaid.add(random, { resource: kept, version, patient }),
  )
}

async function pay({ site, random }: Moment): Promise<Done | undefined> {
  const unpaid = site.unpaid.take(random)
  if (unpaid === undefined) return undefined
  return await update({ site, ...unpaid, resource: { ...unpaid.resource, status: 'balanced' } })
}

async function book({ site, random, nowMs }: Moment): Promise<Done | undefined> {
  const sufferer = site.patients.peek(random)
  if (sufferer === undefined || site.locations.length === 0) return undefined
  const startMs = Math.ceil(likelyTime(random, nowMs + random.whole(1, 40) * DAY_MS) / 900_000) * 900_000
  const booking = {
    id: NO_ID,
    facility: site.facility,
    patient: sufferer.id,
    location: random.pick(site.locations),
    startMs,
    minutes: 30,
  }
  const resource = appointmentResource({ ...booking, status: 'booked' })
  return await create({ site, patient: sufferer.id, resource }, (kept, version) => {
    site.booked.add(random, { resource: kept, version, patient: sufferer.id })
  })
}

/** Or miss. */
async function keep({ site, random }: Moment): Promise<Done | undefined> {
  const booked = site.booked.take(random)
  if (booked === undefined) return undefined
  const status = random.chance(0.85) ? 'fulfilled' : 'noshow'
  return await update({ site, ...booked, resource: { ...booked.resource, status } })
}

async function consent({ site, random, nowMs }: Moment): Promise<Done | undefined> {
  const sufferer = site.patients.peek(random)
  if (sufferer === undefined) return undefined
  const scope = random.chance(0.7) ? 'treatment' : 'patient-privacy'
  const resource = consentResource({ id: NO_ID, facility: site.facility, patient: sufferer.id, scope, givenMs: nowMs })
  return await create({ site, patient: sufferer.id, resource }, (kept, version) => {
    site.consents.add(random, { resource: kept, version, patient: sufferer.id })
  })
}

async function withdraw({ site, random, nowMs }: Moment): Promise<Done | undefined> {
  const given = site.consents.take(random)
  if (given === undefined) return undefined
  const { provision } = given.resource
  const ended = { ...provision, period: { ...provision?.period, end: instant(nowMs) } }
  return await update({ site, ...given, resource: { ...given.resource, status: 'inactive', provision: ended } })
}

async function refer({ site, random, nowMs, tell }: Moment): Promise<Done | undefined> {
  const sufferer = site.patients.peek(random)
  if (sufferer === undefined || site.others.length === 0) return undefined
  const to = random.pick(site.others)
  const condition = pickCondition(random, sufferer, nowMs)
  const referral = { id: NO_ID, from: site.facility, to, patient: sufferer.id, condition, authoredMs: nowMs }
  const resource = referralResource({ ...referral, status: 'active' })
  return await create({ site, patient: sufferer.id, resource }, (kept, version) => {
    tell(to, { resource: kept, version, patient: sufferer.id })
  })
}

/** The facility that somebody was referred to declines, puts them on its list, or takes them: then it comes to know them. */
async function answerReferral({ site, random }: Moment): Promise<Done | undefined> {
  const referral = site.referred.take(random)
  if (referral === undefined) return undefined
  const { resource, patient } = referral
  const status = random.chance(0.1) ? 'revoked' : resource.status === 'active' && random.chance(0.3) ? 'on-hold' : 'completed'
  const answered = { ...resource, status } as const
  const done = await update({ site, ...referral, resource: answered }, (version) => {
    if (status === 'on-hold') site.referred.add(random, { resource: answered, version, patient })
  })
  if (status !== 'completed' || done.outcome.kind !== 'done') return done
  const known = await site.client.makeKnown(patient)
  // Refused when the patient is known here already.
  if (known.kind !== 'done') return done
  return { patient, outcome: { kind: 'done', value: [...done.outcome.value, known.value] } }
}

async function file({ site, random, nowMs }: Moment): Promise<Done | undefined> {
  const seen = site.open.peek(random)
  if (seen === undefined) return undefined
  const { code, display, contentType } = DOCUMENT_TYPES.dischargeSummary
  const { condition, patient } = seen
  const lines = [display, `Patient/${patient}`, instant(nowMs), `${condition.code} ${condition.display}`, String(random.next())]
  return await create({
    site,
    patient,
    resource: {
      resourceType: 'DocumentReference',
      id: NO_ID,
      status: 'current',
      type: { coding: [{ system: SYSTEMS.loinc, code, display }] },
      subject: reference('Patient', patient),
      date: instant(nowMs),
      content: [{ attachment: { contentType, title: display, data: pdf(lines).toString('base64') } }],
      context: { encounter: [reference('Encounter', seen.resource.id)] },
    },
  })
}

interface Creation<Made extends Resource> {
  readonly site: Site
  readonly patient: string
  readonly resource: WithId<Made>
}

async function create<Made extends Resource>(
  { site, patient, resource }: Creation<Made>,
  remember?: (resource: WithId<Made>, version: number) => void,
): Promise<Done> {
  const outcome = await site.client.create(withoutId(resource))
  if (outcome.kind !== 'done') return { patient, outcome }
  remember?.({ ...resource, id: outcome.value.id }, outcome.value.version)
  return { patient, outcome: { kind: 'done', value: [outcome.value] } }
}

/** What was refused or got no answer is forgotten: somebody else's change came first, or the record is no longer what it was. */
async function update<Made extends Resource>(
  { site, patient, resource, version }: Creation<Made> & { readonly version: number },
  remember?: (version: number) => void,
): Promise<Done> {
  const outcome = await site.client.update(resource, version)
  if (outcome.kind !== 'done') return { patient, outcome }
  remember?.(outcome.value.version)
  return { patient, outcome: { kind: 'done', value: [outcome.value] } }
}

function withoutId(resource: Resource): Resource {
  const { id: _id, ...rest } = resource
  return rest
}
