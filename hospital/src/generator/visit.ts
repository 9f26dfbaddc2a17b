import { appointmentResource, invoiceResource, type Charge } from './administrative-resources.ts'
import {
  encounterResource,
  measure,
  medicationResource,
  observationResource,
  rangeFor,
  type Setting,
} from './clinical-resources.ts'
import { LABORATORY_TESTS, SYSTEMS, type EncounterClass, type TestName } from './codes.ts'
import { CONDITIONS, TARIFF, type Condition, type Medicine } from './conditions.ts'
import { likelyTime } from './day-curve.ts'
import { writeDocument } from './document.ts'
import { write, type Episode, type Happening } from './episode.ts'
import { ageYears, type Person } from './person.ts'
import { DAY_MS, registrationOf } from './plan.ts'
import type { Facility, FacilityType, PlaceKind } from './places.ts'
import type { Random } from './random.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const BOOKED = 0.4
const PLACE_OF: Readonly<Record<EncounterClass, PlaceKind>> = { AMB: 'clinic', EMER: 'emergency', IMP: 'ward' }
const ADMITTING: Readonly<Record<FacilityType, number>> = { PRIMARY: 0.3, SECONDARY: 1, TERTIARY: 1.4 }
const TESTED = 0.5
const PRELIMINARY = 0.06
const PRESCRIBED = 0.6
const DISPENSED = 0.1
const REPORTED = 0.05
const SUMMARISED = 0.85
const PAID_AT_ONCE = 0.6
const PAID_LATER = 0.7

const OUTCOMES = { fulfilled: 'AppointmentKept', noshow: 'AppointmentMissed', cancelled: 'AppointmentCancelled' } as const

/** What a visit is made of, once it is known when. */
export interface Visit {
  readonly facility: Facility
  readonly patient: string
  readonly person: Person
  readonly condition: Condition
  readonly class: EncounterClass
  readonly startMs: number
  readonly endMs: number
}

/** Somebody is ill and comes, many by appointment; some of those do not come. */
export function visit(episode: Episode): Happening[] {
  const { plan, patient, atMs, random } = episode
  const { id, home: facility, person } = registrationOf(plan, patient)
  const condition = pickCondition(random, person, atMs)
  const encounterClass = pickClass(random, condition, facility.type)
  if (encounterClass !== 'AMB' || !random.chance(BOOKED)) {
    attend(episode, lasting(random, { facility, patient: id, person, condition, class: encounterClass, startMs: atMs }))
    return episode.happenings
  }
  const startMs = likelyTime(random, atMs + random.whole(1, 30) * DAY_MS)
  const outcome = (['fulfilled', 'noshow', 'cancelled'] as const)[random.weighted([85, 9, 6])]!
  book(episode, outcome, { id: random.uuid(atMs), facility, patient: id, startMs })
  if (outcome === 'fulfilled')
    attend(episode, lasting(random, { facility, patient: id, person, condition, class: 'AMB', startMs }))
  return episode.happenings
}

/** The booking, and what became of it. */
function book(
  episode: Episode,
  outcome: keyof typeof OUTCOMES,
  { id, facility, patient, startMs }: { id: string; facility: Facility; patient: string; startMs: number },
): void {
  const booking = { id, facility: facility.id, patient, location: facility.places.clinic, startMs, minutes: 30 }
  write(episode, {
    atMs: episode.atMs,
    type: 'AppointmentBooked',
    resource: appointmentResource({ ...booking, status: 'booked' }),
    facility,
    by: 'clerk',
    continues: true,
  })
  const decidedMs = {
    fulfilled: startMs,
    noshow: startMs + HOUR_MS,
    cancelled: episode.atMs + (startMs - episode.atMs) / 2,
  }[outcome]
  write(episode, {
    atMs: Math.round(decidedMs),
    type: OUTCOMES[outcome],
    resource: appointmentResource({ ...booking, status: outcome }),
    facility,
    by: 'clerk',
  })
}

/** From arrival to the bill. Gives the encounter's id. */
export function attend(episode: Episode, given: Visit): string {
  const { random } = episode
  const { facility, patient, condition, startMs, endMs } = given
  const encounter = random.uuid(startMs)
  const location = facility.places[PLACE_OF[given.class]]
  const stay = { id: encounter, class: given.class, location, condition, startMs }
  const setting: Setting = { facility: facility.id, patient, encounter }
  const common = { facility, by: 'clinician' } as const
  const arrived = encounterResource(setting, stay)
  write(episode, { ...common, atMs: startMs, type: 'EncounterStarted', resource: arrived, continues: true })
  const tests = examine(episode, given, setting)
  const medicines = condition.medicines.filter(() => random.chance(PRESCRIBED))
  medicines.forEach((medicine, index) =>
    prescribe(episode, given, { setting, medicine, atMs: startMs + (12 + index) * MINUTE_MS }),
  )
  const left = encounterResource(setting, { ...stay, endMs })
  write(episode, { ...common, atMs: endMs, type: 'EncounterFinished', resource: left })
  bill(episode, given, chargesOf(given, tests.length, medicines))
  if (given.class === 'IMP' && random.chance(SUMMARISED))
    writeDocument(episode, given, { setting, type: 'dischargeSummary', tests })
  else if (tests.length > 0 && random.chance(REPORTED))
    writeDocument(episode, given, { setting, type: 'laboratoryReport', tests })
  return encounter
}

