import type { KeyObject } from 'node:crypto'
import { closeSync, openSync, readSync, writeSync, constants } from 'node:fs'
import { assert } from '../../assert.ts'
import { crc32c } from '../../postgres/crc32c.ts'
import { CHUNK_BYTES, openBlob, PIECE_BYTES, type BlobKind, type BlobLocation } from '../../repository/blob.ts'
import type { KeyRing } from '../../repository/key-ring.ts'
import { packKey } from '../../repository/layout.ts'
import { openPackHeader } from '../../repository/pack.ts'
import { decodeOverlay, overlaidPages, pageCount } from '../../repository/region.ts'
import { damaged } from '../../repository/sealed-object.ts'
import { releaseBuffer } from '../../stream/own-bytes.ts'

/** Where the stored bytes of a blob lie: in which of the job's ranges, and where in that. */
export interface JobBlob extends Omit<BlobLocation, 'identity'> {
  readonly identity: Uint8Array
  readonly range: number
  readonly at: number
}

/** A part of a file that one thread writes by itself. */
export interface RestoreUnit {
  /** Absolute. */
  readonly path: string
  readonly offset: number
  readonly length: number
  /** Bytes of all chunks together: more than `length` where the file has shrunk since, less where overlays hold what it has grown by. */
  readonly baseLength: number
  /** Chunks of the base, in order, as many as are needed; undefined those that were not fetched, being kept. */
  readonly chunks: readonly (JobBlob | undefined)[]
  /** Chunks that the file has already, by their numbers. */
  readonly kept: readonly number[]
  /** Overlays, in order. */
  readonly overlays: readonly JobBlob[]
}

export interface RestoredUnit {
  /** CRC-32C of its content. */
  readonly crc: number
  /** Bytes that were not written, because they were right. */
  readonly keptBytes: number
}

export interface RestoreJob {
  readonly kind: 'restore'
  readonly units: readonly RestoreUnit[]
  /** Stored bytes, as they were read. */
  readonly ranges: readonly Uint8Array<ArrayBuffer>[]
  /** Headers of the packs that the blobs lie in. */
  readonly packs: ReadonlyMap<string, Uint8Array>
}

const PACK_KEYS_MAX = 1024
const packKeys = new Map<string, KeyObject>()
/** For a chunk whose base is not read, or is too short. */
const scratch = Buffer.alloc(CHUNK_BYTES)

/**
 * Opens the blobs of a unit, puts them together and writes them in place, chunk by chunk: what is written is still in the processor's cache,
 * and a write of this size costs the kernel least. Chunks that the file has already are only read. Throws OBJECT_DAMAGED and what writing throws.
 */
