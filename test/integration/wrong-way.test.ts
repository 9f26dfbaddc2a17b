import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { cp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { endCluster, freePort, startCluster } from '../../src/postgres/cluster-process.ts'
import { parseLsn } from '../../src/postgres/lsn.ts'
import { readManifest } from '../../src/repository/backups.ts'
import { listBranches } from '../../src/repository/wal-branch.ts'
import { Secret } from '../../src/secret.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { GatedStorage } from '../services/gated-storage.ts'
import { startStream } from '../services/stream.ts'

// Backups that would look right and could not bring the cluster back.

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(`PostgreSQL ${major}: a connection to the primary and the directory of its standby are no pair`, { skip }, async (t) => {
    await using cluster = await protectedCluster(t, { major, settings: { autovacuum: 'off' } })
    const { directory, connection } = await startStandby(cluster, t)
    await cluster.query('create table later as select i as id from generate_series(1, 1000) i')
    const component = { ...cluster.component, dataDirectory: directory }
    await assert.rejects(cluster.backup({ component }), { code: 'DATA_DIRECTORY_UNREADABLE', message: /in archive recovery/ })
    await assert.rejects(cluster.restore(), { code: 'BACKUP_ABSENT' })
    // The standby's own connection and its directory are one.
    const report = await cluster.backup({ component: { ...component, connection: new Secret(connection) } })
    await using restored = await cluster.startRestored(await cluster.restore({ kind: 'backup', backup: report.id }))
    assert.deepEqual(await restored.query('select count(*)::int from later'), [{ count: 1000 }])
  })

  test(
    `PostgreSQL ${major}: a backup after a rollback takes the WAL of the way that the cluster went, not of the one it left`,
    { skip },
    async (t) => {
      await using cluster = await protectedCluster(t, { major, settings: { autovacuum: 'off' } })
      const data = cluster.cluster.directory
      await cluster.query('create table way (name text)')
      await cluster.cluster.stop()
      await cp(data, `${data}.snapshot`, { recursive: true, preserveTimestamps: true })
      await cluster.cluster.start()
      await archiveSegments(cluster, t, 3)
      await cluster.cluster.stop()
      await rm(data, { recursive: true })
      await cp(`${data}.snapshot`, data, { recursive: true, preserveTimestamps: true })
      await cluster.cluster.start()
      await cluster.query(`insert into way values ('after the rollback')`)

      // The receiver of the backup is slow to find out that the server went another way.
      const gated = new GatedStorage(cluster.repository.storage, (key) => key.startsWith('wal/') && !key.endsWith('/branch'))
      let waiting = false
      const clock = {
        ...systemClock,
        sleep: async (ms: number, signal?: AbortSignal) => {
          if (waiting) gated.open()
          await systemClock.sleep(ms, signal)
        },
      }
      const onProgress = ({ phase }: { phase: string }) => {
        waiting ||= phase === 'waiting for WAL'
        if (phase === 'publishing') gated.open()
      }
      const report = await cluster.backup({ repository: { ...cluster.repository, storage: gated }, clock, onProgress })
      const { branch } = await readManifest(cluster.repository, cluster.component.name, report.id)
      const branches = await listBranches(cluster.repository, cluster.component.name)
      assert.deepEqual(
        branches.filter(({ path }) => path.branch === branch).map(({ head }) => head.ordinal),
        [1],
      )
      await using restored = await cluster.startRestored(await cluster.restore({ kind: 'backup', backup: report.id }))
      assert.deepEqual(await restored.query('select name from way'), [{ name: 'after the rollback' }])
    },
  )
}

test('a backup beside a running receiver takes the WAL that this one has acknowledged', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18, settings: { autovacuum: 'off' } })
  const { repository, repositoryDirectory, stateDirectory, component } = cluster
  const home = { repository, repositoryDirectory, spoolDirectory: join(stateDirectory, 'spool-beside'), faults: () => undefined }
  const stream = startStream(t, home, { connectionString: cluster.cluster.connectionString, component })
  await stream.waitFor(({ kind }) => kind === 'connected')
  await cluster.query('create table beside as select i as id from generate_series(1, 1000) i')
  const notices: string[] = []
  const report = await cluster.backup({ onNotice: (text) => notices.push(text) })
  assert.deepEqual(notices, [])
  assert.ok(stream.events.some((event) => event.kind === 'acknowledged' && event.lsn >= parseLsn(report.stopLsn)))
  await stream.stop()
  await using restored = await cluster.startRestored(await cluster.restore({ kind: 'backup', backup: report.id }))
  assert.deepEqual(await restored.query('select count(*)::int from beside'), [{ count: 1000 }])
})

