import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { copyFile, mkdir, open, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseLsn } from '../../src/postgres/lsn.ts'
import { quoteShell } from '../../src/protect/postgres/recovery-settings.ts'
import { coverage, listWal } from '../../src/repository/wal-archive.ts'
import { listBranches, type Branch } from '../../src/repository/wal-branch.ts'
import { verifyRepository } from '../../src/repository/verify.ts'
import { Random, testSeed } from '../faults/random.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { compareWithServer, startStream } from '../services/stream.ts'
import { waitUntil } from '../services/wait-until.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
const SEGMENT = 1024 * 1024

function archiveCommand(configPath: string): string {
  return `${[process.execPath, MAIN, 'wal-push', '--config', configPath].map(quoteShell).join(' ')} "%p"`
}

/** A cluster that archives with `resus wal-push`, and has no receiver. */
async function archivingCluster(t: TestContext, major: number): Promise<ProtectedCluster> {
  const cluster = await protectedCluster(t, { major, walSegmentMegabytes: 1 })
  await cluster.cluster.stop()
  await cluster.cluster.start({ archive_mode: 'on', archive_command: archiveCommand(cluster.configPath) })
  return cluster
}

interface Outcome {
  readonly status: number
  readonly code: string | undefined
  readonly outcome: string | undefined
}

/** `resus wal-push` in the data directory, as the archiver runs it. */
function push(cluster: ProtectedCluster, path: string): Promise<Outcome> {
  const args = [MAIN, 'wal-push', '--config', cluster.configPath, '--json', path]
  return new Promise((resolve) => {
    execFile(process.execPath, args, { cwd: cluster.cluster.directory }, (error, stdout) => {
      const answer = (stdout === '' ? {} : JSON.parse(stdout)) as { outcome?: string; error?: { code: string } }
      resolve({ status: typeof error?.code === 'number' ? error.code : 0, code: answer.error?.code, outcome: answer.outcome })
    })
  })
}

async function branchOf(cluster: ProtectedCluster, timeline = 1): Promise<Branch> {
  const branches = (await listBranches(cluster.repository, 'his-db')).filter(({ head }) => head.timeline === timeline)
  assert.equal(branches.length, 1, `${branches.length} branches of timeline ${timeline}`)
  return branches[0]!
}

/** Ends the open segment, and waits until the repository has everything before its end. */
async function archiveAll(cluster: ProtectedCluster): Promise<bigint> {
  const [row] = await cluster.query<{ lsn: string }>('select pg_switch_wal()::text as lsn')
  const lsn = parseLsn(row!.lsn)
  await waitUntil('all is archived', async () => {
    const branches = await listBranches(cluster.repository, 'his-db')
    if (branches.length === 0) return false
    const branch = branches.at(-1)!
    return (await coverage(cluster.repository, branch, branch.head.firstLsn)).endLsn >= lsn
  })
  return lsn
}

async function writeRows(cluster: ProtectedCluster, from: number, count: number): Promise<void> {
  await cluster.query('create table if not exists visits (id int primary key, note text)')
  await cluster.query(
    `insert into visits select i, repeat(md5(i::text), 20) from generate_series(${from}, ${from + count - 1}) i`,
  )
}

const FINGERPRINT = `select count(*)::int as count, md5(string_agg(note, '' order by id)) as md5 from visits`

