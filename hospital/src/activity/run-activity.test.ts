import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { skip, testHospital, type TestHospital } from '../../test/services/hospital-database.ts'
import { generate } from '../generator/generate.ts'
import { makeToken } from '../http/authentication.ts'
import { buildServer } from '../http/server.ts'
import { findLost } from '../lost/find-lost.ts'
import { runActivity, type ActivityOptions, type ActivityReport } from './run-activity.ts'

const SIZE = { seed: 1, facilities: 3, patients: 60, untilMs: Date.parse('2026-01-01T00:00:00Z') }

interface Served extends TestHospital {
  readonly tokens: readonly string[]
  readonly logPath: string
}

async function served(t: TestContext): Promise<Served> {
  const hospital = await testHospital(t, [])
  await generate({ ...SIZE, connectionString: hospital.connectionString, filesDirectory: hospital.home })
  const tokens: string[] = []
  for (const user of ['clinician.fac001', 'clerk.fac002', 'clinician.fac003']) tokens.push(await makeToken(hospital.admin, user))
  return { ...hospital, tokens, logPath: join(hospital.home, 'acknowledged.log') }
}

/** Listens until the test or `stop` ends it. */
async function listen(
  t: TestContext,
  { database, home }: TestHospital,
  port = 0,
): Promise<{ url: string; port: number; stop: () => Promise<void> }> {
  const server = await buildServer({ database, filesDirectory: home })
  // As a crash ends it: connections that are in use end too.
  const stop = async (): Promise<void> => {
    const closing = server.close()
    server.server.closeAllConnections()
    await closing
  }
  t.after(stop)
  const url = await server.listen({ port, host: '127.0.0.1' })
  return { url, port: Number(new URL(url).port), stop }
}

function optionsOf({ tokens, logPath }: Served, more: Partial<ActivityOptions> & { readonly url: string }): ActivityOptions {
  return {
    tokens,
    rate: 60,
    isFlat: true,
    logPath,
    seed: 5,
    secondsMax: 60,
    giveUpAfterSeconds: 30,
    signal: new AbortController().signal,
    say: () => undefined,
    ...more,
  }
}

test('activity writes what the hospital takes, of every kind, and logs each write once', { skip }, async (t) => {
  const hospital = await served(t)
  const { url } = await listen(t, hospital)
  const before = await hospital.admin.query<{ last: string }>('select max(position) as last from events')
  const report = await runActivity(optionsOf(hospital, { url, secondsMax: 12 }))
  assert.deepEqual(report.refused, {})
  assert.deepEqual([report.unanswered, report.end], [0, 'over'])
  const { rows } = await hospital.admin.query<{ stream: string; version: number; at: Date }>(
    "select stream, version, at from events where position > $1 and stream !~ '^(Message|Heartbeat)/' order by 1, 2",
    [before.rows[0]?.last],
  )
  const lines = (await readFile(hospital.logPath, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { type: string; id: string; version: number; at: string })
  const logged = lines.map(({ type, id, version, at }) => ({ stream: `${type}/${id}`, version, at: new Date(at) }))
  const name = ({ stream, version, at }: { stream: string; version: number; at: Date }): string =>
    `${stream}/${version} ${at.toISOString()}`
  assert.deepEqual(logged.map(name).toSorted(), rows.map(name).toSorted())
  assert.equal(report.acknowledged, rows.length)
  const types = new Set(lines.map(({ type }) => type))
  for (const type of [
    'Patient',
    'Encounter',
    'Observation',
    'MedicationRequest',
    'Invoice',
    'Appointment',
    'Consent',
    'ServiceRequest',
    'DocumentReference',
    'PatientFacility',
  ]) {
    assert.ok(types.has(type), `no ${type} among ${lines.length} writes`)
  }
  assert.ok(lines.some(({ version }) => version > 1))
  assert.deepEqual(
    await findLost(hospital.admin, hospital.logPath).then(({ acknowledged, lost, torn }) => ({ acknowledged, lost, torn })),
    {
      acknowledged: rows.length,
      lost: 0,
      torn: [],
    },
  )
})

test('activity goes on when the service comes back, and says so once; when it stays away it ends', { skip }, async (t) => {
  const hospital = await served(t)
  const first = await listen(t, hospital)
  const said: string[] = []
  const running = runActivity(
    optionsOf(hospital, { url: first.url, giveUpAfterSeconds: 12, secondsMax: 600, say: (text) => said.push(text) }),
  )
  const written = async (): Promise<number> => (await readFile(hospital.logPath, 'utf8').catch(() => '')).split('\n').length
  const until = async (condition: () => Promise<boolean>): Promise<void> => {
    const limit = AbortSignal.timeout(60_000)
    while (!(await condition())) {
      limit.throwIfAborted()
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  await until(async () => (await written()) > 20)
  await first.stop()
  await until(async () => said.length === 1)
  const atOutage = await written()
  const second = await listen(t, hospital, first.port)
  await until(async () => (await written()) > atOutage + 20)
  await second.stop()
  const report = await running
  assert.equal(report.end, 'the service is gone')
  assert.deepEqual(
    said.map((text) => text.replace(/.*(does not answer|answers again).*/, '$1')),
    ['does not answer', 'answers again', 'does not answer'],
  )
  assert.equal((await findLost(hospital.admin, hospital.logPath)).lost, 0)
})

test('activity ends when it is told to, with what was in flight logged', { skip }, async (t) => {
  const hospital = await served(t)
  const { url } = await listen(t, hospital)
  const told = new AbortController()
  const running = runActivity(optionsOf(hospital, { url, signal: told.signal }))
  setTimeout(() => told.abort(), 1500)
  const report: ActivityReport = await running
  assert.equal(report.end, 'told to end')
  const { rows } = await hospital.admin.query<{ n: number }>(
    "select count(*)::int as n from events where at > '2026-01-02' and stream !~ '^(Message|Heartbeat)/'",
  )
  assert.equal(rows[0]?.n, report.acknowledged)
})

test('activity that has nothing to begin with says why and writes no log', { skip }, async (t) => {
  const hospital = await served(t)
  const { url } = await listen(t, hospital)
  const group = await makeToken(hospital.admin, 'group')
  await assert.rejects(runActivity(optionsOf(hospital, { url, tokens: [group] })), {
    name: 'CannotRun',
    message: /works for the group/,
  })
  await assert.rejects(runActivity(optionsOf(hospital, { url, tokens: ['x'.repeat(40)] })), { name: 'CannotRun', message: /401/ })
  const closed = createServer().listen(0, '127.0.0.1')
  await once(closed, 'listening')
  const { port } = closed.address() as { port: number }
  closed.close()
  await assert.rejects(runActivity(optionsOf(hospital, { url: `http://127.0.0.1:${port}` })), {
    message: /does not answer: ECONNREFUSED/,
  })
  await assert.rejects(runActivity(optionsOf(hospital, { url, logPath: join(hospital.home, 'no', 'log') })), {
    name: 'CannotRun',
  })
  await assert.rejects(readFile(hospital.logPath), { code: 'ENOENT' })
})
