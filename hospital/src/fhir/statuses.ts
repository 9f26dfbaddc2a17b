import type { ClinicalTypeName } from './type-names.ts'

// What may become of what: for each type, the statuses that may follow a status, and what its events are called.

interface Lifecycle {
  readonly follows: Readonly<Record<string, readonly string[]>>
  /** When it is made, by its first status; otherwise `made`. */
  readonly begins?: Readonly<Record<string, string>>
  readonly made: string
  /** When it takes a status. */
  readonly becomes: Readonly<Record<string, string>>
  readonly changed: string
}

const ERROR = 'entered-in-error'

export const LIFECYCLES: Readonly<Record<ClinicalTypeName, Lifecycle>> = {
  Encounter: {
    follows: {
      planned: ['arrived', 'triaged', 'in-progress', 'cancelled', ERROR],
      arrived: ['triaged', 'in-progress', 'onleave', 'finished', 'cancelled', ERROR],
      triaged: ['in-progress', 'onleave', 'finished', 'cancelled', ERROR],
      'in-progress': ['onleave', 'finished', 'cancelled', ERROR],
      onleave: ['in-progress', 'finished', ERROR],
      finished: [ERROR],
      cancelled: [ERROR],
      [ERROR]: [],
    },
    begins: { planned: 'EncounterPlanned', arrived: 'EncounterArrived' },
    made: 'EncounterStarted',
    becomes: {
      arrived: 'EncounterArrived',
      triaged: 'EncounterTriaged',
      'in-progress': 'EncounterStarted',
      onleave: 'EncounterInterrupted',
      finished: 'EncounterFinished',
      cancelled: 'EncounterCancelled',
      [ERROR]: 'EncounterRetracted',
    },
    changed: 'EncounterChanged',
  },
  Appointment: {
    follows: {
      proposed: ['pending', 'booked', 'waitlist', 'cancelled', ERROR],
      pending: ['booked', 'waitlist', 'cancelled', 'noshow', ERROR],
      waitlist: ['pending', 'booked', 'cancelled', ERROR],
      booked: ['pending', 'arrived', 'checked-in', 'fulfilled', 'cancelled', 'noshow', ERROR],
      arrived: ['checked-in', 'fulfilled', 'cancelled', 'noshow', ERROR],
      'checked-in': ['fulfilled', 'cancelled', 'noshow', ERROR],
      fulfilled: [ERROR],
      cancelled: [ERROR],
      noshow: [ERROR],
      [ERROR]: [],
    },
    begins: { proposed: 'AppointmentProposed', pending: 'AppointmentRequested', waitlist: 'AppointmentWaitlisted' },
    made: 'AppointmentBooked',
    becomes: {
      pending: 'AppointmentRequested',
      waitlist: 'AppointmentWaitlisted',
      booked: 'AppointmentBooked',
      arrived: 'AppointmentArrived',
      'checked-in': 'AppointmentCheckedIn',
      fulfilled: 'AppointmentKept',
      cancelled: 'AppointmentCancelled',
      noshow: 'AppointmentMissed',
      [ERROR]: 'AppointmentRetracted',
    },
    changed: 'AppointmentChanged',
  },
  Observation: {
    follows: {
      registered: ['preliminary', 'final', 'amended', 'corrected', 'cancelled', ERROR],
      preliminary: ['final', 'amended', 'corrected', 'cancelled', ERROR],
      final: ['amended', 'corrected', 'cancelled', ERROR],
      amended: ['corrected', 'cancelled', ERROR],
      corrected: ['amended', 'cancelled', ERROR],
      cancelled: [ERROR],
      [ERROR]: [],
    },
    begins: { registered: 'ObservationRegistered' },
    made: 'ObservationRecorded',
    becomes: {
      preliminary: 'ObservationRecorded',
      final: 'ObservationFinalised',
      amended: 'ObservationAmended',
      corrected: 'ObservationCorrected',
      cancelled: 'ObservationCancelled',
      [ERROR]: 'ObservationRetracted',
    },
    changed: 'ObservationChanged',
  },
  MedicationRequest: {
    follows: {
      draft: ['active', 'cancelled', ERROR],
      active: ['on-hold', 'completed', 'stopped', 'cancelled', ERROR],
      'on-hold': ['active', 'completed', 'stopped', 'cancelled', ERROR],
      completed: [ERROR],
      stopped: [ERROR],
      cancelled: [ERROR],
      [ERROR]: [],
    },
    begins: { draft: 'MedicationDrafted' },
    made: 'MedicationPrescribed',
    becomes: {
      active: 'MedicationPrescribed',
      'on-hold': 'MedicationHeld',
      completed: 'MedicationCompleted',
      stopped: 'MedicationStopped',
      cancelled: 'MedicationCancelled',
      [ERROR]: 'MedicationRetracted',
    },
    changed: 'MedicationChanged',
  },
  Invoice: {
    follows: {
      draft: ['issued', 'cancelled', ERROR],
      issued: ['balanced', 'cancelled', ERROR],
      balanced: ['cancelled', ERROR],
      cancelled: [ERROR],
      [ERROR]: [],
    },
    begins: { draft: 'InvoiceDrafted', balanced: 'InvoicePaid' },
    made: 'InvoiceIssued',
    becomes: { issued: 'InvoiceIssued', balanced: 'InvoicePaid', cancelled: 'InvoiceCancelled', [ERROR]: 'InvoiceRetracted' },
    changed: 'InvoiceChanged',
  },
  Consent: {
    follows: {
      draft: ['proposed', 'active', 'rejected', ERROR],
      proposed: ['active', 'rejected', ERROR],
      active: ['inactive', ERROR],
      // Who consents again gives another consent: what was withdrawn stays withdrawn.
      inactive: [ERROR],
      rejected: [ERROR],
      [ERROR]: [],
    },
    begins: { draft: 'ConsentDrafted', proposed: 'ConsentProposed', rejected: 'ConsentRefused', inactive: 'ConsentWithdrawn' },
    made: 'ConsentGiven',
    becomes: {
      proposed: 'ConsentProposed',
      active: 'ConsentGiven',
      rejected: 'ConsentRefused',
      inactive: 'ConsentWithdrawn',
      [ERROR]: 'ConsentRetracted',
    },
    changed: 'ConsentChanged',
  },
  DocumentReference: {
    follows: { current: ['superseded', ERROR], superseded: [ERROR], [ERROR]: [] },
    made: 'DocumentFiled',
    becomes: { superseded: 'DocumentSuperseded', [ERROR]: 'DocumentRetracted' },
    changed: 'DocumentChanged',
  },
  // By the facility that refers.
  ServiceRequest: {
    follows: {
      draft: ['active', 'revoked', ERROR],
      active: ['on-hold', 'completed', 'revoked', ERROR],
      'on-hold': ['active', 'completed', 'revoked', ERROR],
      completed: [ERROR],
      revoked: [ERROR],
      [ERROR]: [],
    },
    begins: { draft: 'ReferralDrafted' },
    made: 'ReferralMade',
    becomes: {
      active: 'ReferralMade',
      'on-hold': 'ReferralHeld',
      completed: 'ReferralCompleted',
      revoked: 'ReferralWithdrawn',
      [ERROR]: 'ReferralRetracted',
    },
    changed: 'ReferralChanged',
  },
}

/** By the facility that a patient is referred to: it may put the patient on its list, take the patient over, say that it is done, or decline. */
export const RECEIVED_REFERRAL: Lifecycle = {
  follows: {
    active: ['on-hold', 'completed', 'revoked'],
    'on-hold': ['active', 'completed', 'revoked'],
  },
  made: 'ReferralMade',
  becomes: {
    active: 'ReferralAccepted',
    'on-hold': 'ReferralHeld',
    completed: 'ReferralCompleted',
    revoked: 'ReferralDeclined',
  },
  changed: 'ReferralChanged',
}

/** Whether something may go from one status to another; it may always keep the one that it has, and leave "unknown". */
export function mayFollow({ follows }: Lifecycle, before: string, after: string): boolean {
  return before === after || (before === 'unknown' && follows['unknown'] === undefined) || (follows[before] ?? []).includes(after)
}

export function eventWhenMade({ begins, made }: Lifecycle, status: string): string {
  return begins?.[status] ?? made
}

export function eventWhenChanged({ becomes, changed }: Lifecycle, before: string, after: string): string {
  return before === after ? changed : (becomes[after] ?? changed)
}
