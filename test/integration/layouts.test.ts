import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import pg from 'pg'
import { readCatalogVersion } from '../../src/postgres/control-file.ts'
import { systemClock } from '../../src/clock.ts'
import { checkPostgres } from '../../src/protect/postgres/check.ts'
import { listBackups } from '../../src/repository/backups.ts'
import { verifyRepository } from '../../src/repository/verify.ts'
import { skipUnlessInstalled, type TestClusterOptions } from '../services/postgres.ts'
import { proveManifest, proveRestored } from '../services/proof.ts'
import { protectedCluster, type ProtectedCluster, type RestoredCluster } from '../services/protected-cluster.ts'

// Clusters that are laid out unusually. Each test ends in a restore that is started and compared.
// Segment files of more than 1 GiB (--with-segsize) are a matter of how PostgreSQL was compiled: not tested here.

const SCHEMA = `
  create table patients (id bigint primary key, name text not null);
  insert into patients select i, 'patient ' || i || repeat('x', i % 200) from generate_series(1, 20000) i;`
const FINGERPRINT = `select count(*)::int as count, md5(string_agg(md5(p::text), '' order by id)) as md5 from patients p`

type Compare = (restored: RestoredCluster) => Promise<void>

/** Restores the newest state, lets PostgreSQL's tools judge it, starts it, compares, and proves it. */
async function restoreAndCompare(t: TestContext, cluster: ProtectedCluster, expected: unknown, compare?: Compare) {
  const report = await cluster.restore()
  await proveManifest(t, { directory: report.directory, installation: cluster.cluster.installation })
  await using restored = await cluster.startRestored(report)
  assert.deepEqual(await restored.query(FINGERPRINT), expected)
  await compare?.(restored)
  await proveRestored(t, { restored, report })
}

async function assertVerified({ repository, stateDirectory }: ProtectedCluster): Promise<void> {
  const report = await verifyRepository({
    repository,
    stateDirectory,
    scope: { kind: 'all' },
    signal: new AbortController().signal,
  })
  assert.deepEqual(report.problems, [])
}

/** Every layout is tested on the oldest and the newest major. */
function testLayout(name: string, options: Omit<TestClusterOptions, 'major'>, body: LayoutTest): void {
  for (const major of [15, 18]) {
    test(`PostgreSQL ${major}: ${name}`, async (t) => {
      const missing = await skipUnlessInstalled(major)
      if (missing !== false) return t.skip(missing)
      const settings = { autovacuum: 'off', ...options.settings }
      await using cluster = await protectedCluster(t, { ...options, major, settings })
      await cluster.query(SCHEMA)
      await body(t, cluster)
      await assertVerified(cluster)
    })
  }
}
type LayoutTest = (t: TestContext, cluster: ProtectedCluster) => Promise<void>

/** A full, changes, and an incremental. */
async function backupTwice(cluster: ProtectedCluster): Promise<void> {
  await cluster.backup()
  await cluster.query(`update patients set name = name || ' changed' where id % 500 = 0`)
  assert.equal((await cluster.backup()).type, 'incremental')
  await cluster.query(`insert into patients values (-1, 'after the last backup')`)
}

for (const megabytes of [1, 64]) {
  testLayout(
    `WAL segments of ${megabytes} MiB, no checksums`,
    { walSegmentMegabytes: megabytes, dataChecksums: false },
    async (t, cluster) => {
      await backupTwice(cluster)
      // The backups stream their own WAL: what came after the last one is in none of them.
      const expected = await cluster.query(
        `select count(*)::int as count, md5(string_agg(md5(p::text), '' order by id)) as md5 from patients p where id > 0`,
      )
      await restoreAndCompare(t, cluster, expected, async (restored) => {
        assert.deepEqual(
          await restored.query("select current_setting('wal_segment_size') as size, current_setting('data_checksums') as sums"),
          [{ size: `${megabytes}MB`, sums: 'off' }],
        )
      })
    },
  )
}

