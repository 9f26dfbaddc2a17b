import {
  bitmapBytes,
  FINGERPRINT_BYTES,
  hasBit,
  OVERLAYS_MAX,
  pageCount,
  setBit,
  type RegionRef,
} from '../../repository/region.ts'

// What an incremental backup makes of one region (docs/format.md, "Files").

/** What the previous backup knew of a region. */
export interface RegionState {
  readonly region: RegionRef
  /** Fingerprints of all its pages. */
  readonly fingerprints: Uint8Array
  /** Which pages lie in an overlay. */
  readonly overlaid: Uint8Array
}

export type RegionChange =
  /** Nothing: the references of the previous backup hold. */
  | { readonly kind: 'same'; readonly overlaid: Uint8Array }
  /** A new base of all its chunks. */
  | { readonly kind: 'base'; readonly overlaid: Uint8Array }
  /** An overlay of these pages, which takes the place of all others when `replaces`. */
  | { readonly kind: 'overlay'; readonly pages: readonly number[]; readonly replaces: boolean; readonly overlaid: Uint8Array }

/** Decides from fingerprints alone. `length` is the region's length now, in bytes. */
export function regionChange(previous: RegionState, now: { fingerprints: Uint8Array; length: number }): RegionChange {
  const pages = pageCount(now.length)
  const overlaid = new Uint8Array(bitmapBytes(now.length))
  const changed: number[] = []
  const union: number[] = []
  for (let page = 0; page < pages; page++) {
    const differs = !sameFingerprint(previous.fingerprints, now.fingerprints, page)
    if (differs) changed.push(page)
    if (!differs && !(page >> 3 < previous.overlaid.length && hasBit(previous.overlaid, page))) continue
    union.push(page)
    setBit(overlaid, page)
  }
  if (changed.length === 0) return { kind: 'same', overlaid }
  if (union.length * 2 > pages) return { kind: 'base', overlaid: new Uint8Array(overlaid.length) }
  const held = previous.region.overlays.reduce((sum, overlay) => sum + overlay.pages, 0)
  const full = previous.region.overlays.length >= OVERLAYS_MAX
  if (full || (held + changed.length) * 2 > pages) return { kind: 'overlay', pages: union, replaces: true, overlaid }
  return { kind: 'overlay', pages: changed, replaces: false, overlaid }
}

function sameFingerprint(before: Uint8Array, now: Uint8Array, page: number): boolean {
  const start = page * FINGERPRINT_BYTES
  if (start + FINGERPRINT_BYTES > before.length) return false
  for (let at = start; at < start + FINGERPRINT_BYTES; at++) if (before[at] !== now[at]) return false
  return true
}
