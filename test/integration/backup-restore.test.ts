import assert from 'node:assert/strict'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { skipUnlessInstalled, testCluster } from '../services/postgres.ts'
import { proveManifest, proveRestored } from '../services/proof.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'

const SCHEMA = `
  create table patients (id bigint primary key, facility int not null, name text not null, noise bytea);
  create index on patients (facility, name);
  create unlogged table waiting_room (id int primary key, note text);
  insert into patients select i, i % 5, 'patient ' || i, decode(repeat(md5(i::text), 8), 'hex') from generate_series(1, 60000) i;
  insert into waiting_room select i, 'x' from generate_series(1, 1000) i;
  create table empty_one (id int);`

/** Of the table, when what is behind them was deleted and vacuum has truncated it. */
const PAGES_LEFT = 700
const FINGERPRINT = `select count(*)::int as count, md5(string_agg(md5(p::text), '' order by id)) as md5 from patients p`

async function restoreAndCompare(
  t: TestContext,
  cluster: ProtectedCluster,
  expected: unknown,
  target = { kind: 'latest' } as const,
) {
  const report = await cluster.restore(target)
  await proveManifest(t, { directory: report.directory, installation: cluster.cluster.installation })
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
        if (generation === 21) {
          // After the update, whose new rows are at the end.
          await cluster.query(`delete from patients where (ctid::text::point)[0] >= ${PAGES_LEFT}`)
          await cluster.query('vacuum patients')
          const [size] = await cluster.query<{ pages: number }>("select (pg_relation_size('patients') / 8192)::int as pages")
          assert.equal(size?.pages, PAGES_LEFT)
        }
        await cluster.backup()
      }
      await restoreAndCompare(t, cluster, await cluster.query(FINGERPRINT))
    },
  )
}

test('a page that is corrupt on the server is named, in its own block, and the backup is kept', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18, settings: { autovacuum: 'off' } })
  await cluster.query(SCHEMA)
  await cluster.query('vacuum (freeze) patients')
  await cluster.query('checkpoint')
  const [row] = await cluster.query<{ path: string }>(`select pg_relation_filepath('patients') as path`)
  const path = row!.path
  const file = await open(join(cluster.cluster.directory, path), 'r+')
  await file.write(Buffer.from([0x5a]), 0, 1, 77 * 8192 + 4321)
  await file.close()
  const full = await cluster.backup()
  assert.deepEqual(full.corruptPages, [{ path, block: 77 }])
  const incremental = await cluster.backup()
  assert.deepEqual(incremental.corruptPages, [{ path, block: 77 }])
  const restored = await cluster.restore()
  await using server = await cluster.startRestored(restored)
  await assert.rejects(server.query('select count(*) from patients where noise is not null'), /invalid page in block 77/)
})

test('a directory of another cluster than the connection is refused before anything is stored', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const other = await testCluster(t, { major: 18 })
  const component = { ...cluster.component, dataDirectory: other.directory }
  await assert.rejects(cluster.backup({ component }), { code: 'DATA_DIRECTORY_UNREADABLE' })
  await assert.rejects(cluster.restore(), { code: 'BACKUP_ABSENT' })
})

test('two backups of one cluster at once: the second is refused', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const both = await Promise.allSettled([cluster.backup(), cluster.backup()])
  const refused = both.filter((result) => result.status === 'rejected')
  assert.deepEqual(
    refused.map((result) => (result.reason as { code: string }).code),
    ['BACKUP_RUNNING'],
  )
})

test('a lost state directory costs an incremental backup nothing but time', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18, settings: { autovacuum: 'off' } })
  await cluster.query(SCHEMA)
  await cluster.query('vacuum (freeze) patients')
  const full = await cluster.backup()
  await cluster.query('update patients set facility = 9 where id between 100 and 300')
  await cluster.backup()
  await rm(cluster.stateDirectory, { recursive: true })
  await cluster.query('update patients set facility = 8 where id between 500 and 700')
  const third = await cluster.backup()
  assert.equal(third.type, 'incremental')
  assert.ok(third.bytesStored < full.bytesStored / 10, `${third.bytesStored} of ${full.bytesStored} bytes`)
  await restoreAndCompare(t, cluster, await cluster.query(FINGERPRINT))
})

test('a backup that is told to end leaves no backup, and the next one uses what it stored', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18, settings: { autovacuum: 'off' } })
  await cluster.query(SCHEMA)
  const ending = new AbortController()
  const onProgress = () => ending.abort(new Error('told to end'))
  await assert.rejects(cluster.backup({ signal: ending.signal, onProgress }))
  await assert.rejects(cluster.restore(), { code: 'BACKUP_ABSENT' })
  assert.deepEqual(await cluster.query(`select pid from pg_stat_activity where application_name like 'resus backup'`), [])
  await cluster.backup()
  await restoreAndCompare(t, cluster, await cluster.query(FINGERPRINT))
})
