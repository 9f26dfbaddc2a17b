import { assert } from '../assert.ts'
import { CHUNK_BYTES, IDENTITY_BYTES, PIECE_BYTES } from './blob.ts'

// Regions of a file (docs/format.md, "Files"):
//
//   base:    u32 length ‖ u32 chunks ‖ identities 32 each ‖ fingerprints 16 for each page
//   overlay: u32 pages held ‖ u32 length of the region ‖ bitmap ‖ fingerprints 16 each ‖ pages 8192 each (the last may be shorter)
//   regions: u32 number ‖ for each: base 32 ‖ u8 overlays ‖ for each: identity 32 ‖ u16 pages

export const REGION_BYTES = 8 * 1024 * 1024
export const REGION_PAGES = REGION_BYTES / PIECE_BYTES
export const FINGERPRINT_BYTES = 16
/** Regions in one `regions` blob. */
export const REGIONS_PART = 128
/** With this many overlays a region gets one for all of them. */
export const OVERLAYS_MAX = 24

export interface OverlayRef {
  readonly identity: Buffer
  readonly pages: number
}

export interface RegionRef {
  readonly base: Buffer
  readonly overlays: readonly OverlayRef[]
}

export interface RegionBase {
  readonly length: number
  readonly chunks: readonly Buffer[]
  readonly fingerprints: Buffer
}

export interface Overlay {
  /** Length of the region when the overlay was made, in bytes. */
  readonly length: number
  /** Numbers of the pages it holds, ascending. */
  readonly pages: readonly number[]
  readonly fingerprints: Buffer
  /** The pages, back to back. */
  readonly content: Buffer
}

export function pageCount(length: number): number {
  return Math.ceil(length / PIECE_BYTES)
}

export function bitmapBytes(length: number): number {
  return Math.ceil(pageCount(length) / 8)
}

export function hasBit(bitmap: Uint8Array, bit: number): boolean {
  return (bitmap[bit >> 3]! & (1 << (bit & 7))) !== 0
}

export function setBit(bitmap: Uint8Array, bit: number): void {
  bitmap[bit >> 3] = bitmap[bit >> 3]! | (1 << (bit & 7))
}

export function encodeBase(base: RegionBase): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt32LE(base.length)
  head.writeUInt32LE(base.chunks.length, 4)
  return Buffer.concat([head, ...base.chunks, base.fingerprints])
}

export function decodeBase(bytes: Buffer): RegionBase {
  const length = bytes.readUInt32LE(0)
  const count = bytes.readUInt32LE(4)
  const end = 8 + count * IDENTITY_BYTES
  assert(count === Math.ceil(length / CHUNK_BYTES), `a region of ${length} bytes has its chunks`)
  const chunks = Array.from({ length: count }, (_, index) =>
    bytes.subarray(8 + index * IDENTITY_BYTES, 8 + (index + 1) * IDENTITY_BYTES),
  )
  return { length, chunks, fingerprints: bytes.subarray(end) }
}

/** Makes the overlay of some pages of a region, `content` being the whole region. */
export function encodeOverlay(options: { content: Uint8Array; pages: readonly number[]; fingerprints: Uint8Array }): Buffer {
  const { content, pages } = options
  const head = Buffer.alloc(8)
  head.writeUInt32LE(pages.length)
  head.writeUInt32LE(content.length, 4)
  const bitmap = Buffer.alloc(bitmapBytes(content.length))
  for (const page of pages) setBit(bitmap, page)
  const fingerprints = pages.map((page) =>
    options.fingerprints.subarray(page * FINGERPRINT_BYTES, (page + 1) * FINGERPRINT_BYTES),
  )
  const bytes = pages.map((page) => content.subarray(page * PIECE_BYTES, (page + 1) * PIECE_BYTES))
  return Buffer.concat([head, bitmap, ...fingerprints, ...bytes])
}

export function decodeOverlay(bytes: Buffer): Overlay {
  const count = bytes.readUInt32LE(0)
  const length = bytes.readUInt32LE(4)
  const bitmap = bytes.subarray(8, 8 + bitmapBytes(length))
  const pages: number[] = []
  for (let page = 0; page < pageCount(length); page++) if (hasBit(bitmap, page)) pages.push(page)
  assert(pages.length === count, `an overlay of ${count} pages names as many`)
  const fingerprintsAt = 8 + bitmap.length
  const contentAt = fingerprintsAt + count * FINGERPRINT_BYTES
  return { length, pages, fingerprints: bytes.subarray(fingerprintsAt, contentAt), content: bytes.subarray(contentAt) }
}

/** The pages that lie over a region's base, by number: each as the last overlay has it that has it. Those from `end` on fall away. */
export function overlaidPages(overlays: readonly Overlay[], end: number): Map<number, Buffer> {
  const pages = new Map<number, Buffer>()
  for (const overlay of overlays) {
    for (const [index, page] of overlay.pages.entries()) {
      if (page < end) pages.set(page, overlay.content.subarray(index * PIECE_BYTES, (index + 1) * PIECE_BYTES))
    }
  }
  return pages
}

export function encodeRegions(regions: readonly RegionRef[]): Buffer {
  const count = Buffer.alloc(4)
  count.writeUInt32LE(regions.length)
  return Buffer.concat([count, ...regions.map(encodeRegion)])
}

export function decodeRegions(bytes: Buffer): RegionRef[] {
  const regions: RegionRef[] = []
  let at = 4
  for (let count = bytes.readUInt32LE(0); count > 0; count--) {
    const { region, end } = decodeRegion(bytes, at)
    regions.push(region)
    at = end
  }
  return regions
}

export function encodeRegion(region: RegionRef): Buffer {
  const tail = Buffer.alloc(1 + region.overlays.length * (IDENTITY_BYTES + 2))
  tail.writeUInt8(region.overlays.length)
  for (const [index, overlay] of region.overlays.entries()) {
    const at = 1 + index * (IDENTITY_BYTES + 2)
    overlay.identity.copy(tail, at)
    tail.writeUInt16LE(overlay.pages, at + IDENTITY_BYTES)
  }
  return Buffer.concat([region.base, tail])
}

export function decodeRegion(bytes: Buffer, at: number): { region: RegionRef; end: number } {
  const base = Buffer.from(bytes.subarray(at, at + IDENTITY_BYTES))
  const count = bytes.readUInt8(at + IDENTITY_BYTES)
  const first = at + IDENTITY_BYTES + 1
  const overlays = Array.from({ length: count }, (_, index) => {
    const from = first + index * (IDENTITY_BYTES + 2)
    return {
      identity: Buffer.from(bytes.subarray(from, from + IDENTITY_BYTES)),
      pages: bytes.readUInt16LE(from + IDENTITY_BYTES),
    }
  })
  return { region: { base, overlays }, end: first + count * (IDENTITY_BYTES + 2) }
}
