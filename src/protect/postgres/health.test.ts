import assert from 'node:assert/strict'
import test from 'node:test'
import { skipUnlessInstalled, testCluster } from '../../../test/services/postgres.ts'
import { silentProxy } from '../../../test/services/silent-proxy.ts'
import { testStandby, waitForReplay } from '../../../test/services/standby.ts'
import { connect } from '../../../test/services/stream.ts'
import { waitUntil } from '../../../test/services/wait-until.ts'
import { HealthSession } from './health.ts'

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(
    `a server tells its figures to a role that only monitors, on a primary and a standby (PostgreSQL ${major})`,
    { skip },
    async (t) => {
      const settings = { archive_mode: 'on', archive_command: 'false', max_wal_senders: '10' }
      const cluster = await testCluster(t, { major, settings })
      const client = await connect(t, cluster.connectionString)
      await client.query(`create role resus login; grant pg_monitor to resus`)
      await client.query(`create table visits (id int); insert into visits values (1)`)
      await client.query(`select pg_create_physical_replication_slot('kept', true)`)
      const resus = (text: string) => text.replace('postgres@', 'resus@')
      await using session = await HealthSession.connect({
        component: 'his-db',
        connectionString: resus(cluster.connectionString),
      })
      const before = await session.read()
      assert.deepEqual([before.inRecovery, before.locksWaiting, before.checksumFailures], [false, 0, 0])
      assert.equal(before.connectionsMax, 100)
      assert.deepEqual(
        before.slots.map(({ name, active, walStatus }) => [name, active, walStatus]),
        [['kept', false, 'reserved']],
      )

      const [holder, waiter] = [await connect(t, cluster.connectionString), await connect(t, cluster.connectionString)]
      await holder.query('begin isolation level repeatable read; update visits set id = 2')
      const waiting = waiter.query('update visits set id = 3')
      await client.query('create table more as select generate_series(1, 10000) as id; select pg_switch_wal()')
      await waitUntil('the archiver has failed', async () => (await session.read()).archiverFailing)
      await waitUntil('a session waits', async () => (await session.read()).locksWaiting === 1)
      const during = await session.read()
      assert.equal(during.connectionsUsed, before.connectionsUsed + 2)
      assert.ok(during.longestTransactionSeconds! > 0 && during.longestQuerySeconds! > 0)
      assert.ok(during.oldestXminAge! >= 1)
      assert.ok(during.slots[0]!.retainedBytes! > before.slots[0]!.retainedBytes!)
      assert.ok(during.archiverFailures > 0)
      await holder.query('rollback')
      await waiting

      const sizes = await session.readSizes()
      assert.ok(sizes.some(({ name, sizeBytes }) => name === 'postgres' && sizeBytes > 1_000_000))
      const standby = await testStandby(t, cluster)
      await waitForReplay(client, standby)
      await using other = await HealthSession.connect({ component: 'his-db', connectionString: resus(standby.connectionString) })
      const replica = await other.read()
      assert.equal(replica.inRecovery, true)
      assert.ok(replica.replayLagSeconds !== null && replica.replayLagSeconds >= 0)
      const { standbys } = await session.read()
      assert.deepEqual(
        standbys.map(({ name, state }) => [name, state]),
        [['replica', 'streaming']],
      )
      assert.ok(standbys[0]!.lagBytes! >= 0)
      await standby.stop()
    },
  )
}

const skip = await skipUnlessInstalled(18)

test('a server that is away, ends, or stalls fails the look within seconds', { skip }, async (t) => {
  const cluster = await testCluster(t, { major: 18 })
  const proxy = await silentProxy(t, cluster.port)
  const silent = cluster.connectionString.replace(String(cluster.port), String(proxy.port))
  const target = { component: 'his-db', connectionString: cluster.connectionString }
  await using session = await HealthSession.connect(target)
  await using stalled = await HealthSession.connect({ ...target, connectionString: silent })
  proxy.silence()
  await assert.rejects(stalled.read(), { code: 'POSTGRES_UNREACHABLE' })
  await cluster.kill()
  await assert.rejects(session.read(), { code: 'POSTGRES_UNREACHABLE' })
  await assert.rejects(HealthSession.connect(target), { code: 'POSTGRES_UNREACHABLE', message: /his-db/ })
})
