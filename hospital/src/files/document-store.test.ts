import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { DOCUMENT_BYTES_MAX, DocumentStore } from './document-store.ts'

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'hospital-documents-'))
  t.after(async () => rm(path, { recursive: true, force: true }))
  return path
}

async function filesIn(path: string): Promise<string[]> {
  const names = await readdir(path, { recursive: true, withFileTypes: true })
  return names.filter((each) => each.isFile()).map((each) => each.name)
}

async function* pieces(...all: readonly (Buffer | Error)[]): AsyncGenerator<Buffer> {
  for (const each of all) {
    if (each instanceof Error) throw each
    yield each
  }
}

test('of a document that breaks off, or is too large, nothing stays', async (t) => {
  const path = await directory(t)
  const store = new DocumentStore(path)
  await assert.rejects(store.store(pieces(Buffer.from('a'), new Error('connection lost'))), /connection lost/)
  const large = Array.from({ length: DOCUMENT_BYTES_MAX / 2 ** 20 + 1 }, () => Buffer.alloc(2 ** 20))
  await assert.rejects(store.store(pieces(...large)), { code: 'TOO_LARGE' })
  assert.deepEqual(await filesIn(path), [])
})

test('what a killed upload left is removed when it is old, and one that runs is not', async (t) => {
  const path = await directory(t)
  const incoming = join(path, 'incoming')
  await mkdir(incoming)
  for (const name of ['killed', 'running']) await writeFile(join(incoming, name), 'x')
  const yesterday = new Date(Date.now() - 86_400_000)
  await utimes(join(incoming, 'killed'), yesterday, yesterday)
  const { sha256 } = await new DocumentStore(path).store(pieces(Buffer.from('a')))
  assert.deepEqual((await filesIn(path)).toSorted(), [sha256, 'running'].toSorted())
})

test('a document is given in pieces, and the last one only when all are right', async (t) => {
  const path = await directory(t)
  const store = new DocumentStore(path)
  const content = Buffer.alloc(200_000, 'abc')
  const { sha256, sizeBytes } = await store.store(pieces(content))
  const read: Uint8Array[] = []
  for await (const piece of store.read(sha256, sizeBytes)) read.push(piece)
  assert.ok(read.length > 1)
  assert.deepEqual(Buffer.concat(read), content)
  content[0]! ^= 1
  await writeFile(join(path, 'documents', sha256.slice(0, 2), sha256), content)
  const delivered: Uint8Array[] = []
  await assert.rejects(
    async () => {
      for await (const piece of store.read(sha256, sizeBytes)) delivered.push(piece)
    },
    { code: 'DAMAGED' },
  )
  assert.ok(Buffer.concat(delivered).length < sizeBytes)
})
