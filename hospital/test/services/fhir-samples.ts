import assert from 'node:assert/strict'
import type { Ask, Found } from './hospital-service.ts'

// Resources as small as they may be.

export const PATIENT = {
  resourceType: 'Patient',
  name: [{ family: 'Adeyẹmí', given: ['Folákẹ́', 'Grace'] }],
  gender: 'female',
  birthDate: '1990-04-12',
}

export function observation(patient: string, more: object = {}): object {
  return {
    resourceType: 'Observation',
    status: 'final',
    code: { coding: [{ system: 'http://loinc.org', code: '718-7' }] },
    subject: { reference: `Patient/${patient}` },
    effectiveDateTime: '2026-01-01T08:00:00+01:00',
    valueQuantity: { value: 12.5, unit: 'g/dL', system: 'http://unitsofmeasure.org', code: 'g/dL' },
    ...more,
  }
}

export function encounter(patient: string, more: object = {}): object {
  return {
    resourceType: 'Encounter',
    status: 'in-progress',
    class: { system: 'http://terminology.hl7.org/CodeSystem/v3-ActCode', code: 'AMB' },
    subject: { reference: `Patient/${patient}` },
    ...more,
  }
}

export function referral(patient: string, to: string, more: object = {}): object {
  return {
    resourceType: 'ServiceRequest',
    status: 'active',
    intent: 'order',
    subject: { reference: `Patient/${patient}` },
    performer: [{ reference: `Organization/${to}` }],
    reasonCode: [{ text: 'severe anaemia' }],
    ...more,
  }
}

export function documentOf(patient: string, attachment: object): object {
  return {
    resourceType: 'DocumentReference',
    status: 'current',
    subject: { reference: `Patient/${patient}` },
    content: [{ attachment: { contentType: 'text/plain', ...attachment } }],
  }
}

/** Creates a resource and gives what the service made of it. */
export async function make(ask: Ask, body: object): Promise<Found & { readonly id: string }> {
  const answer = await ask(`POST /fhir/${(body as { resourceType: string }).resourceType}`, { body })
  assert.equal(answer.status, 201, JSON.stringify(answer.body))
  return answer.body as Found & { readonly id: string }
}