test('an incremental stores again what a lost pack had, though the list of a region is still there', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18, settings: { autovacuum: 'off' } })
  // What does not compress fills packs; with one thread a region's list lies in the pack after that of its first chunks.
  const component = { ...cluster.component, workers: 1 }
  await writeFile(join(cluster.cluster.directory, 'incompressible'), randomBytes(56 * 1024 * 1024))
  await cluster.backup({ component })
  await rm(await largestFile(join(cluster.repositoryDirectory, 'packs')))
  const notices: string[] = []
  const incremental = await cluster.backup({ component, onNotice: (text) => notices.push(text) })
  assert.equal(incremental.type, 'incremental')
  assert.match(notices.join('\n'), /BLOB_MISSING|no pack of the repository has/)
  await using restored = await cluster.startRestored(await cluster.restore({ kind: 'backup', backup: incremental.id }))
  assert.deepEqual(await restored.query('select 1 as one'), [{ one: 1 }])
})

test('two backups at once, of configurations that connect to two databases, both come back', async (t) => {
  await using cluster = await protectedCluster(t, { major: 18, settings: { autovacuum: 'off' } })
  await cluster.query('create table twice as select i as id from generate_series(1, 1000) i')
  const { connection } = cluster.component
  const other = {
    ...cluster.component,
    connection: new Secret(
      connection
        .reveal()
        .toString()
        .replace(/\/postgres$/, '/template1'),
    ),
  }
  const reports = await Promise.all([cluster.backup(), cluster.backup({ component: other })])
  assert.notEqual(reports[0].id, reports[1].id)
  for (const { id } of reports) {
    await using restored = await cluster.startRestored(await cluster.restore({ kind: 'backup', backup: id }))
    assert.deepEqual(await restored.query('select count(*)::int from twice'), [{ count: 1000 }])
  }
})

async function startStandby(cluster: ProtectedCluster, t: test.TestContext): Promise<{ directory: string; connection: string }> {
  const { directory: primary, installation, port: primaryPort, home } = cluster.cluster
  const directory = join(home, 'standby')
  await cluster.cluster.stop()
  await cp(primary, directory, { recursive: true })
  await writeFile(join(directory, 'standby.signal'), '')
  await cluster.cluster.start()
  const port = await freePort()
  t.after(() => endCluster(directory))
  await startCluster({
    installation,
    directory,
    port,
    socketDirectory: join(home, 's'),
    logFile: join(home, 'standby.log'),
    settings: {
      listen_addresses: '127.0.0.1',
      fsync: 'off',
      shared_buffers: '32MB',
      dynamic_shared_memory_type: 'mmap',
      primary_conninfo: `host=127.0.0.1 port=${primaryPort} user=postgres`,
    },
  })
  return { directory, connection: `postgres://postgres@127.0.0.1:${port}/postgres` }
}

/** Streams until the repository has so many whole segments more, then gives the slot back. */
async function archiveSegments(cluster: ProtectedCluster, t: test.TestContext, segments: number): Promise<void> {
  const { repository, repositoryDirectory, stateDirectory, component } = cluster
  const home = { repository, repositoryDirectory, spoolDirectory: join(stateDirectory, 'spool-before'), faults: () => undefined }
  const stream = startStream(t, home, { connectionString: cluster.cluster.connectionString, component })
  await stream.waitFor(({ kind }) => kind === 'connected')
  for (let done = 0; done < segments; done++) {
    await cluster.query(`insert into way select 'before ' || i from generate_series(1, 100) i`)
    await cluster.query('select pg_switch_wal()')
  }
  const [row] = await cluster.query<{ lsn: string }>("select pg_current_wal_insert_lsn() - pg_lsn('0/0') as lsn")
  const size = 16n * 1024n * 1024n
  const to = (BigInt(row!.lsn) / size) * size
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= to)
  await stream.stop()
  await cluster.query(`select pg_drop_replication_slot('${component.stream.slot}')`)
}

async function largestFile(directory: string): Promise<string> {
  let largest = { path: '', size: -1 }
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    const { size } = await stat(path)
    if (size > largest.size) largest = { path, size }
  }
  return largest.path
}
