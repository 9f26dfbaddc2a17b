import type { Resource } from '@medplum/fhirtypes'
import { sql } from 'kysely'
import type { Transaction } from '../database/database.ts'
import { Refusal } from '../refusal.ts'
import { isUuid } from '../uuid.ts'
import { resourceOf, selectRows, type ResourceRow } from './rows.ts'
import type { ServedType } from './served-types.ts'

/** The row of a resource as it is now; undefined for one that is not there, or that this context does not see. */
export async function findRow(transaction: Transaction, served: ServedType, id: string): Promise<ResourceRow | undefined> {
  if (served.hasUuid && !isUuid(id)) return undefined
  const { rows } = await sql<ResourceRow>`${selectRows(served)} where id = ${id}`.execute(transaction.sql)
  return rows[0]
}

/** Throws NOT_FOUND, for what another facility has in the same words as for what nobody has. */
export async function readRow(transaction: Transaction, served: ServedType, id: string): Promise<ResourceRow> {
  const row = await findRow(transaction, served, id)
  if (row === undefined) throw notFound(served, id)
  return row
}

/** An old version, or the newest one. Throws NOT_FOUND. */
export async function readVersion(transaction: Transaction, served: ServedType, id: string, version: string): Promise<Resource> {
  // What is visible by its row alone (a patient of another facility, a facility) has its newest version only: older ones are its home's.
  const current = await readRow(transaction, served, id)
  if (String(current.version) === version) return resourceOf(served, current)
  const number = /^[1-9]\d{0,8}$/.test(version) ? Number(version) : 0
  const { rows } = await sql<ResourceRow>`
    select ${id} as id, version, at as updated_at, hospital.upcast(stream, schema_version, facility, payload) -> 'resource' as content
    from events where stream = ${`${served.name}/${id}`} and version = ${number}`.execute(transaction.sql)
  if (rows[0] === undefined) throw new Refusal('NOT_FOUND', `there is no version ${version.slice(0, 20)} of ${served.name}/${id}`)
  return resourceOf(served, rows[0])
}

export function notFound({ name }: ServedType, id: string): Refusal {
  return new Refusal('NOT_FOUND', `there is no ${name}/${id.slice(0, 64)}`)
}
