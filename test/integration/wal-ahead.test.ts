import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, readlink, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { formatLsn } from '../../src/postgres/lsn.ts'
import { segmentAt, segmentName } from '../../src/postgres/wal-segment.ts'
import { AHEAD_DIRECTORY, COMING_DIRECTORY, LOCK_FILE } from '../../src/protect/postgres/fetcher-lock.ts'
import { stopCluster } from '../../src/postgres/cluster-process.ts'
import type { RestoreReport } from '../../src/protect/postgres/restore.ts'
import { readPlan } from '../../src/protect/postgres/wal-get.ts'
import { listWal } from '../../src/repository/wal-archive.ts'
import { listBranches } from '../../src/repository/wal-branch.ts'
import { assertRecoveryStops, emptyAhead, startRestoredDirectory } from '../faults/stopped-recovery.ts'
import { Random, testSeed } from '../faults/random.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { connect, flushLsn, startStream } from '../services/stream.ts'
import { waitUntil } from '../services/wait-until.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
const SEGMENT = 1024 * 1024
/** For NODE_OPTIONS: a process that begins, says so, and runs out of memory. */
const OUT_OF_MEMORY = `--max-old-space-size=32 --import=data:text/javascript,${encodeURIComponent(`
  process.stderr.write('node has begun\\n')
  for (const all = []; ; ) all.push(new Array(100_000).fill(0))`)}`
const FINGERPRINT = `select count(*)::int as count, md5(string_agg(note, '' order by id)) as md5 from visits`

interface Past {
  readonly cluster: ProtectedCluster
  readonly expected: unknown
}

/** A backup, and about 60 segments of WAL behind it. */
async function makePast(t: TestContext, major: number): Promise<Past> {
  const cluster = await protectedCluster(t, { major, walSegmentMegabytes: 1 })
  const home = { ...cluster, spoolDirectory: join(cluster.cluster.home, 'spool'), faults: () => undefined }
  const { connectionString } = cluster.cluster
  const component = { ...cluster.component, stream: { ...cluster.component.stream, partialEverySeconds: 1 } }
  const stream = startStream(t, home, { connectionString, component })
  await stream.waitFor(({ kind }) => kind === 'connected')
  const client = await connect(t, connectionString)
  await client.query('create table visits (id int primary key, note text)')
  await cluster.backup()
  for (let round = 0; round < 10; round += 1) {
    const rows = `select i, repeat(md5(i::text), 60) from generate_series(${round * 10_000}, ${round * 10_000 + 2799}) i`
    await client.query(`insert into visits ${rows}`)
  }
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await stream.stop()
  const { rows: expected } = await client.query(FINGERPRINT)
  await client.end()
  await cluster.cluster.kill()
  return { cluster, expected }
}

/** A process that does nothing, in the place of PostgreSQL's startup process. */
async function bystander(t: TestContext): Promise<{ pid: number; end: () => Promise<void> }> {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => undefined, 1000)'], { stdio: 'ignore' })
  const exited = once(child, 'exit')
  const end = async () => {
    child.kill('SIGKILL')
    await exited
  }
  t.after(end)
  return { pid: child.pid!, end }
}

interface Fetcher {
  readonly child: ChildProcess
  readonly exited: Promise<unknown>
}

function startFetcher(
  t: TestContext,
  cluster: ProtectedCluster,
  options: { report: RestoreReport; pid: number; name: string },
): Fetcher {
  const words = [
    'wal-ahead',
    '--config',
    cluster.configPath,
    '--plan',
    options.report.plan,
    '--while',
    String(options.pid),
    options.name,
  ]
  const child = spawn(process.execPath, [MAIN, ...words], { stdio: 'ignore' })
  const exited = once(child, 'exit')
  t.after(async () => {
    child.kill('SIGKILL')
    await exited
  })
  return { child, exited }
}

