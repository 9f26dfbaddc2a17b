import assert from 'node:assert/strict'
import { appendFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import pg from 'pg'
import { facility, skip, testHospital, type TestHospital } from '../../test/services/hospital-database.ts'
import { Database } from '../database/database.ts'
import { record } from '../events/record.ts'
import { uuid } from '../uuid.ts'
import { AcknowledgedLog, type AcknowledgedWrite } from './acknowledged-log.ts'
import { findLost, LISTED_MAX } from './find-lost.ts'

/** Registers or changes a patient, and gives what an activity would log of it. */
async function write(database: Database, at: string, id: string, expected: number): Promise<AcknowledgedWrite> {
  const event = await database.transaction(facility(at), async (tx) =>
    record(tx, {
      stream: `Patient/${id}`,
      expected,
      type: 'PatientRegistered',
      schemaVersion: 2,
      facility: at,
      payload: { resource: { identifier: [{ system: `https://his.osun.example/mrn/${at}`, value: id }] } },
    }),
  )
  const times = { at: event.at.toISOString(), acknowledgedAt: new Date().toISOString() }
  return { facility: at, patient: id, type: 'Patient', id, version: event.version, ...times }
}

async function logged(writes: readonly AcknowledgedWrite[], { home }: TestHospital): Promise<string> {
  const path = join(home, 'acknowledged.log')
  await using log = await AcknowledgedLog.open(path)
  await Promise.all(writes.map(async (each) => log.add([each])))
  return path
}

/** The database as it is now: what a recovery to this instant brings back. */
async function recoveryPoint(t: TestContext, hospital: TestHospital): Promise<{ database: Database; admin: pg.Client }> {
  const original = new URL(hospital.connectionString).pathname.slice(1)
  const name = `${original}_recovered`
  const other = new pg.Client({ connectionString: hospital.connectionString.replace(/\/[^/]+$/, '/postgres') })
  await other.connect()
  // Nobody may use a database that is copied; the pool makes new connections when it is asked.
  hospital.admin.on('error', () => undefined)
  await other.query('select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = $1', [original])
  await other.query(`create database ${name} template ${original}`)
  await other.end()
  const connectionString = hospital.connectionString.replace(/\/[^/]+$/, `/${name}`)
  const database = new Database({ connectionString, connectionsMax: 2 })
  t.after(async () => database.close())
  return { database, admin: await connect(t, connectionString) }
}

async function connect(t: TestContext, connectionString: string): Promise<pg.Client> {
  const admin = new pg.Client({ connectionString })
  await admin.connect()
  t.after(async () => admin.end())
  return admin
}

test(
  'what was acknowledged after the recovery point is lost, also where another write has its version now',
  { skip },
  async (t) => {
    const hospital = await testHospital(t)
    const [kept, changed, late] = [uuid(), uuid(), uuid()]
    const before = [await write(hospital.database, 'FAC001', kept, 0), await write(hospital.database, 'FAC002', changed, 0)]
    const recovered = await recoveryPoint(t, hospital)
    const gone = [
      await write(hospital.database, 'FAC002', changed, 1),
      await write(hospital.database, 'FAC002', changed, 2),
      await write(hospital.database, 'FAC001', late, 0),
    ]
    const path = await logged([...before, ...gone], hospital)
    assert.equal((await findLost(await connect(t, hospital.connectionString), path)).lost, 0)

    await write(recovered.database, 'FAC002', changed, 1)
    const report = await findLost(recovered.admin, path)
    assert.deepEqual([report.acknowledged, report.lost, report.replaced], [5, 3, 1])
    const [second, third, first] = gone.map(({ at }) => at)
    assert.deepEqual(report.facilities, [
      { facility: 'FAC001', lost: 1, from: first, to: first, patients: [{ patient: late, lost: 1, from: first, to: first }] },
      {
        facility: 'FAC002',
        lost: 2,
        from: second,
        to: third,
        patients: [{ patient: changed, lost: 2, from: second, to: third }],
      },
    ])
    assert.deepEqual(report.writes.map(({ version, found }) => `${version}: ${found}`).toSorted(), [
      '1: nothing',
      '2: another write',
      '3: nothing',
    ])
  },
)

test('a last line that a kill has torn counts for nothing, and the log goes on behind it', { skip }, async (t) => {
  const hospital = await testHospital(t)
  const [a, b] = [await write(hospital.database, 'FAC001', uuid(), 0), await write(hospital.database, 'FAC001', uuid(), 0)]
  const path = await logged([a], hospital)
  await appendFile(path, JSON.stringify(b).slice(0, 40))
  const torn = await findLost(hospital.admin, path)
  assert.deepEqual([torn.acknowledged, torn.lost, torn.torn], [1, 0, [{ number: 2, isLast: true }]])
  await logged([b], hospital)
  const after = await findLost(hospital.admin, path)
  assert.deepEqual([after.acknowledged, after.lost, after.torn], [2, 0, [{ number: 2, isLast: false }]])
})

test('more lost writes than are listed are all counted', { skip }, async (t) => {
  const hospital = await testHospital(t)
  const at = new Date().toISOString()
  const lines = Array.from({ length: LISTED_MAX * 7 }, () => {
    const id = uuid()
    return JSON.stringify({ facility: 'FAC001', patient: id, type: 'Patient', id, version: 1, at, acknowledgedAt: at })
  })
  const path = join(hospital.home, 'log')
  await writeFile(path, `${lines.join('\n')}\n`)
  const report = await findLost(hospital.admin, path)
  assert.deepEqual(
    [report.lost, report.writes.length, report.facilities[0]?.patients.length],
    [LISTED_MAX * 7, LISTED_MAX, LISTED_MAX * 7],
  )
})

test('a log that is none, or not there, cannot be judged', { skip }, async (t) => {
  const hospital = await testHospital(t)
  const path = join(hospital.home, 'log')
  await assert.rejects(findLost(hospital.admin, path), { name: 'CannotRun', message: /cannot read the log/ })
  await writeFile(path, 'some other text\n')
  await assert.rejects(findLost(hospital.admin, path), { name: 'CannotRun', message: /no log of acknowledged writes/ })
  await writeFile(path, '')
  assert.equal((await findLost(hospital.admin, path)).acknowledged, 0)
})

test('every write that add() has returned for is in the file, in whole lines', { skip }, async (t) => {
  const hospital = await testHospital(t, [])
  const at = new Date().toISOString()
  const entry = { facility: 'FAC001', patient: 'p', type: 'Patient', id: 'p', at, acknowledgedAt: at }
  const path = join(hospital.home, 'log')
  await using log = await AcknowledgedLog.open(path)
  const seen = await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      await log.add([{ ...entry, version: index + 1 }])
      return (await readFile(path, 'utf8')).includes(`"version":${index + 1}}\n`)
    }),
  )
  assert.ok(seen.every(Boolean))
})
