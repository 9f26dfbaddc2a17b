import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { readCatalogVersion } from '../../src/postgres/control-file.ts'
import { FINGERPRINT, restoreAndCompare, testLayout } from '../services/layout.ts'
import type { ProtectedCluster } from '../services/protected-cluster.ts'

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
