import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type pg from 'pg'
import { systemClock } from '../../src/clock.ts'
import { parseLsn } from '../../src/postgres/lsn.ts'
import { branchPrefix } from '../../src/repository/layout.ts'
import { segmentAt, segmentName } from '../../src/postgres/wal-segment.ts'
import { planRecovery } from '../../src/protect/postgres/recovery-plan.ts'
import { streamSpool } from '../../src/protect/postgres/component.ts'
import { listBranches } from '../../src/repository/wal-branch.ts'
import { FaultyStorage } from '../../src/storage/faulty-storage.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { connect, flushLsn, startStream } from '../services/stream.ts'
import { msToMicros } from '../../src/postgres/timestamp.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
const SEGMENT = 1024 * 1024

interface Shown {
  readonly windows: readonly {
    readonly state: string
    readonly fromLsn: string
    readonly fromTime: string | null
    readonly toLsn: string
    readonly lastCommit: string | null
    readonly backups: number
    readonly restorePoints: readonly { readonly name: string }[]
  }[]
  readonly gaps: readonly { readonly fromLsn: string; readonly toLsn: string }[]
  readonly spooled: readonly { readonly bytes: number }[]
}

interface ShownAround {
  readonly commits: {
    readonly before: { xid: number; time: string } | null
    readonly after: { xid: number; time: string } | null
  }
  readonly backups: { readonly before: readonly { id: string }[]; readonly after: readonly { id: string }[] }
  readonly restorePoints: { readonly before: readonly { name: string }[]; readonly after: readonly { name: string }[] }
  readonly exact: boolean
  readonly command: string
}

/** Whether a restore to a time is planned. */
async function reaches({ repository }: ProtectedCluster, timeMs: number): Promise<boolean> {
  try {
    await planRecovery({
      repository,
      component: 'his-db',
      target: { kind: 'time', micros: msToMicros(timeMs) },
      clock: systemClock,
    })
    return true
  } catch (error) {
    assert.equal((error as { code?: string }).code, 'TARGET_OUTSIDE_WINDOW', String(error))
    return false
  }
}

function run<T>(cluster: ProtectedCluster, ...args: string[]): Promise<T> {
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [MAIN, ...args, '--json', '--config', cluster.configPath], (error, stdout, stderr) => {
      if (error === null) resolve(JSON.parse(stdout) as T)
      else reject(new Error(`${args.join(' ')}: ${stderr}${stdout}`))
    })
  })
}

