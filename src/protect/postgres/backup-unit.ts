import { closeSync, openSync, readSync } from 'node:fs'
import { systemErrorCode } from '../../errors.ts'
import { PAGE_BYTES, PAGE_WORDS, verifyPage } from '../../postgres/page-checksum.ts'
import { CHUNK_BYTES, PIECE_BYTES, pieceHashes } from '../../repository/blob.ts'
import type { BlobWriter } from '../../repository/blob-writer.ts'
import { encodeBase, encodeOverlay, FINGERPRINT_BYTES, pageCount, REGION_BYTES, type RegionRef } from '../../repository/region.ts'
import { decodeState, encodeState } from './region-state.ts'
import { regionChange, type RegionChange, type RegionState } from './region-change.ts'

/** A part of a file that one thread backs up by itself: a small file whole, or one region of a longer one. */
export interface BackupUnit {
  /** Absolute. */
  readonly path: string
  readonly offset: number
  /** Bytes as listed. A file that has become shorter is padded with zeros: replay of the WAL brings what is missing, or drops it. */
  readonly length: number
  readonly kind: 'chunk' | 'region'
  /** Number of the first block in its relation, when its page checksums are to be checked. */
  readonly firstBlock?: number
  /** What the previous backup knew of the region. */
  readonly previous?: Uint8Array
}

export type UnitResult =
  /** The file was dropped since it was listed. */
  | { readonly kind: 'vanished' }
  | (UnitFacts & { readonly kind: 'chunk'; readonly identity: Uint8Array })
  /** `state` is what the next backup compares with; its region is what the manifest refers to. */
  | (UnitFacts & { readonly kind: 'region'; readonly state: Uint8Array<ArrayBuffer> })

export interface UnitFacts {
  readonly bytesRead: number
  readonly pagesChecked: number
  /** Blocks whose checksum is wrong and that nobody is writing. */
  readonly corruptBlocks: readonly number[]
  readonly unchangedBytes: number
}

const REREADS = 4
const REREAD_AFTER_MS = 250

// One buffer for a thread: a region, seen as bytes and as words.
const memory = new ArrayBuffer(REGION_BYTES)
const buffer = Buffer.from(memory)
const words = new Uint32Array(memory)

/** Reads, checks, fingerprints and stores one unit. Throws what reading throws, but for a file that has gone. */
export function backupUnit(unit: BackupUnit, writer: BlobWriter): UnitResult {
  let file: number
  try {
    file = openSync(unit.path, 'r')
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return { kind: 'vanished' }
    throw error
  }
  try {
    const content = buffer.subarray(0, unit.length)
    const bytesRead = readPadded(file, content, unit.offset)
    const { pagesChecked, corruptBlocks } = checkPages(file, unit, bytesRead)
    const hashes = pieceHashes(content)
    const facts = { bytesRead, pagesChecked, corruptBlocks }
    if (unit.kind === 'chunk') {
      return { kind: 'chunk', identity: writer.store('chunk', content, hashes), unchangedBytes: 0, ...facts }
    }
    return { ...storeRegion(unit, { content, hashes }, writer), ...facts }
  } finally {
    closeSync(file)
  }
}

function storeRegion(unit: BackupUnit, now: { content: Buffer; hashes: Buffer }, writer: BlobWriter) {
  const { content } = now
  const fingerprints = fingerprintsOf(now.hashes)
  const previous = usableState(unit.previous, writer)
  const change: RegionChange =
    previous === undefined
      ? { kind: 'base', overlaid: new Uint8Array(Math.ceil(pageCount(content.length) / 8)) }
      : regionChange(previous, { fingerprints, length: content.length })
  const region = storeChange(change, { ...now, fingerprints, previous }, writer)
  const state = Uint8Array.from(encodeState({ length: content.length, region, overlaid: change.overlaid, fingerprints }))
  return { kind: 'region' as const, state, unchangedBytes: unchangedBytes(change, content.length) }
}