async function assertVerifies({ repository, stateDirectory }: ProtectedCluster): Promise<void> {
  const { signal } = new AbortController()
  const { problems } = await verifyRepository({ repository, stateDirectory, scope: { kind: 'all' }, signal })
  assert.deepEqual(problems, [])
}

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(
    `PostgreSQL ${major}: what is archived while wal-push is killed and the storage is away restores to the last commit`,
    { skip },
    async (t) => {
      const random = new Random(testSeed(t))
      await using cluster = await archivingCluster(t, major)
      await writeRows(cluster, 0, 2000)
      // No receiver runs: the backup streams its own WAL, and both agree where they meet.
      await cluster.backup()
      const killer = killPushes(random, cluster.configPath)
      for (let round = 1; round <= 6; round += 1) {
        await writeRows(cluster, round * 10_000, 3000)
        await cluster.query('select pg_switch_wal()')
      }
      const killed = await killer.stop()
      t.diagnostic(`${killed} processes were killed`)
      await rename(cluster.repositoryDirectory, `${cluster.repositoryDirectory}.away`)
      await writeRows(cluster, 100_000, 3000)
      await cluster.query('select pg_switch_wal()')
      await waitUntil('the archiver has failed', async () => {
        const [row] = await cluster.query<{ failed: boolean }>('select failed_count > 0 as failed from pg_stat_archiver')
        return row!.failed
      })
      await rename(`${cluster.repositoryDirectory}.away`, cluster.repositoryDirectory)
      await writeRows(cluster, 110_000, 10)
      await archiveAll(cluster)
      const branch = await branchOf(cluster)
      assert.ok((await compareWithServer(cluster.repository, branch, cluster.cluster.directory)) > 5)
      assert.deepEqual((await coverage(cluster.repository, branch, branch.head.firstLsn)).holes, [])
      const expected = await cluster.query(FINGERPRINT)
      await assertVerifies(cluster)
      await using restored = await cluster.startRestored(await cluster.restore())
      assert.deepEqual(await restored.query(FINGERPRINT), expected)
    },
  )

  test(`PostgreSQL ${major}: wal-push beside a receiver: both store the same bytes`, { skip }, async (t) => {
    await using cluster = await archivingCluster(t, major)
    // It is compared with what the server has, which goes at a checkpoint when archiver and receiver are ahead of it.
    await cluster.query("alter system set wal_keep_size = '1GB'")
    await cluster.query('select pg_reload_conf()')
    const home = { ...cluster, spoolDirectory: join(cluster.cluster.home, 'spool'), faults: () => undefined }
    const { connectionString } = cluster.cluster
    const stream = startStream(t, home, {
      connectionString,
      component: { ...cluster.component, stream: { ...cluster.component.stream, partialEverySeconds: 1 } },
    })
    await stream.waitFor(({ kind }) => kind === 'connected')
    await writeRows(cluster, 0, 2000)
    await cluster.backup()
    for (let round = 1; round <= 3; round += 1) await writeRows(cluster, round * 10_000, 3000)
    const end = await archiveAll(cluster)
    await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
    await stream.stop()
    await waitUntil('the archiver has nothing left', async () => {
      const names = await readdir(join(cluster.cluster.directory, 'pg_wal/archive_status'))
      return names.every((name) => !name.endsWith('.ready'))
    })
    const [row] = await cluster.query<{ failed: number }>('select failed_count::int as failed from pg_stat_archiver')
    assert.equal(row!.failed, 0)
    await compareWithServer(cluster.repository, await branchOf(cluster), cluster.cluster.directory)
    await assertVerifies(cluster)
    const expected = await cluster.query(FINGERPRINT)
    await using restored = await cluster.startRestored(await cluster.restore())
    assert.deepEqual(await restored.query(FINGERPRINT), expected)
  })

  test(`PostgreSQL ${major}: every kind of file is taken or refused as it should be`, { skip }, async (t) => {
    await using cluster = await protectedCluster(t, { major, walSegmentMegabytes: 1 })
    await writeRows(cluster, 0, 3000)
    await cluster.query('select pg_switch_wal()')
    await writeRows(cluster, 10_000, 3000)
    await cluster.query('checkpoint')
    const pgWal = join(cluster.cluster.directory, 'pg_wal')
    const [first, second] = (await readdir(pgWal)).filter((name) => /^[0-9A-F]{24}$/.test(name)).toSorted()
    const pushed = await push(cluster, `pg_wal/${first}`)
    assert.deepEqual({ status: pushed.status, outcome: pushed.outcome }, { status: 0, outcome: 'stored' })
    assert.equal((await push(cluster, `pg_wal/${first}`)).outcome, 'there')
    assert.equal((await push(cluster, `pg_wal/${first}.00000028.backup`)).outcome, 'nothing to store')
    const other = join(cluster.cluster.home, 'other')
    await mkdir(other)
    const refused = async (name: string, code: string, change: (path: string) => Promise<void>) => {
      const path = join(other, name)
      await copyFile(join(pgWal, first!), path)
      await change(path)
      const before = await stored(cluster)
      const outcome = await push(cluster, path)
      assert.equal(outcome.code, code, name)
      assert.ok(outcome.status > 0 && outcome.status <= 125, String(outcome.status))
      assert.deepEqual(await stored(cluster), before)
      await rm(path, { force: true })
    }
    await refused(first!, 'WAL_CONFLICT', (path) => overwrite(path, 100_000, Buffer.from('changed')))
    await refused(second!, 'WAL_INVALID', async () => undefined)
    await refused(first!, 'WAL_INVALID', (path) => truncate(path, SEGMENT - 1))
    await refused(first!, 'WAL_INVALID', (path) => overwrite(path, 0, Buffer.alloc(40)))
    await refused(first!, 'WAL_INVALID', (path) => rm(path))
    await refused('RECOVERYXLOG', 'ARGUMENTS_INVALID', async () => undefined)
    // The system identifier in the header of the first page.
    await refused(first!, 'ARCHIVE_MISMATCH', (path) => overwrite(path, 24, Buffer.from('00000001', 'latin1')))
    await refused('00000002.history', 'WAL_INVALID', (path) => writeFile(path, 'no history'))
  })

  test(
    `PostgreSQL ${major}: a promotion is archived: history, the old timeline's last segment, the new timeline`,
    { skip },
    async (t) => {
      await using cluster = await archivingCluster(t, major)
      await writeRows(cluster, 0, 2000)
      await cluster.backup()
      await writeRows(cluster, 10_000, 3000)
      await archiveAll(cluster)
      await cluster.cluster.stop()
      // Something that was not archived as a whole segment, and a promotion on top of it.
      await cluster.cluster.start({ archive_mode: 'on', archive_command: archiveCommand(cluster.configPath) })
      await writeRows(cluster, 20_000, 1000)
      await cluster.cluster.stop()
      await writeFile(join(cluster.cluster.directory, 'standby.signal'), '')
      await cluster.cluster.start({ archive_mode: 'on', archive_command: archiveCommand(cluster.configPath), hot_standby: 'on' })
      await cluster.query('select pg_promote(true, 60)')
      await writeRows(cluster, 30_000, 1000)
      await archiveAll(cluster)
      await waitUntil('the archiver has nothing left', async () => {
        const names = await readdir(join(cluster.cluster.directory, 'pg_wal/archive_status'))
        return names.every((name) => !name.endsWith('.ready'))
      })
      const names = await readdir(join(cluster.cluster.directory, 'pg_wal/archive_status'))
      assert.ok(
        names.some((name) => name.endsWith('.partial.done')),
        names.join(' '),
      )
      const old = await branchOf(cluster, 1)
      const { objects } = await coverage(cluster.repository, old, old.head.firstLsn)
      const last = objects.at(-1)!
      assert.ok(last.from === 0 && last.to < SEGMENT, `the last stretch is [${last.from}, ${last.to})`)
      const history = await readFile(join(cluster.cluster.directory, 'pg_wal/00000002.history'), 'utf8')
      assert.equal((await branchOf(cluster, 2)).head.history, history)
      const expected = await cluster.query(FINGERPRINT)
      await assertVerifies(cluster)
      const report = await cluster.restore()
      assert.equal(report.timeline, 2)
      await using restored = await cluster.startRestored(report)
      assert.deepEqual(await restored.query(FINGERPRINT), expected)
    },
  )
}

