import { createCipheriv, createDecipheriv, createSecretKey, randomBytes, type KeyObject } from 'node:crypto'
import { open, type FileHandle } from 'node:fs/promises'
import { basename } from 'node:path'
import { assert } from '../../assert.ts'
import { Failure } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import type { KeyRing } from '../../repository/key-ring.ts'
import { holdsMoreThanOneWrite, isDamagedTail } from './spool-tail.ts'
import { frameNonce, HEADER_BYTES, newHeader, openHeader, TAG_BYTES } from '../../repository/sealed-object.ts'

// One file of the receiver's spool (docs/format.md, "The receiver's spool"):
//
//   header 32, kind 11; its name is the file's
//   frames: u32 length of the ciphertext ‖ u64 LSN of the first byte ‖ ciphertext ‖ tag 16
//
// The file ends at the last frame that opens, or with what a power cut left of the write behind it (`spool-tail.ts`). A frame that does not
// open while one behind it does was damaged later: what is behind it is another run.

/** Plaintext of one frame. */
export const SPOOL_FRAME_BYTES = 1024 * 1024
const FRAME_HEADER_BYTES = 12
const FRAME_PURPOSE = 3
const READ_BYTES = 1024 * 1024
/** A place to start reading from is remembered every so many bytes. */
const POINT_BYTES = 1024 * 1024

const FILE_NAME = /^([0-9a-f]{16})\.([0-9a-f]{16})\.[0-9a-f]{16}\.spool$/

/** Where a frame is. */
export interface FramePoint {
  readonly lsn: Lsn
  readonly offset: number
  readonly number: bigint
}

/** A stretch of WAL in one file, without a hole. */
export interface SpoolRun {
  readonly path: string
  readonly branch: string
  readonly startLsn: Lsn
  readonly endLsn: Lsn
  readonly points: readonly FramePoint[]
}

export interface SpoolFile {
  readonly path: string
  /** The keyed name of the branch. */
  readonly branch: string
  readonly startLsn: Lsn
  readonly sizeBytes: number
  readonly runs: readonly SpoolRun[]
  /** Something in it was changed after it was written: more than what a power cut leaves of the last write does not open. */
  readonly damaged: boolean
}

export function newSpoolFileName(branch: string, startLsn: Lsn): string {
  return `${branch}.${startLsn.toString(16).padStart(16, '0')}.${randomBytes(8).toString('hex')}.spool`
}

/** Undefined when the name is not that of a spool file. */
export function parseSpoolFileName(name: string): { branch: string; startLsn: Lsn } | undefined {
  const match = FILE_NAME.exec(name)
  return match === null ? undefined : { branch: match[1]!, startLsn: BigInt(`0x${match[2]}`) }
}

/** Adds the point unless the last one is near enough. */
export function rememberPoint(points: FramePoint[], point: FramePoint): void {
  const last = points.at(-1)
  if (last === undefined || point.offset - last.offset >= POINT_BYTES) points.push(point)
}

export interface SpoolKey {
  readonly header: Buffer
  /** A key object: made once, because making it costs more than sealing a small frame. */
  readonly key: KeyObject
}

/** The header and key of a new file. */
export function newSpoolKey(ring: KeyRing, name: string): SpoolKey {
  const { header, key } = newHeader(ring, 'spool', name)
  return { header, key: createSecretKey(key) }
}

/** A frame, in pieces that are to be written one behind the other: to put them together would copy all WAL once more. */
export function sealSpoolFrame(file: SpoolKey, number: bigint, lsn: Lsn, bytes: Uint8Array): Buffer[] {
  const head = Buffer.alloc(FRAME_HEADER_BYTES)
  head.writeUInt32LE(bytes.length)
  head.writeBigUInt64LE(lsn, 4)
  const cipher = createCipheriv('aes-256-gcm', file.key, frameNonce(number, FRAME_PURPOSE))
  cipher.setAAD(Buffer.concat([file.header, head]))
  const sealed = cipher.update(bytes)
  // Of GCM nothing is left to give, but it has to be ended.
  assert(cipher.final().length === 0 && sealed.length === bytes.length, 'GCM gives as many bytes as it takes')
  return [head, sealed, cipher.getAuthTag()]
}

