import assert from 'node:assert/strict'
import test from 'node:test'
import { skipUnlessInstalled, testCluster } from '../../../test/services/postgres.ts'
import { connect } from '../../../test/services/stream.ts'
import { Secret } from '../../secret.ts'
import { SetupSession } from './setup-session.ts'
import { inspectSetup, planSetup } from './setup.ts'

const skip = await skipUnlessInstalled(15)

test('no limit of WAL is set while a slot is so far behind that it would be lost', { skip }, async (t) => {
  const cluster = await testCluster(t, { major: 15, walSegmentMegabytes: 1 })
  const client = await connect(t, cluster.connectionString)
  await client.query("select pg_create_physical_replication_slot('standby', true)")
  await using session = await SetupSession.connect(new Secret(cluster.connectionString))
  const plan = async () => {
    const wanted = { role: 'resus', slot: 'resus', slotWalKeep: '8MB' }
    return planSetup(await inspectSetup(session, wanted), wanted)
  }
  const near = await plan()
  assert.deepEqual(near.notices, [])
  assert.ok(near.missing.some(({ part }) => part === 'limit'))

  for (let count = 0; count < 10; count += 1) {
    await client.query("select pg_logical_emit_message(false, 'test', 'x')")
    await client.query('select pg_switch_wal()')
  }
  const far = await plan()
  assert.ok(far.missing.every(({ part }) => part !== 'limit'))
  assert.equal(far.notices.length, 1)
  assert.match(far.notices[0]!, /keeps (1\d MB|\d{4,5} kB) for the slot "standby"/)
  assert.match(far.notices[0]!, /alter system set max_slot_wal_keep_size = '8MB'; select pg_reload_conf\(\);/)
})
