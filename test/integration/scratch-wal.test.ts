import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { segmentAt, segmentName } from '../../src/postgres/wal-segment.ts'
import type { RecoveryPlan } from '../../src/protect/postgres/recovery-plan.ts'
import { ScratchWal } from '../../src/protect/postgres/scratch-wal.ts'
import { readPlan } from '../../src/protect/postgres/wal-get.ts'
import { rehearse } from '../services/drilling.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { connect, flushLsn, startStream } from '../services/stream.ts'

const ROWS = 28_000
const skip = await skipUnlessInstalled(18)

/** A backup, and about 60 segments of 1 MiB behind it: more than lie ahead at once. */
async function makePast(t: TestContext): Promise<ProtectedCluster> {
  const cluster = await protectedCluster(t, { major: 18, walSegmentMegabytes: 1 })
  const home = { ...cluster, spoolDirectory: join(cluster.cluster.home, 'spool'), faults: () => undefined }
  const { connectionString } = cluster.cluster
  const component = { ...cluster.component, stream: { ...cluster.component.stream, partialEverySeconds: 1 } }
  const stream = startStream(t, home, { connectionString, component })
  await stream.waitFor(({ kind }) => kind === 'connected')
  const client = await connect(t, connectionString)
  await client.query('create table visits (id int primary key, note text)')
  await cluster.backup()
  await client.query(`insert into visits select i, repeat(md5(i::text), 60) from generate_series(1, ${ROWS}) i`)
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await stream.stop()
  await client.end()
  return cluster
}

/** Of a plan: the name of a segment, counted from its first. */
function nameOf({ stretches: [stretch], segmentSize }: RecoveryPlan, index: number): string {
  const first = segmentAt(stretch!.from, stretch!.timeline, segmentSize)
  return segmentName({ ...first, number: first.number + BigInt(index) })
}

/** What PostgreSQL would run. */
async function ask(command: string, place: { name: string; directory: string }): Promise<number> {
  const text = command.replaceAll('%f', place.name).replaceAll('%p', 'file').replaceAll('%%', '%')
  return await new Promise((resolve) => {
    const child = execFile('/bin/sh', ['-c', text], { cwd: place.directory }, () => resolve(child.exitCode ?? -1))
  })
}

test('WAL is laid out as the frozen plan has it: whole, absent, or in doubt, and a dead drill is doubt', { skip }, async (t) => {
  await using cluster = await makePast(t)
  const { plan: planPath } = await cluster.restore({ kind: 'latest' }, undefined, { withoutPriming: true })
  const plan = await readPlan(planPath)
  const last = Number((plan.stretches.at(-1)!.to - plan.stretches[0]!.from) / BigInt(plan.segmentSize))
  assert.ok(last > 40, `${last} segments`)
  const home = join(cluster.cluster.home, 'scratch')
  const directory = join(cluster.cluster.home, 'asker')
  for (const path of [home, directory]) await mkdir(path)
  const wal = await ScratchWal.open({
    repository: cluster.repository,
    plan,
    home,
    account: { uid: process.getuid!(), gid: process.getgid!() },
    clock: systemClock,
    signal: new AbortController().signal,
  })
  for (let index = 0; index <= last; index += 1) {
    assert.equal(await ask(wal.command, { name: nameOf(plan, index), directory }), 0, `segment ${index}`)
    assert.equal((await readFile(join(directory, 'file'))).length, plan.segmentSize)
    // What lies behind goes: room is bounded.
    assert.ok((await readdir(join(home, 'wal'))).length < 45)
  }
  // Again the first, which is gone; what is not of the plan; what is no name of PostgreSQL's.
  assert.equal(await ask(wal.command, { name: nameOf(plan, 0), directory }), 0)
  assert.equal(await ask(wal.command, { name: nameOf(plan, last + 5), directory }), 1)
  assert.equal(await ask(wal.command, { name: '00000007.history', directory }), 1)
  const impatient = wal.command.replace('-lt 3000', '-lt 100')
  await rm(cluster.repositoryDirectory, { recursive: true })
  assert.equal(await ask(wal.command, { name: nameOf(plan, 1), directory }), 255)
  assert.ok(wal.problem !== undefined)
  assert.equal(await ask(wal.command, { name: nameOf(plan, 1), directory }), 255)
  await wal[Symbol.asyncDispose]()
  const begun = performance.now()
  assert.equal(await ask(impatient, { name: nameOf(plan, 2), directory }), 255)
  assert.ok(performance.now() - begun > 500, 'it has waited for a beat')
})

test('a drill replays more WAL than lies ahead at once', { skip }, async (t) => {
  await using cluster = await makePast(t)
  const visits = { name: 'visits', query: 'select count(*) from visits', expect: { equals: ROWS } }
  const { predicate } = await rehearse(cluster, { sql: [visits] })
  assert.equal(predicate.verdict, 'verified', predicate.why)
  t.diagnostic(JSON.stringify(predicate.measured))
})
