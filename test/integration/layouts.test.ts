import assert from 'node:assert/strict'
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { checkPostgres } from '../../src/protect/postgres/check.ts'
import { listBackups } from '../../src/repository/backups.ts'
import { backupTwice, FINGERPRINT, restoreAndCompare, testLayout } from '../services/layout.ts'

// Segment files of more than 1 GiB (--with-segsize) are a matter of how PostgreSQL was compiled: not tested here.

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
  const items = await checkPostgres({ ...cluster, signal: new AbortController().signal })
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
