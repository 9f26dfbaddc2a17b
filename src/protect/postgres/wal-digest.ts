import { createHash } from 'node:crypto'
import { assert } from '../../assert.ts'
import type { Lsn } from '../../postgres/lsn.ts'
import { WalDecoder } from '../../postgres/wal-decoder.ts'
import { segmentAt, segmentEnd, segmentName, segmentStart } from '../../postgres/wal-segment.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import { joinContents, NO_CONTENTS, type WalContents, type WalNote } from '../../repository/wal-note.ts'

/** What a note says of the bytes themselves; who wrote them, and when, is added by who does. */
export type WalDescription = Omit<WalNote, 'acknowledged' | 'source' | 'synchronous'>

/**
 * Describes WAL as it passes: pieces, and the whole segments that they are part of, with one look at each byte. Records that cross
 * from one segment into the next are seen, as long as the same digest sees both.
 */
export class WalDigest {
  readonly #branch: Branch
  #decoder: WalDecoder
  #at: Lsn
  #piece: Stretch
  #segment: Stretch

  /** `startLsn` is where the first piece begins, and, if the first segment is to be described as a whole, its start. */
  constructor(branch: Branch, startLsn: Lsn) {
    this.#branch = branch
    this.#at = startLsn
    this.#piece = newStretch(startLsn)
    this.#segment = newStretch(startLsn)
    this.#decoder = this.#newDecoder()
  }

  /** Where the next byte belongs. */
  get position(): Lsn {
    return this.#at
  }

  /** Takes the bytes that follow, which must not reach beyond the segment. */
  feed(bytes: Uint8Array): void {
    const { segmentSize } = this.#branch.head
    const left = BigInt(segmentSize) - (this.#at % BigInt(segmentSize))
    assert(BigInt(bytes.length) <= left, 'bytes of one segment only are described at a time')
    // A piece that begins with the segment has the same bytes so far.
    if (this.#piece.startLsn !== this.#segment.startLsn) this.#piece.hash.update(bytes)
    this.#segment.hash.update(bytes)
    this.#decoder.feed(this.#at, bytes)
    this.#at += BigInt(bytes.length)
  }

  /** What was fed since the last piece was taken. */
  takePiece(): WalDescription {
    this.#settle()
    const { startLsn, contents } = this.#piece
    const { hash } = startLsn === this.#segment.startLsn ? this.#segment : this.#piece
    this.#piece = newStretch(this.#at)
    return this.#describe({ startLsn, contents, hash })
  }

  /** The segment that is complete now. It also ends the piece at hand. */
  takeSegment(): WalDescription {
    this.#settle()
    const segment = this.#segment
    this.#piece = newStretch(this.#at)
    this.#segment = newStretch(this.#at)
    // After something that is not WAL nothing more is read: look again from the next segment's first page.
    if (this.#decoder.ended !== undefined) this.#decoder = this.#newDecoder()
    const described = this.#describe(segment)
    assert(described.from === 0 && described.to === this.#branch.head.segmentSize, 'a whole segment was fed')
    return described
  }

  #settle(): void {
    const summary = this.#decoder.takeSummary()
    // After a switch the last record reaches to the segment's end, of which not every zero may have come.
    const beyond = summary.lastRecordEnd !== null && summary.lastRecordEnd > this.#at
    const { leastCommit, greatestCommit, leastXid, greatestXid, restorePoints, tablespaces } = summary
    const lastRecordEnd = beyond ? this.#at : summary.lastRecordEnd
    const contents = { lastRecordEnd, leastCommit, greatestCommit, leastXid, greatestXid, restorePoints, tablespaces }
    this.#piece.contents = joinContents(this.#piece.contents, contents)
    this.#segment.contents = joinContents(this.#segment.contents, contents)
  }

  #describe(stretch: Stretch): WalDescription {
    const { timeline, segmentSize } = this.#branch.head
    const segment = segmentAt(stretch.startLsn, timeline, segmentSize)
    assert(stretch.startLsn < this.#at && this.#at <= segmentEnd(segment), 'what is described lies in one segment')
    return {
      timeline,
      segment: segmentName(segment),
      from: Number(stretch.startLsn - segmentStart(segment)),
      to: Number(this.#at - segmentStart(segment)),
      startLsn: stretch.startLsn,
      endLsn: this.#at,
      sha256: stretch.hash.copy().digest('hex'),
      ...stretch.contents,
    }
  }

  #newDecoder(): WalDecoder {
    const { segmentSize, major, timeline } = this.#branch.head
    return new WalDecoder({ startLsn: this.#at, segmentSizeBytes: segmentSize, major, timeline })
  }
}

interface Stretch {
  readonly startLsn: Lsn
  readonly hash: ReturnType<typeof createHash>
  contents: WalContents
}

function newStretch(startLsn: Lsn): Stretch {
  return { startLsn, hash: createHash('sha256'), contents: NO_CONTENTS }
}
