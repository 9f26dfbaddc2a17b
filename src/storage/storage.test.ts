import assert from 'node:assert/strict'
import { readlinkSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { DirectoryStorage } from './directory-storage.ts'
import { FaultyStorage, type Fault } from './faulty-storage.ts'
import { MeteredStorage } from './metered-storage.ts'
import { MemoryStorage } from './memory-storage.ts'
import { storageContract } from './storage-contract.ts'
import { readObject } from './storage.ts'

async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'resus-storage-'))
  t.after(async () => {
    await rm(directory, { recursive: true, force: true })
  })
  return directory
}

async function directoryStorage(t: TestContext): Promise<DirectoryStorage> {
  const storage = new DirectoryStorage(join(await temporaryDirectory(t), 'repository'))
  await storage.prepare()
  return storage
}

storageContract('memory', async () => new MemoryStorage())
storageContract('directory', directoryStorage)
storageContract('metered', async () => new MeteredStorage(new MemoryStorage()))
storageContract('faulty without faults', async () => new FaultyStorage(new MemoryStorage(), () => undefined))

test('directory: leaves nothing in staging after puts that won, lost and failed', async (t) => {
  const root = await temporaryDirectory(t)
  const storage = new DirectoryStorage(root)
  await storage.prepare()
  await storage.put('a', Buffer.from('1'))
  await assert.rejects(storage.put('a', Buffer.from('2')), { code: 'OBJECT_EXISTS' })
  assert.deepEqual(await readdir(join(root, '.staging')), [])
})

test('directory: a storage that is not there is unreachable, not an object that is missing', async (t) => {
  const storage = new DirectoryStorage(join(await temporaryDirectory(t), 'not-mounted'))
  await assert.rejects(readObject(storage, 'a'), { code: 'STORAGE_UNREACHABLE' })
})

test(
  'directory: a directory that may not be written is unreachable',
  { skip: process.getuid?.() === 0 && 'root may write anywhere' },
  async (t) => {
    const root = await temporaryDirectory(t)
    const storage = new DirectoryStorage(root)
    await storage.prepare()
    await chmod(root, 0o500)
    await assert.rejects(storage.put('new/a', Buffer.from('1')), { code: 'STORAGE_UNREACHABLE' })
    await chmod(root, 0o700)
  },
)

/** Paths that were synced while `work` ran, in their order. */
async function syncedPaths(t: TestContext, work: () => Promise<void>): Promise<string[]> {
  const paths: string[] = []
  await using any = await open('/', 'r')
  const handles = Object.getPrototypeOf(any) as { sync: (this: { fd: number }) => Promise<void> }
  const { sync } = handles
  const mocked = t.mock.method(handles, 'sync', async function (this: { fd: number }) {
    await sync.call(this)
    paths.push(readlinkSync(`/proc/self/fd/${this.fd}`))
  })
  try {
    await work()
  } finally {
    mocked.mock.restore()
  }
  return paths
}

const onLinux = { skip: process.platform !== 'linux' && 'only Linux tells which file was synced' }

test('directory: what a put finds there is durable before it says so, whoever put it', onLinux, async (t) => {
  const root = await temporaryDirectory(t)
  const storage = new DirectoryStorage(root)
  await storage.prepare()
  // What a put leaves that was killed between link and sync.
  await mkdir(join(root, 'a/b'), { recursive: true })
  await writeFile(join(root, 'a/b/c'), 'first')
  const paths = await syncedPaths(t, () => assert.rejects(storage.put('a/b/c', Buffer.from('x')), { code: 'OBJECT_EXISTS' }))
  for (const path of [root, join(root, 'a'), join(root, 'a/b')]) assert.ok(paths.includes(path), `${path} in ${paths.join(', ')}`)
})

test('directory: what a disk keeps in its root is not listed, nor read', async (t) => {
  const root = await temporaryDirectory(t)
  const storage = new DirectoryStorage(root)
  await storage.prepare()
  await storage.put('a/b', Buffer.from('1'))
  await mkdir(join(root, 'lost+found'))
  await writeFile(join(root, 'lost+found/#17'), 'x')
  await chmod(join(root, 'lost+found'), 0o000)
  const keys: string[] = []
  for await (const { key } of storage.list('')) keys.push(key)
  assert.deepEqual(keys, ['a/b'])
  await chmod(join(root, 'lost+found'), 0o700)
})

test('directory: a put never makes the storage itself, which may not be mounted', async (t) => {
  const root = join(await temporaryDirectory(t), 'not-mounted')
  const storage = new DirectoryStorage(root)
  await assert.rejects(storage.put('a/b', Buffer.from('x')), { code: 'STORAGE_UNREACHABLE' })
  await assert.rejects(readdir(root), { code: 'ENOENT' })
})

test('faulty: each fault does what it says', async () => {
  const inner = new MemoryStorage()
  await inner.put('k', Buffer.from('content'))
  const withFault = (fault: Fault) => new FaultyStorage(inner, () => fault)
  await assert.rejects(readObject(withFault('error'), 'k'), { code: 'STORAGE_UNREACHABLE' })
  await assert.rejects(withFault('full').put('n', Buffer.from('x')), { code: 'STORAGE_FULL' })
  await assert.rejects(withFault('torn').put('n', Buffer.from('x')), { code: 'STORAGE_UNREACHABLE' })
  assert.equal((await readObject(withFault('short'), 'k')).length, 3)
  assert.notEqual((await readObject(withFault('flip'), 'k')).toString(), 'content')
  const signal = AbortSignal.timeout(20)
  await assert.rejects(withFault('stall').getRange('k', { offset: 0, length: 1 }, { signal }), { name: 'TimeoutError' })
})
