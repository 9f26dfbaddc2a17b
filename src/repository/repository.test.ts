import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import test from 'node:test'
import { systemClock as clock } from '../clock.ts'
import { Secret } from '../secret.ts'
import { FaultyStorage } from '../storage/faulty-storage.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { readObject, type Storage } from '../storage/storage.ts'
import { initRepository, openRepository } from './repository.ts'
import { getHead, getObject, openObject, putObject, sealObject } from './sealed-object.ts'

const kdfCost = 1024
const passphrase = new Secret('correct horse battery staple')

async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of source) parts.push(part)
  return Buffer.concat(parts)
}

async function newRepository(storage: Storage = new MemoryStorage()) {
  return (await initRepository({ storage, passphrase, system: 'osun-his' }, { clock, kdfCost })).repository
}

test('init makes a repository once and opens it after that', async () => {
  const storage = new MemoryStorage()
  const first = await initRepository({ storage, passphrase, system: 'osun-his' }, { clock, kdfCost })
  const second = await initRepository({ storage, passphrase, system: 'osun-his' }, { clock, kdfCost })
  assert.equal(first.created, true)
  assert.equal(second.created, false)
  assert.deepEqual(second.repository.ring, first.repository.ring)
})

test('two inits at once make one repository', async () => {
  const storage = new MemoryStorage()
  const access = { storage, passphrase, system: 'osun-his' }
  const both = await Promise.all([initRepository(access, { clock, kdfCost }), initRepository(access, { clock, kdfCost })])
  assert.deepEqual(both[0].repository.ring, both[1].repository.ring)
  assert.equal(both.filter(({ created }) => created).length, 1)
})

test('init that died between any two puts is completed by the next', async () => {
  for (let survives = 0; survives < 3; survives++) {
    const storage = new MemoryStorage()
    let puts = 0
    const dying = new FaultyStorage(storage, ({ operation }) => (operation === 'put' && puts++ >= survives ? 'error' : undefined))
    await assert.rejects(initRepository({ storage: dying, passphrase, system: 'a' }, { clock, kdfCost }), {
      code: 'STORAGE_UNREACHABLE',
    })
    await initRepository({ storage, passphrase, system: 'a' }, { clock, kdfCost })
    await openRepository({ storage, passphrase, system: 'a' })
  }
})

test('open refuses a wrong passphrase, another system, and a place without repository', async () => {
  const storage = new MemoryStorage()
  await assert.rejects(openRepository({ storage, passphrase, system: 'osun-his' }), { code: 'REPOSITORY_MISSING' })
  await newRepository(storage)
  await assert.rejects(openRepository({ storage, passphrase: new Secret('wrong'), system: 'osun-his' }), { code: 'KEY_WRONG' })
  await assert.rejects(openRepository({ storage, passphrase, system: 'other' }), { code: 'REPOSITORY_FOREIGN' })
})

test('a key slot whose base64 is cut off by a flipped bit is damaged, or fits no passphrase', async () => {
  const storage = new MemoryStorage()
  await newRepository(storage)
  let key = ''
  for await (const each of storage.list('keys/')) key = each.key
  const slot = JSON.parse((await readObject(storage, key)).toString('utf8')) as Record<string, unknown> & { kdf: object }
  for (const [name, changed] of [
    ['nonce', { ...slot, nonce: `=${String(slot.nonce).slice(1)}` }],
    ['wrapped', { ...slot, wrapped: `=${String(slot.wrapped).slice(1)}` }],
    ['salt', { ...slot, kdf: { ...slot.kdf, salt: '=' } }],
  ] as const) {
    await storage.delete(key)
    await storage.put(key, Buffer.from(JSON.stringify(changed)))
    await assert.rejects(
      openRepository({ storage, passphrase, system: 'osun-his' }),
      { code: name === 'nonce' ? 'OBJECT_DAMAGED' : 'KEY_WRONG' },
      name,
    )
  }
})

test('a sealed object gives back its head and body, of any size', async () => {
  const { storage, ring } = await newRepository()
  for (const size of [0, 1, 1024 * 1024 - 1, 1024 * 1024, 1024 * 1024 + 1, 3_500_000]) {
    const body = Buffer.concat([randomBytes(Math.ceil(size / 2)), Buffer.alloc(Math.floor(size / 2))])
    const name = `backups/x/${size}`
    await putObject(storage, ring, { kind: 'backup', name, head: { size }, body: [body.subarray(0, 1000), body.subarray(1000)] })
    const opened = await getObject(storage, ring, { kind: 'backup', name })
    assert.deepEqual(opened.head, { size })
    assert.deepEqual(await collect(opened.body), body)
    assert.deepEqual(await getHead(storage, ring, { kind: 'backup', name }), { size })
  }
})

test('a head longer than the first range is read whole', async () => {
  const { storage, ring } = await newRepository()
  const head = { noise: randomBytes(150_000).toString('hex') }
  await putObject(storage, ring, { kind: 'wal', name: 'wal/x', head, body: [randomBytes(10)] })
  assert.deepEqual(await getHead(storage, ring, { kind: 'wal', name: 'wal/x' }), head)
})

test('a sealed object with any bit flipped, cut anywhere, or under another name does not open', async () => {
  const { ring } = await newRepository()
  const stored = await collect(sealObject(ring, { kind: 'wal', name: 'wal/a', head: { a: 1 } }, [Buffer.from('b'.repeat(40))]))
  const read = async (bytes: Buffer, name = 'wal/a') => {
    await collect(
      (
        await openObject(
          ring,
          { kind: 'wal', name },
          (async function* () {
            yield bytes
          })(),
        )
      ).body,
    )
  }
  await read(stored)
  for (let bit = 0; bit < stored.length * 8; bit++) {
    // The two zero bytes of the header are authenticated with the first frame as well.
    const flipped = Buffer.from(stored)
    flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7))
    await assert.rejects(read(flipped), { name: 'Failure' }, `bit ${bit}`)
  }
  for (let length = 0; length < stored.length; length++)
    await assert.rejects(read(stored.subarray(0, length)), { code: 'OBJECT_DAMAGED' })
  await assert.rejects(read(Buffer.concat([stored, Buffer.from('x')])), { code: 'OBJECT_DAMAGED' })
  await assert.rejects(read(stored, 'wal/b'), { code: 'OBJECT_DAMAGED' })
})
