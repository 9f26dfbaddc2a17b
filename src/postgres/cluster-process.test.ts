import assert from 'node:assert/strict'
import { pbkdf2 } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import pg from 'pg'
import { Failure } from '../errors.ts'
import { skipUnlessInstalled, testCluster, type TestCluster } from '../../test/services/postgres.ts'
import { endCluster, initCluster, isRunning, killCluster, startCluster, stopCluster } from './cluster-process.ts'
import { requireInstallation } from './installation.ts'
import { ordinaryUser } from './ordinary-user.ts'

async function ask(cluster: TestCluster, sql: string): Promise<unknown> {
  const client = new pg.Client({ connectionString: cluster.connectionString })
  await client.connect()
  try {
    const { rows } = await client.query<Record<string, unknown>>(sql)
    return rows[0] === undefined ? undefined : Object.values(rows[0])[0]
  } finally {
    await client.end()
  }
}

for (const major of [15, 18]) {
  const skip = await skipUnlessInstalled(major)

  test(`a cluster of PostgreSQL ${major} starts, answers, stops and starts again`, { skip }, async (t) => {
    const cluster = await testCluster(t, { major, walSegmentMegabytes: 1, settings: { work_mem: '5MB' } })
    assert.equal(await ask(cluster, "SELECT current_setting('server_version_num')::int / 10000"), major)
    assert.equal(await ask(cluster, 'SHOW wal_segment_size'), '1MB')
    assert.equal(await ask(cluster, 'SHOW data_checksums'), 'on')
    assert.equal(await ask(cluster, 'SHOW work_mem'), '5MB')
    assert.equal(await ask(cluster, 'SHOW server_encoding'), 'UTF8')
    assert.equal(await isRunning(cluster.directory), true)
    const user = ordinaryUser()
    if (user !== undefined) assert.equal((await stat(join(cluster.directory, 'PG_VERSION'))).uid, user.uid)
    await cluster.stop()
    assert.equal(await isRunning(cluster.directory), false)
    assert.equal(existsSync(join(cluster.directory, 'postmaster.pid')), false)
    await cluster.start({ work_mem: '6MB' })
    assert.equal(await ask(cluster, 'SHOW work_mem'), '6MB')
  })

  test(`a killed cluster of PostgreSQL ${major} leaves no process and keeps what was committed`, { skip }, async (t) => {
    const cluster = await testCluster(t, { major })
    await ask(cluster, 'CREATE TABLE kept AS SELECT 42 AS answer')
    const pid = Number((await readFile(join(cluster.directory, 'postmaster.pid'), 'utf8')).split('\n')[0])
    await cluster.kill()
    assert.equal(existsSync(join(cluster.directory, 'postmaster.pid')), true)
    assert.equal(await isRunning(cluster.directory), false)
    // The crashed server's file is still there: start must not take it for readiness.
    await cluster.start()
    assert.notEqual(Number((await readFile(join(cluster.directory, 'postmaster.pid'), 'utf8')).split('\n')[0]), pid)
    assert.equal(await ask(cluster, 'SELECT answer FROM kept'), 42)
  })

  test(
    `a server of PostgreSQL ${major} that refuses to start is POSTGRES_FAILED with the end of its log`,
    { skip },
    async (t) => {
      const cluster = await testCluster(t, { major })
      await cluster.stop()
      await assert.rejects(cluster.start({ shared_buffers: 'plenty' }), (error) => {
        assert(error instanceof Failure)
        assert.equal(error.code, 'POSTGRES_FAILED')
        assert.match(error.message, /shared_buffers.*plenty/)
        assert.doesNotMatch(error.message, /database system is shut down/)
        return true
      })
      assert.equal(await isRunning(cluster.directory), false)
    },
  )
}

const skip = await skipUnlessInstalled(15)

test('a server that does not become ready in time is gone when start gives up', { skip }, async (t) => {
  const cluster = await testCluster(t, { major: 15 })
  await cluster.stop()
  await writeFile(join(cluster.directory, 'recovery.signal'), '')
  const installation = cluster.installation
  await assert.rejects(
    startCluster({
      installation,
      directory: cluster.directory,
      port: cluster.port,
      socketDirectory: join(cluster.home, 'socket'),
      logFile: cluster.logFile,
      settings: { restore_command: 'sleep 60', dynamic_shared_memory_type: 'mmap', listen_addresses: '' },
      timeoutSeconds: 1,
    }),
    { code: 'POSTGRES_FAILED', message: /no connections after 1 s/ },
  )
  assert.equal(await isRunning(cluster.directory), false)
})

