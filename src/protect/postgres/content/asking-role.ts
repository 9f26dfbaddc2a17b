import { randomBytes } from 'node:crypto'
import type pg from 'pg'
import { SUPERUSER_SESSION } from '../scratch-settings.ts'
import { usedDatabases, type CheckedCopy } from './content-check.ts'

// Whoever may define something in the hospital's database has a say in what a query over its tables runs: a view in a table's place, a function in an
// index's expression, an operator, a cast. Asked by a superuser, it would run programs (COPY TO PROGRAM), in a read-only transaction too. So all such
// queries are asked by a role of the copy that may read everything and do nothing.

/** One role for each copy, made when it is first wanted. */
const made = new WeakMap<CheckedCopy['server'], Promise<string>>()

/** Connects to a database as the role that only reads: as the session's user, so that nothing can set it back. Each transaction is read-only, unless it says otherwise. */
export async function askingSession<T>(
  copy: Pick<CheckedCopy, 'server'>,
  database: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const role = made.get(copy.server) ?? makeRole(copy)
  made.set(copy.server, role)
  return await copy.server.sessionAs(await role, database, work)
}

/** The role's name, where it was made. */
export async function askingRole({ server }: Pick<CheckedCopy, 'server'>): Promise<string | undefined> {
  return await made.get(server)
}

/** Asks each database that people use, until one gives something. By the role that only reads. */
export async function inEachDatabase<T>(
  copy: CheckedCopy,
  ask: (client: pg.Client, database: string) => Promise<T | undefined>,
): Promise<T | undefined> {
  for (const name of await usedDatabases(copy)) {
    const found = await askingSession(copy, name, async (client) => ask(client, name))
    if (found !== undefined) return found
  }
  return undefined
}

/** Event triggers do not fire for roles and databases, so that none of the cluster's runs for this. */
async function makeRole({ server }: Pick<CheckedCopy, 'server'>): Promise<string> {
  const role = `resus_asks_${randomBytes(8).toString('hex')}`
  const databases = await usedDatabases({ server })
  await server.anySession(async (client) => {
    await client.query(`create role ${role} login bypassrls nosuperuser nocreatedb nocreaterole noreplication inherit`)
    await client.query(`grant pg_read_all_data to ${role}`)
    // What a database or all roles have set, and this role may not set back itself.
    for (const [name, value] of Object.entries(settingsOf(server.major)))
      await client.query(`alter role ${role} set ${name} = ${client.escapeLiteral(value)}`)
    // The hospital may have revoked it from everybody.
    for (const name of databases) await client.query(`grant connect on database ${client.escapeIdentifier(name)} to ${role}`)
  })
  return role
}

function settingsOf(major: number): Record<string, string> {
  return {
    ...SUPERUSER_SESSION,
    // An empty list cannot be set for a role: this is PostgreSQL's own, and does nothing by itself.
    session_preload_libraries: '$libdir/plpgsql',
    ...(major >= 17 ? { event_triggers: 'off' } : {}),
  }
}
