import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { Failure } from '../../errors.ts'
import { crc32c } from '../../postgres/crc32c.ts'
import { blobIdentity, CHUNK_BYTES, PIECE_BYTES, type BlobKind } from '../../repository/blob.ts'
import { deriveKeyRing } from '../../repository/key-ring.ts'
import { newKeyMaterial } from '../../repository/keys.ts'
import { PackBuilder } from '../../repository/pack.ts'
import { encodeOverlay, FINGERPRINT_BYTES, pageCount } from '../../repository/region.ts'
import { restoreUnit, type JobBlob, type RestoreJob, type RestoreUnit } from './restore-unit.ts'

const ring = deriveKeyRing('test', [newKeyMaterial()])

/** A region as a backup stores it, and what a thread needs to restore it. */
class StoredRegion {
  readonly #pack = new PackBuilder(ring, 1)
  #bytes: Uint8Array = new Uint8Array()
  readonly chunks: JobBlob[] = []
  readonly overlays: JobBlob[] = []
  readonly baseLength: number

  constructor(base: Buffer) {
    this.baseLength = base.length
    for (let at = 0; at < base.length; at += CHUNK_BYTES)
      this.chunks.push(this.#add('chunk', base.subarray(at, at + CHUNK_BYTES)))
  }

  overlay(content: Buffer, pages: readonly number[]): void {
    const fingerprints = Buffer.alloc(pageCount(content.length) * FINGERPRINT_BYTES)
    this.overlays.push(this.#add('overlay', encodeOverlay({ content, pages, fingerprints })))
  }

  /** Flips a bit of a stored blob. */
  damage(blob: JobBlob): void {
    this.#bytes[blob.at] = this.#bytes[blob.at]! ^ 1
  }

  async restore(t: TestContext, unit: { offset: number; length: number } & Partial<RestoreUnit>) {
    const directory = await mkdtemp(join(tmpdir(), 'resus-unit-'))
    t.after(() => rm(directory, { recursive: true, force: true }))
    const path = join(directory, 'file')
    const { chunks, overlays, baseLength } = this
    const job: RestoreJob = {
      kind: 'restore',
      units: [],
      ranges: [Uint8Array.from(this.#bytes)],
      packs: new Map([[this.#pack.pack, this.#bytes.subarray(0, 32)]]),
    }
    const { crc } = restoreUnit(ring, { path, chunks, overlays, baseLength, kept: [], ...unit }, job)
    const written = await readFile(path)
    assert.equal(crc, crc32c(written.subarray(unit.offset)))
    return written.subarray(unit.offset)
  }

  #add(kind: BlobKind, content: Buffer): JobBlob {
    const location = this.#pack.add(kind, blobIdentity(ring, kind, content), content)
    this.#bytes = Buffer.concat([this.#bytes, this.#pack.take()])
    return { ...location, range: 0, at: location.offset }
  }
}

/** The content with other bytes on some pages. */
function change(content: Buffer, pages: readonly number[], length = content.length): Buffer {
  const changed = Buffer.alloc(length)
  content.copy(changed)
  for (const page of pages) changed.set(randomBytes(100), page * PIECE_BYTES)
  return changed
}

const pageRange = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index)
const isDamage = (error: unknown) => error instanceof Failure && error.code === 'OBJECT_DAMAGED'

test('a unit is its chunks with the last overlay of each page over them, written in its place', async (t) => {
  const base = randomBytes(2 * CHUNK_BYTES + 5 * PIECE_BYTES)
  const region = new StoredRegion(base)
  const once = change(base, [0, 31, 40])
  const twice = change(once, [31, 68])
  region.overlay(once, [0, 31, 40])
  region.overlay(twice, [31, 68])
  const written = await region.restore(t, { offset: 3 * PIECE_BYTES, length: twice.length })
  assert.ok(written.equals(twice))
})

test('a region that has shrunk or grown since its base was stored has its length of now', async (t) => {
  const base = randomBytes(CHUNK_BYTES + 3 * PIECE_BYTES)
  const shrunk = new StoredRegion(base)
  shrunk.overlay(change(base, [34]), [34])
  assert.ok((await shrunk.restore(t, { offset: 0, length: 1000 })).equals(base.subarray(0, 1000)))

  const grown = new StoredRegion(base)
  const longer = change(base, pageRange(34, 70), 70 * PIECE_BYTES - 77)
  grown.overlay(longer, pageRange(35, 70))
  grown.overlay(longer, [34])
  assert.ok((await grown.restore(t, { offset: 0, length: longer.length })).equals(longer))
})

test('a chunk of which nothing is left is not opened, and any other is checked', async (t) => {
  const base = randomBytes(2 * CHUNK_BYTES)
  const region = new StoredRegion(base)
  const changed = change(base, pageRange(0, 32))
  region.overlay(changed, pageRange(0, 32))
  region.damage(region.chunks[0]!)
  assert.ok((await region.restore(t, { offset: 0, length: changed.length })).equals(changed))
  region.damage(region.chunks[1]!)
  await assert.rejects(region.restore(t, { offset: 0, length: changed.length }), isDamage)
})

test('what its blobs do not hold is damage, and never a hole of zeros', async (t) => {
  const base = randomBytes(CHUNK_BYTES + 2 * PIECE_BYTES)
  const region = new StoredRegion(base)
  const longer = change(base, pageRange(34, 40), 40 * PIECE_BYTES)
  region.overlay(longer, pageRange(35, 40))
  await assert.rejects(region.restore(t, { offset: 0, length: longer.length }), isDamage)
  await assert.rejects(region.restore(t, { offset: 0, length: base.length, baseLength: base.length - 1 }), isDamage)
  await assert.rejects(region.restore(t, { offset: 0, length: base.length, overlays: region.chunks }), isDamage)
})
