import assert from 'node:assert/strict'
import test from 'node:test'
import { listBackups } from '../../src/repository/backups.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { proveManifest, proveRestored } from '../services/proof.ts'
import { protectedCluster } from '../services/protected-cluster.ts'

const CONTENT = `select count(*)::int as count, md5(string_agg(md5(o::text), '' order by id)) as md5 from orders o`

for (const major of [18, 15]) {
  test(
    `PostgreSQL ${major}: a differential is compared with the newest full, whatever came between, and comes back`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      await using cluster = await protectedCluster(t, { major, settings: { autovacuum: 'off' } })
      await cluster.query(`create table orders (id int primary key, text text);
        insert into orders select i, repeat(md5(i::text), 6) from generate_series(1, 40000) i`)
      await cluster.query('vacuum (freeze) orders')
      const early = await cluster.backup({ type: 'differential' })
      assert.equal(early.type, 'full', 'there is nothing to differ from yet')
      await cluster.query('update orders set text = text where id < 4000')
      const between = await cluster.backup()
      const full = await cluster.backup({ type: 'full' })
      await cluster.query('update orders set text = text where id between 10000 and 11000')
      const incremental = await cluster.backup()
      await cluster.query('update orders set text = text where id between 20000 and 21000')
      const differential = await cluster.backup({ type: 'differential' })

      const backups = await listBackups(cluster.repository, 'his-db')
      assert.deepEqual(
        backups.map(({ type, previous }) => [type, previous]),
        [
          ['differential', full.id],
          ['incremental', full.id],
          ['full', null],
          ['incremental', early.id],
          ['full', null],
        ],
      )
      assert.equal(between.type, 'incremental')
      // A full reuses what is stored, by its identity; the differential holds both changes, the incremental one.
      assert.ok(full.bytesReused > 0 && full.bytesRead >= early.bytesRead / 2)
      assert.ok(differential.bytesStored > incremental.bytesStored, `${differential.bytesStored}, ${incremental.bytesStored}`)
      assert.ok(differential.bytesStored < early.bytesStored / 2, `${differential.bytesStored} of ${early.bytesStored}`)

      const expected = await cluster.query(CONTENT)
      const report = await cluster.restore({ kind: 'backup', backup: differential.id })
      await proveManifest(t, { directory: report.directory, installation: cluster.cluster.installation })
      await using restored = await cluster.startRestored(report)
      assert.deepEqual(await restored.query(CONTENT), expected)
      await proveRestored(t, { restored, report })
    },
  )
}