testLayout(
  'pg_wal elsewhere comes back as a directory of its own',
  { initArguments: (home) => ['-X', join(home, 'wal place')] },
  async (t, cluster) => {
    await backupTwice(cluster)
    await cluster.query('delete from patients where id = -1')
    await restoreAndCompare(t, cluster, await cluster.query(FINGERPRINT))
  },
)

testLayout(
  'tablespaces come back in their places, with moves between incrementals and a copied database',
  {},
  async (t, cluster) => {
    const { home } = cluster.cluster
    const [plain, nested] = [join(home, 'space'), join(home, 'a place with spaces/and one below')]
    for (const path of [plain, nested]) await mkdir(path, { recursive: true, mode: 0o700 })
    await cluster.query(`create tablespace plain location '${plain}'`)
    await cluster.query(`create tablespace nested location '${nested}'`)
    await cluster.query(
      `create table visits (id int primary key, note text) tablespace plain; insert into visits select i, md5(i::text) from generate_series(1, 9000) i`,
    )
    await cluster.query('create database copied template template0 tablespace nested strategy file_copy')
    await onDatabase(cluster, 'copied', 'create table one (id int primary key); insert into one select generate_series(1, 5000)')
    // What pg_upgrade leaves behind, until somebody deletes it.
    await mkdir(join(nested, 'PG_9.6_201608131/5'), { recursive: true })
    await writeFile(join(nested, 'PG_9.6_201608131/5/1234'), Buffer.alloc(8192, 7))
    await cluster.backup()
    await cluster.query('alter database copied set tablespace plain')
    await cluster.query('alter table visits set tablespace nested')
    await cluster.query('create database copied_again template copied strategy file_copy')
    assert.equal((await cluster.backup()).type, 'incremental')
    await cluster.query('alter table visits set tablespace pg_default')
    await cluster.query("update visits set note = 'home again' where id = 17")
    await cluster.backup()

    const expected = await cluster.query(FINGERPRINT)
    const visits = await cluster.query('select md5(string_agg(v::text, id::text order by id)) from visits v')
    const version = await versionDirectory(cluster)
    // A restore puts tablespaces where they were: the machine that they were on is gone.
    await cluster.cluster.kill()
    for (const path of [plain, nested]) await rm(path, { recursive: true })
    await restoreAndCompare(t, cluster, expected, async (restored) => {
      assert.deepEqual(await restored.query('select md5(string_agg(v::text, id::text order by id)) from visits v'), visits)
      assert.deepEqual(await readdir(nested), [version])
      for (const database of ['copied', 'copied_again']) {
        assert.deepEqual(await askDatabase(restored.port, database, 'select count(*)::int, sum(id)::int from one'), [
          { count: 5000, sum: 12_502_500 },
        ])
      }
    })
  },
)

testLayout('a tablespace in place is a directory of the data directory', {}, async (t, cluster) => {
  await cluster.query(`set allow_in_place_tablespaces = on; `)
  await cluster.query(`create tablespace inside location ''`)
  await cluster.query(
    `create table visits (id int primary key) tablespace inside; insert into visits select generate_series(1, 4000)`,
  )
  await cluster.backup()
  await cluster.query('delete from visits where id % 2 = 0')
  await cluster.backup()
  await restoreAndCompare(t, cluster, await cluster.query(FINGERPRINT), async (restored) => {
    assert.deepEqual(await restored.query('select count(*)::int from visits'), [{ count: 2000 }])
    assert.deepEqual(
      await restored.query(
        "select pg_tablespace_location(oid) like 'pg_tblspc/%' as inside from pg_tablespace where spcname = 'inside'",
      ),
      [{ inside: true }],
    )
  })
})

