import assert from 'node:assert/strict'
import { access, chmod, cp, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { formatLsn } from '../../src/postgres/lsn.ts'
import { segmentAt, segmentName, segmentStart } from '../../src/postgres/wal-segment.ts'
import { findLocalWal } from '../../src/protect/postgres/local-wal.ts'
import type { RestoreProgress, RestoreReport } from '../../src/protect/postgres/restore.ts'
import { repositoryWal } from '../../src/protect/postgres/wal-supply.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { proveRestored } from '../services/proof.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { connect, flushLsn, startStream } from '../services/stream.ts'

const NOTES = `select string_agg(note, ' ' order by id) as notes from visits where note not like 'bulk%'`

const MEGABYTE = 1 << 20

interface Scene {
  readonly cluster: ProtectedCluster
  readonly directory: string
  /** Of visits, relative to the data directory. */
  readonly file: string
}

for (const major of [18, 15]) {
  test(
    `PostgreSQL ${major}: a delta restores what only the pg_wal of the crashed cluster had`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      const scene = await makeScene(t, major)
      const copy = await divergingCopy(t, scene)
      const archived = await scene.cluster.query(NOTES)
      await assertOtherWayIsNotUsed(scene, copy, archived)
      const expected = await crash(scene)
      await assertCutAtDamage(scene)
      await assertPreviewed(scene)
      await assertRefusedWhenNotStored(scene)
      await interrupt(scene)
      const report = await scene.cluster.restore({ kind: 'latest' }, scene.directory, { delta: true })
      await using restored = await scene.cluster.startRestored(report)
      assert.deepEqual(await restored.query(NOTES), expected.notes)
      assert.deepEqual(await restored.query('select count(*)::int from visits'), expected.count)
      await restored.query(`insert into visits (note) values ('first after recovery')`)
      await proveRestored(t, { restored, report })
    },
  )
}

async function makeScene(t: TestContext, major: number): Promise<Scene> {
  const cluster = await protectedCluster(t, {
    major,
    walSegmentMegabytes: 1,
    settings: { autovacuum: 'off', wal_keep_size: '64MB' },
  })
  await cluster.query('create table visits (id bigserial primary key, note text)')
  const [path] = await cluster.query<{ path: string }>(`select pg_relation_filepath('visits') as path`)
  await archiving(t, cluster, async () => {
    await cluster.backup()
    await cluster.query(`insert into visits (note) values ('archived')`)
  })
  return { cluster, directory: cluster.cluster.directory, file: path!.path }
}

/** While the work is done, a receiver stores all WAL; its slot keeps what comes after. */
async function archiving(t: TestContext, cluster: ProtectedCluster, work: () => Promise<void>): Promise<void> {
  const { connectionString, home } = cluster.cluster
  const client = await connect(t, connectionString)
  const component = { ...cluster.component, stream: { ...cluster.component.stream, partialEverySeconds: 1 } }
  const receiver = { ...cluster, spoolDirectory: join(home, 'spool'), faults: () => undefined }
  const stream = startStream(t, receiver, { connectionString, component })
  await stream.waitFor(({ kind }) => kind === 'connected')
  await work()
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await stream.stop()
}

/** A copy of the data directory that was started elsewhere, and went on by itself. */
async function divergingCopy(t: TestContext, { cluster, directory }: Scene): Promise<string> {
  const copy = join(cluster.cluster.home, 'copy')
  await cluster.cluster.kill()
  await cp(directory, copy, { recursive: true })
  await rm(join(copy, 'postmaster.pid'), { force: true })
  await chmod(copy, 0o700)
  await cluster.cluster.start()
  const started = await cluster.startRestored({ directory: copy } as RestoreReport)
  await started.query(`insert into visits (note) values ('of the copy'); checkpoint`)
  await started.query(`insert into visits (note) select 'bulk ' || repeat(md5(i::text), 20) from generate_series(1, 3000) i`)
  await started.stop()
  await archiving(t, cluster, async () => {
    await cluster.query(`insert into visits (note) values ('of the original'); checkpoint`)
  })
  return copy
}

async function assertOtherWayIsNotUsed({ cluster }: Scene, copy: string, archived: unknown): Promise<void> {
  const before = await walObjects(cluster)
  const notices: string[] = []
  const onNotice = (text: string) => notices.push(text)
  const preview = await cluster.preview({ kind: 'latest' }, copy, { delta: true })
  assert.deepEqual(preview.loss.localWal, [])
  const said = /pg_wal" is not used: .* went another way/
  assert.ok(preview.notices.some((text) => said.test(text)))
  const report = await cluster.restore({ kind: 'latest' }, copy, { delta: true, onNotice })
  assert.equal(report.localWalBytes, 0)
  assert.ok(
    notices.some((text) => said.test(text)),
    notices.join('\n'),
  )
  assert.deepEqual(await walObjects(cluster), before)
  await using restored = await cluster.startRestored(report)
  assert.deepEqual(await restored.query(NOTES), archived)
}

/** Commits that no receiver gets, over several segments; then the power is cut, and a disk has damaged a file. */
async function crash({ cluster, directory, file }: Scene): Promise<{ notes: unknown; count: unknown }> {
  for (let number = 1; number <= 20; number += 1) await cluster.query(`insert into visits (note) values ('late ${number}')`)
  await cluster.query(`insert into visits (note) select 'bulk ' || repeat(md5(i::text), 20) from generate_series(1, 5000) i`)
  await cluster.query('checkpoint')
  await cluster.query(`insert into visits (note) values ('the last')`)
  const expected = { notes: await cluster.query(NOTES), count: await cluster.query('select count(*)::int from visits') }
  await cluster.cluster.kill()
  await using damaged = await open(join(directory, file), 'r+')
  await damaged.write(Buffer.from('flipped'), 0, 7, 300)
  return expected
}

