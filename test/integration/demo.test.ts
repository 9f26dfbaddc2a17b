import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { appendFile, mkdir, mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { claimDirectory } from '../../src/demo/demo-directory.ts'
import { openHospital, hospitalSize } from '../../src/demo/hospital.ts'
import { checkHospital, takeBaseline } from '../../src/demo/hospital-checks.ts'
import { createServer, startServer, useServer } from '../../src/demo/hospital-server.ts'
import { readAcknowledged, WriteStream } from '../../src/demo/write-stream.ts'
import { stopCluster } from '../../src/postgres/cluster-process.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { waitUntil } from '../services/wait-until.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
const skip = await skipUnlessInstalled(18)

interface DemoOutcome {
  readonly held: boolean
  readonly secondsToFirstVerifiedTransaction: number
  readonly acknowledgedWrites: number
  readonly acknowledgedWritesLost: number
  readonly checks: readonly { name: string; passed: boolean; found: string }[]
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
    const running = demo(['--once', '--json', '--rows', '20000', '--seed', '3', '--directory', directory])
    while (!existsSync(join(directory, 'cluster'))) await delay(50)
    const second = await demo(['--once', '--directory', directory])
    assert.equal(second.status, 2)
    assert.match(second.stderr, /resus: a demo runs in ".*" already: process \d+/)
    const outcome = await running
    assert.equal(outcome.status, 0, outcome.stderr)
    const report = JSON.parse(outcome.stdout) as DemoOutcome
    assert.equal(report.held, true)
    assert.equal(report.acknowledgedWritesLost, 0)
    assert(report.acknowledgedWrites > 300, `${report.acknowledgedWrites} writes`)
    assert(report.secondsToFirstVerifiedTransaction > 0)
    assert.deepEqual(
      report.checks.filter(({ passed }) => !passed),
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
  const server = await createServer(directory)
  const size = hospitalSize(4000)
  const baseline = await useServer(server, async (client) => {
    await openHospital(client, { size, seed: 1 })
    return await takeBaseline(client)
  })
  const writes = new WriteStream({
    connection: server.connection,
    size,
    logFile: directory.acknowledgedLog,
    feeds: 2,
    writesPerSecond: 200,
    lastSequences: [0, 0],
  })
  await writes.start()
  await waitUntil('it has written', () => writes.acknowledged > 50)
  await writes.stop()
  const failedChecks = async () => {
    const acknowledged = readAcknowledged(directory.acknowledgedLog)
    const { checks, acknowledgedLost } = await checkHospital(server, { baseline, acknowledged })
    return { lost: acknowledgedLost, failed: checks.filter(({ passed }) => !passed).map(({ name }) => name) }
  }
  assert.deepEqual(await failedChecks(), { lost: 0, failed: [] })
  await appendFile(directory.acknowledgedLog, `1 ${writes.acknowledged + 1} ${Date.now()}\n`)
  await useServer(server, async (client) => {
    await client.query("update patient set given_name = 'Another' where id = 7")
  })
  const { lost, failed } = await failedChecks()
  assert.equal(lost, 1)
  assert.deepEqual(failed, ['acknowledged writes', 'row counts', 'content of rows'])

  const path = await useServer(server, async (client) => {
    const { rows } = await client.query<{ path: string }>("select pg_relation_filepath('encounter') as path")
    return rows[0]!.path
  })
  await stopCluster({ directory: directory.cluster, mode: 'fast' })
  const file = await open(join(directory.cluster, path), 'r+')
  await file.write(Buffer.from([0xff]), 0, 1, 3 * 8192 + 5000)
  await file.close()
  await startServer(server)
  const damaged = await failedChecks()
  assert(damaged.failed.includes('page checksums') && damaged.failed.includes('references'), damaged.failed.join(', '))
})
