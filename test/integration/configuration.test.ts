import assert from 'node:assert/strict'
import { mkdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { stopCluster } from '../../src/postgres/cluster-process.ts'
import { listBackups } from '../../src/repository/backups.ts'
import { Secret } from '../../src/secret.ts'
import { ask, checkItem, moveConfiguration, restoreOf, startAsPrinted } from '../services/configuration-layout.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { proveManifest } from '../services/proof.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'

// Clusters whose configuration lies outside the data directory, as Debian and Red Hat have it.

const SETTINGS = `select name, setting from pg_settings where name in ('work_mem', 'maintenance_work_mem', 'cluster_name',
  'log_min_duration_statement', 'idle_session_timeout', 'ssl') order by name`
const RULES = 'select type, database, user_name, address, netmask, auth_method, error from pg_hba_file_rules'
const MAPS = 'select map_name, sys_name, pg_username, error from pg_ident_file_mappings'

for (const major of [15, 18]) {
  test(
    `PostgreSQL ${major}: a configuration outside the data directory comes back, and the printed command starts with it`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      await using cluster = await protectedCluster(t, { major })
      await cluster.query('create table patients (id int primary key); insert into patients select generate_series(1, 1000)')
      const { etc, port, texts } = await moveConfiguration(cluster)
      const directory = cluster.cluster.directory
      assert.equal((await checkItem(cluster, 'configuration can be backed up'))?.verdict, 'passed')
      await cluster.backup()
      await cluster.query('insert into patients values (0)')
      await cluster.backup()
      const own = cluster.cluster.port
      const expected = [await ask(own, SETTINGS), await ask(own, RULES), await ask(own, MAPS)]

      // Nothing of the old machine may be needed.
      await cluster.cluster.kill()
      await rm(join(cluster.cluster.home, 'main.pid'))
      await rename(etc, `${etc}-gone`)
      await rename(directory, `${directory}-gone`)
      await rm(join(cluster.cluster.home, 's'), { recursive: true, force: true })
      const to = join(cluster.cluster.home, 'restored')
      const { report, notices } = await restoreOf(cluster, to)
      await proveManifest(t, { directory: to, installation: cluster.cluster.installation })
      assert.ok(notices.some((text) => text.includes(`"unix_socket_directories" is "${join(cluster.cluster.home, 's')}"`)))
      assert.ok(notices.some((text) => text.includes(`"${join(to, 'resus_config')}", byte for byte`)))
      for (const [path, text] of Object.entries(texts)) {
        const kept = join(to, 'resus_config/host', etc, path)
        assert.equal(await readFile(kept, 'utf8'), text)
        assert.equal((await stat(kept)).mode & 0o777, 0o640)
      }

      await mkdir(join(cluster.cluster.home, 's'), { mode: 0o700 })
      await using _started = await startAsPrinted(report, port)
      assert.deepEqual([await ask(port, SETTINGS), await ask(port, RULES), await ask(port, MAPS)], expected)
      assert.deepEqual(
        await ask(port, "select current_setting('work_mem') as memory, current_setting('data_directory') as directory"),
        [{ memory: '7MB', directory: to }],
      )
      assert.deepEqual(await ask(port, 'select ssl from pg_stat_ssl where pid = pg_backend_pid()', true), [{ ssl: true }])
      assert.deepEqual(await ask(port, 'select count(*)::int from patients'), [{ count: 1001 }])
      await assert.rejects(stat(join(cluster.cluster.home, 'main.pid')), { code: 'ENOENT' })
      await backUpAgain(cluster, { to, port })
    },
  )
}

/** A restored cluster holds its configuration in its data directory: it can be backed up and restored like any. */
async function backUpAgain(cluster: ProtectedCluster, restored: { to: string; port: number }): Promise<void> {
  const connection = new Secret(`postgres://postgres@127.0.0.1:${restored.port}/postgres`)
  const component = { ...cluster.component, dataDirectory: restored.to, connection }
  await cluster.backup({ component })
  const [newest] = await listBackups(cluster.repository, 'his-db')
  assert.equal(newest!.configuration, null)
  // A server that is killed leaves a lock on its socket until the system has reaped it.
  await stopCluster({ directory: restored.to, mode: 'fast' })
  await rename(restored.to, `${restored.to}-gone`)
  const { report } = await restoreOf(cluster, `${restored.to}-again`)
  await using _started = await startAsPrinted(report, restored.port)
  assert.deepEqual(await ask(restored.port, 'select ssl from pg_stat_ssl where pid = pg_backend_pid()', true), [{ ssl: true }])
}
