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
  'holds',
  'provenances',
  'audit_events',
] as const

export type Projection = (typeof PROJECTIONS)[number]

/** What is no projection: the log itself, the ends of its lanes and the hashes over it, and what is kept outside it for the reason given where it is made. */
export const NO_PROJECTIONS = [
  'events',
  'lanes',
  'checkpoints',
  'user_tokens',
  'published_topics',
  'published_records',
  'records_ahead',
  'known_cluster',
  'mrn_counters',
  'uploads',
] as const