/** Undefined when the frame does not open. */
function openSpoolFrame(file: SpoolKey, frame: RawFrame): Buffer | undefined {
  const decipher = createDecipheriv('aes-256-gcm', file.key, frameNonce(frame.number, FRAME_PURPOSE))
  decipher.setAAD(Buffer.concat([file.header, frame.head]))
  decipher.setAuthTag(frame.sealed.subarray(frame.length))
  const bytes = decipher.update(frame.sealed.subarray(0, frame.length))
  try {
    decipher.final()
  } catch {
    // GCM says only that it does not fit; the caller knows whether that is a torn end or damage.
    return undefined
  }
  return bytes
}

/**
 * Opens every frame of a file: what it holds. Safe while a receiver writes it: a frame that is not whole yet is the end. Undefined
 * when the name is not that of a spool file. Without a header, the receiver died while it made the file: nothing was acknowledged.
 */
export async function scanSpoolFile(path: string, ring: KeyRing): Promise<SpoolFile | undefined> {
  const parsed = parseSpoolFileName(basename(path))
  if (parsed === undefined) return undefined
  await using file = await open(path, 'r')
  const { size } = await file.stat()
  const key = await readKeyUnlessDamaged(file, basename(path), ring)
  const known = { path, ...parsed, sizeBytes: size }
  if (key === 'damaged') return { ...known, runs: [], damaged: true }
  if (key === 'empty') return { ...known, runs: [], damaged: await holdsMoreThanOneWrite(file) }
  const runs: { path: string; branch: string; startLsn: Lsn; endLsn: Lsn; points: FramePoint[] }[] = []
  let end = { offset: HEADER_BYTES, number: 0n, lsn: parsed.startLsn }
  for await (const frame of readFrames(file, end)) {
    if (openSpoolFrame(key, frame) === undefined) continue
    const point = { lsn: frame.lsn, offset: frame.offset, number: frame.number }
    const endLsn = frame.lsn + BigInt(frame.length)
    end = { offset: frame.offset + frame.head.length + frame.sealed.length, number: frame.number + 1n, lsn: endLsn }
    const last = runs.at(-1)
    if (last?.endLsn === frame.lsn) {
      last.endLsn = endLsn
      rememberPoint(last.points, point)
    } else {
      runs.push({ path, branch: parsed.branch, startLsn: frame.lsn, endLsn, points: [point] })
    }
  }
  const damaged =
    runs.length > 1 || (await isDamagedTail({ file, ...end, frameBytesMax: SPOOL_FRAME_BYTES, opens: opener(key, end) }))
  return { ...known, runs, damaged }
}

/** Whether bytes are the frame at a place, whatever length they say that it has. */
function opener(key: SpoolKey, { offset, number, lsn }: FramePoint): (frame: Buffer, length: number) => boolean {
  return (frame, length) => {
    const head = Buffer.from(frame.subarray(0, FRAME_HEADER_BYTES))
    head.writeUInt32LE(length)
    return openSpoolFrame(key, { number, offset, lsn, length, head, sealed: frame.subarray(FRAME_HEADER_BYTES) }) !== undefined
  }
}

/** The bytes [from, to) of a run, which must hold them. Throws SPOOL_DAMAGED; ENOENT when the file was deleted meanwhile. */
export async function* readSpoolRun(run: SpoolRun, ring: KeyRing, range: { from: Lsn; to: Lsn }): AsyncGenerator<Uint8Array> {
  await using file = await open(run.path, 'r')
  const key = await readKey(file, basename(run.path), ring)
  const start = run.points.findLast(({ lsn }) => lsn <= range.from)
  if (key === undefined || start === undefined) throw damagedSpool(run.path, range.from)
  let at = range.from
  for await (const frame of readFrames(file, start)) {
    if (at >= range.to) return
    const end = frame.lsn + BigInt(frame.length)
    if (end <= at) continue
    const bytes = frame.lsn > at ? undefined : openSpoolFrame(key, frame)
    if (bytes === undefined) throw damagedSpool(run.path, at)
    const wanted = bytes.subarray(Number(at - frame.lsn), end > range.to ? Number(range.to - frame.lsn) : undefined)
    at += BigInt(wanted.length)
    yield wanted
  }
  if (at < range.to) throw damagedSpool(run.path, at)
}

