import type { TestContext } from 'node:test'
import pg from 'pg'
import { Database } from '../../src/database/database.ts'
import type { TestHospital } from './hospital-database.ts'

/** The same database as it is now: what a restore to this instant gives. Once for each hospital. */
export async function copyOf(
  t: TestContext,
  hospital: TestHospital,
): Promise<Pick<TestHospital, 'connectionString' | 'database' | 'admin'>> {
  const name = new URL(hospital.connectionString).pathname.slice(1)
  // A template may not be in use. The pool makes new connections afterwards; the hospital's own `admin` is gone.
  hospital.admin.on('error', () => undefined)
  const maintenance = new pg.Client({ connectionString: hospital.connectionString.replace(/\/\w+$/, '/postgres') })
  await maintenance.connect()
  await maintenance.query('select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = $1', [name])
  await maintenance.query(`create database ${name}_restored template ${name}`)
  await maintenance.end()
  const connectionString = `${hospital.connectionString}_restored`
  const database = new Database({ connectionString })
  t.after(async () => database.close())
  const admin = new pg.Client({ connectionString, options: '-c search_path=hospital,pg_temp' })
  await admin.connect()
  t.after(async () => admin.end())
  return { connectionString, database, admin }
}
