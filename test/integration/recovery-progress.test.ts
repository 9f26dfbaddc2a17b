import assert from 'node:assert/strict'
import { mkdtemp, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { endCluster, freePort, killCluster, startCluster } from '../../src/postgres/cluster-process.ts'
import { readRecoveryProgress } from '../../src/protect/postgres/recovery-progress.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'

for (const major of [18, 15]) {
  test(
    `PostgreSQL ${major}: the status of a recovery tells writing, ready, replaying and recovered apart, and how far it is`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      await using cluster = await protectedCluster(t, { major })
      await cluster.query('create table t (id int); insert into t select generate_series(1, 1000)')
      await cluster.backup()
      const to = join(cluster.cluster.home, 'to')
      const report = await cluster.restore({ kind: 'latest' }, to, { action: 'pause' })
      t.after(() => endCluster(to))
      const ready = await readRecoveryProgress(to)
      assert.deepEqual([ready.state, ready.pid, ready.segment, ready.backup], ['ready', null, null, report.backup])
      assert.equal(ready.walEndLsn, report.walEndLsn)

      const control = join(to, 'global/pg_control')
      await rename(control, `${control}.away`)
      assert.equal((await readRecoveryProgress(to)).state, 'writing')
      await rename(`${control}.away`, control)

      const port = await freePort()
      const { installation, home } = cluster.cluster
      const logFile = join(home, 'restored.log')
      await startCluster({ installation, directory: to, port, socketDirectory: join(home, 's'), logFile, settings: {} })
      const replaying = await readRecoveryProgress(to)
      assert.equal(replaying.state, 'replaying')
      assert.match(replaying.segment ?? '', /^00000001[0-9A-F]{16}$/)
      assert.ok(replaying.walBytesReplayed !== null && replaying.walBytesReplayed <= replaying.walBytesTotal)

      await killCluster(to)
      assert.equal((await readRecoveryProgress(to)).state, 'ready')
      await rm(join(to, 'recovery.signal'))
      assert.equal((await readRecoveryProgress(to)).state, 'recovered')
    },
  )
}

test('a directory that was not restored has no recovery to tell of', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'resus-none-'))
  t.after(() => rm(directory, { recursive: true }))
  await assert.rejects(readRecoveryProgress(directory), { code: 'ARGUMENTS_INVALID', message: /holds no recovery/ })
})
