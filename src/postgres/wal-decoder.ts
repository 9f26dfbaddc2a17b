import { assert } from '../assert.ts'
import { crc32c } from './crc32c.ts'
import type { Lsn } from './lsn.ts'
import { WalSummaryBuilder, type WalSummary } from './wal-summary.ts'
import {
  LONG_HEADER_BYTES,
  RECORD_BYTES_MAX,
  RECORD_CHECKED_HEADER_BYTES,
  RECORD_HEADER_BYTES,
  SHORT_HEADER_BYTES,
  WAL_PAGE_BYTES,
  factBytes,
  isResourceManager,
  isTablespaceCreate,
  mayEndTablespaceCreate,
  parseWalPageHeader,
  readFact,
  type WalFact,
  type WalPageHeader,
} from './wal-record.ts'

export interface WalDecoderOptions {
  /** LSN of the first byte that will be fed; a position inside a page is read from the next page on. */
  readonly startLsn: Lsn
  readonly segmentSizeBytes: number
  /** True when a record is known to begin at `startLsn`, so that nothing has to be passed over. */
  readonly startsAtRecord?: boolean
  /** The timeline that is read: pages of a later one do not belong to it. Pages of an earlier one, before its switch, do. */
  readonly timeline?: number
  readonly systemIdentifier?: bigint
  /** PostgreSQL's major version; the pages tell it, but no page has come yet when a stream begins inside one. */
  readonly major?: number
  /** Whether the CRC of every record is checked. Without it only the headers' chain is. */
  readonly checkCrc?: boolean
  /** Called for every record that matters to recovery, in order, when it is complete. */
  readonly onFact?: (fact: WalFact, lsn: Lsn, endLsn: Lsn) => void
}

/** Where and why reading ended before the bytes did. */
export interface WalEnd {
  /** The first position that holds no complete, valid record. */
  readonly lsn: Lsn
  /**
   * `unwritten`: zeros, as a segment has after its last record. `page` and `record`: no valid header, as in a recycled segment.
   * `continuation`: a record's rest is not on the page after it. `crc`: a record's contents are not what was written.
   */
  readonly reason: 'unwritten' | 'page' | 'record' | 'continuation' | 'crc'
}

/**
 * Reads a stream of WAL as far as its records are whole, and tells what a stored piece of it reaches: last complete record, commit
 * times, transaction ids, restore points. Reads headers only; holds at most the few bytes of the record at hand that it needs.
 *
 *   page begins --header--> record begins --24 bytes--> record header --rest, over any pages--> record begins
 *   record begins --switch--> padding to the segment's end --> page begins
 *   anywhere --invalid--> ended: what is fed after that is ignored
 */
export class WalDecoder {
  readonly #options: WalDecoderOptions
  /** Start of the segment of `startLsn`; positions are numbers relative to it, because bigint is slow. */
  readonly #origin: Lsn
  readonly #originLow: number
  readonly #originHigh: number
  readonly #summary: WalSummaryBuilder
  #bytes: Uint8Array = new Uint8Array()
  #view: DataView = new DataView(new ArrayBuffer(0))
  #offset: number
  #inPage: number
  #isFirstPage: boolean
  /** Bytes to pass over unread before anything else. */
  #skipBytes = 0
  /** Until a record was read in the first segment, zeros may be what a switch before the start has left unused. */
  #mayBePadding: boolean
  /** Whether the next record's start is known; false only from the start to the first page header. */
  #synced: boolean
  #page = Buffer.alloc(LONG_HEADER_BYTES)
  #lastPage: WalPageHeader | undefined
  #systemIdentifier: bigint | undefined
  #end: WalEnd | undefined
  /** The record at hand, when it is not whole in one page of one piece: how much of it was read, where it began, its size. */
  #readBytes = 0
  #recordOffset = 0
  #totalBytes = 0
  /** True for the rest of a record that began before `startLsn`. */
  #isRest = false
  #heldWanted = 0
  readonly #smallHeld = Buffer.alloc(SMALL_HELD_BYTES)
  #held: Buffer = this.#smallHeld
  #crc = 0
  #previousOffset: number | undefined
  #recordEndOffset: number | undefined

