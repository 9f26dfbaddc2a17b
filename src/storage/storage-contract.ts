import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import test from 'node:test'
import type { Storage } from './storage.ts'

async function* pieces(...bytes: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* bytes
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of source) parts.push(part)
  return Buffer.concat(parts)
}

async function keys(storage: Storage, prefix: string): Promise<string[]> {
  const found: string[] = []
  for await (const entry of storage.list(prefix)) found.push(entry.key)
  return found
}

/** The promises of `Storage`, as tests. Every driver runs them on an empty storage of its own. */
export function storageContract(name: string, make: (t: test.TestContext) => Promise<Storage>): void {
  test(`${name}: gives back what was put, whole and by range`, async (t) => {
    const storage = await make(t)
    const content = randomBytes(3_000_000)
    await storage.put('a/whole', content)
    await storage.put('a/pieces', pieces(content.subarray(0, 7), content.subarray(7, 1_500_000), content.subarray(1_500_000)))
    assert.deepEqual(await collect(storage.get('a/whole')), content)
    assert.deepEqual(await collect(storage.get('a/pieces')), content)
    assert.deepEqual(await storage.getRange('a/whole', { offset: 1000, length: 5 }), content.subarray(1000, 1005))
    assert.deepEqual(await storage.getRange('a/whole', { offset: content.length - 3, length: 100 }), content.subarray(-3))
    assert.equal((await storage.getRange('a/whole', { offset: content.length + 3, length: 100 })).length, 0)
  })

  test(`${name}: is done with a piece of a source when it asks for the next`, async (t) => {
    const storage = await make(t)
    const content = randomBytes(1_000_000)
    const reused = Buffer.alloc(10_000)
    const source = async function* () {
      for (let at = 0; at < content.length; at += reused.length) {
        content.copy(reused, 0, at)
        yield reused
        reused.fill(0)
      }
    }
    await storage.put('reused', source())
    assert.deepEqual(await collect(storage.get('reused')), content)
  })

  test(`${name}: keeps an object of no bytes`, async (t) => {
    const storage = await make(t)
    await storage.put('empty', new Uint8Array())
    assert.equal((await collect(storage.get('empty'))).length, 0)
    assert.deepEqual(await keys(storage, 'empty'), ['empty'])
  })

  test(`${name}: refuses to put over what exists and leaves it as it was`, async (t) => {
    const storage = await make(t)
    await storage.put('once', Buffer.from('first'))
    await assert.rejects(storage.put('once', Buffer.from('second')), { code: 'OBJECT_EXISTS' })
    assert.equal((await collect(storage.get('once'))).toString(), 'first')
  })

  test(`${name}: of two puts of one key at once exactly one wins`, async (t) => {
    const storage = await make(t)
    const puts = Array.from({ length: 8 }, (_, index) => storage.put('race', Buffer.from(`writer ${index}`)))
    const results = await Promise.allSettled(puts)
    const winner = results.findIndex((result) => result.status === 'fulfilled')
    assert.equal(results.filter((result) => result.status === 'fulfilled').length, 1)
    assert.equal((await collect(storage.get('race'))).toString(), `writer ${winner}`)
  })

  test(`${name}: a put whose source fails leaves nothing`, async (t) => {
    const storage = await make(t)
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield Buffer.from('half')
      throw new Error('the source failed')
    }
    await assert.rejects(storage.put('half', failing()), /the source failed/)
    await assert.rejects(storage.getRange('half', { offset: 0, length: 1 }), { code: 'OBJECT_MISSING' })
    assert.deepEqual(await keys(storage, ''), [])
  })

  test(`${name}: says which object is missing`, async (t) => {
    const storage = await make(t)
    await assert.rejects(collect(storage.get('no/such')), (error: Error & { code?: string }) => {
      return error.code === 'OBJECT_MISSING' && error.message.includes('no/such')
    })
    await assert.rejects(storage.getRange('no/such', { offset: 0, length: 1 }), { code: 'OBJECT_MISSING' })
  })

  test(`${name}: lists below a prefix, in the order of bytes, with sizes`, async (t) => {
    const storage = await make(t)
    const all = ['a', 'a-b/c', 'a/b', 'a/b.x', 'a/b/c', 'aa', 'b/1', 'b/10', 'b/2']
    for (const key of [...all].toReversed())
      await storage.put(key === 'a' ? 'a_' : key === 'a/b' ? 'a/b_' : key, Buffer.from(key))
    const expected = all.map((key) => (key === 'a' ? 'a_' : key === 'a/b' ? 'a/b_' : key))
    expected.sort((left, right) => Buffer.compare(Buffer.from(left), Buffer.from(right)))
    assert.deepEqual(await keys(storage, ''), expected)
    assert.deepEqual(await keys(storage, 'b/1'), ['b/1', 'b/10'])
    assert.deepEqual(await keys(storage, 'nothing/'), [])
    for await (const entry of storage.list('b/10')) assert.equal(entry.sizeBytes, 4)
  })

  test(`${name}: deletes, and deleting what is not there does nothing`, async (t) => {
    const storage = await make(t)
    await storage.put('gone', Buffer.from('x'))
    await storage.delete('gone')
    await storage.delete('gone')
    assert.deepEqual(await keys(storage, ''), [])
    await storage.put('gone', Buffer.from('y'))
    assert.equal((await collect(storage.get('gone'))).toString(), 'y')
  })
}