for (const major of [18, 15]) {
  test(`PostgreSQL ${major}: WAL is fetched ahead of recovery`, { skip: await skipUnlessInstalled(major) }, async (t) => {
    const past = await makePast(t, major)
    await t.test('recovery takes what was fetched ahead, and nothing is left running', () => takesWhatIsThere(past))
    await t.test('recovery waits for a fetcher that is only beginning, and needs nobody else', () => needsOnlyTheFetcher(past))
    await t.test('a recovery whose fetcher, storage or segments fail stops, and goes on when they are mended', (each) =>
      stopsUntilMended(each, past),
    )
    if (major !== 18) return
    await t.test('a fetcher keeps within its limit, gives way to none, and ends with the process that it works for', (each) =>
      keepsWithinLimit(each, past),
    )
  })
}

async function takesWhatIsThere({ cluster, expected }: Past): Promise<void> {
  const report = await cluster.restore()
  {
    await using restored = await cluster.startRestored(report)
    assert.deepEqual(await restored.query(FINGERPRINT), expected)
    await waitUntil('the fetcher has ended', async () => (await findFetchers(report)).length === 0)
    const left = await readdir(join(dirname(report.plan), COMING_DIRECTORY))
    assert.deepEqual(left, [])
  }
}

async function needsOnlyTheFetcher({ cluster, expected }: Past): Promise<void> {
  const report = await cluster.restore()
  await emptyAhead(report)
  // Whatever is asked of it, it fails.
  const settings = join(report.directory, 'postgresql.auto.conf')
  const text = await readFile(settings, 'utf8')
  assert.match(text, / wal-get /)
  await writeFile(settings, text.replaceAll(' wal-get ', ' not-a-verb '))
  await using restored = await cluster.startRestored(report)
  assert.deepEqual(await restored.query(FINGERPRINT), expected)
}

async function stopsUntilMended(t: TestContext, { cluster, expected }: Past): Promise<void> {
  const random = new Random(testSeed(t))
  const { home, installation } = cluster.cluster
  const report = await cluster.restore()
  const { directory } = report
  const stops = async (why: RegExp) => {
    await emptyAhead(report)
    await assertRecoveryStops({ directory, home, installation }, why)
    await waitUntil('the fetcher has ended', async () => (await findFetchers(report)).length === 0)
  }
  await t.test('out of memory', async () => {
    const before = process.env.NODE_OPTIONS
    process.env.NODE_OPTIONS = OUT_OF_MEMORY
    await stops(/node has begun\n[^]*JavaScript heap out of memory/)
    if (before === undefined) delete process.env.NODE_OPTIONS
    else process.env.NODE_OPTIONS = before
  })
  await t.test('a configuration that cannot be read', async () => {
    const text = await readFile(cluster.configPath, 'utf8')
    await writeFile(cluster.configPath, text.slice(0, -5))
    await stops(/resus: the configuration is not valid/)
    await writeFile(cluster.configPath, text)
  })
  await t.test('a module that is missing', async () => {
    const settings = join(directory, 'postgresql.auto.conf')
    const text = await readFile(settings, 'utf8')
    await writeFile(settings, text.replaceAll('cli/main.js', 'cli/not-there.ts'))
    await stops(/not-there/)
    await writeFile(settings, text)
  })
  await t.test('a damaged segment in the middle', async () => {
    const keys = await wholeSegments(cluster)
    const path = join(cluster.repositoryDirectory, keys[Math.floor(keys.length / 2) + random.below(5)]!)
    const bytes = await readFile(path)
    const damaged = Buffer.from(bytes)
    damaged[damaged.length - 100 - random.below(1000)]! ^= 1
    await replace(path, damaged)
    await stops(/is damaged/)
    await replace(path, bytes)
  })
  await t.test('a storage that goes away in the middle', async () => {
    const keys = await wholeSegments(cluster)
    const away = keys.slice(-5).map((key) => join(cluster.repositoryDirectory, key))
    for (const path of away) await rename(path, `${path}.away`)
    await stops(/resus: /)
    for (const path of away) await rename(`${path}.away`, path)
  })
  await t.test('mended, with a fetcher that is killed at random, it completes', async () => {
    await emptyAhead(report)
    const port = await startRestoredDirectory({ directory, home, installation }, { logFile: `${directory}.log` })
    t.after(() => stopCluster({ directory, mode: 'immediate' }))
    for (let kills = 0; kills < 3; kills += 1) {
      for (const pid of await findFetchers(report)) process.kill(pid, 'SIGKILL')
      await delay(random.below(300))
    }
    const client = await connect(t, `postgres://postgres@127.0.0.1:${port}/postgres`)
    await waitUntil('recovery has ended', async () => {
      const { rows } = await client.query<{ recovering: boolean }>('select pg_is_in_recovery() as recovering')
      return rows[0]?.recovering === false
    })
    assert.deepEqual((await client.query(FINGERPRINT)).rows, expected)
  })
}