  constructor(options: WalDecoderOptions) {
    const { startLsn, segmentSizeBytes, startsAtRecord = false } = options
    const inSegment = Number(startLsn % BigInt(segmentSizeBytes))
    this.#options = options
    this.#origin = startLsn - BigInt(inSegment)
    this.#originLow = Number(this.#origin & 0xffffffffn)
    this.#originHigh = Number(this.#origin >> 32n)
    this.#summary = new WalSummaryBuilder(this.#origin)
    this.#systemIdentifier = options.systemIdentifier
    this.#offset = inSegment
    this.#inPage = inSegment % WAL_PAGE_BYTES
    this.#isFirstPage = inSegment < WAL_PAGE_BYTES
    this.#synced = startsAtRecord
    this.#mayBePadding = !startsAtRecord && inSegment > 0
    if (startsAtRecord) assert(this.#inPage === 0 || this.#inPage >= SHORT_HEADER_BYTES, 'a record begins after its page header')
    else if (this.#inPage > 0) this.#skipBytes = WAL_PAGE_BYTES - this.#inPage
  }

  /** LSN of the next byte to feed. */
  get position(): Lsn {
    return this.#lsn(this.#offset)
  }

  /** Undefined while everything that was fed was valid. */
  get ended(): WalEnd | undefined {
    return this.#end
  }

  /** Just past the last complete record, whichever summary it was in; undefined before the first. */
  get recordEnd(): Lsn | undefined {
    return this.#recordEndOffset === undefined ? undefined : this.#lsn(this.#recordEndOffset)
  }

  /** Where the last complete record begins, whichever summary it was in; undefined before the first. */
  get recordStart(): Lsn | undefined {
    return this.#previousOffset === undefined ? undefined : this.#lsn(this.#previousOffset)
  }

  /** Of the last page: PostgreSQL's major version and the page's timeline. */
  get page(): { readonly major: number; readonly timeline: number } | undefined {
    return this.#lastPage
  }

  /** As the last segment header said it. */
  get systemIdentifier(): bigint | undefined {
    return this.#systemIdentifier
  }

  /** Takes the next bytes, which have to begin at `position`. Pieces may be of any size and cut anywhere. */
  feed(lsn: Lsn, bytes: Uint8Array): void {
    const after = this.#offset + bytes.length
    assert(lsn === this.position, 'WAL is fed without a gap')
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    let at = 0
    while (at < bytes.length && this.#end === undefined) at += this.#step(at)
    if (this.#end !== undefined) this.#offset = after
    assert(this.#offset === after, 'every byte that was fed was read')
  }

  /** What was read since the last call. A record belongs to the summary in whose time its last byte came. */
  takeSummary(): WalSummary {
    const isOpen = this.#readBytes >= RECORD_HEADER_BYTES && !this.#isRest
    if (isOpen && isTablespaceCreate(this.#held[17]!, this.#held[16]!)) this.#summary.addPossibleTablespace()
    return this.#summary.take()
  }

  /** Reads what is next, and gives how many bytes it took. */
  #step(at: number): number {
    const available = this.#bytes.length - at
    if (this.#skipBytes > 0) return this.#skip(available)
    const headerBytes = this.#isFirstPage ? LONG_HEADER_BYTES : SHORT_HEADER_BYTES
    if (this.#inPage < headerBytes) return this.#readPage(at, Math.min(available, headerBytes - this.#inPage), headerBytes)
    const here = Math.min(available, WAL_PAGE_BYTES - this.#inPage)
    if (this.#readBytes === 0 && !this.#isRest) {
      const whole = this.#readWholeRecord(at, here)
      if (whole > 0 || this.#end !== undefined) return whole
    }
    return this.#readPart(at, here)
  }

  #skip(available: number): number {
    const taken = Math.min(available, this.#skipBytes)
    this.#skipBytes -= taken
    this.#advance(taken)
    return taken
  }

  #advance(count: number): void {
    this.#offset += count
    this.#inPage = (this.#inPage + count) % WAL_PAGE_BYTES
    if (this.#inPage === 0) this.#isFirstPage = this.#offset % this.#options.segmentSizeBytes === 0
  }

  #readPage(at: number, count: number, headerBytes: number): number {
    this.#page.set(this.#bytes.subarray(at, at + count), this.#inPage)
    if (this.#inPage + count < headerBytes) {
      this.#advance(count)
      return count
    }
    const pageOffset = this.#offset - this.#inPage
    const view = new DataView(this.#page.buffer, this.#page.byteOffset, headerBytes)
    const header = parseWalPageHeader(view, 0)
    if (header === undefined || !this.#belongsHere(header, pageOffset)) {
      return this.#stop(isZero(this.#page.subarray(0, headerBytes)) ? 'unwritten' : 'page', pageOffset)
    }
    this.#lastPage = header
    if (this.#isFirstPage) this.#mayBePadding = false
    this.#systemIdentifier = header.segment?.systemIdentifier ?? this.#systemIdentifier
    if (!this.#continueRecord(header)) return this.#stop('continuation', pageOffset)
    this.#advance(count)
    return count
  }

  #belongsHere(header: WalPageHeader, pageOffset: number): boolean {
    const { segmentSizeBytes, timeline } = this.#options
    if (header.lsn !== this.#lsn(pageOffset) || header.timeline > (timeline ?? 0xffffffff)) return false
    // PostgreSQL never goes back to an earlier timeline.
    if (this.#lastPage !== undefined && (header.major !== this.#lastPage.major || header.timeline < this.#lastPage.timeline))
      return false
    if (header.segment === undefined) return !this.#isFirstPage
    if (!this.#isFirstPage) return false
    const expected = this.#systemIdentifier ?? header.segment.systemIdentifier
    return (
      header.segment.systemIdentifier === expected &&
      header.segment.segmentSizeBytes === segmentSizeBytes &&
      header.segment.pageBytes === WAL_PAGE_BYTES
    )
  }

  /** Whether the page goes on where the one before it ended. */
  #continueRecord(header: WalPageHeader): boolean {
    const open = this.#readBytes > 0 || this.#isRest
    if (!this.#synced) {
      this.#synced = true
      this.#isRest = header.remainingBytes > 0
      this.#totalBytes = header.remainingBytes
      this.#heldWanted = this.#isRest ? RECORD_HEADER_BYTES : 0
      return true
    }
    if (open && header.abandonsRecord) {
      this.#forgetRecord()
      return header.remainingBytes === 0
    }
    // The record's length is its first word, which no page boundary cuts.
    const totalBytes = this.#totalBytes > 0 || !open ? this.#totalBytes : this.#held.readUInt32LE(0)
    return header.remainingBytes === (open ? totalBytes - this.#readBytes : 0)
  }

  /** The quick way, for a record that is whole in this page of this piece; 0 when it is not. */
  #readWholeRecord(at: number, here: number): number {
    if (here < RECORD_HEADER_BYTES) return 0
    const view = this.#view
    const totalBytes = view.getUint32(at, true)
    const alignedBytes = align(totalBytes)
    if (alignedBytes > here && totalBytes <= RECORD_BYTES_MAX) return 0
    const invalid = this.#checkHeader(view, at, this.#offset)
    if (invalid !== undefined) return this.#stop(invalid, this.#offset)
    if (this.#options.checkCrc === true) {
      const crc = crc32c(this.#bytes.subarray(at + RECORD_HEADER_BYTES, at + totalBytes))
      if (!this.#crcIsRight(this.#bytes, at, crc)) return this.#stop('crc', this.#offset)
    }
    const start = this.#offset
    this.#advance(alignedBytes)
    this.#completeRecord({ view, at, totalBytes, start })
    return alignedBytes
  }

  /** The slow way: a piece of a record that goes over a page's or a piece's end. */
  #readPart(at: number, here: number): number {
    if (!this.#isRest && this.#readBytes < RECORD_HEADER_BYTES) return this.#readHeaderPart(at, here)
    const taken = Math.min(here, this.#totalBytes - this.#readBytes)
    const part = this.#bytes.subarray(at, at + taken)
    if (this.#readBytes < this.#heldWanted) this.#held.set(part.subarray(0, this.#heldWanted - this.#readBytes), this.#readBytes)
    if (this.#options.checkCrc === true && !this.#isRest) this.#crc = crc32c(part, this.#crc)
    this.#readBytes += taken
    this.#advance(taken)
    if (this.#readBytes === this.#totalBytes) this.#finishParts()
    return taken
  }

  #readHeaderPart(at: number, here: number): number {
    if (this.#readBytes === 0) this.#recordOffset = this.#offset
    const taken = Math.min(here, RECORD_HEADER_BYTES - this.#readBytes)
    this.#held.set(this.#bytes.subarray(at, at + taken), this.#readBytes)
    this.#readBytes += taken
    this.#advance(taken)
    if (this.#readBytes < RECORD_HEADER_BYTES) return taken
    const invalid = this.#checkHeader(viewOf(this.#held), 0, this.#recordOffset)
    if (invalid !== undefined) return this.#stop(invalid, this.#recordOffset)
    this.#totalBytes = this.#held.readUInt32LE(0)
    this.#crc = 0
    this.#heldWanted = factBytes(this.#held[17]!, this.#held[16]!, this.#totalBytes)
    if (this.#heldWanted > this.#held.length) {
      this.#held = Buffer.alloc(this.#heldWanted)
      this.#held.set(this.#smallHeld.subarray(0, RECORD_HEADER_BYTES))
    }
    if (this.#readBytes === this.#totalBytes) this.#finishParts()
    return taken
  }

  #finishParts(): void {
    const [start, totalBytes, held] = [this.#recordOffset, this.#totalBytes, this.#held]
    const wasRest = this.#isRest
    if (wasRest && mayEndTablespaceCreate(held, totalBytes)) this.#summary.addPossibleTablespace()
    const isRight = wasRest || this.#options.checkCrc !== true || this.#crcIsRight(held, 0, this.#crc)
    // A page is a multiple of eight bytes, so what is left to the next record's start lies on this page.
    this.#skipBytes = align(this.#inPage) - this.#inPage
    this.#forgetRecord()
    if (!isRight) this.#stop('crc', start)
    else if (!wasRest) this.#completeRecord({ view: viewOf(held), at: 0, totalBytes, start })
  }

  #forgetRecord(): void {
    this.#readBytes = 0
    this.#totalBytes = 0
    this.#heldWanted = 0
    this.#isRest = false
    this.#held = this.#smallHeld
  }

  #checkHeader(view: DataView, at: number, offset: number): WalEnd['reason'] | undefined {
    const totalBytes = view.getUint32(at, true)
    if (totalBytes === 0) return 'unwritten'
    if (totalBytes < RECORD_HEADER_BYTES || totalBytes > RECORD_BYTES_MAX) return 'record'
    if (!isResourceManager(view.getUint8(at + 17))) return 'record'
    // The chain of records: what an old segment holds at this place does not point to the record that was read last.
    const [low, high] = [view.getUint32(at + 8, true), view.getUint32(at + 12, true)]
    if (this.#previousOffset !== undefined) {
      const sum = this.#originLow + this.#previousOffset
      if (low !== sum >>> 0 || high !== this.#originHigh + Math.floor(sum / 2 ** 32)) return 'record'
    } else if ((BigInt(high) << 32n) + BigInt(low) >= this.#lsn(offset)) return 'record'
    return undefined
  }

  #crcIsRight(header: Uint8Array, at: number, crcOfRest: number): boolean {
    const crc = crc32c(header.subarray(at, at + RECORD_CHECKED_HEADER_BYTES), crcOfRest)
    return crc === viewOf(header).getUint32(at + RECORD_CHECKED_HEADER_BYTES, true)
  }

  #completeRecord({ view, at, totalBytes, start }: CompleteRecord): void {
    this.#previousOffset = start
    this.#mayBePadding = false
    let end = this.#offset + this.#skipBytes
    const heldBytes = factBytes(view.getUint8(at + 17), view.getUint8(at + 16), totalBytes)
    const fact =
      heldBytes === 0 ? undefined : readFact({ view, at, heldBytes, major: this.#lastPage?.major ?? this.#options.major ?? 0 })
    if (fact?.kind === 'switch') {
      const padding = this.#toSegmentEnd(end)
      this.#skipBytes += padding
      end += padding
    }
    this.#summary.addRecord(start, end)
    this.#recordEndOffset = end
    if (fact === undefined) return
    this.#summary.addFact(fact, this.#lsn(end))
    this.#options.onFact?.(fact, this.#lsn(start), this.#lsn(end))
  }

  #stop(reason: WalEnd['reason'], offset: number): 0 {
    if (reason === 'unwritten' && this.#mayBePadding && !this.#isRest) {
      this.#forgetRecord()
      this.#skipBytes = this.#toSegmentEnd(this.#offset)
      this.#mayBePadding = false
      return 0
    }
    const open = this.#readBytes > 0 && !this.#isRest
    this.#end = { reason, lsn: this.#lsn(open ? this.#recordOffset : offset) }
    return 0
  }

  #toSegmentEnd(offset: number): number {
    const inSegment = offset % this.#options.segmentSizeBytes
    return inSegment === 0 ? 0 : this.#options.segmentSizeBytes - inSegment
  }

  #lsn(offset: number): Lsn {
    return this.#origin + BigInt(offset)
  }
}

interface CompleteRecord {
  readonly view: DataView
  readonly at: number
  readonly totalBytes: number
  readonly start: number
}

/** Bytes kept for the record at hand; only the end of a prepared transaction needs more. */
const SMALL_HELD_BYTES = 128

function align(bytes: number): number {
  return bytes + (-bytes & 7)
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0)
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}
