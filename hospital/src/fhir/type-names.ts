export const CLINICAL_TYPES = [
  'Encounter',
  'Appointment',
  'Observation',
  'MedicationRequest',
  'Invoice',
  'Consent',
  'DocumentReference',
  'ServiceRequest',
] as const
export const WRITTEN_TYPES = ['Organization', 'Location', 'Patient', ...CLINICAL_TYPES] as const
/** What the hospital itself writes, with each event. */
export const LOGGED_TYPES = ['Provenance', 'AuditEvent'] as const

export type WrittenTypeName = (typeof WRITTEN_TYPES)[number]
export type ClinicalTypeName = (typeof CLINICAL_TYPES)[number]
export type LoggedTypeName = (typeof LOGGED_TYPES)[number]
export type ServedTypeName = WrittenTypeName | LoggedTypeName
