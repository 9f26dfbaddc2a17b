import { Database } from '../database/database.ts'
import { CannotRun, Refusal } from '../refusal.ts'
import { openPlace, type Place } from './options.ts'

/** Somebody who does something in their own name: nobody else may be meant. */
export interface Person extends Place {
  readonly by: string
  readonly reason?: string
}

/** Opens the hospital for somebody who is named, as a worker is. What the hospital refuses them throws CannotRun. */
export async function inTheNameOf<Result>(person: Person, work: (database: Database) => Promise<Result>): Promise<Result> {
  for (const [name, value] of Object.entries({ '--by': person.by, '--reason': person.reason })) {
    if (value !== undefined && value.trim() === '') throw new CannotRun(`${name} is empty`)
  }
  await using place = await openPlace(person)
  const database = new Database({ connectionString: place.connectionString, connectionsMax: 1 })
  try {
    return await work(database)
  } catch (error) {
    if (!(error instanceof Refusal) || !['CONFLICT', 'NOT_FOUND'].includes(error.code)) throw error
    throw new CannotRun(error.message, { cause: error, ...(error.hint === undefined ? {} : { hint: error.hint }) })
  } finally {
    await database.close()
  }
}
