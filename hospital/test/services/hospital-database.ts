import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, type TestContext } from 'node:test'
import pg from 'pg'
import { Database, type Context } from '../../src/database/database.ts'
import { embeddedPrograms, startEmbedded, type EmbeddedServer } from '../../src/database/embedded.ts'
import { migrate } from '../../src/database/migrate.ts'
import { onboardFacility } from '../../src/facilities/onboard.ts'

/** For the option `skip` of a test. */
export const skip = embeddedPrograms() === undefined ? 'there is no embedded PostgreSQL for this platform' : false

export interface TestHospital {
  /** The superuser's. */
  readonly connectionString: string
  readonly database: Database
  /** The superuser's as well, for what a test looks at behind everybody's back. */
  readonly admin: pg.Client
  /** For files; removed when the test ends. */
  readonly home: string
}

export const GROUP: Context = { kind: 'group', actor: 'test' }
export const WORKER: Context = { kind: 'worker', actor: 'test' }
const CONNECTIONS_MAX = 8

export function facility(id: string): Context {
  return { kind: 'facility', facility: id, actor: `test at ${id}` }
}

let shared: Promise<{ readonly server: EmbeddedServer; readonly home: string }> | undefined
let databases = 0

/** One server for all tests of a file, with a migrated database to copy. */
async function startShared(): Promise<{ server: EmbeddedServer; home: string }> {
  const home = await mkdtemp(join(tmpdir(), 'hospital-'))
  // As root, PostgreSQL runs as another account.
  await chmod(home, 0o755)
  const settings = { fsync: 'off', shared_buffers: '64MB', dynamic_shared_memory_type: 'mmap' }
  const started = await startEmbedded(home, { settings })
  await withAdmin(started.connectionString, async (admin) => admin.query('create database hospital_template'))
  await migrate(databaseOf(started, 'hospital_template'))
  return { server: started, home }
}

after(async () => {
  const ended = await shared
  await ended?.server[Symbol.asyncDispose]()
  if (ended !== undefined) await rm(ended.home, { recursive: true, force: true })
})

/** An empty hospital with these facilities in a database of its own, closed when the test ends. */
export async function testHospital(
  t: TestContext,
  facilities: readonly string[] = ['FAC001', 'FAC002', 'FAC003'],
): Promise<TestHospital> {
  shared ??= startShared()
  const { server: started } = await shared
  const home = await mkdtemp(join(tmpdir(), 'hospital-files-'))
  t.after(async () => rm(home, { recursive: true, force: true }))
  databases += 1
  const name = `hospital_${databases}`
  await withAdmin(started.connectionString, async (admin) => admin.query(`create database ${name} template hospital_template`))
  const connectionString = databaseOf(started, name)
  const database = new Database({ connectionString, connectionsMax: CONNECTIONS_MAX })
  t.after(async () => database.close())
  const admin = new pg.Client({ connectionString, options: '-c search_path=hospital,pg_temp' })
  await admin.connect()
  t.after(async () => admin.end())
  for (const id of facilities) {
    await database.transaction(GROUP, async (transaction) =>
      onboardFacility(transaction, { id, name: `${id} General Hospital`, lga: 'Osogbo', type: 'SECONDARY' }),
    )
  }
  return { connectionString, database, admin, home }
}

function databaseOf({ connectionString }: EmbeddedServer, name: string): string {
  return connectionString.replace(/\/postgres$/, `/${name}`)
}

async function withAdmin(connectionString: string, work: (admin: pg.Client) => Promise<unknown>): Promise<void> {
  const admin = new pg.Client({ connectionString })
  await admin.connect()
  try {
    await work(admin)
  } finally {
    await admin.end()
  }
}
