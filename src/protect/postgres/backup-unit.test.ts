import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { appendFile, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { Worker } from 'node:worker_threads'
import { pageChecksum, PAGE_BYTES } from '../../postgres/page-checksum.ts'
import { BlobWriter } from '../../repository/blob-writer.ts'
import { blobIdentity, CHUNK_BYTES } from '../../repository/blob.ts'
import { deriveKeyRing } from '../../repository/key-ring.ts'
import { newKeyMaterial } from '../../repository/keys.ts'
import { PageFingerprinter } from '../../repository/page-fingerprint.ts'
import { backupUnit } from './backup-unit.ts'

const ring = deriveKeyRing('00000000-0000-4000-8000-000000000000', [newKeyMaterial()])

function tools() {
  const index = { tables: [], absentPacks: [], damage: [] }
  return {
    writer: new BlobWriter({ ring, index, compressionLevel: 1 }),
    fingerprinter: new PageFingerprinter(ring.pageKey),
  }
}

/** Valid pages of a relation from block 0 on. */
function pages(count: number): Buffer {
  const memory = new ArrayBuffer(count * PAGE_BYTES)
  const bytes = Buffer.from(memory)
  const words = new Uint32Array(memory)
  for (let page = 0; page < count; page++) {
    const at = page * PAGE_BYTES
    randomBytes(PAGE_BYTES - 24).copy(bytes, at + 24)
    // pd_lower, pd_upper, pd_special, page size and layout version 4.
    for (const [offset, value] of [
      [12, 24],
      [14, 24],
      [16, PAGE_BYTES],
      [18, PAGE_BYTES + 4],
    ] as const) {
      bytes.writeUInt16LE(value, at + offset)
    }
    bytes.writeUInt16LE(pageChecksum(words, at / 4, page), at + 8)
  }
  return bytes
}

async function temporaryFile(t: TestContext, content: Uint8Array): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'resus-unit-'))
  t.after(() => rm(directory, { recursive: true }))
  const path = join(directory, 'file')
  await writeFile(path, content)
  return path
}

/** Does one thing to a file again and again, from another thread: this one is busy. */
function meddle(t: TestContext, path: string, everyMs: number, how: string): Worker {
  const code = `
    const { openSync, writeSync } = require('node:fs'); const { randomBytes } = require('node:crypto')
    const file = openSync(${JSON.stringify(path)}, 'r+')
    setInterval(() => { ${how} }, ${everyMs})`
  const worker = new Worker(code, { eval: true })
  t.after(() => worker.terminate())
  return worker
}

test('a file that no WAL repairs is taken as it is when it is read, longer or shorter than it was listed', async (t) => {
  const listed = Buffer.from("shared_buffers = '1GB'\n")
  const path = await temporaryFile(t, listed)
  const unit = { path, offset: 0, length: CHUNK_BYTES, kind: 'chunk' as const, asFound: true as const }
  for (const change of [() => appendFile(path, "work_mem = '64MB'\n"), () => truncate(path, 10), () => truncate(path, 0)]) {
    await change()
    const now = await readFile(path)
    const result = backupUnit(unit, tools())
    assert.ok(result.kind === 'chunk')
    assert.equal(result.sizeBytes, now.length)
    assert.deepEqual(Buffer.from(result.identity), blobIdentity(ring, 'chunk', now))
  }
})

test('a relation that was cut since it was listed is padded to the listed length', async (t) => {
  const content = pages(4)
  const path = await temporaryFile(t, content)
  await truncate(path, 2 * PAGE_BYTES)
  const result = backupUnit({ path, offset: 0, length: content.length, kind: 'chunk', firstBlock: 0 }, tools())
  assert.ok(result.kind === 'chunk')
  assert.deepEqual(result.corruptBlocks, [])
  content.fill(0, 2 * PAGE_BYTES)
  assert.deepEqual(Buffer.from(result.identity), blobIdentity(ring, 'chunk', content))
})

test('a corrupt page is named, and what lies behind it is stored as it is', async (t) => {
  const content = pages(100)
  content.writeUInt8(content.readUInt8(40 * PAGE_BYTES + 500) ^ 1, 40 * PAGE_BYTES + 500)
  const path = await temporaryFile(t, content)
  const result = backupUnit({ path, offset: 0, length: content.length, kind: 'region', firstBlock: 0 }, tools())
  assert.ok(result.kind === 'region')
  assert.deepEqual(result.corruptBlocks, [40])
  assert.equal(result.pagesChecked, 100)
})

test('a page that is other garbage at each look is corrupt: that it changes does not make it right', async (t) => {
  const content = pages(3)
  content.writeUInt8(content.readUInt8(PAGE_BYTES + 500) ^ 1, PAGE_BYTES + 500)
  const path = await temporaryFile(t, content)
  const worker = meddle(t, path, 20, `writeSync(file, randomBytes(4000), 0, 4000, ${PAGE_BYTES + 1000})`)
  await new Promise((resolve) => worker.once('online', resolve))
  const result = backupUnit({ path, offset: 0, length: content.length, kind: 'chunk', firstBlock: 0 }, tools())
  assert.ok(result.kind === 'chunk')
  assert.deepEqual(result.corruptBlocks, [1])
})

test('a page that becomes right while it is looked at again is taken as it is then', async (t) => {
  const content = pages(3)
  const torn = Buffer.from(content)
  torn.fill(0, PAGE_BYTES + 4096, 2 * PAGE_BYTES)
  const path = await temporaryFile(t, torn)
  const whole = `writeSync(file, Buffer.from('${content.toString('base64')}', 'base64'), 0, ${content.length}, 0)`
  const worker = meddle(t, path, 100, whole)
  await new Promise((resolve) => worker.once('online', resolve))
  const result = backupUnit({ path, offset: 0, length: content.length, kind: 'chunk', firstBlock: 0 }, tools())
  assert.ok(result.kind === 'chunk')
  assert.deepEqual(result.corruptBlocks, [])
  assert.deepEqual(Buffer.from(result.identity), blobIdentity(ring, 'chunk', content))
})
