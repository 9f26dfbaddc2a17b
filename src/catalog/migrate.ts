import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { Failure } from '../errors.ts'
import { giveRights } from './store-role.ts'

const DIRECTORY = fileURLToPath(new URL('migrations', import.meta.url))
/** Of two nodes that migrate at once, one waits. Any number that nobody else takes. */
const LOCK = 7_320_001
const VERSION_MIN = 150_000
const CONNECT_TIMEOUT_MS = 5_000
/** One that takes a connection and never answers must not be waited for for ever. */
const MIGRATION_TIMEOUT_MS = 600_000

/**
 * Brings the store's schema to this version of Resus; each file of migrations/ runs once, in a transaction of its own. Gives the names of those that ran.
 * Throws SERVER_TOO_OLD, STORE_UNREACHABLE, and STORE_FOREIGN for a schema that another version has made.
 */
export async function migrate(connectionString: string): Promise<string[]> {
  const client = new pg.Client({
    connectionString,
    application_name: 'resus migrate',
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: MIGRATION_TIMEOUT_MS,
  })
  client.on('error', () => undefined)
  await client.connect().catch((cause: unknown) => {
    throw new Failure('STORE_UNREACHABLE', `the store does not answer: ${textOf(cause)}`, {
      hint: 'is RESUS_DATABASE_URL right, and the server up?',
      cause,
    })
  })
  try {
    await requireVersion(client)
    await client.query('select pg_advisory_lock($1)', [LOCK])
    await client.query('create schema if not exists resus_control')
    await client.query(
      'create table if not exists resus_control.migrations (name text primary key, sha256 text not null, at timestamptz not null default now())',
    )
    const names = await runAll(client)
    await giveRights(client, connectionString)
    return names
  } finally {
    await client.end().catch(() => undefined)
  }
}

async function requireVersion(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ number: string; text: string }>(
    "select current_setting('server_version_num') as number, current_setting('server_version') as text",
  )
  if (Number(rows[0]?.number) >= VERSION_MIN) return
  throw new Failure('SERVER_TOO_OLD', `the store is PostgreSQL ${rows[0]?.text}`, { hint: 'wanted PostgreSQL 15 or later' })
}

async function runAll(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string; sha256: string }>('select name, sha256 from resus_control.migrations')
  const ran = new Map(rows.map(({ name, sha256 }) => [name, sha256]))
  const files = (await readdir(DIRECTORY)).filter((each) => each.endsWith('.sql')).toSorted()
  const unknown = [...ran.keys()].find((name) => !files.includes(name))
  if (unknown !== undefined) throw foreign(`it has the migration "${unknown}", which this version does not know`)
  const names: string[] = []
  for (const name of files) {
    if (await runOnce(client, name, ran.get(name))) names.push(name)
  }
  return names
}

/** Whether it had to run. */
async function runOnce(client: pg.Client, name: string, before: string | undefined): Promise<boolean> {
  const text = await readFile(join(DIRECTORY, name), 'utf8')
  const sha256 = createHash('sha256').update(text).digest('hex')
  if (before === sha256) return false
  if (before !== undefined) throw foreign(`its migration "${name}" was another`)
  await client.query('begin')
  try {
    await client.query(text)
    await client.query('insert into resus_control.migrations (name, sha256) values ($1, $2)', [name, sha256])
    await client.query('commit')
    return true
  } catch (error) {
    await client.query('rollback').catch(() => undefined)
    throw error
  }
}

function foreign(why: string): Failure {
  return new Failure('STORE_FOREIGN', `another version of Resus has made the store: ${why}`, {
    hint: 'use the version that made it, or let it go: everything that matters is in the repositories',
  })
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
