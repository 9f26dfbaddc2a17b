import type { Appointment, Consent, Invoice, ServiceRequest } from '@medplum/fhirtypes'
import { CONSENT_CATEGORY, SYSTEMS } from './codes.ts'
import type { Condition } from './conditions.ts'
import { conditionConcept, instant, reference, type WithId } from './clinical-resources.ts'

export interface Booking {
  readonly id: string
  readonly facility: string
  readonly patient: string
  readonly location: string
  readonly startMs: number
  readonly minutes: number
  readonly status: 'booked' | 'fulfilled' | 'cancelled' | 'noshow'
}

export function appointmentResource(booking: Booking): WithId<Appointment> {
  const { status } = booking
  return {
    resourceType: 'Appointment',
    id: booking.id,
    status,
    ...(status === 'cancelled'
      ? { cancelationReason: { coding: [{ system: SYSTEMS.appointmentCancellation, code: 'pat', display: 'Patient' }] } }
      : {}),
    start: instant(booking.startMs),
    end: instant(booking.startMs + booking.minutes * 60_000),
    participant: [
      { actor: reference('Patient', booking.patient), status: status === 'cancelled' ? 'declined' : 'accepted' },
      { actor: reference('Location', booking.location), status: 'accepted' },
    ],
  }
}

export interface Charge {
  readonly code: string
  readonly display: string
  /** SYSTEMS.tariff or SYSTEMS.formulary. */
  readonly system: string
  readonly quantity: number
  readonly priceNaira: number
}

export interface Bill {
  readonly id: string
  readonly facility: string
  readonly patient: string
  readonly atMs: number
  readonly charges: readonly Charge[]
  readonly status: 'issued' | 'balanced' | 'cancelled'
}

/** In naira; a line's price is its quantity times the price of one, and the total is the sum of its lines. */
export function invoiceResource(bill: Bill): WithId<Invoice> {
  const total = bill.charges.reduce((sum, { quantity, priceNaira }) => sum + quantity * priceNaira, 0)
  return {
    resourceType: 'Invoice',
    id: bill.id,
    status: bill.status,
    subject: reference('Patient', bill.patient),
    date: instant(bill.atMs),
    issuer: reference('Organization', bill.facility),
    lineItem: bill.charges.map(({ system, code, display, quantity, priceNaira }, index) => ({
      sequence: index + 1,
      chargeItemCodeableConcept: { coding: [{ system, code, display }] },
      priceComponent: [{ type: 'base', factor: quantity, amount: { value: quantity * priceNaira, currency: 'NGN' } }],
    })),
    totalNet: { value: total, currency: 'NGN' },
    totalGross: { value: total, currency: 'NGN' },
  }
}

export interface Permission {
  readonly id: string
  readonly facility: string
  readonly patient: string
  readonly scope: 'treatment' | 'patient-privacy'
  readonly givenMs: number
  /** Withdrawn is another version, which permits nothing from then on. */
  readonly withdrawnMs?: number
}

const SCOPES = { treatment: 'Treatment', 'patient-privacy': 'Privacy Consent' } as const

export function consentResource(permission: Permission): WithId<Consent> {
  const { scope, withdrawnMs } = permission
  return {
    resourceType: 'Consent',
    id: permission.id,
    status: withdrawnMs === undefined ? 'active' : 'inactive',
    scope: { coding: [{ system: SYSTEMS.consentScope, code: scope, display: SCOPES[scope] }] },
    category: [{ coding: [{ system: SYSTEMS.loinc, ...CONSENT_CATEGORY }] }],
    patient: reference('Patient', permission.patient),
    dateTime: instant(permission.givenMs),
    organization: [reference('Organization', permission.facility)],
    policyRule: { coding: [{ system: SYSTEMS.actCode, code: 'OPTIN', display: 'opt-in' }] },
    provision: {
      type: 'permit',
      period: { start: instant(permission.givenMs), ...(withdrawnMs === undefined ? {} : { end: instant(withdrawnMs) }) },
    },
  }
}

export type ReferralStatus = 'draft' | 'active' | 'on-hold' | 'revoked' | 'completed'

export interface Referral {
  readonly id: string
  readonly from: string
  readonly to: string
  readonly patient: string
  readonly condition: Condition
  readonly authoredMs: number
  readonly status: ReferralStatus
}

export function referralResource(referral: Referral): WithId<ServiceRequest> {
  return {
    resourceType: 'ServiceRequest',
    id: referral.id,
    status: referral.status,
    intent: 'order',
    priority: 'routine',
    code: { text: 'Referral for further care' },
    subject: reference('Patient', referral.patient),
    authoredOn: instant(referral.authoredMs),
    requester: reference('Organization', referral.from),
    performer: [reference('Organization', referral.to)],
    reasonCode: [{ ...conditionConcept(referral.condition), text: referral.condition.display }],
  }
}
