import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import type { PostgresStatus } from '../../src/protect/postgres/status.ts'
import { manifestName } from '../../src/repository/backups.ts'
import { blobIdentity, CHUNK_BYTES } from '../../src/repository/blob.ts'
import { BlobIndex } from '../../src/repository/blob-index.ts'
import { readDamage } from '../../src/repository/damage.ts'
import { syncIndex } from '../../src/repository/index-sync.ts'
import { packKey } from '../../src/repository/layout.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { startResus } from '../services/proving.ts'

const ROWS = 'select count(*)::int as rows, md5(string_agg(p::text, id::text order by id)) as sum from patients p'

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(
    `PostgreSQL ${major}: after verify has found damage, a backup stores anew what older backups need too`,
    { skip },
    async (t) => {
      await using cluster = await protectedCluster(t, { major, walSegmentMegabytes: 1 })
      await cluster.query(
        `create table patients (id int primary key, noise text);
       insert into patients select i, md5(i::text) || md5((i * 7)::text) from generate_series(1, 30000) i`,
      )
      // Nothing writes to its pages after this: what is stored again is equal.
      await cluster.query('vacuum freeze patients')
      await cluster.query('checkpoint')
      const first = await cluster.backup()
      const expected = await cluster.query(ROWS)
      const packs = await flipTable(cluster, 'patients')
      const target = { kind: 'backup', backup: first.id } as const
      await assert.rejects(cluster.restore(target), { code: 'OBJECT_DAMAGED' })

      const failed = await startResus(cluster, 'restore', '--backup', first.id, '--to', join(cluster.cluster.home, 'failed'))
        .ended
      assert.equal(failed.status, 1, failed.stderr)
      const noted = await readDamage(cluster.repository, new AbortController().signal)
      assert.ok(noted.packs.size > 0, 'a restore notes what it found')
      for (const pack of noted.packs) assert.ok(packs.includes(packKey(pack)), pack)

      const verified = await startResus(cluster, 'verify', '--all').ended
      assert.equal(verified.status, 1, verified.stderr)
      const report = JSON.parse(verified.stdout) as { packs: { damaged: string[] } }
      assert.deepEqual(report.packs.damaged.map((pack) => `packs/${pack.slice(0, 2)}/${pack}`).toSorted(), packs)

      const told: string[] = []
      const again = await cluster.backup({ onNotice: (text) => told.push(text) })
      assert.equal(again.type, 'incremental')
      assert.match(told.join('\n'), new RegExp(`${packs.length} packs of the repository are damaged`))
      const after = await cluster.backup()
      assert.ok(
        after.bytesStored < again.bytesStored / 4,
        `${after.bytesStored} of ${again.bytesStored} bytes, as nothing has changed`,
      )

      const notices: string[] = []
      const restored = await cluster.restore(target, undefined, { onNotice: (text) => notices.push(text) })
      for (const pack of packs) assert.ok(notices.join('\n').includes(pack), `${pack} is named: ${notices.join('\n')}`)
      await using running = await cluster.startRestored(restored)
      assert.deepEqual(await running.query(ROWS), expected)

      // The newest manifest damaged: status says so, and shows the rest.
      const manifest = join(cluster.repositoryDirectory, manifestName(cluster.repository, 'his-db', after.id))
      const bytes = await readFile(manifest)
      bytes[100] = bytes[100]! ^ 1
      await writeFile(manifest, bytes, { flag: 'r+' })
      const { status, stdout, stderr } = await startResus(cluster, 'status').ended
      assert.equal(status, 1, stderr)
      const [shown] = (JSON.parse(stdout) as { components: PostgresStatus[] }).components
      assert.match(shown!.damagedBackups.join(), new RegExp(after.id))
      assert.deepEqual([shown!.backups, shown!.newestBackup?.id], [2, again.id])
      assert.ok(shown!.wal !== null)
    },
  )
}

/** Flips a bit in each stored chunk of a table's file. Gives the packs that they lie in. */
async function flipTable(cluster: ProtectedCluster, table: string): Promise<string[]> {
  const { repository, stateDirectory, component, repositoryDirectory } = cluster
  const [found] = await cluster.query<{ path: string }>(`select pg_relation_filepath('${table}') as path`)
  const content = await readFile(join(component.dataDirectory, found!.path))
  const index = new BlobIndex(await syncIndex({ repository, stateDirectory }))
  const packs = new Set<string>()
  for (let at = 0; at < content.length; at += CHUNK_BYTES) {
    const location = index.find(blobIdentity(repository.ring, 'chunk', content.subarray(at, at + CHUNK_BYTES)))
    assert.ok(location !== undefined, `the chunk at ${at} of "${table}" is stored as it is`)
    const path = join(repositoryDirectory, packKey(location.pack))
    const bytes = await readFile(path)
    bytes[location.offset + 100] = bytes[location.offset + 100]! ^ 4
    await writeFile(path, bytes, { flag: 'r+' })
    packs.add(packKey(location.pack))
  }
  index.close()
  return [...packs].toSorted()
}
