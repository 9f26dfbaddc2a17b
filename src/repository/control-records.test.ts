import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import type { Clock } from '../clock.ts'
import { Secret } from '../secret.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { readObject } from '../storage/storage.ts'
import { tidyControlRecords } from './control-days.ts'
import {
  BATCH_BYTES_MAX,
  BATCH_RECORDS_MAX,
  fitting,
  listControlObjects,
  putBatch,
  readControlObject,
  recordLine,
  type ControlRecord,
} from './control-records.ts'
import { initRepository, type Repository } from './repository.ts'
import { verifyRepository } from './verify.ts'

const HOUR_MS = 3600 * 1000
const DAY_MS = 24 * HOUR_MS
const NOON = Date.UTC(2026, 10, 21, 12)
const clock: Clock = { now: () => NOON, sleep: async () => undefined }
const stream = 'work'
const node = 'one'

async function place() {
  const storage = new MemoryStorage()
  const access = { storage, passphrase: new Secret('x'), system: 's' }
  const { repository } = await initRepository(access, { clock, kdfCost: 1024 })
  return { repository, storage }
}

function recordOf(id: string, atMs = NOON, body: Record<string, unknown> = {}): ControlRecord {
  return { id, at: new Date(atMs).toISOString(), kind: 'task', body }
}

async function put(repository: Repository, nowMs: number, ...ids: readonly string[]): Promise<string> {
  return await putBatch(repository, { stream, node, nowMs, lines: ids.map((id) => recordLine(recordOf(id, nowMs))) })
}

async function idsOf(repository: Repository): Promise<string[]> {
  const ids: string[] = []
  for (const { key } of await listControlObjects(repository, stream)) {
    const { records } = await readControlObject(repository, key)
    ids.push(...records.map(({ id }) => id))
  }
  return ids
}

async function damage(storage: MemoryStorage, key: string): Promise<void> {
  const bytes = Buffer.from(await readObject(storage, key))
  const at = bytes.length - 20
  bytes[at] = bytes[at]! ^ 1
  await storage.delete(key)
  await storage.put(key, bytes)
}

test('what is put is read back, in its order, and the names tell nothing of it', async () => {
  const { repository } = await place()
  const record = recordOf('a', NOON, { text: 'Ọ̀ṣun\nhas two lines', n: 1 })
  const key = await putBatch(repository, { stream, node, nowMs: NOON, lines: [recordLine(record), recordLine(recordOf('b'))] })
  assert.match(key, /^control\/work\/20261121T120000Z-[0-9a-f]{32}$/)
  assert.deepEqual((await readControlObject(repository, key)).records, [record, recordOf('b')])
})

test('an object that was changed, or bears another name, is damaged and named', async () => {
  const { repository, storage } = await place()
  const key = await put(repository, NOON, 'a')
  const other = await put(repository, NOON + 1000, 'b')
  const bytes = await readObject(storage, other)
  await storage.delete(other)
  await storage.put(other, await readObject(storage, key))
  await assert.rejects(readControlObject(repository, other), { code: 'OBJECT_DAMAGED' })
  await storage.delete(other)
  await storage.put(other, bytes.subarray(0, bytes.length - 1))
  await assert.rejects(readControlObject(repository, other), { code: 'OBJECT_DAMAGED' })
  await damage(storage, key)
  await assert.rejects(readControlObject(repository, key), { code: 'OBJECT_DAMAGED', message: new RegExp(key) })
  await assert.rejects(readControlObject(repository, `${key.slice(0, -1)}x`), { code: 'OBJECT_MISSING' })
})

test('what is no record, or longer than its bound, is never put', () => {
  assert.throws(() => recordLine({ ...recordOf('a'), id: '' }))
  assert.throws(() => recordLine({ ...recordOf('a'), kind: 'Task' }))
  assert.throws(() => fitting([recordLine(recordOf('a', NOON, { text: 'x'.repeat(64 * 1024) }))], { records: 9, bytes: 9e9 }))
  const line = recordLine(recordOf('a', NOON, { text: 'x'.repeat(50_000) }))
  const lines = Array.from({ length: 1500 }, () => line)
  const max = { records: BATCH_RECORDS_MAX, bytes: BATCH_BYTES_MAX }
  assert.equal(fitting(lines, max), Math.floor(BATCH_BYTES_MAX / line.length))
  assert.equal(
    fitting(
      Array.from({ length: 1500 }, () => recordLine(recordOf('a'))),
      max,
    ),
    BATCH_RECORDS_MAX,
  )
})

test('the batches of a day that is over become one object, in their order; those of today stay', async (t) => {
  const { repository, storage } = await place()
  const stateDirectory = await mkdtemp(join(tmpdir(), 'resus-state-'))
  t.after(() => rm(stateDirectory, { recursive: true, force: true }))
  for (let at = 0; at < 20; at += 1) await put(repository, NOON - DAY_MS + at * 30_000, `${at}`)
  await put(repository, NOON, 'today')
  const before = await idsOf(repository)
  assert.deepEqual((await tidyControlRecords(repository, { stream, node, nowMs: NOON })).folded, 20)
  assert.deepEqual(await idsOf(repository), before)
  const objects = await listControlObjects(repository, stream)
  assert.deepEqual(
    objects.map(({ day, part }) => [day, part]),
    [
      ['20261120', 0],
      ['20261121', undefined],
    ],
  )
  // One that comes late.
  await put(repository, NOON - DAY_MS + HOUR_MS, 'late')
  await tidyControlRecords(repository, { stream, node, nowMs: NOON })
  assert.deepEqual(await idsOf(repository), [...before.slice(0, 20), 'late', 'today'])
  assert.deepEqual((await tidyControlRecords(repository, { stream, node, nowMs: NOON })).folded, 0)
  const verify = async () =>
    verifyRepository({ repository, scope: { kind: 'all' }, stateDirectory, signal: new AbortController().signal })
  assert.deepEqual((await verify()).problems, [])
  await damage(storage, objects[1]!.key)
  assert.deepEqual(
    (await verify()).problems.map(({ object }) => object),
    [objects[1]!.key],
  )
})

