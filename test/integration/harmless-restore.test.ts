import assert from 'node:assert/strict'
import { access, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'

for (const major of [18, 15]) {
  test(
    `PostgreSQL ${major}: a restored server runs none of the commands that its cluster had for standbys, and does not lag as they do`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      await using cluster = await protectedCluster(t, { major, settings: { autovacuum: 'off' } })
      const marker = (name: string) => join(cluster.cluster.home, name)
      for (const [setting, value] of [
        ['recovery_end_command', `touch ${marker('took-over')}`],
        ['archive_cleanup_command', `touch ${marker('cleaned')}`],
        ['recovery_min_apply_delay', '1h'],
        ['recovery_target_inclusive', 'off'],
        ['external_pid_file', marker('pid')],
      ] as const) {
        await cluster.query(`alter system set ${setting} = '${value}'`)
      }
      await cluster.query('create table kept (id int)')
      await cluster.backup()
      await cluster.query('insert into kept values (1)')
      await cluster.backup({ type: 'full' })
      await using restored = await cluster.startRestored(await cluster.restore())
      assert.deepEqual(await restored.query('select id from kept'), [{ id: 1 }])
      for (const name of ['took-over', 'cleaned', 'pid']) await assert.rejects(access(marker(name)), { code: 'ENOENT' })
      const names = ['recovery_min_apply_delay', 'recovery_target_inclusive']
      const shown = await restored.query(`select setting from pg_settings where name in ('${names.join("', '")}') order by name`)
      assert.deepEqual(shown, [{ setting: '0' }, { setting: 'on' }])
    },
  )

  test(
    `PostgreSQL ${major}: settings of the server's command line come back, without which recovery would end at once`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      await using cluster = await protectedCluster(t, {
        major,
        settings: { max_connections: '150', log_line_prefix: "it's %p " },
      })
      await cluster.backup()
      const report = await cluster.restore()
      const text = await readFile(join(report.directory, 'postgresql.auto.conf'), 'utf8')
      for (const name of ['port', 'listen_addresses', 'unix_socket_directories'])
        assert.doesNotMatch(text, new RegExp(`^${name} `, 'm'))
      await using restored = await cluster.startRestored(report)
      const shown = await restored.query(
        "select current_setting('max_connections') as n, current_setting('log_line_prefix') as prefix",
      )
      assert.deepEqual(shown, [{ n: '150', prefix: "it's %p " }])
    },
  )
}
