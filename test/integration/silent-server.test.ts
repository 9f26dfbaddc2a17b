import assert from 'node:assert/strict'
import test from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { Failure } from '../../src/errors.ts'
import { ReplicationConnection } from '../../src/postgres/replication.ts'
import { ServerSession } from '../../src/protect/postgres/server-session.ts'
import { Secret } from '../../src/secret.ts'
import { testCluster } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { silentProxy } from '../services/silent-proxy.ts'

// A server or network that stops answering and keeps the connection.

const COMMANDS = {
  'a command': (connection: ReplicationConnection) => connection.identifySystem(),
  'the start of a stream': (connection: ReplicationConnection) =>
    connection.startPhysical({ slot: 'held', lsn: 0n, timeline: 1 }),
}

for (const [name, run] of Object.entries(COMMANDS)) {
  test(`${name} that a silent server never answers fails`, async (t) => {
    const cluster = await testCluster(t, { major: 18 })
    const proxy = await silentProxy(t, cluster.port)
    const connectionString = `postgres://postgres@127.0.0.1:${proxy.port}/postgres`
    await using connection = await ReplicationConnection.connect({
      connectionString,
      applicationName: 'test',
      commandTimeoutMs: 100,
    })
    proxy.silence()
    await assert.rejects(run(connection), { code: 'POSTGRES_UNREACHABLE', message: /not answered within 0.1 s/ })
  })
}

test('a backup that is told to end while its server is silent ends', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const proxy = await silentProxy(t, cluster.cluster.port)
  const connection = new Secret(`postgres://postgres@127.0.0.1:${proxy.port}/postgres`)
  const ending = new AbortController()
  const interrupted = new Failure('INTERRUPTED', 'interrupted by a test')
  const onProgress = () => {
    if (ending.signal.aborted) return
    proxy.silence()
    setImmediate(() => ending.abort(interrupted))
  }
  const component = { ...cluster.component, connection }
  await assert.rejects(cluster.backup({ component, signal: ending.signal, onProgress }), { code: 'INTERRUPTED' })
})

test('a query that a silent server never answers ends with the signal', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const proxy = await silentProxy(t, cluster.cluster.port)
  const ending = new AbortController()
  const connection = new Secret(`postgres://postgres@127.0.0.1:${proxy.port}/postgres`)
  await using session = await ServerSession.connect({ ...cluster.component, connection }, ending.signal)
  proxy.silence()
  const asked = session.query('select 1')
  ending.abort(new Failure('INTERRUPTED', 'interrupted by a test'))
  await assert.rejects(asked, { code: 'INTERRUPTED' })
})

test('a backup whose replication connection is refused ends when it is told to', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18, settings: { max_wal_senders: '0', wal_level: 'replica' } })
  const ending = new AbortController()
  const clock = {
    ...systemClock,
    // The receiver waits before it tries again: it has been refused.
    sleep: async (ms: number, signal?: AbortSignal) => {
      if (ms < 60_000) ending.abort(new Failure('INTERRUPTED', 'interrupted by a test'))
      await systemClock.sleep(ms, signal)
    },
  }
  await assert.rejects(cluster.backup({ signal: ending.signal, clock }), { code: 'INTERRUPTED' })
})

test('a backup whose replication connection is refused gives up, and says why', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18, settings: { max_wal_senders: '0', wal_level: 'replica' } })
  const refused = Promise.withResolvers<void>()
  const clock = {
    ...systemClock,
    // The limit of two minutes is over as soon as the receiver has been refused, and waits before it tries again.
    sleep: async (ms: number, signal?: AbortSignal) => {
      if (ms >= 60_000) return await refused.promise
      refused.resolve()
      await systemClock.sleep(ms, signal)
    },
  }
  await assert.rejects(cluster.backup({ clock }), {
    code: 'BACKUP_ABORTED',
    message: /no replication connection.*max_wal_senders/,
  })
})
