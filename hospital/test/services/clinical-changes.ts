import type { Change } from '../../src/events/record.ts'
import { uuid } from '../../src/uuid.ts'

/** Small changes of each kind, as the FHIR face makes them, for tests of what happens to events afterwards. */

export function patientChange(facility: string, id: string = uuid(), phone = '+2348031234567'): Change {
  const resource = {
    resourceType: 'Patient',
    id,
    identifier: [{ system: `https://his.osun.example/mrn/${facility}`, value: `MRN-${id.slice(-12)}` }],
    name: [{ family: 'Adeyemi', given: ['Folake'] }],
    ...(phone === '' ? {} : { telecom: [{ system: 'phone', value: phone }] }),
  }
  return { stream: `Patient/${id}`, type: 'PatientRegistered', schemaVersion: 2, facility, payload: { resource } }
}

export function appointmentChange(facility: string, patient: string, id: string = uuid()): Change {
  const resource = {
    resourceType: 'Appointment',
    id,
    status: 'booked',
    start: '2026-11-23T09:00:00+01:00',
    participant: [{ status: 'accepted', actor: { reference: `Patient/${patient}` } }],
  }
  return { stream: `Appointment/${id}`, type: 'AppointmentBooked', schemaVersion: 2, facility, payload: { resource } }
}

export function laboratoryChange(facility: string, patient: string, status = 'registered', id: string = uuid()): Change {
  const resource = {
    resourceType: 'Observation',
    id,
    status,
    category: [{ coding: [{ system: 'http://terminology.hl7.org/CodeSystem/observation-category', code: 'laboratory' }] }],
    code: { coding: [{ system: 'http://loinc.org', code: '718-7', display: 'Hemoglobin [Mass/volume] in Blood' }] },
    subject: { reference: `Patient/${patient}` },
  }
  return { stream: `Observation/${id}`, type: 'ObservationRecorded', schemaVersion: 2, facility, payload: { resource } }
}

export function invoiceChange(facility: string, patient: string, id: string = uuid()): Change {
  const resource = {
    resourceType: 'Invoice',
    id,
    status: 'issued',
    subject: { reference: `Patient/${patient}` },
    date: '2026-11-21T10:00:00+01:00',
    totalNet: { value: 4500, currency: 'NGN' },
  }
  return { stream: `Invoice/${id}`, type: 'InvoiceIssued', schemaVersion: 2, facility, payload: { resource } }
}
