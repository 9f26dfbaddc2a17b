import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { access, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { systemClock, type Clock } from '../../src/clock.ts'
import { Failure } from '../../src/errors.ts'
import { listBackupIds } from '../../src/repository/backups.ts'
import { verifyRepository } from '../../src/repository/verify.ts'
import { FaultyStorage, type Fault } from '../../src/storage/faulty-storage.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { Random, testSeed } from './random.ts'
import type { FullDiskRestore } from './restore-on-full-disk.ts'

const run = promisify(execFile)
const skip = await skipUnlessInstalled(18)

const SCHEMA = `create table patients as select i as id, repeat(md5(i::text), 20) as note from generate_series(1, 20000) i`
const FINGERPRINT = `select count(*)::int as count, md5(string_agg(note, '' order by id)) as md5 from patients`

/** The put that would make the backup visible. */
const MANIFEST = 'manifest'

/** Each put of a backup but WAL, which the receiver goes on trying to store. */
const CODES = { error: 'STORAGE_UNREACHABLE', torn: 'STORAGE_UNREACHABLE', full: 'STORAGE_FULL' } as const

test('a storage that fails at any put leaves no backup, and the next one succeeds', { skip }, async (t) => {
  const random = new Random(testSeed(t))
  await using cluster = await protectedCluster(t, { major: 18, walSegmentMegabytes: 1 })
  await cluster.query(SCHEMA)
  // A lease, packs, an index, and the manifest.
  const puts = await countPuts(cluster)
  for (const fault of ['error', 'torn', 'full'] as const) {
    await cluster.query(`update patients set note = note || '${fault}' where id % 2 = 0`)
    for (const at of [random.below(puts), MANIFEST] as const) {
      const before = await listBackupIds(cluster.repository, 'his-db')
      const { repository, reached } = failing(cluster, fault, at)
      const failed = await cluster.backup({ repository }).then(
        () => undefined,
        (error: unknown) => error,
      )
      t.diagnostic(`${fault} at put ${at} of ${puts}: ${reached()}`)
      assert.ok(reached() !== undefined)
      assert.ok(failed instanceof Failure, String(failed))
      assert.equal(failed.code, CODES[fault])
      assert.deepEqual(await listBackupIds(cluster.repository, 'his-db'), before)
    }
    await cluster.backup()
    await assertVerifies(cluster)
  }
  const expected = await cluster.query(FINGERPRINT)
  await using restored = await cluster.startRestored(await cluster.restore())
  assert.deepEqual(await restored.query(FINGERPRINT), expected)
})

test('a backup that waits for a stalled storage ends when it is told to', { skip }, async (t) => {
  const random = new Random(testSeed(t))
  await using cluster = await protectedCluster(t, { major: 18, walSegmentMegabytes: 1 })
  await cluster.query(SCHEMA)
  const puts = await countPuts(cluster)
  await cluster.query(`update patients set note = note || 'stall' where id % 2 = 0`)
  for (const at of [random.below(puts), MANIFEST] as const) {
    const before = await listBackupIds(cluster.repository, 'his-db')
    const stop = new AbortController()
    const interrupted = new Failure('INTERRUPTED', 'interrupted by the test')
    const { repository, reached } = failing(cluster, 'stall', at, () => setImmediate(() => stop.abort(interrupted)))
    const backup = cluster.backup({ repository, signal: stop.signal })
    const failed = await backup.then(
      () => undefined,
      (error: unknown) => error,
    )
    t.diagnostic(`stalled at put ${at} of ${puts}: ${reached()}`)
    assert.ok(reached() !== undefined)
    assert.ok(failed instanceof Error && stop.signal.aborted, String(failed))
    assert.deepEqual(await listBackupIds(cluster.repository, 'his-db'), before)
  }
  await cluster.backup()
  await assertVerifies(cluster)
})

test('a backup whose WAL the storage refuses gives up, and the next one succeeds', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18, walSegmentMegabytes: 1 })
  await cluster.query(SCHEMA)
  const clock = fastClock(100)
  // It gives up after two minutes without progress; then the receiver, which would wait for the storage a while longer, finds it well again.
  const wellAt = clock.now() + 800_000
  const storage = new FaultyStorage(cluster.repository.storage, ({ operation, key }) => {
    const refused = operation === 'put' && key.startsWith('wal/') && !key.endsWith('/branch') && clock.now() < wellAt
    return refused ? 'error' : undefined
  })
  const repository = { ...cluster.repository, storage }
  await assert.rejects(cluster.backup({ repository, clock }), { code: 'BACKUP_ABORTED' })
  assert.deepEqual(await listBackupIds(cluster.repository, 'his-db'), [])
  await cluster.backup()
  await assertVerifies(cluster)
})

