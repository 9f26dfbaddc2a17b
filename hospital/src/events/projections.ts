/** The tables that `hospital.project` fills from events, each after those that it refers to. */
export const PROJECTIONS = [
  'facilities',
  'users',
  'locations',
  'patients',
  'patient_facilities',
  'encounters',
  'appointments',
  'observations',
  'medication_requests',
  'invoices',
  'consent_records',
  'document_references',
  'referrals',
  'messages',
  'heartbeats',
  'provenances',
  'audit_events',
] as const

/** What is no projection: the log itself, the ends of its lanes, the hashes over it, and what is kept outside it with a reason. */
export const NO_PROJECTIONS = ['events', 'lanes', 'checkpoints', 'user_tokens'] as const

export type Projection = (typeof PROJECTIONS)[number]