async function keepsWithinLimit(t: TestContext, { cluster }: Past): Promise<void> {
  const report = await cluster.restore()
  const ahead = join(dirname(report.plan), AHEAD_DIRECTORY)
  const plan = await readPlan(report.plan)
  const name = (number: bigint) => segmentName(segmentAt(plan.stretches[0]!.from + number * BigInt(SEGMENT), 1, SEGMENT))
  const one = await bystander(t)
  const first = startFetcher(t, cluster, { report, pid: one.pid, name: name(0n) })
  const limit = Array.from({ length: 32 }, (_, at) => name(BigInt(at) + 1n))
  await waitUntil('it has fetched as much as it may', async () => JSON.stringify(await present(ahead)) === JSON.stringify(limit))
  // What is taken away is followed by as much.
  await rm(join(ahead, name(1n)))
  await waitUntil('the next one is there', async () => (await present(ahead)).includes(name(33n)))
  for (const each of await present(ahead)) assert.equal((await stat(join(ahead, each))).size, SEGMENT)
  // A second one finds the first at work.
  const second = startFetcher(t, cluster, { report, pid: one.pid, name: name(0n) })
  await second.exited
  assert.equal(first.child.exitCode, null)
  await one.end()
  await first.exited
  assert.deepEqual(await readdir(dirname(report.plan)).then((names) => names.includes(LOCK_FILE)), false)

  // Killed at any moment it leaves whole segments, and the next one takes over.
  const random = new Random(testSeed(t))
  const other = await bystander(t)
  for (let round = 0; round < 3; round += 1) {
    await rm(ahead, { recursive: true })
    const killed = startFetcher(t, cluster, { report, pid: other.pid, name: name(0n) })
    await waitUntil('it works', async () => (await present(ahead)).length > random.below(20))
    killed.child.kill('SIGKILL')
    await killed.exited
    for (const each of await present(ahead)) assert.equal((await stat(join(ahead, each))).size, SEGMENT)
  }
  const last = startFetcher(t, cluster, { report, pid: other.pid, name: name(3n) })
  const behind = Array.from({ length: 32 }, (_, at) => name(BigInt(at) + 4n))
  await waitUntil('it has fetched what comes next, and nothing else is left', async () => {
    return JSON.stringify((await readdir(ahead)).toSorted()) === JSON.stringify(behind)
  })
  last.child.kill('SIGTERM')
  await last.exited
  t.diagnostic(`began at ${formatLsn(plan.stretches[0]!.from)}`)
}

/** Segments, without what is being written. */
async function present(ahead: string): Promise<string[]> {
  return (await readdir(ahead).catch((): string[] => [])).filter((name) => !name.startsWith('.')).toSorted()
}

async function wholeSegments({ repository }: ProtectedCluster): Promise<string[]> {
  const [branch] = await listBranches(repository, 'his-db')
  const keys: string[] = []
  for await (const { key, from, to } of listWal(repository, branch!)) if (from === 0 && to === SEGMENT) keys.push(key)
  return keys
}

async function replace(path: string, bytes: Buffer): Promise<void> {
  await rm(path)
  await writeFile(path, bytes)
}

/** Processes that fetch ahead for this restored directory. */
async function findFetchers(report: RestoreReport): Promise<number[]> {
  const found: number[] = []
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const words = (await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '')).split('\0')
    if (words[1] !== MAIN || words[2] !== 'wal-ahead') continue
    const directory = await readlink(`/proc/${name}/cwd`).catch(() => undefined)
    if (directory === report.directory) found.push(Number(name))
  }
  return found
}
