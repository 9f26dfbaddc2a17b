import assert from 'node:assert/strict'
import test from 'node:test'
import { checkPostgres } from '../../src/protect/postgres/check.ts'
import { findHostVersions } from '../../src/protect/postgres/installed-versions.ts'
import { compareVersions } from '../../src/protect/postgres/server-versions.ts'
import { listBackups } from '../../src/repository/backups.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'

for (const major of [15, 18]) {
  test(
    `PostgreSQL ${major}: a backup records what its server depends on, and check and a host are compared with it`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      await using cluster = await protectedCluster(t, { major, settings: { session_preload_libraries: 'auto_explain' } })
      await cluster.query('create extension amcheck')
      await cluster.query('create database "lab & blood"')
      const check = async () => {
        const items = await checkPostgres({ ...cluster, signal: new AbortController().signal })
        return items.find(({ name }) => name === 'server is as in the newest backup')
      }
      assert.equal((await check())?.found, 'no backup yet')
      await cluster.backup()
      const [manifest] = await listBackups(cluster.repository, 'his-db')
      const { versions } = manifest!.server
      assert.match(versions!.glibc ?? '', /^2\.\d+$/)
      assert.match(versions!.icu ?? '', /^\d+$/)
      assert.match(versions!.icuCollations ?? '', /^\d+\.\d+/)
      assert.equal(versions!.sessionPreloadLibraries, 'auto_explain')
      const named = new Map(versions!.databases.map((database) => [database.name, database.extensions?.map(({ name }) => name)]))
      assert.deepEqual(named.get('postgres'), ['amcheck', 'plpgsql'])
      assert.deepEqual(named.get('lab & blood'), ['plpgsql'])
      assert.equal(named.get('template0'), undefined)

      const same = await check()
      assert.equal(same?.verdict, 'passed', same?.found)
      const host = await findHostVersions(cluster.cluster.installation)
      assert.deepEqual(compareVersions(manifest!.server, host), [])
      assert.ok(host.libraries!.has('auto_explain'))
      // The same host, had it been given other libraries since.
      const older = {
        ...manifest!.server,
        versions: { ...versions!, glibc: '2.1', icu: '4', localPreloadLibraries: 'his_audit' },
      }
      const differing = compareVersions(older, host).map(({ what }) => what)
      assert.deepEqual(differing, ['library "his_audit"', 'glibc', 'ICU'])
    },
  )
}
