import assert from 'node:assert/strict'
import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { freePort } from '../../src/postgres/cluster-process.ts'
import { ask, checkItem, moveConfiguration, restoreOf, startAsPrinted } from '../services/configuration-layout.ts'
import { protectedCluster } from '../services/protected-cluster.ts'

// Configurations that are closed, broken, or name the data directory that they lie in.

test('a configuration file that is closed to us is named by check, and a backup without it is refused', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const { etc } = await moveConfiguration(cluster)
  const path = join(etc, 'absolute.conf')
  await chmod(path, 0)
  const item = await checkItem(cluster, 'configuration can be backed up')
  assert.equal(item?.verdict, 'failed')
  assert.match(item.found, /absolute\.conf", which the server needs to start: EACCES/)
  await assert.rejects(cluster.backup(), { code: 'CONFIGURATION_UNREADABLE', message: /absolute\.conf/ })
  await assert.rejects(cluster.restore(), { code: 'BACKUP_ABSENT' })
  await chmod(path, 0o600)
  await chmod(join(etc, 'ssl/private/server.key'), 0)
  await assert.rejects(cluster.backup(), { code: 'CONFIGURATION_UNREADABLE', message: /server\.key/ })
})

test('includes that lead nowhere or in a circle are told, and the restored cluster starts without them', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const { etc, port } = await moveConfiguration(cluster)
  const shared = join(etc, 'postgresql/shared.conf')
  await writeFile(shared, "maintenance_work_mem = '18MB'\ninclude 'deleted.conf'\ninclude 'shared.conf'\n")
  const notices: string[] = []
  await cluster.backup({ onNotice: (text) => notices.push(text) })
  assert.equal(notices.filter((text) => text.startsWith('configuration of the server: ')).length, 2)
  const item = await checkItem(cluster, 'configuration can be backed up')
  assert.equal(item?.verdict, 'failed')
  assert.match(item.found, /deleted\.conf" is not there; .*shared\.conf" includes itself/)
  await cluster.cluster.kill()
  await mkdir(join(cluster.cluster.home, 's'), { mode: 0o700 })
  const { report } = await restoreOf(cluster, join(cluster.cluster.home, 'restored'))
  await using _started = await startAsPrinted(report, port)
  assert.deepEqual(await ask(port, 'show maintenance_work_mem'), [{ maintenance_work_mem: '18MB' }])
})

test('a configuration in the data directory that names it by its path does not lead a restored cluster to the old one', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const { directory, home } = cluster.cluster
  const [port, original] = [await freePort(), await readFile(join(directory, 'postgresql.conf'), 'utf8')]
  await mkdir(join(directory, 'resus_config'))
  await writeFile(join(directory, 'resus_config/mine'), 'of the administrator')
  await writeFile(
    join(directory, 'extra.conf'),
    `port = ${port}\nunix_socket_directories = '${home}'\ndynamic_shared_memory_type = mmap\n`,
  )
  const text = `${original}\nhba_file = '${directory}/pg_hba.conf'\ninclude '${directory}/extra.conf'\n`
  await writeFile(join(directory, 'postgresql.conf'), text)
  await cluster.cluster.stop()
  await cluster.cluster.start()
  await cluster.backup()
  await cluster.cluster.kill()
  await rename(directory, `${directory}-gone`)
  const to = join(home, 'restored')
  const { report } = await restoreOf(cluster, to)
  assert.equal(await readFile(join(to, 'resus_config/mine'), 'utf8'), 'of the administrator')
  assert.equal(await readFile(join(to, 'resus_config_2/data/postgresql.conf'), 'utf8'), text)
  await using _started = await startAsPrinted(report, port)
  assert.deepEqual(await ask(port, 'show hba_file'), [{ hba_file: join(to, 'pg_hba.conf') }])
})
