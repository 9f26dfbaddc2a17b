import type { TestContext } from 'node:test'
import pg from 'pg'
import type { TestHospital } from './hospital-database.ts'

/** Which role a transaction takes, and the facility it says it works for: undefined sets nothing. */
export interface Taken {
  readonly role: 'hospital_facility' | 'hospital_group' | 'hospital_worker' | 'hospital_service'
  readonly facility?: string
}

/** How a statement ended: its rows, or what PostgreSQL said. */
export interface Outcome {
  readonly rows: readonly Record<string, unknown>[]
  readonly count: number | null
  readonly code?: string
  readonly message?: string
  readonly detail?: string
}

export const at = (facility: string): Taken => ({ role: 'hospital_facility', facility })

/** A connection that logged in as hospital_service itself, which is no superuser and owns nothing. */
export async function loginAsService(t: TestContext, { connectionString }: TestHospital): Promise<pg.Client> {
  const url = new URL(connectionString)
  url.username = 'hospital_service'
  const client = new pg.Client({ connectionString: url.href, options: '-c search_path=hospital,pg_temp' })
  await client.connect()
  t.after(async () => client.end())
  return client
}

/** Runs statements one after the other in one transaction of a role, which is rolled back; each may fail for itself. */
export async function tryAll(client: pg.Client, { role, facility }: Taken, statements: readonly string[]): Promise<Outcome[]> {
  await client.query('begin')
  try {
    await client.query(`set local role ${role}`)
    if (facility !== undefined) await client.query(`set local hospital.facility = ${pg.escapeLiteral(facility)}`)
    const outcomes: Outcome[] = []
    for (const statement of statements) outcomes.push(await tryOne(client, statement))
    return outcomes
  } finally {
    await client.query('rollback')
  }
}

export async function tryStatement(client: pg.Client, taken: Taken, statement: string): Promise<Outcome> {
  return (await tryAll(client, taken, [statement]))[0]!
}

async function tryOne(client: pg.Client, statement: string): Promise<Outcome> {
  await client.query('savepoint attempt')
  try {
    const result = await client.query<Record<string, unknown>>(statement)
    await client.query('release attempt')
    return { rows: result.rows, count: result.rowCount }
  } catch (error) {
    await client.query('rollback to attempt')
    if (!(error instanceof pg.DatabaseError)) throw error
    return {
      rows: [],
      count: null,
      message: error.message,
      ...(error.code === undefined ? {} : { code: error.code }),
      ...(error.detail === undefined ? {} : { detail: error.detail }),
    }
  }
}