testLayout('unlogged relations come back empty, temporary ones not at all', {}, async (t, cluster) => {
  await cluster.query(`
    create unlogged table waiting_room (id int generated always as identity primary key, note text);
    insert into waiting_room (note) select 'x' from generate_series(1, 1000);
    create unlogged sequence tickets; select nextval('tickets') from generate_series(1, 50);
    create temporary table scratch as select i from generate_series(1, 5000) i`)
  const [scratch] = await cluster.query<{ path: string }>("select pg_relation_filepath('scratch') as path")
  await cluster.backup()
  const report = await cluster.restore()
  await assert.rejects(readFile(join(report.directory, scratch!.path)), { code: 'ENOENT' })
  await restoreAndCompare(t, cluster, await cluster.query(FINGERPRINT), async (restored) => {
    assert.deepEqual(await restored.query('select count(*)::int from waiting_room'), [{ count: 0 }])
    assert.deepEqual(await restored.query("select nextval('tickets')::int as ticket"), [{ ticket: 1 }])
    assert.deepEqual(await restored.query("insert into waiting_room (note) values ('first') returning id"), [{ id: 1 }])
  })
})

testLayout('leftovers with names that hurt are kept, or passed over by name', {}, async (t, cluster) => {
  const at = (name: string) => join(cluster.cluster.directory, name)
  const longest = 'é'.repeat(127) + 'x'
  const kept = ['two\nlines', longest, 'with "quotes" and \\', '\u{1f3e5}', ' ']
  for (const name of kept) await writeFile(at(name), name)
  await mkdir(at('dir\nectory'))
  // In the order of bytes they come between a directory and what is in it.
  for (const name of ['base-old', 'base.d']) await mkdir(at(name))
  await writeFile(at('base-old/1'), 'old')
  await writeFile(at('dir\nectory/file'), 'in it')
  await writeFile(Buffer.concat([Buffer.from(`${cluster.cluster.directory}/latin-`), Buffer.from([0xe9])]), 'lost')
  await symlink('.', at('circle'))
  await symlink('../../data', at('base/circle'))
  await symlink('itself', at('itself'))
  await symlink('/nowhere at all', at('dangling'))
  const items = await checkPostgres({ ...cluster, clock: systemClock, signal: new AbortController().signal })
  const item = items.find(({ name }) => name === 'data directory can be read')
  assert.equal(item?.verdict, 'not proven')
  assert.match(item.found, /"latin-\\xe9" \(its name is not UTF-8\)/)
  const notices: string[] = []
  await cluster.backup({ onNotice: (text) => notices.push(text) })
  const [manifest] = await listBackups(cluster.repository, 'his-db')
  assert.deepEqual(manifest!.passedOver.map(({ path }) => path).toSorted(), ['base/circle', 'circle', 'latin-\\xe9'])
  assert.equal(notices.filter((text) => text.startsWith('passed over: ')).length, 3)
  await cluster.backup()
  await restoreAndCompare(t, cluster, await cluster.query(FINGERPRINT), async (restored) => {
    for (const name of kept) assert.equal(await readFile(join(restored.directory, name), 'utf8'), name)
    assert.equal(await readFile(join(restored.directory, 'base-old/1'), 'utf8'), 'old')
    assert.equal(await readFile(join(restored.directory, 'dir\nectory/file'), 'utf8'), 'in it')
  })
})

async function versionDirectory({ cluster }: ProtectedCluster): Promise<string> {
  const control = await readFile(join(cluster.directory, 'global/pg_control'))
  return `PG_${cluster.installation.major}_${readCatalogVersion(control)}`
}

async function onDatabase(cluster: ProtectedCluster, database: string, text: string): Promise<void> {
  await askDatabase(cluster.cluster.port, database, text)
}

/** Once, with a connection of its own, so that nobody is connected to the database afterwards. */
async function askDatabase(port: number, database: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: `postgres://postgres@127.0.0.1:${port}/${database}` })
  await client.connect()
  try {
    return (await client.query(text)).rows as unknown[]
  } finally {
    await client.end()
  }
}
