import { closeSync, openSync, readSync } from 'node:fs'
import { assert } from '../../assert.ts'
import { systemErrorCode } from '../../errors.ts'
import { PAGE_BYTES, PAGE_WORDS, verifyPage } from '../../postgres/page-checksum.ts'
import { CHUNK_BYTES, PIECE_BYTES } from '../../repository/blob.ts'
import type { BlobWriter } from '../../repository/blob-writer.ts'
import type { PageFingerprinter } from '../../repository/page-fingerprint.ts'
import {
  bitmapBytes,
  encodeBase,
  encodeOverlay,
  FINGERPRINT_BYTES,
  pageCount,
  REGION_BYTES,
  type RegionRef,
} from '../../repository/region.ts'
import { decodeState, encodeState } from './region-state.ts'
import { regionChange, type RegionChange, type RegionState } from './region-change.ts'

/** A part of a file that one thread backs up by itself: a small file whole, or one region of a longer one. */
export interface BackupUnit {
  /** Absolute. */
  readonly path: string
  readonly offset: number
  /** Bytes as listed. A file that has become shorter is padded with zeros: replay of the WAL brings what is missing, or drops it. */
  readonly length: number
  /** No WAL repairs this file (`postgresql.auto.conf`, say): it is taken as it is now, up to `length`, and neither padded nor cut. */
  readonly asFound?: true
  readonly kind: 'chunk' | 'region'
  /** Number of the first block in its relation, when its page checksums are to be checked. */
  readonly firstBlock?: number
  /** What the previous backup knew of the region. */
  readonly previous?: Uint8Array
}

export type UnitResult =
  /** The file was dropped since it was listed. */
  | { readonly kind: 'vanished' }
  | (UnitFacts & { readonly kind: 'chunk'; readonly identity: Uint8Array; readonly sizeBytes: number })
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

/** What a thread works with. */
export interface UnitTools {
  readonly writer: BlobWriter
  readonly fingerprinter: PageFingerprinter
}

// One buffer for a thread: a region, seen as bytes and as words.
const memory = new ArrayBuffer(REGION_BYTES)
const buffer = Buffer.from(memory)
const words = new Uint32Array(memory)

/** Reads, checks, fingerprints and stores one unit. Throws what reading throws, but for a file that has gone. */
export function backupUnit(unit: BackupUnit, tools: UnitTools): UnitResult {
  let file: number
  try {
    file = openSync(unit.path, 'r')
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return { kind: 'vanished' }
    throw error
  }
  try {
    return unit.kind === 'chunk' ? backupChunk(file, unit, tools) : backupRegion(file, unit, tools)
  } finally {
    closeSync(file)
  }
}

function backupChunk(file: number, unit: BackupUnit, { writer }: UnitTools): UnitResult {
  if (unit.asFound === true) {
    const content = buffer.subarray(0, readUpTo(file, buffer.subarray(0, unit.length), 0))
    const identity = writer.store('chunk', content)
    const sizes = { sizeBytes: content.length, bytesRead: content.length }
    return { kind: 'chunk', identity, unchangedBytes: 0, pagesChecked: 0, corruptBlocks: [], ...sizes }
  }
  let identity: Uint8Array | undefined
  const facts = readPieces(file, unit, (piece) => (identity = writer.store('chunk', piece)))
  assert(identity !== undefined, 'a small file is one piece')
  return { kind: 'chunk', identity, sizeBytes: unit.length, unchangedBytes: 0, ...facts }
}

function backupRegion(file: number, unit: BackupUnit, { writer, fingerprinter }: UnitTools): UnitResult {
  const content = buffer.subarray(0, unit.length)
  const fingerprints = Buffer.allocUnsafe(pageCount(unit.length) * FINGERPRINT_BYTES)
  const previous = usableState(unit.previous, writer)
  const chunks: Buffer[] = []
  const facts = readPieces(file, unit, (piece, at) => {
    fingerprinter.fingerprint(piece, fingerprints, (at / PIECE_BYTES) * FINGERPRINT_BYTES)
    // With nothing to compare with it is stored at once, while the processor's cache has it.
    if (previous === undefined) chunks.push(writer.store('chunk', piece))
  })
  const change: RegionChange =
    previous === undefined
      ? { kind: 'base', overlaid: new Uint8Array(bitmapBytes(unit.length)) }
      : regionChange(previous, { fingerprints, length: unit.length })
  const region = storeChange(change, { content, fingerprints, chunks, previous }, writer)
  const state = Uint8Array.from(encodeState({ length: unit.length, region, overlaid: change.overlaid, fingerprints }))
  return { kind: 'region' as const, state, unchangedBytes: unchangedBytes(change, unit.length), ...facts }
}

