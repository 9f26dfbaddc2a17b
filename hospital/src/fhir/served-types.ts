import { SEARCHES, type SearchColumn } from './search-columns.ts'
import { LOGGED_TYPES, type ServedTypeName } from './type-names.ts'

/** One of the types of the FHIR face: its routes, its CapabilityStatement and its queries are made from this. */
export interface ServedType {
  readonly name: ServedTypeName
  readonly table: string
  /** Clients may write it. */
  readonly written: boolean
  /** A UUID; facilities have ids that people say. */
  readonly hasUuid: boolean
  /** The element that refers to its patient. */
  readonly patient?: 'subject' | 'patient' | 'participant'
  /** The element that refers to the facility that it belongs to; the hospital sets it. */
  readonly owner?: string
  /** References that the database's own foreign keys look after, with the facility and the patient. */
  readonly keyed: ReadonlySet<string>
  readonly search: Readonly<Record<string, SearchColumn>>
}

type Described = Pick<ServedType, 'table' | 'patient' | 'owner'> & { readonly keyed?: readonly string[] }

const DESCRIBED: Readonly<Record<ServedTypeName, Described>> = {
  Organization: { table: 'facilities' },
  Location: { table: 'locations', owner: 'managingOrganization' },
  Patient: { table: 'patients', owner: 'managingOrganization' },
  Encounter: { table: 'encounters', patient: 'subject', owner: 'serviceProvider', keyed: ['subject', 'location[0].location'] },
  Appointment: { table: 'appointments', patient: 'participant' },
  Observation: { table: 'observations', patient: 'subject', keyed: ['subject', 'encounter'] },
  MedicationRequest: { table: 'medication_requests', patient: 'subject', keyed: ['subject', 'encounter'] },
  Invoice: { table: 'invoices', patient: 'subject', owner: 'issuer', keyed: ['subject'] },
  Consent: { table: 'consent_records', patient: 'patient', owner: 'organization', keyed: ['patient'] },
  DocumentReference: {
    table: 'document_references',
    patient: 'subject',
    owner: 'custodian',
    keyed: ['subject', 'context.encounter[0]'],
  },
  ServiceRequest: { table: 'referrals', patient: 'subject', owner: 'requester', keyed: ['subject'] },
  Provenance: { table: 'provenances' },
  AuditEvent: { table: 'audit_events' },
}

export const SERVED_TYPES: ReadonlyMap<string, ServedType> = new Map(
  (Object.keys(DESCRIBED) as ServedTypeName[]).map((name) => {
    const { keyed = [], ...described } = DESCRIBED[name]
    const served: ServedType = {
      ...described,
      name,
      written: !(LOGGED_TYPES as readonly string[]).includes(name),
      hasUuid: name !== 'Organization',
      keyed: new Set(keyed.map((path) => `${name}.${path}.reference`)),
      search: SEARCHES[name],
    }
    return [name, served]
  }),
)

export function servedType(name: ServedTypeName): ServedType {
  return SERVED_TYPES.get(name)!
}
