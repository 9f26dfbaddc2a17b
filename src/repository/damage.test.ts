import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { systemClock as clock } from '../clock.ts'
import { Secret } from '../secret.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { readObject } from '../storage/storage.ts'
import { blobIdentity } from './blob.ts'
import { BlobReader } from './blob-reader.ts'
import { BlobWriter } from './blob-writer.ts'
import { keepDamage, readDamage, removeOldDamage } from './damage.ts'
import { listPacks, syncIndex } from './index-sync.ts'
import { DAMAGE_PREFIX, PACK_PREFIX } from './layout.ts'
import { PackUploads } from './pack-uploads.ts'
import { initRepository, type Repository } from './repository.ts'
import { verifyRepository } from './verify.ts'

const signal = new AbortController().signal
const all = { kind: 'all' } as const

async function place(t: TestContext) {
  const stateDirectory = await mkdtemp(join(tmpdir(), 'resus-state-'))
  t.after(() => rm(stateDirectory, { recursive: true, force: true }))
  const storage = new MemoryStorage()
  const access = { storage, passphrase: new Secret('x'), system: 's' }
  const { repository } = await initRepository(access, { clock, kdfCost: 1024 })
  return { repository, storage, stateDirectory }
}
type Place = Awaited<ReturnType<typeof place>>

/** Stores chunks as a backup does, in one pack. Gives what was reused. */
async function store({ repository, stateDirectory }: Place, chunks: readonly Buffer[]): Promise<number> {
  const { packs: marked } = await readDamage(repository, signal)
  const index = await syncIndex({ repository, stateDirectory, marked })
  const writer = new BlobWriter({ ring: repository.ring, index, compressionLevel: 1 })
  const uploads = new PackUploads(repository, signal)
  for (const chunk of chunks) writer.store('chunk', chunk)
  writer.closePack()
  await uploads.accept(writer.drain())
  await uploads.finish()
  writer.close()
  return writer.reusedBytes
}

/** Changes a byte of an object. Gives it back as it was. */
async function damage(storage: MemoryStorage, key: string, at: number): Promise<Buffer> {
  const bytes = await readObject(storage, key)
  const changed = Buffer.from(bytes)
  changed[at] = changed[at]! ^ 1
  await storage.delete(key)
  await storage.put(key, changed)
  return bytes
}

async function onlyPack(repository: Repository): Promise<string> {
  const [pack, ...others] = (await listPacks(repository)).keys()
  assert.deepEqual(others, [])
  return pack!
}

async function verifyAndKeep({ repository, stateDirectory }: Place, nowMs = clock.now()): Promise<string[]> {
  const { packs } = await verifyRepository({ repository, stateDirectory, scope: all, signal })
  return await keepDamage(repository, packs, { nowMs, signal })
}

const packPath = (pack: string) => `${PACK_PREFIX}${pack.slice(0, 2)}/${pack}`

test('what lies in a pack that a verification found damaged is stored again, and then restores from there', async (t) => {
  const scene = await place(t)
  const { repository, storage, stateDirectory } = scene
  const chunks = Array.from({ length: 20 }, () => randomBytes(10_000))
  await store(scene, chunks)
  const pack = await onlyPack(repository)
  await damage(storage, packPath(pack), 50_000)
  // Nobody knows yet.
  assert.equal(await store(scene, chunks), 200_000)

  assert.deepEqual(await verifyAndKeep(scene), [pack])
  assert.equal(await store(scene, chunks), 0, 'all of it was stored again')
  assert.equal(await store(scene, chunks), 200_000, 'and that is reused')

  const reader = new BlobReader(repository, await syncIndex({ repository, stateDirectory }))
  t.after(() => reader.close())
  for (const chunk of chunks) {
    assert.deepEqual(await reader.read(blobIdentity(repository.ring, 'chunk', chunk), 'chunk', 'a test'), chunk)
  }
})

test('a pack that was brought back whole is reused again, and each finding is kept once', async (t) => {
  const scene = await place(t)
  const { repository, storage } = scene
  const chunks = [randomBytes(10_000), randomBytes(10_000)]
  await store(scene, chunks)
  const pack = await onlyPack(repository)
  const whole = await damage(storage, packPath(pack), 5000)
  const nowMs = clock.now()
  assert.deepEqual(await verifyAndKeep(scene, nowMs), [pack])
  assert.deepEqual(await verifyAndKeep(scene, nowMs + 1000), [])
  await storage.delete(packPath(pack))
  await storage.put(packPath(pack), whole)
  assert.deepEqual(await verifyAndKeep(scene, nowMs + 2000), [])
  assert.deepEqual([...(await readDamage(repository, signal)).packs], [])
  assert.equal(await store(scene, chunks), 20_000)
  let records = 0
  for await (const object of storage.list(DAMAGE_PREFIX)) records += object.sizeBytes > 0 ? 1 : 0
  assert.equal(records, 2)
})

test('a record of damage that is damaged is named, and keeps no other from counting', async (t) => {
  const { repository, storage, stateDirectory } = await place(t)
  const now = clock.now()
  await keepDamage(repository, { damaged: ['a'.repeat(32)], whole: [] }, { nowMs: now, signal })
  const [record] = await keysOf(storage)
  await damage(storage, record!, 60)
  await keepDamage(repository, { damaged: ['b'.repeat(32)], whole: [] }, { nowMs: now, signal })
  const { packs, unreadable } = await readDamage(repository, signal)
  assert.deepEqual([...packs], ['b'.repeat(32)])
  assert.match(unreadable.join(), new RegExp(record!))
  const report = await verifyRepository({ repository, stateDirectory, scope: all, signal })
  assert.deepEqual(
    report.problems.map(({ object }) => object),
    [record],
  )
})

test('records of packs that are gone are removed, and no others', async (t) => {
  const { repository, storage } = await place(t)
  const [gone, there] = ['a'.repeat(32), 'b'.repeat(32)]
  await keepDamage(repository, { damaged: [gone], whole: [] }, { nowMs: clock.now(), signal })
  await keepDamage(repository, { damaged: [gone, there], whole: [] }, { nowMs: clock.now(), signal })
  await removeOldDamage(repository, new Set([there]), signal)
  assert.equal((await keysOf(storage)).length, 1)
  assert.deepEqual([...(await readDamage(repository, signal)).packs], [there])
})

test('a marked pack that no index object names is absent at once', async (t) => {
  const { repository, storage, stateDirectory } = await place(t)
  const chunk = randomBytes(10_000)
  await store({ repository, storage, stateDirectory }, [chunk])
  for await (const { key } of storage.list('index/')) await storage.delete(key)
  const fresh = await mkdtemp(join(tmpdir(), 'resus-state-'))
  t.after(() => rm(fresh, { recursive: true, force: true }))
  const marked = new Set((await listPacks(repository)).keys())
  const { absentPacks } = await syncIndex({ repository, stateDirectory: fresh, marked })
  assert.deepEqual(absentPacks, [...marked])
})

async function keysOf(storage: MemoryStorage): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of storage.list(DAMAGE_PREFIX)) keys.push(key)
  return keys
}
