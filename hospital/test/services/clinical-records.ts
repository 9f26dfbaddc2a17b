import { createHash } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type {
  Appointment,
  Consent,
  DocumentReference,
  Encounter,
  Invoice,
  Location,
  MedicationRequest,
  Observation,
  Patient,
  Reference,
  Resource,
  ServiceRequest,
} from '@medplum/fhirtypes'
import type { Database } from '../../src/database/database.ts'
import { record, type Change, type RecordedEvent } from '../../src/events/record.ts'
import { uuid } from '../../src/uuid.ts'
import { facility } from './hospital-database.ts'

/** Where a record belongs: a facility, a patient of it, and what it hangs on. */
export interface Belonging {
  readonly at: string
  readonly patient: string
  readonly encounter?: string
}

/** The smallest resources that FHIR R4 takes as valid and that fill every projection; `id` is given when the test needs to know it. */
export function patientRecord(at: string, more: Partial<Patient> = {}): Change {
  const id = more.id ?? uuid()
  return changeOf(at, 'PatientRegistered', {
    resourceType: 'Patient',
    id,
    active: true,
    identifier: [{ system: `https://his.osun.example/mrn/${at}`, value: `${at}-${id.slice(-8)}` }],
    name: [{ family: 'Adeyemi', given: ['Folake'] }],
    gender: 'female',
    birthDate: '1990-04-17',
    telecom: [{ system: 'phone', value: '+2348031234567' }],
    address: [{ district: 'Osogbo', state: 'Osun', country: 'NG' }],
    ...more,
  })
}

/** That a facility knows a patient whose home is another one. */
export function knownPatientRecord(at: string, patient: string): Change {
  return {
    stream: `PatientFacility/${at}.${patient}`,
    type: 'PatientLinked',
    schemaVersion: 1,
    facility: at,
    payload: { facility: at, patient, mrn: `${at}-${patient.slice(-8)}` },
  }
}

export function locationRecord(at: string, more: Partial<Location> = {}): Change {
  return changeOf(at, 'LocationAdded', { resourceType: 'Location', id: uuid(), status: 'active', name: 'Female ward', ...more })
}

export function encounterRecord({ at, patient }: Belonging, more: Partial<Encounter> = {}): Change {
  return changeOf(at, 'EncounterStarted', {
    resourceType: 'Encounter',
    id: uuid(),
    status: 'finished',
    class: { system: 'http://terminology.hl7.org/CodeSystem/v3-ActCode', code: 'AMB' },
    subject: { reference: `Patient/${patient}` },
    period: { start: '2025-03-01T08:00:00Z', end: '2025-03-01T09:00:00Z' },
    ...more,
  })
}

export function appointmentRecord({ at, patient }: Belonging, more: Partial<Appointment> = {}): Change {
  return changeOf(at, 'AppointmentBooked', {
    resourceType: 'Appointment',
    id: uuid(),
    status: 'booked',
    start: '2025-04-01T08:00:00Z',
    end: '2025-04-01T08:20:00Z',
    participant: [{ actor: { reference: `Patient/${patient}` }, status: 'accepted' }],
    ...more,
  })
}

export function observationRecord(belonging: Belonging, more: Partial<Observation> = {}): Change {
  return changeOf(belonging.at, 'ObservationRecorded', {
    resourceType: 'Observation',
    id: uuid(),
    status: 'final',
    category: [{ coding: [{ system: 'http://terminology.hl7.org/CodeSystem/observation-category', code: 'laboratory' }] }],
    code: { coding: [{ system: 'http://loinc.org', code: '718-7' }] },
    ...subjectOf(belonging),
    effectiveDateTime: '2025-03-01T08:10:00Z',
    issued: '2025-03-01T09:10:00Z',
    valueQuantity: { value: 12.5, unit: 'g/dL', system: 'http://unitsofmeasure.org', code: 'g/dL' },
    ...more,
  })
}

export function medicationRecord(belonging: Belonging, more: Partial<MedicationRequest> = {}): Change {
  return changeOf(belonging.at, 'MedicationPrescribed', {
    resourceType: 'MedicationRequest',
    id: uuid(),
    status: 'active',
    intent: 'order',
    medicationCodeableConcept: { coding: [{ system: 'http://www.whocc.no/atc', code: 'P01BF01' }] },
    ...subjectOf(belonging),
    authoredOn: '2025-03-01T08:30:00Z',
    ...more,
  })
}

export function invoiceRecord({ at, patient }: Belonging, more: Partial<Invoice> = {}): Change {
  return changeOf(at, 'InvoiceIssued', {
    resourceType: 'Invoice',
    id: uuid(),
    status: 'issued',
    subject: { reference: `Patient/${patient}` },
    date: '2025-03-01T10:00:00Z',
    totalNet: { value: 4500, currency: 'NGN' },
    ...more,
  })
}

