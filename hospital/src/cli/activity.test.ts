import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import test, { type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { MAIN, runHospital } from '../../test/services/hospital-command.ts'
import { skip, testHospital, type TestHospital } from '../../test/services/hospital-database.ts'
import { generate } from '../generator/generate.ts'
import { makeToken } from '../http/authentication.ts'

const SIZE = { seed: 1, facilities: 3, patients: 60, untilMs: Date.parse('2026-01-01T00:00:00Z') }
const WRITTEN_WITHIN_MS = 120_000
const ENDED_WITHIN_MS = 60_000

interface Served extends TestHospital {
  readonly url: string
  /** With the tokens of three facilities. */
  readonly env: NodeJS.ProcessEnv
  readonly log: string
  readonly service: ChildProcess
}

/** A generated hospital, and its service as a process of its own. */
async function served(t: TestContext): Promise<Served> {
  const hospital = await testHospital(t, [])
  const { connectionString, home, admin } = hospital
  await generate({ ...SIZE, connectionString, filesDirectory: join(home, 'files') })
  const tokens: string[] = []
  for (const user of ['clinician.fac001', 'clerk.fac002', 'clinician.fac003']) tokens.push(await makeToken(admin, user))
  const words = [MAIN, '--home', home, '--database', connectionString, 'serve', '--port', '0', '--no-topics']
  const service = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(async () => kill(service))
  for await (const line of createInterface({ input: service.stdout! })) {
    const url = /listens at (http:\S+)/.exec(line)?.[1]
    const env = { ...process.env, HOSPITAL_TOKENS: tokens.join(' ') }
    if (url !== undefined) return { ...hospital, url, env, log: join(home, 'acknowledged.log'), service }
  }
  throw new Error('the service ended before it listened')
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

interface Running {
  readonly child: ChildProcess
  readonly said: Promise<{ readonly stdout: string; readonly stderr: string }>
}

/** `hospital activity`, which has written a good deal into its log by the time that this returns. */
async function startActivity(t: TestContext, { url, env, log }: Served, linesMin: number): Promise<Running> {
  const words = [MAIN, 'activity', '--url', url, '--log', log, '--rate', '60', '--flat', '--seed', '5']
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'pipe'], env })
  t.after(async () => kill(child))
  const said = Promise.all([text(child.stdout!), text(child.stderr!)]).then(([stdout, stderr]) => ({ stdout, stderr }))
  const untilMs = Date.now() + WRITTEN_WITHIN_MS
  while ((await linesOf(log)).length < linesMin) {
    assert.ok(Date.now() < untilMs && child.exitCode === null, 'it writes nothing')
    await sleep(20)
  }
  return { child, said }
}

async function ended(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): Promise<unknown[]> {
  const exited = once(child, 'exit', { signal: AbortSignal.timeout(ENDED_WITHIN_MS) })
  child.kill(signal)
  return await exited
}

/** Whole lines: a kill may tear the last. */
async function linesOf(log: string): Promise<string[]> {
  return (await readFile(log, 'utf8').catch(() => '')).split('\n').slice(0, -1)
}

/** "Patient/7f1c…/1" of every line of the log, and of every event that the activity has made. */
async function compared({ admin, log }: Served): Promise<{ readonly logged: Set<string>; readonly made: Set<string> }> {
  // A line that a kill has torn is ended by the next activity, and says nothing.
  const whole = (await linesOf(log)).filter((line) => line.endsWith('}'))
  const lines = whole.map((line) => JSON.parse(line) as { type: string; id: string; version: number })
  const { rows } = await admin.query<{ name: string }>(
    `select stream || '/' || version as name from events where at > $1 and stream !~ '^(Message|Heartbeat)/'`,
    [new Date(SIZE.untilMs + 86_400_000)],
  )
  const logged = new Set(lines.map(({ type, id, version }) => `${type}/${id}/${version}`))
  assert.equal(logged.size, lines.length, 'each write is logged once')
  return { logged, made: new Set(rows.map(({ name }) => name)) }
}

/** What is in one and not in the other. */
function without(one: ReadonlySet<string>, other: ReadonlySet<string>): string[] {
  return [...one].filter((each) => !other.has(each))
}

async function lost({ connectionString, log }: Served): Promise<{ readonly status: number | null; readonly report: Found }> {
  const { status, stdout, stderr } = await runHospital('--database', connectionString, 'lost', log, '--json')
  assert.notEqual(status, 2, stderr)
  return { status, report: JSON.parse(stdout) as Found }
}

interface Found {
  readonly acknowledged: number
  readonly lost: number
}

test('activity that is told to end says how much was acknowledged, and all of that is in its log', { skip }, async (t) => {
  const hospital = await served(t)
  const { child, said } = await startActivity(t, hospital, 100)
  assert.deepEqual(await ended(child, 'SIGTERM'), [0, null])
  const { stdout, stderr } = await said
  const { logged, made } = await compared(hospital)
  // Nothing was in flight any more: what the hospital has made is what was logged.
  assert.deepEqual([...without(made, logged), ...without(logged, made)], [])
  assert.ok(stdout.startsWith(`told to end: ${logged.size} writes acknowledged, 0 refused, 0 without an answer`), stdout)
  assert.equal(stderr, 'seed 5\n')
  const { status, report } = await lost(hospital)
  assert.deepEqual([status, report.acknowledged, report.lost], [0, logged.size, 0])

  // The log tells of what goes: one that the database forgets is found.
  const [gone = ''] = [...logged].filter((name) => name.startsWith('Patient/'))
  const [type, id] = gone.split('/')
  await hospital.admin.query('begin; set local session_replication_role = replica')
  await hospital.admin.query('delete from events where stream = $1', [`${type}/${id}`])
  await hospital.admin.query('commit')
  assert.equal((await lost(hospital)).status, 1)
})

test('activity that is killed has logged what it acknowledged, goes on behind it, and nothing is lost', { skip }, async (t) => {
  const hospital = await served(t)
  for (let kills = 1; kills <= 2; kills += 1) {
    const { child } = await startActivity(t, hospital, 60 * kills)
    assert.deepEqual(await ended(child, 'SIGKILL'), [null, 'SIGKILL'])
  }
  const { child } = await startActivity(t, hospital, 180)
  assert.deepEqual(await ended(child, 'SIGTERM'), [0, null])
  const { logged, made } = await compared(hospital)
  // What was in flight when it was killed may be made without anybody knowing; never the other way round.
  assert.deepEqual(without(logged, made), [])
  const { status, report } = await lost(hospital)
  assert.deepEqual([status, report.acknowledged, report.lost], [0, logged.size, 0])
})

test('a service that is killed under activity has every write that was acknowledged', { skip }, async (t) => {
  const hospital = await served(t)
  const { child, said } = await startActivity(t, hospital, 60)
  await kill(hospital.service)
  assert.deepEqual(await ended(child, 'SIGTERM'), [0, null])
  assert.match((await said).stdout, /^told to end: /)
  const { logged, made } = await compared(hospital)
  assert.deepEqual(without(logged, made), [])
  const { status, report } = await lost(hospital)
  assert.deepEqual([status, report.acknowledged, report.lost], [0, logged.size, 0])
})