export function restoreUnit(ring: KeyRing, unit: RestoreUnit, job: RestoreJob): RestoredUnit {
  const open = (blob: JobBlob, kind: BlobKind) => openJobBlob({ ring, job, kind }, blob)
  const overlays = unit.overlays.map((overlay) => decodeOverlay(open(overlay, 'overlay')))
  const pages = overlaidPages(overlays, pageCount(unit.length))
  const kept = new Set(unit.kept)
  const file = openSync(unit.path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  try {
    let crc = 0
    let keptBytes = 0
    for (let at = 0; at < unit.length; at += CHUNK_BYTES) {
      if (kept.has(at / CHUNK_BYTES)) {
        const length = Math.min(CHUNK_BYTES, unit.length - at)
        const there = readInPlace(file, scratch.subarray(0, length), unit.offset + at)
        assert(there.length === length, `"${unit.path}" still has what was found right in it`)
        crc = crc32c(there, crc)
        keptBytes += there.length
        continue
      }
      const content = chunkContent({ unit, at, pages, open })
      crc = crc32c(content, crc)
      writeInPlace(file, content, unit.offset + at)
      if (content.buffer !== scratch.buffer) releaseBuffer(content)
    }
    return { crc, keptBytes }
  } finally {
    closeSync(file)
    for (const overlay of overlays) releaseBuffer(overlay.content)
  }
}

/** The bytes of a unit from `at` on, as many as a chunk has. A base of which nothing is left is not opened. */
function chunkContent(options: {
  readonly unit: RestoreUnit
  readonly at: number
  readonly pages: ReadonlyMap<number, Buffer>
  readonly open: (blob: JobBlob, kind: BlobKind) => Buffer
}): Buffer {
  const { unit, at, pages } = options
  const length = Math.min(CHUNK_BYTES, unit.length - at)
  const places = Array.from({ length: pageCount(length) }, (_, page) => page * PIECE_BYTES)
  const overlaid = places.flatMap((place) => {
    const page = pages.get((at + place) / PIECE_BYTES)
    return page === undefined ? [] : [{ place, page }]
  })
  const base = overlaid.length === places.length ? undefined : baseChunk(options)
  if (overlaid.length === 0 && base !== undefined && base.length >= length) return base.subarray(0, length)
  const content = base !== undefined && base.length >= length ? base.subarray(0, length) : scratch.subarray(0, length)
  if (base !== undefined && base.length < length) base.copy(content)
  // Where neither has a page, there is nothing that could be written.
  let known = base?.length ?? 0
  for (const { place, page } of overlaid) {
    const end = Math.min(place + PIECE_BYTES, length)
    if (place > known || page.length < end - place) throw incomplete(unit, at + known)
    page.copy(content, place, 0, end - place)
    known = Math.max(known, end)
  }
  if (known < length) throw incomplete(unit, at + known)
  return content
}

/** The chunk of the base that begins at `at`; undefined behind the base's end. */
function baseChunk(options: {
  readonly unit: RestoreUnit
  readonly at: number
  readonly open: (blob: JobBlob, kind: BlobKind) => Buffer
}): Buffer | undefined {
  const { unit, at } = options
  const chunk = unit.chunks[at / CHUNK_BYTES]
  if (chunk === undefined) return undefined
  const content = options.open(chunk, 'chunk')
  const expected = Math.min(CHUNK_BYTES, unit.baseLength - at)
  if (content.length === expected) return content
  throw damaged(packKey(chunk.pack), `the blob at ${chunk.offset} has ${content.length} bytes, "${unit.path}" needs ${expected}`)
}

function incomplete(unit: RestoreUnit, at: number): Error {
  const first = [...unit.chunks, ...unit.overlays].find((blob) => blob !== undefined)
  const what = `its blobs do not hold all of "${unit.path}": nothing is there for the byte at ${unit.offset + at}`
  return damaged(first === undefined ? unit.path : packKey(first.pack), what)
}

function writeInPlace(file: number, content: Uint8Array, offset: number): void {
  for (let done = 0; done < content.length;) {
    done += writeSync(file, content, done, content.length - done, offset + done)
  }
}

/** Fills the buffer from a file. Gives as much as there is. */
export function readInPlace(file: number, buffer: Buffer, offset: number): Buffer {
  let done = 0
  while (done < buffer.length) {
    const read = readSync(file, buffer, done, buffer.length - done, offset + done)
    if (read === 0) break
    done += read
  }
  return buffer.subarray(0, done)
}

function openJobBlob(from: { ring: KeyRing; job: RestoreJob; kind: BlobKind }, blob: JobBlob): Buffer {
  const { ring, job, kind } = from
  const name = packKey(blob.pack)
  if (blob.kind !== kind) throw damaged(name, `the blob at ${blob.offset} is a ${blob.kind}, expected a ${kind}`)
  const stored = job.ranges[blob.range]!.subarray(blob.at, blob.at + blob.storedBytes)
  return openBlob(jobPackKey(ring, blob.pack, job), { ...blob, identity: Buffer.from(blob.identity) }, stored, name)
}

function jobPackKey(ring: KeyRing, pack: string, job: RestoreJob): KeyObject {
  const known = packKeys.get(pack)
  if (known !== undefined) return known
  const header = job.packs.get(pack)
  if (header === undefined) throw damaged(packKey(pack), 'its header was not read')
  const key = openPackHeader(ring, pack, Buffer.from(header))
  if (packKeys.size >= PACK_KEYS_MAX) packKeys.clear()
  packKeys.set(pack, key)
  return key
}
