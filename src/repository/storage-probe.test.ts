import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import type { Storage } from '../storage/storage.ts'
import { PROBE_PREFIX } from './layout.ts'
import { probeStorage } from './storage-probe.ts'

class MovedClock implements Clock {
  ms = Date.UTC(2026, 10, 21, 3)
  now(): number {
    return this.ms
  }
  async sleep(): Promise<void> {
    throw new Error('nothing sleeps')
  }
}

const signal = new AbortController().signal
const denied = (what: string) => new Failure('STORAGE_UNREACHABLE', `cannot ${what}: EACCES`)

async function keys(storage: Storage): Promise<string[]> {
  const found: string[] = []
  for await (const { key } of storage.list('')) found.push(key)
  return found
}

/** Each operation with its verdict, in one line. */
async function verdicts(storage: Storage, clock: Clock): Promise<string> {
  const findings = await probeStorage(storage, { clock, signal })
  return findings.map(({ operation, verdict }) => `${operation}: ${verdict}`).join(', ')
}

/** A storage that refuses one operation. */
function without(inner: Storage, refused: Partial<Storage>): Storage {
  return Object.assign(Object.create(inner) as Storage, {
    put: inner.put.bind(inner),
    get: inner.get.bind(inner),
    getRange: inner.getRange.bind(inner),
    list: inner.list.bind(inner),
    delete: inner.delete.bind(inner),
    ...refused,
  })
}

test('a probe of a good storage passes, and leaves it as it was', async () => {
  const storage = new MemoryStorage()
  await storage.put('resus.json', Buffer.from('mine'))
  const all = 'list: passed, put: passed, put once: passed, get: passed, get range: passed, delete: passed'
  assert.equal(await verdicts(storage, new MovedClock()), all)
  assert.deepEqual(await keys(storage), ['resus.json'])
})

test('each operation that is refused is the one that has failed', async () => {
  const clock = new MovedClock()
  const inner = new MemoryStorage()
  const put = without(inner, { put: async () => Promise.reject(denied('put')) })
  assert.match(await verdicts(put, clock), /list: passed, put: failed, put once: not proven, get: not proven/)
  const range = without(inner, { getRange: async () => Promise.reject(denied('read')) })
  assert.match(await verdicts(range, clock), /get: passed, get range: failed, delete: passed/)
  const list = without(inner, {
    // oxlint-disable-next-line require-yield
    async *list() {
      throw denied('list')
    },
  })
  assert.match(await verdicts(list, clock), /^list: failed, put: passed, put once: passed, get: passed/)
  assert.deepEqual(await keys(inner), [])
})

test('a storage that replaces objects, loses them from its list or gives others back has failed', async () => {
  const clock = new MovedClock()
  const inner = new MemoryStorage()
  const replacing = without(inner, {
    put: async (key, source) => {
      await inner.delete(key)
      await inner.put(key, source)
    },
  })
  assert.match(await verdicts(replacing, clock), /put once: failed/)
  const forgetful = without(inner, { list: async function* () {} })
  assert.match(await verdicts(forgetful, clock), /list: failed/)
  const wrong = without(inner, { getRange: async (_key, { length }) => Buffer.alloc(length) })
  assert.match(await verdicts(wrong, clock), /get: passed, get range: failed/)
})

test('what a killed test has left goes; another one at work keeps its probe', async () => {
  const clock = new MovedClock()
  const storage = new MemoryStorage()
  const old = `${PROBE_PREFIX}20261121T010000Z-${'0'.repeat(32)}`
  const young = `${PROBE_PREFIX}20261121T025900Z-${'1'.repeat(32)}`
  for (const name of [old, young]) await storage.put(name, Buffer.alloc(10))
  await verdicts(storage, clock)
  assert.deepEqual(await keys(storage), [young])
})

test('where deleting is refused, that is said, and one probe a day stays', async () => {
  const clock = new MovedClock()
  const inner = new MemoryStorage()
  const keeping = without(inner, { delete: async () => Promise.reject(denied('delete')) })
  assert.match(await verdicts(keeping, clock), /get range: passed, delete: not proven/)
  for (let hour = 0; hour < 23; hour += 1) {
    clock.ms += 3_600_000
    assert.match(
      await verdicts(keeping, clock),
      /put: passed, put once: passed, get: passed, get range: passed, delete: not proven/,
    )
  }
  assert.equal((await keys(inner)).length, 1)
  clock.ms += 2 * 3_600_000
  await verdicts(keeping, clock)
  assert.equal((await keys(inner)).length, 2)
})
