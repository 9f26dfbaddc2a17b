import assert from 'node:assert/strict'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { PAGE_BYTES, pageChecksum } from '../../src/postgres/page-checksum.ts'
import type { ProtectedCluster } from '../services/protected-cluster.ts'

/** Leaf pages of any index that has more than a handful: block 0 is the meta page, and the first root is block 3. */
const BLOCKS = [7, 8] as const
const CHECKSUM_AT = 8

/** Puts two pages of an index into each other's place, each with the checksum of its new one: nothing but its order is wrong. */
export async function swapIndexPages(cluster: ProtectedCluster, index: string): Promise<void> {
  await cluster.query('checkpoint')
  const [row] = await cluster.query<{ path: string; pages: number }>(
    `select pg_relation_filepath('${index}') as path, (pg_relation_size('${index}') / 8192)::int as pages`,
  )
  assert.ok(row!.pages > 10, `${row!.pages} pages`)
  await cluster.cluster.stop()
  const file = await open(join(cluster.cluster.directory, row!.path), 'r+')
  try {
    const [first, second] = [await readPage(file, BLOCKS[0]), await readPage(file, BLOCKS[1])]
    await writePage(file, BLOCKS[0], second)
    await writePage(file, BLOCKS[1], first)
  } finally {
    await file.close()
  }
  await cluster.cluster.start()
}

type File = Awaited<ReturnType<typeof open>>

async function readPage(file: File, block: number): Promise<Uint8Array<ArrayBuffer>> {
  const page = new Uint8Array(PAGE_BYTES)
  await file.read(page, 0, PAGE_BYTES, block * PAGE_BYTES)
  return page
}

async function writePage(file: File, block: number, page: Uint8Array<ArrayBuffer>): Promise<void> {
  new DataView(page.buffer).setUint16(CHECKSUM_AT, pageChecksum(new Uint32Array(page.buffer), 0, block), true)
  await file.write(page, 0, PAGE_BYTES, block * PAGE_BYTES)
}