function damagedSpool(path: string, lsn: Lsn): Failure {
  return new Failure('SPOOL_DAMAGED', `spool file "${path}" cannot be read at ${formatLsn(lsn)}: it is not as it was written`, {
    hint: 'check the disk of the spool; the WAL is asked of the server again when it still has it',
  })
}

async function readKeyUnlessDamaged(file: FileHandle, name: string, ring: KeyRing): Promise<SpoolKey | 'damaged' | 'empty'> {
  try {
    return (await readKey(file, name, ring)) ?? 'empty'
  } catch (error) {
    // One file that cannot be opened must not keep the others from being read.
    if (error instanceof Failure && error.code === 'OBJECT_DAMAGED') return 'damaged'
    throw error
  }
}

async function readKey(file: FileHandle, name: string, ring: KeyRing): Promise<SpoolKey | undefined> {
  const header = Buffer.alloc(HEADER_BYTES)
  const { bytesRead } = await file.read(header, 0, HEADER_BYTES, 0)
  if (bytesRead < HEADER_BYTES) return undefined
  // Blocks given to the file but not written yet, after a power cut.
  if (header.every((byte) => byte === 0)) return undefined
  return { header, key: createSecretKey(openHeader(ring, 'spool', name, header)) }
}

interface RawFrame {
  readonly number: bigint
  readonly offset: number
  readonly lsn: Lsn
  readonly length: number
  readonly head: Buffer
  readonly sealed: Buffer
}

/** The frames from a place on, as far as their lengths can be followed. A frame's bytes are there until the next one is asked for. */
async function* readFrames(file: FileHandle, start: { offset: number; number: bigint }): AsyncGenerator<RawFrame> {
  const window = new ReadWindow(file, start.offset)
  for (let { offset, number } = start; ; number += 1n) {
    const length = (await window.peek(FRAME_HEADER_BYTES))?.readUInt32LE() ?? 0
    if (length === 0 || length > SPOOL_FRAME_BYTES) return
    const size = FRAME_HEADER_BYTES + length + TAG_BYTES
    const frame = await window.peek(size)
    if (frame === undefined) return
    const head = frame.subarray(0, FRAME_HEADER_BYTES)
    yield { number, offset, lsn: head.readBigUInt64LE(4), length, head, sealed: frame.subarray(FRAME_HEADER_BYTES) }
    window.skip(size)
    offset += size
  }
}

/** Reads a file on into one buffer, which is used again: at tens of megabytes a second, new ones kept the garbage collector busy. */
class ReadWindow {
  readonly #file: FileHandle
  readonly #buffer = Buffer.allocUnsafe(FRAME_HEADER_BYTES + SPOOL_FRAME_BYTES + TAG_BYTES + READ_BYTES)
  /** Where in the file the buffer's byte 0 is from. */
  #offset: number
  #begin = 0
  #end = 0

  constructor(file: FileHandle, offset: number) {
    this.#file = file
    this.#offset = offset
  }

  /** The next bytes, valid until the next call; undefined when the file has not so many. */
  async peek(length: number): Promise<Buffer | undefined> {
    assert(length <= this.#buffer.length - READ_BYTES, 'a frame fits into the window, and a read behind it')
    while (this.#end - this.#begin < length) {
      if (this.#buffer.length - this.#end < READ_BYTES) this.#moveToFront()
      const { bytesRead } = await this.#file.read(this.#buffer, this.#end, READ_BYTES, this.#offset + this.#end)
      if (bytesRead === 0) return undefined
      this.#end += bytesRead
    }
    return this.#buffer.subarray(this.#begin, this.#begin + length)
  }

  skip(length: number): void {
    this.#begin += length
  }

  #moveToFront(): void {
    this.#buffer.copyWithin(0, this.#begin, this.#end)
    this.#offset += this.#begin
    this.#end -= this.#begin
    this.#begin = 0
  }
}