/** Bytes that are wrong, in copies of what the crash left: what is behind them is not taken, and what nothing leads to is not either. */
async function assertCutAtDamage({ cluster, directory }: Scene): Promise<void> {
  const copy = join(cluster.cluster.home, 'wal')
  const supply = repositoryWal(cluster.repository, 'his-db')
  const look = () => findLocalWal({ supply, directories: [copy], signal: new AbortController().signal })
  const renew = async () => {
    await rm(copy, { recursive: true, force: true })
    await cp(join(directory, 'pg_wal'), copy, { recursive: true })
  }
  await renew()
  const [whole] = (await look()).found
  const { to } = whole!.ranges.at(-1)!
  const segments = whole!.ranges.map((range) => segmentAt(range.from, 1, MEGABYTE))
  const flipped = segments[2]!
  await flip(join(copy, segmentName(flipped)), MEGABYTE / 2)
  const cut = await look()
  const end = cut.found[0]!.ranges.at(-1)!.to
  // Records here are of some 700 bytes.
  const damage = segmentStart(flipped) + BigInt(MEGABYTE / 2)
  assert.ok(end <= damage && damage - end < 10_000n, `${formatLsn(end)} is where ${formatLsn(damage)} is damaged`)
  assert.match(cut.notices.join(), /is not used: it begins at/)

  await renew()
  for (const name of await readdir(copy)) if (name < segmentName(segments[1]!)) await rm(join(copy, name), { recursive: true })
  const apart = await look()
  assert.deepEqual(apart.found, [])
  const stored = (await supply.parts(whole!.branch)).at(-1)!.endLsn
  assert.equal(apart.notices.length, 1)
  assert.ok(apart.notices[0]!.endsWith(`what is stored before it ends at ${formatLsn(stored)}`), apart.notices[0])

  // Of these the repository has the whole: what is stored leads over the damage.
  await renew()
  const [first, second] = (await readdir(copy)).filter((name) => /^[0-9A-F]{24}$/.test(name)).toSorted()
  await flip(join(copy, first!), 3)
  await flip(join(copy, second!), 100)
  const over = await look()
  assert.equal(over.found[0]?.ranges.at(-1)!.to, to, over.notices.join('\n'))
  await rm(copy, { recursive: true })
}

async function flip(path: string, offset: number): Promise<void> {
  await using file = await open(path, 'r+')
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, offset)
  await file.write(Buffer.from([buffer[0]! ^ 0x10]), 0, 1, offset)
}

async function assertPreviewed({ cluster, directory }: Scene): Promise<void> {
  const before = await walObjects(cluster)
  const { loss, wal } = await cluster.preview({ kind: 'latest' }, directory, { delta: true })
  const [local, ...more] = loss.localWal
  assert.deepEqual([more, loss.bytesLost], [[], 0])
  assert.deepEqual([local!.directory, local!.timeline], [join(directory, 'pg_wal'), 1])
  assert.ok(local!.bytes > 3 * 1024 * 1024, `${local!.bytes} bytes`)
  assert.equal(wal.endLsn, local!.endLsn)
  assert.deepEqual(await walObjects(cluster), before)
  const without = await cluster.preview({ kind: 'latest' }, directory, { delta: true, withoutLocalWal: true })
  assert.deepEqual(without.loss.localWal, [])
  assert.ok(without.wal.bytes < wal.bytes - local!.bytes + 1024 * 1024)
}

async function assertRefusedWhenNotStored({ cluster, directory }: Scene): Promise<void> {
  const folders = await walFolders(cluster)
  for (const folder of folders) await chmod(folder, 0o500)
  await assert.rejects(cluster.restore({ kind: 'latest' }, directory, { delta: true }), { code: 'LOCAL_WAL_UNPUBLISHED' })
  for (const folder of folders) await chmod(folder, 0o700)
  await access(join(directory, 'global/pg_control'))
}

/** The first run ends when it has begun to write, and what it had set aside is lost: the WAL in it has to be safe by then. */
async function interrupt({ cluster, directory }: Scene): Promise<void> {
  const stop = new AbortController()
  const notices: string[] = []
  const options = { delta: true, signal: stop.signal, onNotice: (text: string) => notices.push(text) }
  const onProgress = ({ phase }: RestoreProgress) => void (phase === 'writing' && stop.abort())
  const restoring = cluster.restore({ kind: 'latest' }, directory, { ...options, onProgress })
  await assert.rejects(restoring)
  assert.ok(
    notices.some((text) => text.includes(`only "${join(directory, 'pg_wal')}" had`)),
    notices.join('\n'),
  )
  await assert.rejects(access(join(directory, 'global/pg_control')))
  const aside = (await readdir(directory)).filter((name) => name.startsWith('pg_wal.before-'))
  assert.equal(aside.length, 1)
  await rm(join(directory, aside[0]!), { recursive: true })
}

async function walFolders({ repositoryDirectory }: ProtectedCluster): Promise<string[]> {
  const wal = join(repositoryDirectory, 'wal')
  const entries = await readdir(wal, { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name))
}

async function walObjects({ repositoryDirectory }: ProtectedCluster): Promise<string[]> {
  return (await readdir(join(repositoryDirectory, 'wal'), { recursive: true })).toSorted()
}