export function consentRecord({ at, patient }: Belonging, more: Partial<Consent> = {}): Change {
  return changeOf(at, 'ConsentGiven', {
    resourceType: 'Consent',
    id: uuid(),
    status: 'active',
    scope: { coding: [{ system: 'http://terminology.hl7.org/CodeSystem/consentscope', code: 'patient-privacy' }] },
    category: [{ coding: [{ system: 'http://loinc.org', code: '59284-0' }] }],
    patient: { reference: `Patient/${patient}` },
    dateTime: '2025-03-01T08:05:00Z',
    ...more,
  })
}

export function referralRecord({ at, patient }: Belonging, to: string, more: Partial<ServiceRequest> = {}): Change {
  const change = changeOf(at, 'PatientReferred', {
    resourceType: 'ServiceRequest',
    id: uuid(),
    status: 'active',
    intent: 'order',
    subject: { reference: `Patient/${patient}` },
    requester: { reference: `Organization/${at}` },
    performer: [{ reference: `Organization/${to}` }],
    reasonCode: [{ text: 'severe malaria' }],
    authoredOn: '2025-03-01T08:40:00Z',
    ...more,
  })
  return { ...change, otherFacility: to }
}

/** Writes the document's file first, as the hospital does, unless there is no directory for files. */
export async function documentRecord(
  belonging: Belonging,
  options: { readonly filesDirectory?: string; readonly text?: string } = {},
): Promise<Change> {
  const id = uuid()
  const bytes = Buffer.from(options.text ?? `discharge summary ${id}`)
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  if (options.filesDirectory !== undefined) {
    const directory = join(options.filesDirectory, 'documents', sha256.slice(0, 2))
    await mkdir(directory, { recursive: true })
    await writeFile(join(directory, sha256), bytes)
  }
  const resource: DocumentReference = {
    resourceType: 'DocumentReference',
    id,
    status: 'current',
    type: { coding: [{ system: 'http://loinc.org', code: '18842-5' }] },
    subject: { reference: `Patient/${belonging.patient}` },
    date: '2025-03-01T11:00:00Z',
    content: [{ attachment: { contentType: 'text/plain', size: bytes.length } }],
    ...(belonging.encounter === undefined ? {} : { context: { encounter: [{ reference: `Encounter/${belonging.encounter}` }] } }),
  }
  const change = changeOf(belonging.at, 'DocumentAdded', resource)
  return { ...change, payload: { resource, file: { sha256, sizeBytes: bytes.length } } }
}

/** Writes a change in the name of its facility. */
export async function write(database: Database, change: Change): Promise<RecordedEvent & { readonly recordId: string }> {
  const event = await database.transaction(facility(change.facility), async (transaction) => record(transaction, change))
  return { ...event, recordId: change.stream.split('/')[1]! }
}

/** Ids of one patient's records at one facility, one of each kind. */
export type Records = Readonly<
  Record<
    'patient' | 'location' | 'encounter' | 'appointment' | 'observation' | 'medication' | 'invoice' | 'consent' | 'document',
    string
  >
>

/** Registers a patient at a facility, with one record of each kind. */
export async function writeRecords(database: Database, at: string, filesDirectory?: string): Promise<Records> {
  const { recordId: patient } = await write(database, patientRecord(at))
  const { recordId: location } = await write(database, locationRecord(at))
  const place = { location: [{ location: { reference: `Location/${location}` } }] }
  const { recordId: encounter } = await write(database, encounterRecord({ at, patient }, place))
  const belonging = { at, patient, encounter }
  const add = async (change: Change) => (await write(database, change)).recordId
  return {
    patient,
    location,
    encounter,
    appointment: await add(appointmentRecord(belonging)),
    observation: await add(observationRecord(belonging)),
    medication: await add(medicationRecord(belonging)),
    invoice: await add(invoiceRecord(belonging)),
    consent: await add(consentRecord(belonging)),
    document: await add(await documentRecord(belonging, filesDirectory === undefined ? {} : { filesDirectory })),
  }
}

/** A patient of FAC001 whom FAC002 was sent and has come to know; FAC003 knows nothing of this. */
export interface SharedPatient {
  readonly patient: string
  readonly referral: string
}

export async function writeSharedPatient(database: Database): Promise<SharedPatient> {
  const { recordId: patient } = await write(database, patientRecord('FAC001', { name: [{ family: 'Balogun', given: ['Sade'] }] }))
  const { recordId: referral } = await write(database, referralRecord({ at: 'FAC001', patient }, 'FAC002'))
  await write(database, knownPatientRecord('FAC002', patient))
  return { patient, referral }
}

function changeOf(at: string, type: string, resource: Resource): Change {
  return { stream: `${resource.resourceType}/${resource.id}`, type, schemaVersion: 2, facility: at, payload: { resource } }
}

function subjectOf({ patient, encounter }: Belonging): { subject: Reference<Patient>; encounter?: Reference<Encounter> } {
  const subject: Reference<Patient> = { reference: `Patient/${patient}` }
  return encounter === undefined ? { subject } : { subject, encounter: { reference: `Encounter/${encounter}` } }
}
