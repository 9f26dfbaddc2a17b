import { segmentStart, type WalSegment } from '../postgres/wal-segment.ts'
import type { CallOptions } from '../storage/storage.ts'
import type { Repository } from './repository.ts'
import { damaged } from './sealed-object.ts'
import { listSegment, readWalBytes, type WalObject } from './wal-archive.ts'
import type { Branch } from './wal-branch.ts'

const PADDING_BYTES = 64 * 1024

/** A segment as it can be handed to PostgreSQL. */
export interface SegmentBytes {
  readonly segment: WalSegment
  /** How far the stored bytes reach without a hole, from the segment's start; zeros follow. */
  readonly realBytes: number
  /** What it is read from: the whole segment alone, or pieces. */
  readonly objects: readonly WalObject[]
  /**
   * Exactly the segment's size of bytes. Can be read once; what is stored is proven only when it has ended without throwing.
   * Throws OBJECT_DAMAGED, also when overlapping pieces disagree.
   */
  readonly bytes: AsyncGenerator<Uint8Array>
}

/**
 * A segment's bytes: from the whole segment if it is stored, else from the pieces that join each other from offset 0, padded with
 * zeros to full size. Undefined when nothing is stored at its start.
 */
export async function readSegmentBytes(
  repository: Repository,
  branch: Branch,
  segment: WalSegment,
  options: CallOptions = {},
): Promise<SegmentBytes | undefined> {
  const stored = await listSegment(repository, branch, segment, options)
  const whole = stored.find(({ from, to }) => from === 0 && to === segment.sizeBytes)
  const objects = whole === undefined ? joinedPieces(stored) : [whole]
  if (objects.length === 0) return undefined
  const realBytes = Math.max(...objects.map(({ to }) => to))
  const read = (object: WalObject) => readWalBytes(repository, branch, object, options)
  return { segment, realBytes, objects, bytes: pad(mergePieces(objects, read), segment.sizeBytes - realBytes) }
}

/** Those of the pieces, sorted by `from`, that reach from offset 0 without a hole. */
function joinedPieces(pieces: readonly WalObject[]): readonly WalObject[] {
  let end = 0
  const joined: WalObject[] = []
  for (const piece of pieces) {
    if (piece.from > end) break
    joined.push(piece)
    end = Math.max(end, piece.to)
  }
  return joined
}

interface OpenPiece {
  readonly object: WalObject
  readonly bytes: AsyncGenerator<Uint8Array>
  held: Uint8Array
}

/**
 * Reads the pieces side by side, each where it lies, compares them where they overlap, and gives each byte once. Every piece is
 * read to its end, so that its own check is made. Memory: one frame of each piece that overlaps at one place.
 */
async function* mergePieces(
  objects: readonly WalObject[],
  read: (object: WalObject) => AsyncGenerator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const waiting = [...objects]
  let open: OpenPiece[] = []
  try {
    for (let at = 0; waiting.length > 0 || open.length > 0;) {
      while (waiting[0]?.from === at) {
        const object = waiting.shift()!
        open.push({ object, bytes: read(object), held: new Uint8Array(0) })
      }
      open = await fillPieces(open)
      const lengths = open.map(({ held }) => held.length)
      const length = Math.min(...lengths, waiting.length > 0 ? waiting[0]!.from - at : Number.MAX_SAFE_INTEGER)
      if (open.length === 0) continue
      yield takeAgreed(open, length, at)
      at += length
    }
  } finally {
    await Promise.all(open.map(({ bytes }) => bytes.return(undefined)))
  }
}

/** Gives every open piece at least one byte, and drops those that have ended. */
async function fillPieces(open: readonly OpenPiece[]): Promise<OpenPiece[]> {
  const filled: OpenPiece[] = []
  for (const piece of open) {
    let ended = false
    while (piece.held.length === 0 && !ended) {
      const next = await piece.bytes.next()
      ended = next.done === true
      if (next.done !== true) piece.held = next.value
    }
    if (!ended) filled.push(piece)
  }
  return filled
}

function takeAgreed(open: readonly OpenPiece[], length: number, at: number): Uint8Array {
  const [first] = open
  const agreed = first!.held.subarray(0, length)
  for (const piece of open) {
    const taken = piece.held.subarray(0, length)
    piece.held = piece.held.subarray(length)
    if (Buffer.compare(taken, agreed) === 0) continue
    const place = `between offsets ${at} and ${at + length} of the segment that starts at ${segmentStart(piece.object.segment)}`
    throw damaged(piece.object.key, `its bytes differ from those of "${first!.object.key}" ${place}`)
  }
  return agreed
}

async function* pad(bytes: AsyncGenerator<Uint8Array>, padding: number): AsyncGenerator<Uint8Array> {
  yield* bytes
  const zeros = new Uint8Array(Math.min(padding, PADDING_BYTES))
  for (let left = padding; left > 0; left -= PADDING_BYTES) yield zeros.subarray(0, Math.min(left, PADDING_BYTES))
}