const MOUNT = ['--map-current-user', '--keep-caps', '--mount', '--kill-child']

/** A file system that is full for real: a tmpfs with few inodes, in a mount namespace of an ordinary user. */
test(
  'a restore onto a disk that fills up ends with DISK_FULL, and starts no server',
  { skip: skip || (await noMounts()) },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18, walSegmentMegabytes: 1 })
    await cluster.query(SCHEMA)
    const { id } = await cluster.backup()
    const mountPoint = join(cluster.cluster.home, 'small-disk')
    await mkdir(mountPoint)
    const random = new Random(testSeed(t))
    const script = fileURLToPath(new URL('restore-on-full-disk.ts', import.meta.url))
    for (const inodes of [3, 5 + random.below(10), 20 + random.below(900), 'all but a few'] as const) {
      const options = { configPath: cluster.configPath, mountPoint, inodes }
      const { stdout } = await run('unshare', [...MOUNT, process.execPath, script, JSON.stringify(options)])
      const result = JSON.parse(stdout) as FullDiskRestore
      t.diagnostic(`${inodes} inodes: ${result.code} ${result.message}`)
      assert.deepEqual(
        { code: result.code, startable: result.startable },
        { code: 'DISK_FULL', startable: false },
        result.message,
      )
    }
    await assert.rejects(access(join(mountPoint, 'restored')), { code: 'ENOENT' })
    const report = await cluster.restore({ kind: 'backup', backup: id })
    await using restored = await cluster.startRestored(report)
    assert.equal((await restored.query(FINGERPRINT)).length, 1)
  },
)

/** How many puts a backup makes, WAL apart. */
async function countPuts(cluster: ProtectedCluster): Promise<number> {
  let puts = 0
  const storage = new FaultyStorage(cluster.repository.storage, ({ operation, key }) => {
    if (operation === 'put' && !key.startsWith('wal/')) puts += 1
    return undefined
  })
  await cluster.backup({ repository: { ...cluster.repository, storage } })
  return puts
}

/** The repository behind a storage that fails at one put, WAL apart; `reached` tells at which object. */
function failing(cluster: ProtectedCluster, fault: Fault, at: number | typeof MANIFEST, onFault: () => void = () => undefined) {
  let puts = 0
  let key: string | undefined
  const storage = new FaultyStorage(cluster.repository.storage, (decision) => {
    if (decision.operation !== 'put' || decision.key.startsWith('wal/')) return undefined
    const wanted = at === MANIFEST ? decision.key.startsWith('backups/') : puts++ === at
    if (!wanted) return undefined
    key = decision.key
    onFault()
    return fault
  })
  return { repository: { ...cluster.repository, storage }, reached: () => key }
}

async function assertVerifies({ repository, stateDirectory }: ProtectedCluster): Promise<void> {
  const { signal } = new AbortController()
  const { problems } = await verifyRepository({ repository, stateDirectory, scope: { kind: 'all' }, signal })
  assert.deepEqual(problems, [])
}

/** A clock on which limits of minutes are over in seconds. */
function fastClock(times: number): Clock {
  const begun = systemClock.now()
  return {
    ...systemClock,
    now: () => begun + (systemClock.now() - begun) * times,
    sleep: (ms, signal) => systemClock.sleep(ms / times, signal),
  }
}

async function noMounts(): Promise<string | false> {
  const directory = await mkdtemp('/tmp/resus-mount-')
  try {
    await run('unshare', [...MOUNT, 'mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', directory])
    return false
  } catch {
    return 'this user may not mount a file system of its own'
  } finally {
    await rm(directory, { recursive: true })
  }
}
