import { bitmapBytes, decodeRegion, encodeRegion, FINGERPRINT_BYTES, pageCount } from '../../repository/region.ts'
import type { RegionState } from './region-change.ts'

// What a backup saw of one region, as a record (`fingerprints.ts` keeps them):
//
//   u32 length of the region ‖ region (docs/format.md) ‖ bitmap of overlaid pages ‖ fingerprints

/** The state of a region and the region's length in bytes, as one record. */
export interface StoredRegionState extends RegionState {
  readonly length: number
}

export function encodeState(state: StoredRegionState): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32LE(state.length)
  return Buffer.concat([length, encodeRegion(state.region), state.overlaid, state.fingerprints])
}

export function decodeState(bytes: Buffer): StoredRegionState {
  const length = bytes.readUInt32LE(0)
  const { region, end } = decodeRegion(bytes, 4)
  const bitmap = bitmapBytes(length)
  const fingerprintsEnd = end + bitmap + pageCount(length) * FINGERPRINT_BYTES
  return {
    length,
    region,
    overlaid: bytes.subarray(end, end + bitmap),
    fingerprints: bytes.subarray(end + bitmap, fingerprintsEnd),
  }
}