test('a day is not folded before every clock says that it is over', async () => {
  const { repository } = await place()
  const midnight = Date.UTC(2026, 10, 21)
  await put(repository, midnight - 1000, 'a')
  assert.equal((await tidyControlRecords(repository, { stream, node, nowMs: midnight + 6 * HOUR_MS - 1 })).folded, 0)
  assert.equal((await tidyControlRecords(repository, { stream, node, nowMs: midnight + 6 * HOUR_MS })).folded, 1)
})

test('a batch that is damaged stays, is named, and keeps no other from being folded', async () => {
  const { repository, storage } = await place()
  const keys = [
    await put(repository, NOON - DAY_MS, 'a'),
    await put(repository, NOON - DAY_MS + 1000, 'b'),
    await put(repository, NOON - DAY_MS + 2000, 'c'),
  ]
  await damage(storage, keys[1]!)
  const report = await tidyControlRecords(repository, { stream, node, nowMs: NOON })
  assert.equal(report.folded, 2)
  assert.deepEqual(
    report.unreadable.map(({ key }) => key),
    [keys[1]],
  )
  const left = (await listControlObjects(repository, stream)).map(({ key }) => key)
  assert.equal(left.length, 2)
  assert(left.includes(keys[1]!))
})

test('killed while it folds, or two at once: records come twice, and none is lost', async () => {
  for (let dies = 0; dies < 12; dies += 1) {
    const { repository, storage } = await place()
    const ids = Array.from({ length: 5 }, (_, at) => String(at))
    for (const id of ids) await put(repository, NOON - DAY_MS + Number(id) * 1000, id)
    let calls = 0
    const dying: Repository = {
      ...repository,
      storage: new Proxy(storage, {
        get: (target, name) => {
          const value: unknown = Reflect.get(target, name)
          if (name !== 'put' && name !== 'delete' && name !== 'get') return value
          return (...given: unknown[]) => {
            calls += 1
            if (calls > dies) throw new Error('killed')
            return (value as (...args: unknown[]) => unknown).apply(target, given)
          }
        },
      }),
    }
    await tidyControlRecords(dying, { stream, node, nowMs: NOON }).catch(() => undefined)
    assert.deepEqual(new Set(await idsOf(repository)), new Set(ids), `killed after ${dies} calls`)
    const tidy = async () => tidyControlRecords(repository, { stream, node, nowMs: NOON })
    await Promise.all([tidy(), tidy()])
    assert.deepEqual(new Set(await idsOf(repository)), new Set(ids))
    assert((await listControlObjects(repository, stream)).every(({ part }) => part !== undefined))
  }
})

test('records are kept for 400 days, and a clock that jumps takes none of them', async () => {
  const { repository } = await place()
  for (const days of [403, 402, 401, 399, 0]) await put(repository, NOON - days * DAY_MS, String(days))
  const tidy = async (nowMs: number) => (await tidyControlRecords(repository, { stream, node, nowMs })).forgotten
  assert.equal(await tidy(NOON), 2, 'two days at once')
  assert.equal(await tidy(NOON), 1)
  assert.deepEqual(await idsOf(repository), ['399', '0'])
  assert.equal(await tidy(NOON + 1000 * DAY_MS), 0)
  assert.deepEqual(await idsOf(repository), ['399', '0'])
})

test('the audit trail is kept for six years and a month, and a tidying of the one stream takes nothing of the other', async () => {
  const { repository } = await place()
  const kept = 6 * 366 + 30
  for (const days of [kept + 2, kept - 1, 500, 0]) {
    const nowMs = NOON - days * DAY_MS
    await putBatch(repository, { stream: 'audit', node, nowMs, lines: [recordLine(recordOf(String(days), nowMs))] })
  }
  await put(repository, NOON - 500 * DAY_MS, 'work')
  await put(repository, NOON, 'work now')
  assert.equal((await tidyControlRecords(repository, { stream: 'audit', node, nowMs: NOON })).forgotten, 1)
  assert.equal((await tidyControlRecords(repository, { stream: 'work', node, nowMs: NOON })).forgotten, 1)
  assert.deepEqual(
    (await listControlObjects(repository, 'audit')).map(({ day }) => day),
    [kept - 1, 500, 0].map((days) => new Date(NOON - days * DAY_MS).toISOString().slice(0, 10).replaceAll('-', '')),
  )
})

test('what a clock that was years behind has named is kept as long as what is in it', async () => {
  const { repository, storage } = await place()
  const behind = NOON - 2000 * DAY_MS
  await putBatch(repository, { stream, node, nowMs: behind, lines: [recordLine(recordOf('young', NOON - DAY_MS))] })
  const torn = await put(repository, behind + DAY_MS, 'torn')
  await damage(storage, torn)
  await put(repository, NOON, 'now')
  const { forgotten } = await tidyControlRecords(repository, { stream, node, nowMs: NOON })
  assert.equal(forgotten, 1, 'what does not open is as old as its name')
  assert.deepEqual(await idsOf(repository), ['young', 'now'])
  await put(repository, NOON + 399.5 * DAY_MS, 'later')
  await tidyControlRecords(repository, { stream, node, nowMs: NOON + 399.5 * DAY_MS })
  assert.deepEqual(await idsOf(repository), ['now', 'later'])
})
