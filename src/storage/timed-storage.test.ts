import assert from 'node:assert/strict'
import test from 'node:test'
import { FaultyStorage, type Fault } from './faulty-storage.ts'
import { MemoryStorage } from './memory-storage.ts'
import { storageContract } from './storage-contract.ts'
import { TimedStorage } from './timed-storage.ts'

storageContract('TimedStorage', async () => new TimedStorage(new MemoryStorage(), 60_000))

async function consume(source: AsyncIterable<unknown>): Promise<number> {
  let count = 0
  for await (const _ of source) count += 1
  return count
}

const CALLS = {
  put: (storage: TimedStorage, signal?: AbortSignal) =>
    storage.put('a/b', Buffer.from('x'), signal === undefined ? {} : { signal }),
  get: (storage: TimedStorage, signal?: AbortSignal) => consume(storage.get('a', signal === undefined ? {} : { signal })),
  getRange: (storage: TimedStorage, signal?: AbortSignal) =>
    storage.getRange('a', { offset: 0, length: 1 }, signal === undefined ? {} : { signal }),
  list: (storage: TimedStorage, signal?: AbortSignal) => consume(storage.list('', signal === undefined ? {} : { signal })),
  delete: (storage: TimedStorage, signal?: AbortSignal) => storage.delete('a', signal === undefined ? {} : { signal }),
}

for (const [name, call] of Object.entries(CALLS)) {
  test(`${name}: a storage that never answers and heeds no signal is STORAGE_STALLED`, async () => {
    const storage = new TimedStorage(new FaultyStorage(new MemoryStorage(), () => 'deaf'), 20)
    await assert.rejects(call(storage), { code: 'STORAGE_STALLED' })
  })

  test(`${name}: it ends at once when the signal aborts`, async () => {
    const storage = new TimedStorage(new FaultyStorage(new MemoryStorage(), () => 'deaf'), 2 ** 30)
    const stop = new AbortController()
    const ended = assert.rejects(call(storage, stop.signal), { name: 'AbortError' })
    stop.abort()
    await ended
  })
}

test('a storage that gets stuck is asked again, but not for ever', async () => {
  let fault: Fault | undefined = 'deaf'
  let calls = 0
  const inner = new FaultyStorage(new MemoryStorage(), () => {
    calls += 1
    return fault
  })
  const storage = new TimedStorage(inner, 20)
  await assert.rejects(storage.delete('a'), { code: 'STORAGE_STALLED' })
  fault = undefined
  await storage.delete('a')
  fault = 'deaf'
  await assert.rejects(storage.delete('a'), { code: 'STORAGE_STALLED' })
  // Two are stuck now.
  await assert.rejects(storage.delete('a'), { code: 'STORAGE_STALLED' })
  assert.equal(calls, 3)
})

test('what heeds the signal is not stuck', async () => {
  let fault: Fault | undefined = 'stall'
  const storage = new TimedStorage(new FaultyStorage(new MemoryStorage(), () => fault), 20)
  for (let round = 0; round < 5; round += 1) await assert.rejects(storage.delete('a'), { code: 'STORAGE_STALLED' })
  fault = undefined
  await storage.put('a', Buffer.from('x'))
  assert.equal(await consume(storage.list('')), 1)
})
