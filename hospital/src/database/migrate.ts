import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { CannotRun } from '../refusal.ts'

const DIRECTORY = fileURLToPath(new URL('migrations', import.meta.url))
/** Of two that migrate at once, one waits. Any number that nobody else takes. */
const LOCK = 7_310_001
const VERSION_MIN = 150_000

/**
 * Brings the database's schema to this version of the hospital; each file of migrations/ runs once, in a transaction of its own. Gives the names of those
 * that ran. Throws CannotRun for a server before 15, and for a migration that was changed after it ran. The connection's user has to own the
 * database and may make roles.
 */
export async function migrate(connectionString: string): Promise<string[]> {
  const client = new pg.Client({
    connectionString,
    application_name: 'hospital migrate',
    options: '-c search_path=hospital,pg_temp',
  })
  await client.connect()
  try {
    await requireVersion(client)
    await client.query('select pg_advisory_lock($1)', [LOCK])
    await client.query(
      'create table if not exists public.hospital_migrations (name text primary key, sha256 text not null, at timestamptz not null default now())',
    )
    const { rows } = await client.query<{ name: string; sha256: string }>('select name, sha256 from public.hospital_migrations')
    const ran = new Map(rows.map(({ name, sha256 }) => [name, sha256]))
    const names: string[] = []
    for (const name of (await readdir(DIRECTORY)).filter((each) => each.endsWith('.sql')).toSorted()) {
      if (await runOnce(client, name, ran.get(name))) names.push(name)
    }
    return names
  } finally {
    await client.end()
  }
}

async function requireVersion(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ version: string; text: string }>(
    "select current_setting('server_version_num') as version, current_setting('server_version') as text",
  )
  if (Number(rows[0]?.version) >= VERSION_MIN) return
  throw new CannotRun(`the server is PostgreSQL ${rows[0]?.text}`, { hint: 'the hospital needs PostgreSQL 15 or later' })
}

/** Whether it had to run. */
async function runOnce(client: pg.Client, name: string, before: string | undefined): Promise<boolean> {
  const text = await readFile(join(DIRECTORY, name), 'utf8')
  const sha256 = createHash('sha256').update(text).digest('hex')
  if (before === sha256) return false
  if (before !== undefined) {
    throw new CannotRun(`the migration ${name} was changed after it had run on this database`, {
      hint: 'a change of the schema is another file behind the last one',
    })
  }
  await client.query('begin')
  try {
    await client.query(text)
    await client.query('insert into public.hospital_migrations (name, sha256) values ($1, $2)', [name, sha256])
    await client.query('commit')
  } catch (error) {
    await client.query('rollback').catch(() => undefined)
    throw new CannotRun(`the migration ${name} failed: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    })
  }
  return true
}