async function stored({ repository }: ProtectedCluster): Promise<string[]> {
  const keys: string[] = []
  for (const branch of await listBranches(repository, 'his-db')) {
    for await (const { key } of listWal(repository, branch)) keys.push(key)
  }
  return keys
}

async function overwrite(path: string, at: number, bytes: Buffer): Promise<void> {
  const file = await open(path, 'r+')
  await file.write(bytes, 0, bytes.length, at)
  await file.close()
}

/** Kills processes of wal-push with this configuration, at random moments, until it is told to stop. */
function killPushes(random: Random, configPath: string): { stop: () => Promise<number> } {
  let killed = 0
  let stopped = false
  const run = async () => {
    while (!stopped) {
      await delay(random.below(400))
      for (const pid of await findPushes(configPath)) {
        try {
          process.kill(pid, 'SIGKILL')
          killed += 1
        } catch {
          // It had ended by itself.
        }
      }
    }
  }
  const running = run()
  return {
    stop: async () => {
      await waitUntil('a process was killed', async () => killed > 0)
      stopped = true
      await running
      return killed
    },
  }
}

async function findPushes(configPath: string): Promise<number[]> {
  const found: number[] = []
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const words = (await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '')).split('\0')
    if (words[1] === MAIN && words[2] === 'wal-push' && words.includes(configPath)) found.push(Number(name))
  }
  return found
}
