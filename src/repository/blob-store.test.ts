import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { systemClock as clock } from '../clock.ts'
import { Secret } from '../secret.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { FaultyStorage } from '../storage/faulty-storage.ts'
import { blobIdentity } from './blob.ts'
import { BlobIndex } from './blob-index.ts'
import { syncIndex } from './index-sync.ts'
import { BlobReader } from './blob-reader.ts'
import { BlobWriter } from './blob-writer.ts'
import { IndexTable } from './index-table.ts'
import { PACK_BYTES } from './pack.ts'
import { PackUploads } from './pack-uploads.ts'
import { initRepository, type Repository } from './repository.ts'
import { TreeWriter, walkTree, type TreeEntry } from './tree.ts'

const signal = new AbortController().signal

async function keys(repository: Repository, prefix: string): Promise<string[]> {
  const found: string[] = []
  for await (const { key } of repository.storage.list(prefix)) found.push(key)
  return found
}

async function place(t: TestContext) {
  const stateDirectory = await mkdtemp(join(tmpdir(), 'resus-state-'))
  t.after(() => rm(stateDirectory, { recursive: true, force: true }))
  const storage = new MemoryStorage()
  const access = { storage, passphrase: new Secret('x'), system: 's' }
  const { repository } = await initRepository(access, { clock, kdfCost: 1024 })
  return { repository, storage, stateDirectory }
}

/** Stores chunks as a backup does: one writer, its packs, an index. */
async function storeChunks(
  repository: Repository,
  stateDirectory: string,
  chunks: readonly Buffer[],
  options = { withIndex: true },
) {
  const index = await syncIndex({ repository, stateDirectory })
  const writer = new BlobWriter({ ring: repository.ring, index, compressionLevel: 1 })
  const uploads = new PackUploads(repository, signal)
  for (const chunk of chunks) {
    writer.store('chunk', chunk)
    await uploads.accept(writer.drain())
  }
  writer.closePack()
  await uploads.accept(writer.drain())
  if (options.withIndex) await uploads.finish()
  else while ((await keys(repository, 'packs/')).length === 0) await clock.sleep(1)
  writer.close()
  return { reusedBytes: writer.reusedBytes, storedBytes: uploads.storedBytes }
}

async function assertReadable(repository: Repository, stateDirectory: string, chunks: readonly Buffer[]): Promise<void> {
  const reader = new BlobReader(repository, await syncIndex({ repository, stateDirectory }))
  try {
    for (const chunk of chunks) {
      assert.ok((await reader.read(blobIdentity(repository.ring, 'chunk', chunk), 'chunk', 'a test')).equals(chunk))
    }
  } finally {
    reader.close()
  }
}

const makeChunks = (count: number, size = 10_000) => Array.from({ length: count }, () => randomBytes(size))

test('blobs come back, and what is there is not stored again', async (t) => {
  const { repository, stateDirectory } = await place(t)
  const chunks = [...makeChunks(50), Buffer.alloc(200_000), Buffer.from('x')]
  await storeChunks(repository, stateDirectory, chunks)
  await assertReadable(repository, stateDirectory, chunks)
  const again = await storeChunks(repository, stateDirectory, chunks)
  assert.equal(again.storedBytes, 0)
  assert.equal(again.reusedBytes, 50 * 10_000 + 200_001)
})

test('a pack is closed when it has grown, and all its blobs are found', async (t) => {
  const { repository, stateDirectory } = await place(t)
  const chunks = makeChunks(Math.ceil((2.2 * PACK_BYTES) / 250_000), 250_000)
  await storeChunks(repository, stateDirectory, chunks)
  assert.equal((await keys(repository, 'packs/')).length, 3)
  await assertReadable(repository, stateDirectory, chunks)
})

test('a pack that was stored before its writer died is reused without an index', async (t) => {
  const { repository, stateDirectory } = await place(t)
  const chunks = makeChunks(20)
  await storeChunks(repository, stateDirectory, chunks, { withIndex: false })
  assert.equal((await keys(repository, 'index/')).length, 0)
  await assertReadable(repository, stateDirectory, chunks)
  assert.equal((await storeChunks(repository, stateDirectory, chunks)).storedBytes, 0)
})

