import assert from 'node:assert/strict'
import { open, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { destroyServer, recover } from '../../src/demo/recovery.ts'
import { startServer, useServer } from '../../src/demo/hospital-server.ts'
import { countLost, judgeHospital, startService } from '../../src/demo/reference-hospital.ts'
import { stopCluster } from '../../src/postgres/cluster-process.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { failedChecks, liveHospital, moreWrites } from './live-hospital.ts'

// What befalls a hospital, on the reference hospital under load, each ending in evidence that an auditor verifies offline.

const skip = await skipUnlessInstalled(18)
const { signal } = new AbortController()

test(
  'the server and its directory are lost: all that was acknowledged comes back, and a drill proves it again',
  { skip },
  async (t) => {
    await using live = await liveHospital(t)
    const { hospital, directory } = live
    await using service = await startService(hospital, signal)
    const working = await live.work()
    await live.backup()
    await moreWrites(live, 40)
    const fault = await destroyServer(hospital.server)
    const recovery = await recover(hospital, { service, fault, signal })
    t.diagnostic(JSON.stringify(recovery.times))
    await working[Symbol.asyncDispose]()
    assert.ok(recovery.times.firstVerifiedTransaction > fault)
    const { lost } = await countLost(hospital, signal)
    assert.equal(lost, 0)
    assert.ok((await judgeHospital(hospital, signal)).every(({ verdict }) => verdict !== 'failed'))
    const drilled = await live.drill('--target', 'latest')
    assert.equal(drilled.verdict, 'verified', drilled.why)
    assert.equal((await live.audit()).verdict, 'verified')
    assert.ok((await readdir(directory.root)).includes('cluster'))
  },
)

test('a table is dropped: a drill of the second before has it, and a restore there brings it back', { skip }, async (t) => {
  await using live = await liveHospital(t)
  const { hospital, directory } = live
  await live.backup()
  const working = await live.work()
  await moreWrites(live, 40)
  const before = await useServer(hospital.server, async (client) => {
    const { rows } = await client.query<{ at: Date; rows: string }>(
      'select clock_timestamp() as at, count(*)::text as rows from hospital.appointments',
    )
    return rows[0]!
  })
  // The moment asked for is a second before what happened.
  await delay(1100)
  await working[Symbol.asyncDispose]()
  await useServer(hospital.server, async (client) => {
    await client.query('drop table hospital.appointments cascade')
    await client.query('select pg_switch_wal()')
  })
  await delay(2500)

  const now = await live.drill('--target', 'latest')
  assert.equal(now.verdict, 'failed')
  assert.ok(failedChecks(now).size > 0)
  const time = before.at.toISOString()
  const then = await live.drill('--target-time', time)
  assert.equal(then.verdict, 'verified', then.why)
  assert.ok(then.measured.rpoSeconds !== null && then.measured.rpoSeconds < 5, String(then.measured.rpoSeconds))

  const { directory: restored } = await live.resus<{ directory: string }>(
    'restore',
    '--to',
    join(directory.root, 'before'),
    '--target-time',
    time,
  )
  await stopCluster({ directory: directory.cluster, mode: 'fast' })
  const server = { ...hospital.server, directory: { ...directory, cluster: restored } }
  await startServer(server, signal)
  const rows = await useServer(server, async (client) => {
    for (;;) {
      const { rows: state } = await client.query<{ recovering: boolean }>('select pg_is_in_recovery() as recovering')
      if (state[0]?.recovering === false) break
      await delay(50)
    }
    return (await client.query<{ rows: string }>('select count(*)::text as rows from hospital.appointments')).rows[0]?.rows
  })
  await stopCluster({ directory: restored, mode: 'fast' })
  assert.ok(Number(rows) >= Number(before.rows), `${rows} of ${before.rows}`)
  assert.equal((await live.audit()).verdict, 'verified')
})

test('a page is silently corrupt: the backup and the drill both find it, and name relation and block', { skip }, async (t) => {
  await using live = await liveHospital(t)
  const { hospital, directory } = live
  const good = await live.backup()
  await using _working = await live.work()
  await moreWrites(live, 20)
  const { path, name } = await useServer(hospital.server, async (client) => {
    await client.query('checkpoint')
    const { rows } = await client.query<{ path: string; name: string }>(
      "select pg_relation_filepath('hospital.provenances') as path, 'hospital.provenances'::regclass::text as name",
    )
    return rows[0]!
  })
  const block = 3
  const file = await open(join(directory.cluster, path), 'r+')
  const bytes = Buffer.alloc(64, 0xa5)
  await file.write(bytes, 0, bytes.length, block * 8192 + 4096)
  await file.sync()
  await file.close()

  const backup = await live.judged<{ id: string; corruptPages: { path: string; block: number }[] }>(
    'backup',
    'his-db',
    '--type',
    'full',
  )
  assert.ok(JSON.stringify(backup.corruptPages).includes(`"block":${block}`), JSON.stringify(backup.corruptPages))
  const drilled = await live.drill('--backup', backup.id)
  assert.equal(drilled.verdict, 'failed')
  const said = [...failedChecks(drilled).values()].join('\n')
  assert.ok(said.includes(name) && new RegExp(`block ${block}\\b`).test(said), said)
  const older = await live.drill('--backup', good)
  assert.equal(older.verdict, 'verified', older.why)
  assert.equal((await live.audit()).verdict, 'verified')
})

test('the repository is damaged: the drill fails, and the older restore point is proven instead', { skip }, async (t) => {
  await using live = await liveHospital(t)
  const { directory } = live
  const older = await live.backup()
  const working = await live.work()
  await moreWrites(live, 60)
  const packsBefore = new Set(await packs(directory.repository))
  const newer = await live.backup()
  await working[Symbol.asyncDispose]()
  const fresh = (await packs(directory.repository)).filter((path) => !packsBefore.has(path))
  assert.ok(fresh.length > 0)
  for (const path of fresh) {
    const content = await readFile(path)
    const at = content.length >> 1
    content[at] = content[at]! ^ 0x10
    await writeFile(path, content, { mode: 0o600 }).catch(async () => {
      throw new Error(`cannot damage ${path}: ${(await stat(path)).mode.toString(8)}`)
    })
  }
  const failed = await live.drill('--backup', newer)
  assert.equal(failed.verdict, 'failed')
  assert.match([...failedChecks(failed).keys()].join(), /restore/)
  const proven = await live.drill('--backup', older)
  assert.equal(proven.verdict, 'verified', proven.why)
  const status = await live.resus<{ components: { proven: { backup: string; current: boolean } | null }[] }>('status')
  assert.deepEqual([status.components[0]?.proven?.backup, status.components[0]?.proven?.current], [older, true])
  assert.equal((await live.audit()).verdict, 'verified')
})

test('an idle night: nobody writes, and a drill still proves now', { skip }, async (t) => {
  await using live = await liveHospital(t)
  await live.backup()
  await delay(3000)
  const drilled = await live.drill('--target', 'latest')
  assert.equal(drilled.verdict, 'verified', drilled.why)
  assert.equal(drilled.checks.find(({ name }) => name === 'heartbeat')?.verdict, 'verified')
  assert.ok(drilled.measured.rpoSeconds !== null && drilled.measured.rpoSeconds < 10, String(drilled.measured.rpoSeconds))
  assert.equal((await live.audit()).verdict, 'verified')
})

async function packs(repository: string): Promise<string[]> {
  const entries = await readdir(join(repository, 'packs'), { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}
