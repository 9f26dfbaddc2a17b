import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { appendFile, mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { claimDirectory } from '../../src/demo/demo-directory.ts'
import { checkHospital } from '../../src/demo/hospital-checks.ts'
import { createServer, startServer, useServer } from '../../src/demo/hospital-server.ts'
import {
  generateHospital,
  readAcknowledged,
  startActivity,
  startService,
  writeBaseline,
} from '../../src/demo/reference-hospital.ts'
import { stopCluster } from '../../src/postgres/cluster-process.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { HANGS_AFTER_MS, waitUntil } from '../services/wait-until.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
const skip = await skipUnlessInstalled(18)

interface DemoOutcome {
  readonly held: boolean
  readonly secondsToFirstVerifiedTransaction: number
  readonly acknowledgedWrites: number
  readonly acknowledgedWritesLost: number
  readonly checks: readonly { name: string; verdict: string; found: string }[]
  readonly backups: readonly { type: string; corruptPages: unknown[] }[]
}

function demo(args: readonly string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, 'demo', ...args], (error, stdout, stderr) => {
      resolve({ status: typeof error?.code === 'number' ? error.code : 0, stdout, stderr })
    })
  })
}

async function home(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'd-'))
  t.after(() => rm(directory, { recursive: true }))
  return join(directory, 'demo')
}

test(
  'the demo destroys a hospital under writes and brings it back without losing one; a second is refused meanwhile',
  { skip },
  async (t) => {
    const directory = await home(t)
    const running = demo(['--once', '--json', '--patients', '200', '--seed', '3', '--directory', directory])
    while (!existsSync(join(directory, 'cluster'))) await delay(50)
    const second = await demo(['--once', '--directory', directory])
    assert.equal(second.status, 2)
    assert.match(second.stderr, /resus: a demo runs in ".*" already: process \d+/)
    const outcome = await running
    assert.equal(outcome.status, 0, outcome.stderr)
    const report = JSON.parse(outcome.stdout) as DemoOutcome
    assert.equal(report.held, true)
    assert.equal(report.acknowledgedWritesLost, 0)
    assert(report.acknowledgedWrites > 100, `${report.acknowledgedWrites} writes`)
    assert(report.secondsToFirstVerifiedTransaction > 0)
    assert.deepEqual(
      report.checks.filter(({ verdict }) => verdict !== 'passed'),
      [],
    )
    assert.deepEqual(
      report.backups.map(({ type }) => type),
      ['full', 'incremental', 'incremental'],
    )
    assert.equal(existsSync(join(directory, 'cluster', 'postmaster.pid')), false, 'the server was stopped')
  },
)

test('a demo never clears a directory that is not of a demo', async (t) => {
  const directory = await home(t)
  await mkdir(directory)
  await writeFile(join(directory, 'precious'), '')
  const outcome = await demo(['--once', '--directory', directory])
  assert.equal(outcome.status, 2)
  assert.match(outcome.stderr, /resus: ".*" holds something that is not of a demo: precious\nhint: /)
  assert.equal(existsSync(join(directory, 'precious')), true)
})

test('the next demo clears what the last one left, and keeps what it was told to keep', async (t) => {
  const root = await home(t)
  const leave = async () => {
    const mark = JSON.stringify({ pid: 2 ** 22 + 1, keep: false, startedAt: '2026-11-21T03:00:00.000Z' })
    await writeFile(join(root, '.resus-demo'), mark)
    await writeFile(join(root, 'server.log'), 'left')
  }
  await claimDirectory(root, { keep: false })
  await leave()
  await claimDirectory(root, { keep: true })
  assert.equal(existsSync(join(root, 'server.log')), false)
  await writeFile(join(root, 'server.log'), 'kept')
  await claimDirectory(root, { keep: false })
  assert.equal(existsSync(join(root, 'server.log')), false)
  const kept = (await readdir(root)).filter((name) => name.startsWith('kept-'))
  assert.equal(kept.length, 1)
  assert.equal(existsSync(join(root, kept[0]!, 'server.log')), true)
})

test('the checks find a lost acknowledged write, a changed row and a damaged page', { skip }, async (t) => {
  const root = await home(t)
  const directory = await claimDirectory(root, { keep: false })
  t.after(() => stopCluster({ directory: directory.cluster, mode: 'immediate' }))
  const signal = AbortSignal.timeout(HANGS_AFTER_MS)
  const server = await createServer(directory)
  const hospital = await generateHospital(server, { facilities: 2, patients: 60, seed: 1, signal })
  await writeBaseline(hospital, signal)
  {
    await using service = await startService(hospital, signal)
    const activity = startActivity(hospital, service, { rate: 50, seed: 1 })
    t.after(() => activity.close())
    await waitUntil('it has written', async () => (await readAcknowledged(directory.acknowledgedLog)).count > 50)
    await activity.close()
  }
  const failedChecks = async () => {
    const { checks, acknowledged } = await checkHospital(hospital, signal)
    return { lost: acknowledged.lost, failed: checks.filter(({ verdict }) => verdict === 'failed').map(({ name }) => name) }
  }
  assert.deepEqual(await failedChecks(), { lost: 0, failed: [] })
  const { last } = await readAcknowledged(directory.acknowledgedLog)
  const line = (await readFile(directory.acknowledgedLog, 'utf8')).trimEnd().split('\n').at(-1)!
  await appendFile(directory.acknowledgedLog, `${line.replaceAll(last!.id, last!.id.replace(/^......../, 'ffffffff'))}\n`)
  await useServer(server, async (client) => {
    await client.query(
      "update hospital.patients set given = 'Another' where id = (select min(id::text)::uuid from hospital.patients)",
    )
  })
  const { lost, failed } = await failedChecks()
  assert.equal(lost, 1)
  assert.ok(failed.includes('acknowledged writes') && failed.length === 2, failed.join(', '))

  const path = await useServer(server, async (client) => {
    const { rows } = await client.query<{ path: string }>("select pg_relation_filepath('hospital.observations') as path")
    return rows[0]!.path
  })
  await stopCluster({ directory: directory.cluster, mode: 'fast' })
  const file = await open(join(directory.cluster, path), 'r+')
  await file.write(Buffer.from([0xff]), 0, 1, 3 * 8192 + 5000)
  await file.close()
  await startServer(server)
  const damaged = await failedChecks()
  assert(damaged.failed.includes('page checksums') && damaged.failed.includes('tables (amcheck)'), damaged.failed.join(', '))
})