for (const major of [18, 15]) {
  test(
    `PostgreSQL ${major}: the windows, and the way to just before a corruption`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      await using cluster = await protectedCluster(t, { major, walSegmentMegabytes: 1 })
      const client = await connect(t, cluster.cluster.connectionString)
      await client.query('create table visits (name text)')
      const stream = startReceiver(t, cluster)
      await stream.waitFor(({ kind }) => kind === 'connected')
      const backup = await cluster.backup()
      await client.query(`insert into visits values ('before')`)
      await client.query(`select pg_create_restore_point('before the import')`)
      const good = await commit(client, `insert into visits values ('good')`)
      await delay(50)
      const { rows } = await client.query<{ now: Date }>('select clock_timestamp() as now')
      const corruption = rows[0]!.now
      await delay(50)
      const bad = await commit(client, `update visits set name = 'destroyed'`)
      await client.query('select pg_switch_wal()')
      await client.query(`insert into visits values ('later')`)
      const end = await flushLsn(client)
      await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
      await stream.stop()

      await t.test('one window from the backup to the last record', async () => {
        const { windows, gaps, spooled } = await run<Shown>(cluster, 'windows')
        assert.deepEqual(gaps, [])
        assert.deepEqual(spooled, [])
        assert.equal(windows.length, 1)
        const [window] = windows
        assert.deepEqual([window!.state, window!.fromLsn, window!.backups], ['current', backup.stopLsn, 1])
        assert.ok(parseLsn(window!.toLsn) >= end)
        assert.deepEqual(
          window!.restorePoints.map(({ name }) => name),
          ['before the import'],
        )
        const last = Date.parse(window!.lastCommit!)
        assert.ok(await reaches(cluster, Date.parse(window!.fromTime!)), 'its first moment')
        assert.ok(await reaches(cluster, last - 1), 'before its last commit')
        assert.ok(!(await reaches(cluster, last + 1)), 'behind its last commit')
      })
      await t.test('just before the corruption', async () => {
        const around = await run<ShownAround>(cluster, 'windows', '--around', corruption.toISOString())
        assert.deepEqual([around.commits.before?.xid, around.commits.after?.xid], [good, bad])
        assert.deepEqual(
          around.restorePoints.before.map(({ name }) => name),
          ['before the import'],
        )
        assert.deepEqual(
          around.backups.before.map(({ id }) => id),
          [backup.id],
        )
        assert.deepEqual(around.backups.after, [])
        assert.equal(around.exact, true)
        const words = around.command.split(' ')
        assert.deepEqual(words.slice(0, 3), ['resus', 'restore', 'his-db'])
        const timeMs = Date.parse(words[words.indexOf('--target-time') + 1]!)
        await using restored = await cluster.startRestored(await cluster.restore({ kind: 'time', micros: msToMicros(timeMs) }))
        assert.deepEqual(await restored.query('select name from visits order by 1'), [{ name: 'before' }, { name: 'good' }])
      })
      await t.test('what lies in the spool alone is told', async () => {
        // A storage that takes no WAL: what comes stays in the spool.
        const refusing = startReceiver(t, cluster, streamSpool(cluster.stateDirectory, 'his-db'), true)
        await refusing.waitFor(({ kind }) => kind === 'connected')
        await client.query(`insert into visits values ('in the spool')`)
        const lsn = await flushLsn(client)
        await refusing.waitFor((event) => event.kind === 'acknowledged' && event.lsn >= lsn)
        const { spooled } = await run<Shown>(cluster, 'windows')
        assert.ok(spooled.length === 1 && spooled[0]!.bytes > 0, JSON.stringify(spooled))
        void refusing.stop().catch(() => undefined)
      })
      await t.test('a segment that is lost is a gap that was found', async () => {
        const [branch] = await listBranches(cluster.repository, 'his-db')
        const lost = segmentAt(parseLsn(backup.stopLsn), 1, SEGMENT)
        const prefix = branchPrefix(branch!.path) + segmentName(lost)
        for await (const { key } of cluster.repository.storage.list(prefix)) await cluster.repository.storage.delete(key)
        const { gaps } = await run<Shown>(cluster, 'windows')
        assert.equal(gaps.length, 1)
        assert.ok(parseLsn(gaps[0]!.fromLsn) <= parseLsn(backup.stopLsn) && parseLsn(backup.stopLsn) <= parseLsn(gaps[0]!.toLsn))
      })
    },
  )
}

function startReceiver(
  t: TestContext,
  cluster: ProtectedCluster,
  spoolDirectory = join(cluster.cluster.home, 'spool'),
  refuse = false,
) {
  const { connectionString } = cluster.cluster
  const stream = { ...cluster.component.stream, partialEverySeconds: 1 }
  const refusing = new FaultyStorage(cluster.repository.storage, ({ operation, key }) =>
    refuse && operation === 'put' && key.startsWith('wal/') ? 'error' : undefined,
  )
  const repository = { ...cluster.repository, storage: refusing }
  const home = { repository, repositoryDirectory: cluster.repositoryDirectory, spoolDirectory, faults: () => undefined }
  return startStream(t, home, { connectionString, component: { ...cluster.component, stream } })
}

/** Commits a statement, and gives its transaction. */
async function commit(client: pg.Client, sql: string): Promise<number> {
  await client.query('begin')
  await client.query(sql)
  const { rows } = await client.query<{ xid: string }>('select pg_current_xact_id()::text as xid')
  await client.query('commit')
  return Number(rows[0]!.xid)
}
