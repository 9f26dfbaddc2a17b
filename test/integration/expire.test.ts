import assert from 'node:assert/strict'
import test from 'node:test'
import { formatLsn } from '../../src/postgres/lsn.ts'
import { planRecovery } from '../../src/protect/postgres/recovery-plan.ts'
import { listBackups } from '../../src/repository/backups.ts'
import type { Keep } from '../../src/repository/retention.ts'
import { beginDays } from '../services/days.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import type { ProtectedCluster } from '../services/protected-cluster.ts'

const DAY_MS = 24 * 3600 * 1000
const KEEP: Keep = { daily: 2, weekly: 0, monthly: 0, pitrDays: 3 }

for (const major of [18, 15]) {
  test(
    `PostgreSQL ${major}: after days of backups and WAL, what expiry leaves is restored and started`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      const days = await beginDays(t, major)
      await using cluster = days.cluster
      const stream = days.stream(t)
      await stream.waitFor(({ kind }) => kind === 'connected')
      const made: { id: string; rows: number }[] = []
      for (let day = 0; day < 6; day++) made.push(await days.pass(day))

      const marked = await days.expire(KEEP)
      assert.deepEqual(
        marked.components[0]!.backups.map(({ fate }) => fate),
        ['stays', 'stays', 'stays', 'expires', 'expires', 'expires'],
      )
      assert(marked.components[0]!.wal.markedObjects > 0 && marked.packs.marked > 0)
      // A backup that is marked can be restored, and it is said that it will go.
      const { repository, stateDirectory } = cluster
      const target = { kind: 'backup', backup: made[0]!.id } as const
      const planned = await planRecovery({ repository, component: 'his-db', target, clock: days.clock })
      assert(
        planned.notices.some((notice) => notice.includes('has expired')),
        planned.notices.join('\n'),
      )

      const walBefore = (await wholeWal(cluster)).length
      days.offsetMs += DAY_MS
      const swept = await days.expire(KEEP)
      assert(swept.packs.deleted > 0 && swept.components[0]!.wal.deletedObjects > 0)
      assert((await wholeWal(cluster)).length < walBefore)
      assert.deepEqual(
        await days.verify(`${stateDirectory}-other`),
        made.slice(3).map(({ id }) => id),
      )

      const total = await days.count()
      await stream.stop()
      assert.equal(await days.restoredRows(made[3]!.id), made[3]!.rows)
      assert.equal(await days.restoredRows(), total)
      // Between the backups too: the WAL from the oldest one on is there.
      const [, between] = (await listBackups(repository, 'his-db')).map(({ startLsn }) => startLsn)
      const report = await cluster.restore({ kind: 'lsn', lsn: between! })
      await using restored = await cluster.startRestored(report)
      const last = await restored.query<{ id: string }>(
        `select id from patients where name like 'after%' order by id desc limit 1`,
      )
      assert.deepEqual(last, [{ id: '3999' }], `at ${formatLsn(between!)}`)
    },
  )
}

async function wholeWal(cluster: ProtectedCluster): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of cluster.repository.storage.list('wal/')) keys.push(key)
  return keys
}