test('an index that was lost is made again from the packs', async (t) => {
  const { repository, stateDirectory, storage } = await place(t)
  const chunks = makeChunks(20)
  await storeChunks(repository, stateDirectory, chunks)
  for (const key of await keys(repository, 'index/')) await storage.delete(key)
  await assertReadable(repository, stateDirectory, chunks)
})

test('blobs of a pack that is gone or marked are absent, and are stored again', async (t) => {
  const { repository, stateDirectory, storage } = await place(t)
  const chunks = makeChunks(20)
  await storeChunks(repository, stateDirectory, chunks)
  const [pack] = await keys(repository, 'packs/')
  const marked = new Set([pack!.slice(-32)])
  const index = new BlobIndex(await syncIndex({ repository, stateDirectory, marked }))
  assert.equal(index.find(blobIdentity(repository.ring, 'chunk', chunks[0]!)), undefined)
  index.close()
  await storage.delete(pack!)
  assert.equal((await storeChunks(repository, stateDirectory, chunks)).reusedBytes, 0)
  await assertReadable(repository, stateDirectory, chunks)
})

test('many indexes become one local table, and local tables that were changed are made again', async (t) => {
  const { repository, stateDirectory } = await place(t)
  const all: Buffer[] = []
  for (let round = 0; round < 12; round++) {
    const chunks = makeChunks(3)
    all.push(...chunks)
    await storeChunks(repository, stateDirectory, chunks)
  }
  await assertReadable(repository, stateDirectory, all)
  const directory = join(stateDirectory, repository.id, 'index')
  const tables = async () => (await readdir(directory)).filter((name) => name.startsWith('merged-'))
  assert.ok((await tables()).length >= 1)
  for (const name of (await readdir(directory)).filter((each) => each.endsWith('.table'))) {
    const bytes = await readFile(join(directory, name))
    bytes[3] = bytes[3]! ^ 1
    await writeFile(join(directory, name), bytes)
  }
  await assertReadable(repository, stateDirectory, all)
  for (const name of await readdir(directory)) await appendFile(join(directory, name), 'garbage')
  await assertReadable(repository, stateDirectory, all)
})

test('a table larger than memory is searched on the disk', async (t) => {
  const { repository, stateDirectory } = await place(t)
  const chunks = Array.from({ length: 70_000 }, (_, index) => Buffer.from(`chunk ${index}`))
  await storeChunks(repository, stateDirectory, chunks)
  const source = await syncIndex({ repository, stateDirectory })
  assert.ok(source.tables.some((path) => new IndexTable(path).entries > 65_000))
  const index = new BlobIndex(source)
  for (let at = 0; at < chunks.length; at += 97) {
    assert.ok(index.find(blobIdentity(repository.ring, 'chunk', chunks[at]!)) !== undefined, `chunk ${at}`)
    assert.equal(index.find(randomBytes(32)), undefined)
  }
  index.close()
})

test('a run that is cancelled leaves no half of a pack', async (t) => {
  const { repository, stateDirectory } = await place(t)
  const writer = new BlobWriter({
    ring: repository.ring,
    index: await syncIndex({ repository, stateDirectory }),
    compressionLevel: 1,
  })
  const uploads = new PackUploads(repository, signal)
  writer.store('chunk', randomBytes(100_000))
  await uploads.accept(writer.drain())
  await uploads.cancel()
  assert.deepEqual(await keys(repository, 'packs/'), [])
  writer.close()
})

test('a put that fails reaches whoever stores, and nothing hangs', async (t) => {
  const { repository, stateDirectory, storage } = await place(t)
  const failing = {
    ...repository,
    storage: new FaultyStorage(storage, ({ operation }) => (operation === 'put' ? 'full' : undefined)),
  }
  await assert.rejects(storeChunks(failing, stateDirectory, makeChunks(5)), { code: 'STORAGE_FULL' })
})

