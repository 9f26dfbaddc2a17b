import assert from 'node:assert/strict'
import { mkdir, readdir, writeFile, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { connect, flushLsn, startStream } from '../services/stream.ts'
import { checkNamed, outcomes, prove, scratchRootOf } from '../services/proving.ts'

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(
    `PostgreSQL ${major}: a cluster with tablespaces is proven beside the living one, which is left alone`,
    { skip },
    async (t) => {
      await using cluster = await protectedCluster(t, { major, walSegmentMegabytes: 1 })
      const { home } = cluster.cluster
      const places = [join(home, 'scans'), join(home, 'a place with spaces')]
      for (const [index, path] of places.entries()) {
        await mkdir(path, { mode: 0o700 })
        await cluster.query(`create tablespace space${index} location '${path}'`)
        await cluster.query(
          `create table t${index} tablespace space${index} as select i as id, md5(i::text) as note from generate_series(1, 3000) i`,
        )
      }
      await cluster.query('create index on t0 (id) tablespace space1')
      const client = await connect(t, cluster.cluster.connectionString)
      const receiver = { ...cluster, spoolDirectory: join(home, 'spool'), faults: () => undefined }
      const component = { ...cluster.component, stream: { ...cluster.component.stream, partialEverySeconds: 1 } }
      const stream = startStream(t, receiver, { connectionString: cluster.cluster.connectionString, component })
      await stream.waitFor(({ kind }) => kind === 'connected')
      const backup = await cluster.backup()
      const before = await listing(places)
      const target = { kind: 'backup', backup: backup.id } as const
      for (const each of [target, { kind: 'latest' } as const]) {
        const verdict = await prove(cluster, { target: each })
        assert.equal(verdict.verdict, 'verified', JSON.stringify(verdict.checks))
      }
      assert.deepEqual(await listing(places), before)
      assert.deepEqual(await readdir(scratchRootOf(cluster)), [])
      assert.deepEqual(await cluster.query('select count(*)::int as rows from t0'), [{ rows: 3000 }])

      // The server needs neither the configuration nor the key: one that nobody may read keeps nothing back.
      const configPath = join(home, 'without-key.yaml')
      const configuration = JSON.parse(await readFile(cluster.configPath, 'utf8')) as {
        repository: { key: { passphrase: string } }
      }
      configuration.repository.key.passphrase = `file:${join(home, 'not-there')}`
      await writeFile(configPath, JSON.stringify(configuration))
      const lacking = await prove(cluster, { target, configPath })
      assert.deepEqual([lacking.verdict, outcomes(lacking)[0]], ['verified', 'restore: verified'])

      // Replayed, this would be linked to its place on this host.
      const later = join(home, 'later')
      await mkdir(later, { mode: 0o700 })
      await cluster.query(`create tablespace later location '${later}'`)
      const end = await flushLsn(client)
      await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
      await stream.stop()
      const made = await prove(cluster)
      assert.deepEqual([made.verdict, checkNamed(made, 'restore').verdict], ['not proven', 'not proven'])
      assert.ok(checkNamed(made, 'restore').found.includes(`"${later}"`), checkNamed(made, 'restore').found)
      assert.equal((await prove(cluster, { target })).verdict, 'verified')
    },
  )
}

/** What lies in the tablespaces, without the forks that the living server makes by itself. */
async function listing(places: readonly string[]): Promise<string[]> {
  const lists = await Promise.all(places.map((place) => readdir(place, { recursive: true })))
  return lists.map((names) =>
    names
      .filter((name) => !name.includes('_fsm') && !name.includes('_vm'))
      .toSorted()
      .join('\n'),
  )
}
