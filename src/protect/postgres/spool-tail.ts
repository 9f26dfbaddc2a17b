import type { FileHandle } from 'node:fs/promises'
import type { Lsn } from '../../postgres/lsn.ts'

// What lies behind the last frame of a spool file that opens. A power cut leaves the last write there, torn: it was not synced, and
// nothing of it was acknowledged. Anything else is damage: WAL that was acknowledged may be lost.

/** Longest write of a receiver, sealed: a batch, and room for its frames. */
const WRITE_BYTES_MAX = 5 * 1024 * 1024
const READ_BYTES = 1024 * 1024
/** A disk writes a sector or does not. */
const SECTOR_BYTES = 512
const LENGTH_BYTES = 4
const FRAME_HEADER_BYTES = 12
const FRAME_AROUND_BYTES = FRAME_HEADER_BYTES + 16
/** Zeros that the end of a frame's tag may have by chance: more have one frame in 2^64. */
const ZEROS_MAX = 8

export interface SpoolTail {
  readonly file: FileHandle
  /** End of the last frame that opens, or of the header. */
  readonly offset: number
  /** The LSN that the next frame begins with. */
  readonly lsn: Lsn
  readonly frameBytesMax: number
  /** Whether these bytes, from `offset` on, are the next frame, if its length is taken to be this. */
  readonly opens: (frame: Buffer, length: number) => boolean
}

/** Whether what lies there was changed after it was written. Safe while a receiver writes on. */
export async function isDamagedTail(tail: SpoolTail): Promise<boolean> {
  const bytes = await readToLastByte(tail.file, tail.offset)
  if (bytes.length > WRITE_BYTES_MAX) return true
  if (bytes.length < FRAME_AROUND_BYTES || lacksSector(bytes, tail.offset)) return false
  const length = bytes.readUInt32LE()
  if (length === 0 || length > tail.frameBytesMax) return true
  const end = FRAME_AROUND_BYTES + length
  // A living receiver may have written it since the frames were read.
  if (end <= bytes.length) return !tail.opens(bytes.subarray(0, end), length)
  // It says that it is longer than what is there. Either its end was never written, or its length is not what it was.
  return holdsLaterFrame(bytes, tail) || opensToItsEnd(bytes, tail)
}

/** Whether it is a whole frame with another length. Its last bytes may be zeros, which cannot be told from those written ahead. */
function opensToItsEnd(bytes: Buffer, { opens }: SpoolTail): boolean {
  for (let zeros = 0; zeros <= ZEROS_MAX; zeros += 1) {
    const frame = zeros === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(zeros)])
    if (opens(frame, frame.length - FRAME_AROUND_BYTES)) return true
  }
  return false
}

/** Whether a file without a header holds more than what its first write may have left. */
export async function holdsMoreThanOneWrite(file: FileHandle): Promise<boolean> {
  return (await readToLastByte(file, 0)).length > WRITE_BYTES_MAX
}

/** From `offset` on to the last byte that is not zero, as far as more than one write; zeros are written ahead. */
async function readToLastByte(file: FileHandle, offset: number): Promise<Buffer> {
  const pieces: Buffer[] = []
  let length = 0
  let end = 0
  while (end <= WRITE_BYTES_MAX) {
    const piece = Buffer.alloc(READ_BYTES)
    const { bytesRead } = await file.read(piece, 0, READ_BYTES, offset + length)
    if (bytesRead === 0) break
    const last = piece.subarray(0, bytesRead).findLastIndex((byte) => byte !== 0)
    if (last >= 0) end = length + last + 1
    length += bytesRead
    if (length <= 2 * WRITE_BYTES_MAX) pieces.push(piece.subarray(0, bytesRead))
  }
  return Buffer.concat(pieces).subarray(0, end)
}

/** Whether a sector, or what of one lies here, has only zeros: of ciphertext none has, and no length. A part of a length says nothing. */
function lacksSector(bytes: Buffer, offset: number): boolean {
  for (let at = 0; at < bytes.length;) {
    const end = Math.min(bytes.length, at + SECTOR_BYTES - ((offset + at) % SECTOR_BYTES))
    if (end >= LENGTH_BYTES && bytes.subarray(at, end).every((byte) => byte === 0)) return true
    at = end
  }
  return false
}

/** Whether the head of a frame further on is in there: its LSN is as much greater as there are bytes between, or little less. */
function holdsLaterFrame(bytes: Buffer, { lsn, frameBytesMax }: SpoolTail): boolean {
  for (let at = FRAME_AROUND_BYTES + 1; at + FRAME_HEADER_BYTES <= bytes.length; at += 1) {
    const length = bytes.readUInt32LE(at)
    if (length === 0 || length > frameBytesMax) continue
    const found = bytes.readBigUInt64LE(at + LENGTH_BYTES)
    if (found > lsn && found < lsn + BigInt(at)) return true
  }
  return false
}
