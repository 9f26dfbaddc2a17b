import assert from 'node:assert/strict'
import test from 'node:test'
import { salvage } from './salvage.ts'

const SECTOR = 4096

/** A disk as Linux reads one: what comes before a bad sector is given, short; a read that begins in one fails. */
function disk(content: Buffer, bad: ReadonlySet<number>) {
  return async (buffer: Buffer, offset: number): Promise<number> => {
    let end = offset
    while (end < Math.min(offset + buffer.length, content.length) && !bad.has(Math.floor(end / SECTOR))) {
      end = Math.min((Math.floor(end / SECTOR) + 1) * SECTOR, offset + buffer.length, content.length)
    }
    if (end === offset && offset < content.length) throw Object.assign(new Error('read EIO'), { code: 'EIO' })
    content.copy(buffer, 0, offset, end)
    return end - offset
  }
}

async function salvaged(size: number, bad: readonly number[]) {
  const content = Buffer.from(Array.from({ length: size }, (_, index) => 1 + (index % 251)))
  const copy = Buffer.alloc(size)
  const write = async (buffer: Buffer, offset: number) => void buffer.copy(copy, offset)
  const missing = await salvage({ size, read: disk(content, new Set(bad)), write, signal: new AbortController().signal })
  const expected = Buffer.from(content)
  for (const sector of bad) expected.fill(0, sector * SECTOR, Math.min(size, (sector + 1) * SECTOR))
  assert.deepEqual(copy, expected, 'all that the disk gives is there, and nothing but bad sectors is zero')
  return missing
}

test('around bad sectors everything is read, and what is missing is named', async () => {
  assert.deepEqual(await salvaged(40 * SECTOR + 100, [5]), [{ offset: 5 * SECTOR, bytes: SECTOR }])
  assert.deepEqual(await salvaged(40 * SECTOR, [0, 1, 20, 39]), [
    { offset: 0, bytes: 2 * SECTOR },
    { offset: 20 * SECTOR, bytes: SECTOR },
    { offset: 39 * SECTOR, bytes: SECTOR },
  ])
  assert.deepEqual(await salvaged(3 * SECTOR + 100, [3]), [{ offset: 3 * SECTOR, bytes: 100 }])
  assert.deepEqual(await salvaged(100, []), [])
})

test('an error of the copy is not taken for one of the disk', async () => {
  const write = async () => {
    throw Object.assign(new Error('write EIO'), { code: 'EIO' })
  }
  const read = disk(Buffer.alloc(SECTOR), new Set())
  await assert.rejects(salvage({ size: SECTOR, read, write, signal: new AbortController().signal }), /write EIO/)
})
