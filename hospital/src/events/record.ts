import pg from 'pg'
import type { Transaction } from '../database/database.ts'
import { Refusal } from '../refusal.ts'
import { uuid } from '../uuid.ts'

/** A change of state, as whoever makes it says it. */
export interface Change {
  /** What changes: a type and an id, "Patient/7f1c…". */
  readonly stream: string
  /** The version that the caller has seen; 0 when the stream has to be new; left out when any will do. */
  readonly expected?: number
  readonly type: string
  readonly schemaVersion: number
  readonly facility: string
  /** The one other facility that sees it. */
  readonly otherFacility?: string
  readonly payload: object
}

/** The event that a change became. */
export interface RecordedEvent {
  readonly position: bigint
  readonly id: string
  readonly stream: string
  readonly version: number
  readonly at: Date
}

const SQL = `select position, id, version, at
  from hospital.record($1, $2, $3::integer, $4, $5::smallint, $6, $7, $8, $9::jsonb, $10::smallint)`

/**
 * Appends a change to its stream and brings the projections up to it, in this transaction. Throws VERSION_CONFLICT when the stream is at another version
 * than expected, CONFLICT when somebody else appended to it at the same time, INVALID for a reference to what this context cannot see.
 */
export async function record(transaction: Transaction, change: Change): Promise<RecordedEvent> {
  const { stream, expected = null, type, schemaVersion, facility, otherFacility = null, payload } = change
  const { actor } = transaction.context
  const values = [
    uuid(),
    stream,
    expected,
    type,
    schemaVersion,
    facility,
    otherFacility,
    actor,
    JSON.stringify(payload),
    transaction.lane,
  ]
  const { rows } = await transaction.client
    .query<{ position: string; id: string; version: number; at: Date }>({ name: 'record', text: SQL, values })
    .catch((error: unknown) => {
      throw refusalOf(error, change)
    })
  const row = rows[0]!
  return { position: BigInt(row.position), id: row.id, stream, version: row.version, at: row.at }
}

/** What the database says of a change that it does not take, as one who asked for it can use it. */
function refusalOf(error: unknown, { stream }: Change): unknown {
  if (!(error instanceof pg.DatabaseError)) return error
  if (error.code === 'HS409')
    return new Refusal('VERSION_CONFLICT', error.message, { hint: 'read it again, and change what is there now', cause: error })
  if (error.code === '23505' && error.constraint === 'events_stream_version_key') {
    return new Refusal('CONFLICT', `${stream} was changed by somebody else at the same time`, {
      hint: 'read it again, and try again',
      cause: error,
    })
  }
  if (error.code === '23503') {
    // The same for what is not there and for what this facility does not see.
    return new Refusal('INVALID', `${stream} refers to something that does not exist: ${referenceOf(error)}`, { cause: error })
  }
  if (error.code === '23505')
    return new Refusal('CONFLICT', `${stream} has a number that is taken: ${error.constraint ?? ''}`, { cause: error })
  if (error.code === '42501') return new Refusal('FORBIDDEN', `${stream} is not this facility's to change`, { cause: error })
  if (error.code === '40P01' || error.code === '40001') {
    return new Refusal('CONFLICT', `${stream} was being changed by somebody else`, { hint: 'try again', cause: error })
  }
  // Not-null and check constraints, and text that is no date or no UUID.
  if (['23502', '23514', '22007', '22008', '22P02'].includes(error.code ?? '')) {
    return new Refusal('INVALID', `${stream} cannot be stored: ${error.message}`, { cause: error })
  }
  return error
}

/** "encounter_id" of a constraint like observations_facility_encounter_id_patient_id_fkey, as FHIR calls it. */
function referenceOf(error: pg.DatabaseError): string {
  const columns = ['encounter', 'location', 'patient', 'facility']
  return columns.find((each) => error.constraint?.includes(each) && each !== 'facility') ?? 'facility'
}