/** Takes samples, and gets the results after the laboratory's time. */
function examine(episode: Episode, given: Visit, setting: Setting): TestName[] {
  const { random } = episode
  const { facility, condition, startMs, person } = given
  const effectiveMs = startMs + random.whole(5, 10) * MINUTE_MS
  const names = condition.tests.filter(() => random.chance(TESTED))
  for (const name of names) {
    const test = LABORATORY_TESTS[name]
    const range = rangeFor(test, person, startMs)
    const value = measure(random, test, range, condition.shows[name] ?? 0)
    const issuedMs = effectiveMs + Math.round(test.turnaroundHours * HOUR_MS * (0.5 + random.fraction()))
    const result = { id: random.uuid(effectiveMs), test, value, range, effectiveMs }
    const common = { facility, by: 'clinician' } as const
    const isPreliminary = random.chance(PRELIMINARY)
    if (isPreliminary) {
      const firstMs = Math.round((effectiveMs + issuedMs) / 2)
      const resource = observationResource(setting, { ...result, issuedMs: firstMs, status: 'preliminary' })
      write(episode, { ...common, atMs: firstMs, type: 'ObservationRecorded', resource, continues: true })
    }
    const final = observationResource(setting, { ...result, issuedMs, status: 'final' })
    const type = isPreliminary ? 'ObservationFinalised' : 'ObservationRecorded'
    write(episode, { ...common, atMs: issuedMs, type, resource: final })
  }
  return names
}

function prescribe(
  episode: Episode,
  { facility, startMs }: Visit,
  { setting, medicine, atMs }: { readonly setting: Setting; readonly medicine: Medicine; readonly atMs: number },
): void {
  const { random } = episode
  const id = random.uuid(atMs)
  const isCompleted = random.chance(DISPENSED)
  const common = { facility, by: 'clinician' } as const
  const ordered = medicationResource(setting, { id, medicine, atMs, finished: false })
  write(episode, { ...common, atMs, type: 'MedicationPrescribed', resource: ordered, continues: isCompleted })
  if (!isCompleted) return
  const finished = medicationResource(setting, { id, medicine, atMs, finished: true })
  write(episode, { ...common, atMs: startMs + random.whole(3, 10) * DAY_MS, type: 'MedicationCompleted', resource: finished })
}

/** Issued when the patient leaves, and paid then, some weeks later or never. */
function bill(episode: Episode, { facility, patient, endMs }: Visit, charges: readonly Charge[]): void {
  const { random } = episode
  const issuedMs = endMs + 2 * MINUTE_MS
  const id = random.uuid(issuedMs)
  const isPaidAtOnce = random.chance(PAID_AT_ONCE)
  const isPaidLater = !isPaidAtOnce && random.chance(PAID_LATER)
  const common = { id, facility: facility.id, patient, atMs: issuedMs, charges }
  const first = invoiceResource({ ...common, status: isPaidAtOnce ? 'balanced' : 'issued' })
  write(episode, {
    atMs: issuedMs,
    type: isPaidAtOnce ? 'InvoicePaid' : 'InvoiceIssued',
    resource: first,
    facility,
    by: 'clerk',
    continues: isPaidLater,
  })
  if (!isPaidLater) return
  const paid = invoiceResource({ ...common, status: 'balanced' })
  const paidMs = issuedMs + random.whole(1, 30) * DAY_MS + random.whole(0, HOUR_MS)
  write(episode, { atMs: paidMs, type: 'InvoicePaid', resource: paid, facility, by: 'clerk' })
}

export function chargesOf(
  given: Pick<Visit, 'class' | 'startMs' | 'endMs'>,
  testCount: number,
  medicines: readonly Medicine[],
): Charge[] {
  const { tariff, formulary } = SYSTEMS
  const bedDays = Math.max(1, Math.ceil((given.endMs - given.startMs) / DAY_MS))
  return [
    { system: tariff, quantity: 1, ...(given.class === 'EMER' ? TARIFF.emergencyCare : TARIFF.consultation) },
    ...(given.class === 'IMP' ? [{ system: tariff, quantity: bedDays, ...TARIFF.bedDay }] : []),
    ...(testCount === 0 ? [] : [{ system: tariff, quantity: testCount, ...TARIFF.laboratoryTest }]),
    ...medicines.map(({ code, name, priceNaira }) => ({ system: formulary, quantity: 1, code, display: name, priceNaira })),
  ]
}

export function pickCondition(random: Random, person: Pick<Person, 'gender' | 'birthDate'>, nowMs: number): Condition {
  const years = ageYears(person.birthDate, nowMs)
  const weights = CONDITIONS.map(({ weight, ages, sex }) => {
    const fits = (ages === undefined || (years >= ages[0] && years <= ages[1])) && (sex === undefined || sex === person.gender)
    return fits ? weight : 0
  })
  return CONDITIONS[random.weighted(weights)]!
}

export function pickClass(random: Random, condition: Condition, type: FacilityType): EncounterClass {
  if (random.chance(condition.admitted * ADMITTING[type])) return 'IMP'
  return random.chance(condition.emergency) ? 'EMER' : 'AMB'
}

/** With an end: minutes in a clinic, hours in the emergency room, days in a ward. */
export function lasting(random: Random, given: Omit<Visit, 'endMs'>): Visit {
  const minutes = { AMB: random.whole(20, 90), EMER: random.whole(60, 600), IMP: random.whole(24 * 60, 10 * 24 * 60) }[
    given.class
  ]
  return { ...given, endMs: given.startMs + minutes * MINUTE_MS }
}
