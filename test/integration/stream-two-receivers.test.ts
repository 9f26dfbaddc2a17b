import assert from 'node:assert/strict'
import test from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { coverage } from '../../src/repository/wal-archive.ts'
import { skipUnlessInstalled, testCluster } from '../services/postgres.ts'
import { silentProxy } from '../services/silent-proxy.ts'
import {
  compareWithServer,
  connect,
  flushLsn,
  onlyBranch,
  startReceiverProcess,
  startStream,
  streamHome,
  writeWal,
} from '../services/stream.ts'

const KEEP_WAL = { wal_keep_size: '1GB', wal_sender_timeout: '8s' }

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(
    `PostgreSQL ${major}: of two receivers with one slot and one spool the second gives up, and no WAL is lost or mixed`,
    { skip },
    async (t) => {
      const cluster = await testCluster(t, { major, walSegmentMegabytes: 1, settings: KEEP_WAL })
      const home = await streamHome(t)
      const first = startReceiverProcess(t, home, cluster.connectionString)
      await first.printed('connected')
      const client = await connect(t, cluster.connectionString)
      const second = startStream(t, home, { connectionString: cluster.connectionString })
      let ended = false
      const outcome = second.result.then(
        () => assert.fail('the second receiver got the slot'),
        (error: unknown) => ((ended = true), error),
      )
      for (let round = 0; round < 3; round += 1) await writeWal(client)
      while (!ended) {
        await client.query(`insert into written (filler) values ('more')`)
        await delay(50)
      }
      const failure = await outcome
      assert.ok(failure instanceof Error && 'code' in failure && failure.code === 'SLOT_BUSY')
      assert.match(failure.message, /process \d+ of the server serves "resus" at 127\.0\.0\.1:\d+ since \d{4}-/)
      // The first is killed with WAL in the spool that the second has looked at, too; a third one goes on.
      await writeWal(client)
      await first.kill()
      const third = startStream(t, home, { connectionString: cluster.connectionString })
      await writeWal(client)
      const end = await flushLsn(client)
      await third.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
      await third.stop()
      const branch = await onlyBranch(home.repository)
      const { endLsn, holes } = await coverage(home.repository, branch, branch.head.firstLsn)
      assert.ok(endLsn >= end)
      assert.deepEqual(holes, [])
      assert.ok((await compareWithServer(home.repository, branch, cluster.directory)) >= 4)
    },
  )

  test(`PostgreSQL ${major}: a receiver whose host is gone is waited for until the server lets go of it`, { skip }, async (t) => {
    const cluster = await testCluster(t, { major, walSegmentMegabytes: 1, settings: KEEP_WAL })
    const home = await streamHome(t)
    const proxy = await silentProxy(t, cluster.port)
    const first = startReceiverProcess(t, home, `postgres://postgres@127.0.0.1:${proxy.port}/postgres`)
    await first.printed('connected')
    const client = await connect(t, cluster.connectionString)
    await writeWal(client)
    proxy.silence()
    await first.kill()
    const second = startStream(t, home, { connectionString: cluster.connectionString })
    await second.waitFor((event) => event.kind === 'disconnected' && event.code === 'SLOT_BUSY')
    await second.waitFor(({ kind }) => kind === 'connected')
    await writeWal(client)
    const end = await flushLsn(client)
    await second.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
    await second.stop()
    await compareWithServer(home.repository, await onlyBranch(home.repository), cluster.directory)
  })
}
