import type {
  CodeableConcept,
  DocumentReference,
  Encounter,
  MedicationRequest,
  Observation,
  Quantity,
  Reference,
} from '@medplum/fhirtypes'
import {
  DOCUMENT_TYPES,
  ENCOUNTER_CLASSES,
  SYSTEMS,
  type DocumentType,
  type EncounterClass,
  type LaboratoryTest,
  type Range,
} from './codes.ts'
import type { Condition, Medicine } from './conditions.ts'
import { ageYears, type Person } from './person.ts'
import type { Random } from './random.ts'

/** A resource that knows its id, as FHIR's types leave open. */
export type WithId<Resource> = Resource & { id: string }

/** Whom a resource is about, and where it was written. */
export interface Setting {
  readonly facility: string
  readonly patient: string
  readonly encounter: string
}

export function reference<Type extends string>(type: Type, id: string): { reference: `${Type}/${string}` } {
  return { reference: `${type}/${id}` }
}

export function instant(ms: number): string {
  return new Date(ms).toISOString()
}

export interface Stay {
  readonly id: string
  readonly class: EncounterClass
  readonly location: string
  readonly condition: Condition
  readonly startMs: number
  readonly endMs?: number
}

/** In progress until it has an end. */
export function encounterResource(setting: Omit<Setting, 'encounter'>, stay: Stay): WithId<Encounter> {
  const { endMs } = stay
  const admitted = stay.class === 'IMP' && endMs !== undefined
  return {
    resourceType: 'Encounter',
    id: stay.id,
    status: endMs === undefined ? 'in-progress' : 'finished',
    class: { system: SYSTEMS.actCode, code: stay.class, display: ENCOUNTER_CLASSES[stay.class] },
    subject: reference('Patient', setting.patient),
    period: { start: instant(stay.startMs), ...(endMs === undefined ? {} : { end: instant(endMs) }) },
    reasonCode: [conditionConcept(stay.condition)],
    ...(admitted ? { hospitalization: { dischargeDisposition: HOME } } : {}),
    location: [{ location: reference('Location', stay.location) }],
    serviceProvider: reference('Organization', setting.facility),
  }
}

const HOME: CodeableConcept = { coding: [{ system: SYSTEMS.dischargeDisposition, code: 'home', display: 'Home' }] }

export function conditionConcept({ code, display }: Condition): CodeableConcept {
  return { coding: [{ system: SYSTEMS.icd10, code, display }] }
}

export interface Result {
  readonly id: string
  readonly test: LaboratoryTest
  readonly value: number
  readonly range: Range
  readonly effectiveMs: number
  readonly issuedMs: number
  readonly status: 'preliminary' | 'final'
}

export function observationResource(setting: Setting, result: Result): WithId<Observation> {
  const { test, value, range } = result
  const flag = value < range.low ? LOW : value > range.high ? HIGH : undefined
  return {
    resourceType: 'Observation',
    id: result.id,
    status: result.status,
    category: [{ coding: [{ system: SYSTEMS.observationCategory, code: 'laboratory', display: 'Laboratory' }] }],
    code: { coding: [{ system: SYSTEMS.loinc, code: test.loinc, display: test.display }] },
    subject: reference('Patient', setting.patient),
    encounter: reference('Encounter', setting.encounter),
    effectiveDateTime: instant(result.effectiveMs),
    issued: instant(result.issuedMs),
    performer: [reference('Organization', setting.facility)],
    valueQuantity: quantity(value, test.unit),
    ...(flag === undefined ? {} : { interpretation: [flag] }),
    referenceRange: [{ low: quantity(range.low, test.unit), high: quantity(range.high, test.unit) }],
  }
}

const LOW: CodeableConcept = { coding: [{ system: SYSTEMS.interpretation, code: 'L', display: 'Low' }] }
const HIGH: CodeableConcept = { coding: [{ system: SYSTEMS.interpretation, code: 'H', display: 'High' }] }

function quantity(value: number, unit: string): Quantity {
  return { value, unit, system: SYSTEMS.ucum, code: unit }
}

const CHILD_YEARS_MAX = 14

export function rangeFor(test: LaboratoryTest, person: Pick<Person, 'gender' | 'birthDate'>, nowMs: number): Range {
  if (ageYears(person.birthDate, nowMs) < CHILD_YEARS_MAX) return test.child
  return person.gender === 'female' ? test.woman : test.man
}

/** A value near the middle of what is normal for somebody, or as far from it as what they have shows. */
export function measure(random: Random, test: LaboratoryTest, range: Range, shift: number): number {
  const half = (range.high - range.low) / 2
  const value = random.normal(range.low + half * (1 + shift), half * 0.4)
  const scale = 10 ** test.digits
  // No analyser gives less than a tenth of what is low.
  return Math.round(Math.max(value, range.low * 0.2, 1 / scale) * scale) / scale
}

export function medicationResource(
  setting: Setting,
  prescription: { readonly id: string; readonly medicine: Medicine; readonly atMs: number; readonly finished: boolean },
): WithId<MedicationRequest> {
  const { id, medicine, atMs, finished } = prescription
  return {
    resourceType: 'MedicationRequest',
    id,
    status: finished ? 'completed' : 'active',
    intent: 'order',
    medicationCodeableConcept: {
      coding: [{ system: SYSTEMS.formulary, code: medicine.code, display: medicine.name }],
      text: medicine.name,
    },
    subject: reference('Patient', setting.patient),
    encounter: reference('Encounter', setting.encounter),
    authoredOn: instant(atMs),
    requester: reference('Organization', setting.facility),
    dosageInstruction: [{ text: medicine.dosage }],
  }
}

export interface StoredDocument {
  readonly id: string
  readonly type: DocumentType
  readonly atMs: number
  readonly sha256: string
  /** In Base64, as FHIR has it. */
  readonly sha1: string
  readonly sizeBytes: number
}

export function documentResource(setting: Setting, document: StoredDocument): WithId<DocumentReference> {
  const { code, display, contentType } = DOCUMENT_TYPES[document.type]
  return {
    resourceType: 'DocumentReference',
    id: document.id,
    status: 'current',
    type: { coding: [{ system: SYSTEMS.loinc, code, display }] },
    subject: reference('Patient', setting.patient),
    date: instant(document.atMs),
    custodian: reference('Organization', setting.facility),
    content: [
      {
        attachment: {
          extension: [{ url: 'https://his.osun.example/sha256', valueString: document.sha256 }],
          contentType,
          url: `/documents/${document.sha256}`,
          size: document.sizeBytes,
          hash: document.sha1,
          title: display,
        },
      },
    ],
    context: { encounter: [reference('Encounter', setting.encounter) as Reference<Encounter>] },
  }
}
