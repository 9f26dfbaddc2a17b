import assert from 'node:assert/strict'
import test from 'node:test'
import { bitmapBytes, FINGERPRINT_BYTES, OVERLAYS_MAX, setBit } from '../../repository/region.ts'
import { regionChange, type RegionState } from './region-change.ts'

const PAGE = 8192

function fingerprints(pages: number, changed: readonly number[] = []): Uint8Array {
  const bytes = new Uint8Array(pages * FINGERPRINT_BYTES)
  for (let page = 0; page < pages; page++) bytes.fill(page % 251, page * FINGERPRINT_BYTES, (page + 1) * FINGERPRINT_BYTES)
  for (const page of changed) bytes[page * FINGERPRINT_BYTES] = 255
  return bytes
}

function state(pages: number, overlays: readonly number[], overlaid: readonly number[] = []): RegionState {
  const bitmap = new Uint8Array(bitmapBytes(pages * PAGE))
  for (const page of overlaid) setBit(bitmap, page)
  const refs = overlays.map((count) => ({ identity: Buffer.alloc(32, count), pages: count }))
  return { region: { base: Buffer.alloc(32), overlays: refs }, fingerprints: fingerprints(pages), overlaid: bitmap }
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index)

test('a region without changes keeps its references', () => {
  assert.equal(regionChange(state(100, []), { fingerprints: fingerprints(100), length: 100 * PAGE }).kind, 'same')
})

test('few changed pages become one more overlay', () => {
  const change = regionChange(state(100, [3], [1, 2, 3]), { fingerprints: fingerprints(100, [7, 50]), length: 100 * PAGE })
  assert.deepEqual(change.kind === 'overlay' && { pages: change.pages, replaces: change.replaces }, {
    pages: [7, 50],
    replaces: false,
  })
})

test('more than half of the pages, overlaid or changed, become a new base', () => {
  const change = regionChange(state(100, [30], range(0, 30)), {
    fingerprints: fingerprints(100, range(40, 61)),
    length: 100 * PAGE,
  })
  assert.equal(change.kind, 'base')
})

test('exactly half of the pages is still an overlay', () => {
  const change = regionChange(state(100, [30], range(0, 30)), {
    fingerprints: fingerprints(100, range(30, 50)),
    length: 100 * PAGE,
  })
  assert.deepEqual(change.kind === 'overlay' && change.replaces, false)
})

test('pages that change again and again are put together before they cost more than half a region', () => {
  const previous = state(100, [20, 20], range(0, 20))
  const change = regionChange(previous, { fingerprints: fingerprints(100, range(0, 20)), length: 100 * PAGE })
  assert.deepEqual(change.kind === 'overlay' && { pages: change.pages, replaces: change.replaces }, {
    pages: range(0, 20),
    replaces: true,
  })
})

test('after the greatest number of overlays one takes the place of all', () => {
  const previous = state(
    1024,
    Array.from({ length: OVERLAYS_MAX }, () => 1),
    [5],
  )
  const change = regionChange(previous, { fingerprints: fingerprints(1024, [9]), length: 1024 * PAGE })
  assert.deepEqual(change.kind === 'overlay' && { pages: change.pages, replaces: change.replaces }, {
    pages: [5, 9],
    replaces: true,
  })
})

test('pages that a region has grown by are changed', () => {
  const change = regionChange(state(100, []), { fingerprints: fingerprints(104), length: 104 * PAGE })
  assert.deepEqual(change.kind === 'overlay' && change.pages, [100, 101, 102, 103])
})

test('a region that has shrunk keeps its references, and forgets overlaid pages beyond its end', () => {
  const change = regionChange(state(100, [2], [10, 90]), { fingerprints: fingerprints(50), length: 50 * PAGE })
  assert.equal(change.kind, 'same')
  assert.equal(change.overlaid.length, 7)
  assert.equal(change.overlaid[1], 1 << 2)
})