function storeChange(
  change: RegionChange,
  now: { content: Buffer; hashes: Buffer; fingerprints: Buffer; previous: RegionState | undefined },
  writer: BlobWriter,
): RegionRef {
  switch (change.kind) {
    case 'same':
      return now.previous!.region
    case 'base': {
      const chunks: Buffer[] = []
      for (let at = 0; at < now.content.length; at += CHUNK_BYTES) {
        const hashes = now.hashes.subarray((at / PIECE_BYTES) * 32, ((at + CHUNK_BYTES) / PIECE_BYTES) * 32)
        chunks.push(writer.store('chunk', now.content.subarray(at, at + CHUNK_BYTES), hashes))
      }
      const base = encodeBase({ length: now.content.length, chunks, fingerprints: now.fingerprints })
      return { base: writer.store('region', base), overlays: [] }
    }
    case 'overlay': {
      const { pages } = change
      const overlay = encodeOverlay({ content: now.content, pages, fingerprints: now.fingerprints })
      const { base, overlays } = now.previous!.region
      const added = { identity: writer.store('overlay', overlay), pages: pages.length }
      return { base, overlays: change.replaces ? [added] : [...overlays, added] }
    }
    default:
      return change satisfies never
  }
}

/** The previous state, if the blobs that it refers to are still there to be reused. */
function usableState(encoded: Uint8Array | undefined, writer: BlobWriter): RegionState | undefined {
  if (encoded === undefined) return undefined
  const state = decodeState(Buffer.from(encoded.buffer, encoded.byteOffset, encoded.byteLength))
  const there = writer.has(state.region.base) && state.region.overlays.every((overlay) => writer.has(overlay.identity))
  return there ? state : undefined
}

function unchangedBytes(change: RegionChange, length: number): number {
  if (change.kind === 'same') return length
  return change.kind === 'base' ? 0 : Math.max(0, length - change.pages.length * PIECE_BYTES)
}

function fingerprintsOf(hashes: Buffer): Buffer {
  const fingerprints = Buffer.allocUnsafe(hashes.length / 2)
  for (let from = 0, to = 0; from < hashes.length; from += 32, to += FINGERPRINT_BYTES) {
    hashes.copy(fingerprints, to, from, from + FINGERPRINT_BYTES)
  }
  return fingerprints
}

function checkPages(file: number, unit: BackupUnit, bytesRead: number): { pagesChecked: number; corruptBlocks: number[] } {
  if (unit.firstBlock === undefined) return { pagesChecked: 0, corruptBlocks: [] }
  const pages = Math.floor(bytesRead / PAGE_BYTES)
  let suspects: number[] = []
  for (let page = 0; page < pages; page++) {
    if (verifyPage(words, page * PAGE_WORDS, unit.firstBlock + page) === 'corrupt') suspects.push(page)
  }
  // One look can meet a page that is being written, or its writer asleep in the middle of it: only what stays as it is is corrupt.
  for (let look = 0; look < REREADS && suspects.length > 0; look++) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, REREAD_AFTER_MS)
    suspects = suspects.filter((page) => isStillTheSame(file, unit.offset, page))
  }
  const { firstBlock } = unit
  return { pagesChecked: pages, corruptBlocks: suspects.map((page) => firstBlock + page) }
}

/** Reads a page again. When it has changed, the new one takes its place, and replay will repair it if it is torn. */
function isStillTheSame(file: number, offset: number, page: number): boolean {
  const again = Buffer.alloc(PAGE_BYTES)
  readPadded(file, again, offset + page * PAGE_BYTES)
  const held = buffer.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
  if (again.equals(held)) return true
  again.copy(held)
  return false
}

/** Fills `content` from the file; what the file does not have is zero. Returns how much it had. */
function readPadded(file: number, content: Buffer, offset: number): number {
  let done = 0
  while (done < content.length) {
    const read = readSync(file, content, done, content.length - done, offset + done)
    if (read === 0) break
    done += read
  }
  content.fill(0, done)
  return done
}