interface RegionNow {
  readonly content: Buffer
  readonly fingerprints: Buffer
  /** All of them, or none when there was something to compare with. */
  readonly chunks: readonly Buffer[]
  readonly previous: RegionState | undefined
}

function storeChange(change: RegionChange, now: RegionNow, writer: BlobWriter): RegionRef {
  switch (change.kind) {
    case 'same':
      return now.previous!.region
    case 'base': {
      const chunks = now.previous === undefined ? now.chunks : storeChunks(now.content, writer)
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

function storeChunks(content: Buffer, writer: BlobWriter): Buffer[] {
  const chunks: Buffer[] = []
  for (let at = 0; at < content.length; at += CHUNK_BYTES)
    chunks.push(writer.store('chunk', content.subarray(at, at + CHUNK_BYTES)))
  return chunks
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

type Facts = Omit<UnitFacts, 'unchangedBytes'>

/** Reads a unit into the buffer and gives its pieces to `visit`, in order, when their pages are right or will not become so. */
function readPieces(file: number, unit: BackupUnit, visit: (piece: Buffer, at: number) => void): Facts {
  const piece = (at: number) => buffer.subarray(at, Math.min(at + CHUNK_BYTES, unit.length))
  const suspects: number[] = []
  let bytesRead = 0
  let visited = 0
  for (let at = 0; at < unit.length; at += CHUNK_BYTES) {
    const read = readPadded(file, piece(at), unit.offset + at)
    bytesRead += read
    suspects.push(...suspectPages(unit, at, read))
    // What lies behind a page in doubt waits until all is read: then one wait is enough for all such pages.
    if (suspects.length > 0) continue
    visit(piece(at), at)
    visited = at + CHUNK_BYTES
  }
  const corrupt = settleSuspects(file, unit, suspects)
  for (let at = visited; at < unit.length; at += CHUNK_BYTES) visit(piece(at), at)
  const { firstBlock } = unit
  if (firstBlock === undefined) return { bytesRead, pagesChecked: 0, corruptBlocks: [] }
  return { bytesRead, pagesChecked: Math.floor(bytesRead / PAGE_BYTES), corruptBlocks: corrupt.map((page) => firstBlock + page) }
}

/** Pages of the unit, from `at` on, whose checksum is wrong. */
function suspectPages(unit: BackupUnit, at: number, bytesRead: number): number[] {
  if (unit.firstBlock === undefined) return []
  const suspects: number[] = []
  const first = at / PAGE_BYTES
  const end = first + Math.floor(bytesRead / PAGE_BYTES)
  for (let page = first; page < end; page++) {
    if (verifyPage(words, page * PAGE_WORDS, unit.firstBlock + page) === 'corrupt') suspects.push(page)
  }
  return suspects
}

/** One look can meet a page that is being written, or its writer asleep in the middle of it: corrupt is what is never right. */
function settleSuspects(file: number, unit: BackupUnit, pages: readonly number[]): readonly number[] {
  let suspects = pages
  for (let look = 0; look < REREADS && suspects.length > 0; look++) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, REREAD_AFTER_MS)
    suspects = suspects.filter((page) => !isRightNow(file, unit, page))
  }
  return suspects
}

/** Reads a page again, into its place, and judges it. */
function isRightNow(file: number, unit: BackupUnit, page: number): boolean {
  const held = buffer.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
  const read = readPadded(file, held, unit.offset + page * PAGE_BYTES)
  // The file was cut before this page meanwhile: the replay knows that.
  if (read < PAGE_BYTES) return true
  return verifyPage(words, page * PAGE_WORDS, unit.firstBlock! + page) !== 'corrupt'
}

/** Fills `content` from the file; what the file does not have is zero. Returns how much it had. */
function readPadded(file: number, content: Buffer, offset: number): number {
  const done = readUpTo(file, content, offset)
  content.fill(0, done)
  return done
}

function readUpTo(file: number, content: Buffer, offset: number): number {
  let done = 0
  while (done < content.length) {
    const read = readSync(file, content, done, content.length - done, offset + done)
    if (read === 0) break
    done += read
  }
  return done
}
