import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import test from 'node:test'
import { PIECE_BYTES } from './blob.ts'
import {
  decodeBase,
  decodeOverlay,
  decodeRegions,
  encodeBase,
  encodeOverlay,
  encodeRegions,
  FINGERPRINT_BYTES,
  overlaidPages,
  pageCount,
} from './region.ts'

test('a base and a list of regions come back as they were', () => {
  const base = {
    length: 600_000,
    chunks: [randomBytes(32), randomBytes(32), randomBytes(32)],
    fingerprints: randomBytes(74 * 16),
  }
  assert.deepEqual(decodeBase(encodeBase(base)), base)
  const regions = [
    { base: randomBytes(32), overlays: [] },
    {
      base: randomBytes(32),
      overlays: [
        { identity: randomBytes(32), pages: 1024 },
        { identity: randomBytes(32), pages: 1 },
      ],
    },
  ]
  assert.deepEqual(decodeRegions(encodeRegions(regions)), regions)
})

test('overlays put over a base give the last content, also after growth and truncation', () => {
  for (let round = 0; round < 50; round++) {
    let content = randomBytes(randomInt(1, 40) * PIECE_BYTES - randomInt(0, 2) * 100)
    const base = content
    const overlays: Buffer[] = []
    for (let generation = 0; generation < 5; generation++) {
      const next = Buffer.alloc(randomInt(1, 40) * PIECE_BYTES - randomInt(0, 2) * 100)
      content.copy(next)
      const changed = new Set<number>()
      for (let page = 0; page < pageCount(next.length); page++) {
        const grown = (page + 1) * PIECE_BYTES > content.length || next.length < (page + 1) * PIECE_BYTES
        if (!grown && randomInt(4) > 0) continue
        randomBytes(10).copy(next, page * PIECE_BYTES)
        changed.add(page)
      }
      const fingerprints = Buffer.alloc(pageCount(next.length) * FINGERPRINT_BYTES)
      overlays.push(encodeOverlay({ content: next, pages: [...changed], fingerprints }))
      content = next
    }
    const restored = Buffer.alloc(content.length)
    base.copy(restored)
    const pages = overlaidPages(
      overlays.map((overlay) => decodeOverlay(overlay)),
      pageCount(content.length),
    )
    for (const [page, bytes] of pages) bytes.copy(restored, page * PIECE_BYTES)
    assert.ok(restored.equals(content), `round ${round}`)
  }
})