test('a put that dies in the middle of a piece reaches whoever stores, and nothing hangs', async (t) => {
  const { repository, stateDirectory, storage } = await place(t)
  const dying = {
    ...repository,
    storage: new FaultyStorage(storage, ({ operation }) => (operation === 'put' ? 'torn' : undefined)),
  }
  await assert.rejects(storeChunks(dying, stateDirectory, makeChunks(200, 200_000)), { code: 'STORAGE_UNREACHABLE' })
})

test('a tree gives back its entries in order and shares what two backups have alike', async (t) => {
  const { repository, stateDirectory } = await place(t)
  const defaults = { fileMode: 0o600, directoryMode: 0o700, uid: 7, gid: 7 }
  const entries = Array.from({ length: 5000 }, (_, index): TreeEntry => {
    const common = { path: `base/5/${String(index).padStart(6, '0')}`, mode: 0o600, uid: 7, gid: index % 100 === 0 ? 8 : 7 }
    if (index % 50 === 0) return { ...common, kind: 'file', sizeBytes: 0, content: { kind: 'empty' } }
    return { ...common, kind: 'file', sizeBytes: 10, content: { kind: 'chunk', identity: randomBytes(32) } }
  })
  const save = async (list: readonly TreeEntry[]) => {
    const index = await syncIndex({ repository, stateDirectory })
    const writer = new BlobWriter({ ring: repository.ring, index, compressionLevel: 1 })
    const uploads = new PackUploads(repository, signal)
    const tree = new TreeWriter(async (kind, content) => writer.store(kind, content), defaults)
    for (const entry of list) await tree.add(entry)
    const root = await tree.finish()
    writer.closePack()
    await uploads.accept(writer.drain())
    await uploads.finish()
    writer.close()
    return { root, storedBytes: uploads.storedBytes }
  }
  const first = await save(entries)
  const changed = [...entries.slice(0, 2000), { ...entries[2000]!, mode: 0o644 }, ...entries.slice(2001)]
  const second = await save(changed)
  assert.ok(second.storedBytes < first.storedBytes / 10, `${second.storedBytes} of ${first.storedBytes} bytes`)
  const reader = new BlobReader(repository, await syncIndex({ repository, stateDirectory }))
  t.after(() => reader.close())
  const read: TreeEntry[] = []
  for await (const entry of walkTree(reader, second.root, defaults)) read.push(entry)
  assert.deepEqual(read, changed)
})

test('a tree of no entries, and of one, has a root', async (t) => {
  const { repository } = await place(t)
  const defaults = { fileMode: 0o600, directoryMode: 0o700, uid: 0, gid: 0 }
  const store = async () => randomBytes(32)
  assert.ok((await new TreeWriter(store, defaults).finish()).identity.length === 32)
  const one = new TreeWriter(store, defaults)
  await one.add({ kind: 'directory', path: 'base', mode: 0o700, uid: 0, gid: 0 })
  assert.ok((await one.finish()).identity.length === 32)
  assert.ok(repository.id.length === 32)
})

for (const path of ['../outside', '/etc/passwd', 'base/../../outside', 'base//1', './x', 'nul\0l', '']) {
  test(`a manifest with the path ${JSON.stringify(path)} is refused`, async (t) => {
    const { repository, stateDirectory } = await place(t)
    const index = await syncIndex({ repository, stateDirectory })
    const writer = new BlobWriter({ ring: repository.ring, index, compressionLevel: 1 })
    const uploads = new PackUploads(repository, signal)
    const defaults = { fileMode: 0o600, directoryMode: 0o700, uid: 0, gid: 0 }
    const tree = new TreeWriter(async (kind, content) => writer.store(kind, content), defaults)
    await tree.add({ path, kind: 'file', mode: 0o600, uid: 0, gid: 0, sizeBytes: 0, content: { kind: 'empty' } })
    const root = await tree.finish()
    writer.closePack()
    await uploads.accept(writer.drain())
    await uploads.finish()
    writer.close()
    const reader = new BlobReader(repository, await syncIndex({ repository, stateDirectory }))
    t.after(() => reader.close())
    await assert.rejects(walkTree(reader, root, defaults).next(), { code: 'OBJECT_DAMAGED' })
  })
}
