import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { proveRestored } from '../services/proof.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'

const SCHEMA = `
  create table patients (id bigint primary key, facility int not null, name text not null, noise bytea);
  create index on patients (facility, name);
  create unlogged table waiting_room (id int primary key, note text);
  insert into patients select i, i % 5, 'patient ' || i, decode(repeat(md5(i::text), 8), 'hex') from generate_series(1, 60000) i;
  insert into waiting_room select i, 'x' from generate_series(1, 1000) i;
  create table empty_one (id int);`

const FINGERPRINT = `select count(*)::int as count, md5(string_agg(md5(p::text), '' order by id)) as md5 from patients p`

async function restoreAndCompare(
  t: TestContext,
  cluster: ProtectedCluster,
  expected: unknown,
  target = { kind: 'latest' } as const,
) {
  const report = await cluster.restore(target)
  await using restored = await cluster.startRestored(report)
  assert.deepEqual(await restored.query(FINGERPRINT), expected)
  assert.deepEqual(await restored.query('select count(*)::int from waiting_room'), [{ count: 0 }])
  await restored.query("insert into patients values (-1, 0, 'first after recovery', '')")
  await proveRestored(t, { restored, report })
  return report
}

for (const major of [18, 15]) {
  test(
    `PostgreSQL ${major}: a full and incremental backups come back, page by page`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      await using cluster = await protectedCluster(t, { major, settings: { autovacuum: 'off' } })
      await cluster.query(SCHEMA)
      // Reading rows for the first time sets hint bits on every page: that belongs before the full.
      await cluster.query('vacuum (freeze) patients')
      const full = await cluster.backup()
      assert.equal(full.type, 'full')
      assert.ok(full.pagesChecked > 1000)
      assert.deepEqual(full.corruptPages, [])
      await restoreAndCompare(t, cluster, await cluster.query(FINGERPRINT))

      await cluster.query(`update patients set name = name || ' changed' where id % 50 = 0 and id < 6000`)
      const incremental = await cluster.backup()
      assert.equal(incremental.type, 'incremental')
      assert.ok(incremental.bytesStored < full.bytesStored / 4, `${incremental.bytesStored} of ${full.bytesStored} bytes`)
      await restoreAndCompare(t, cluster, await cluster.query(FINGERPRINT))
    },
  )

  test(
    `PostgreSQL ${major}: the twenty-eighth incremental comes back, after growth, truncation and vacuum`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      await using cluster = await protectedCluster(t, { major, settings: { autovacuum: 'off' } })
      await cluster.query(SCHEMA)
      await cluster.backup()
      for (let generation = 0; generation < 28; generation++) {
        await cluster.query(`update patients set noise = decode(md5('${generation}'), 'hex') where id % 400 = ${generation % 7}`)
        if (generation % 9 === 4)
          await cluster.query(
            `insert into patients select i, 1, 'n', '' from generate_series(${100_000 + generation * 1000}, ${100_800 + generation * 1000}) i`,
          )
        if (generation === 20) await cluster.query('delete from patients where id > 30000')
        if (generation === 21) await cluster.query('vacuum patients')
        await cluster.backup()
      }
      await restoreAndCompare(t, cluster, await cluster.query(FINGERPRINT))
    },
  )
}