test('a server that refuses at once is known to have ended, however late this process gets to it', { skip }, async (t) => {
  const cluster = await testCluster(t, { major: 15 })
  await cluster.stop()
  await rm(join(cluster.directory, 'postgresql.conf'))
  // Closing the log, like all that goes to libuv's four threads, takes longer than the server lives.
  let busy = true
  const keepBusy = async () => {
    while (busy) await promisify(pbkdf2)('x', 'y', 100_000, 32, 'sha512')
  }
  const work = Array.from({ length: 16 }, keepBusy)
  try {
    const { installation, directory, port, logFile } = cluster
    const socketDirectory = join(cluster.home, 'socket')
    const start = startCluster({ installation, directory, port, socketDirectory, logFile, timeoutSeconds: 5 })
    await assert.rejects(start, { code: 'POSTGRES_FAILED', message: /it ended with status 2/ })
  } finally {
    busy = false
    await Promise.all(work)
  }
})

test('aborting a start rejects with the reason and leaves no server', { skip }, async (t) => {
  const cluster = await testCluster(t, { major: 15 })
  await cluster.stop()
  const reason = new Error('the operator changed his mind')
  const starting = startCluster({
    installation: cluster.installation,
    directory: cluster.directory,
    port: cluster.port,
    socketDirectory: join(cluster.home, 'socket'),
    logFile: cluster.logFile,
    signal: AbortSignal.abort(reason),
  })
  await assert.rejects(starting, reason)
  assert.equal(await isRunning(cluster.directory), false)
})

test('a smart stop gives up while a session is open, and an immediate one does not wait for it', { skip }, async (t) => {
  const cluster = await testCluster(t, { major: 15 })
  const client = new pg.Client({ connectionString: cluster.connectionString })
  client.on('error', () => undefined)
  await client.connect()
  await assert.rejects(stopCluster({ directory: cluster.directory, mode: 'smart', timeoutSeconds: 0.2 }), {
    code: 'POSTGRES_FAILED',
    hint: /try fast/,
  })
  await stopCluster({ directory: cluster.directory, mode: 'immediate' })
  assert.equal(await isRunning(cluster.directory), false)
  await client.end()
})

const skipEnd = process.platform === 'linux' ? skip : 'only Linux lists shared memory in /proc'

test('ending a server gives its shared memory back, at once, while a session is open', { skip: skipEnd }, async (t) => {
  const cluster = await testCluster(t, { major: 15 })
  const client = new pg.Client({ connectionString: cluster.connectionString })
  client.on('error', () => undefined)
  await client.connect()
  // The key and the id of the segment.
  const id = (await readFile(join(cluster.directory, 'postmaster.pid'), 'utf8')).split('\n')[6]!.trim().split(/\s+/)[1]!
  const isKept = async () =>
    (await readFile('/proc/sysvipc/shm', 'utf8')).split('\n').some((line) => line.trim().split(/\s+/)[1] === id)
  assert.equal(await isKept(), true)
  await endCluster(cluster.directory)
  assert.deepEqual([await isRunning(cluster.directory), await isKept()], [false, false])
  await client.end()
})

test('stopping, ending or killing what does not run does nothing, whoever has the number in a stale postmaster.pid', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'resus-stale-'))
  t.after(() => rm(directory, { recursive: true }))
  await stopCluster({ directory, mode: 'fast' })
  await writeFile(join(directory, 'postmaster.pid'), `${process.pid}\n${directory}\n0\n5432\n\n\n\nready\n`)
  assert.equal(await isRunning(directory), false)
  await killCluster(directory)
  await endCluster(directory)
  await stopCluster({ directory, mode: 'immediate' })
})

test('making a cluster in a directory that holds something is POSTGRES_FAILED', { skip }, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'resus-full-'))
  t.after(() => rm(directory, { recursive: true }))
  await writeFile(join(directory, 'something'), '')
  await assert.rejects(initCluster({ installation: await requireInstallation(15), directory, sync: false }), {
    code: 'POSTGRES_FAILED',
    message: /exists but is not empty/,
  })
})

test('an installation without the server is POSTGRES_MISSING', async () => {
  const installation = { major: 15, binDirectory: '/nonexistent', version: '15.0' }
  await assert.rejects(initCluster({ installation, directory: '/nonexistent/data' }), { code: 'POSTGRES_MISSING' })
})
