import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { BLOB_KINDS, blobKindName, IDENTITY_BYTES, type BlobLocation } from './blob.ts'
import { damaged } from './sealed-object.ts'

// Entries of the index (docs/format.md, "Index"), 64 bytes, sorted by identity, then pack:
//
//   identity 32 ‖ pack 16 ‖ offset u32 ‖ stored length u32 ‖ raw length u32 ‖ kind u8 ‖ zero 3

export const INDEX_ENTRY_BYTES = 64
/** Bytes of a local table behind its entries: an HMAC over them. */
export const TABLE_MAC_BYTES = 32
/** A table up to this size is searched in memory; a larger one on the disk, some blocks at a time. */
const IN_MEMORY_BYTES = 4 * 1024 * 1024
const BLOCK_ENTRIES = 64
const INTERPOLATIONS_MAX = 12

export function encodeIndexEntry(location: BlobLocation): Buffer {
  const entry = Buffer.alloc(INDEX_ENTRY_BYTES)
  location.identity.copy(entry)
  entry.write(location.pack, 32, 'hex')
  entry.writeUInt32LE(location.offset, 48)
  entry.writeUInt32LE(location.storedBytes, 52)
  entry.writeUInt32LE(location.rawBytes, 56)
  entry.writeUInt8(BLOB_KINDS[location.kind], 60)
  return entry
}

export function decodeIndexEntry(bytes: Buffer, at: number): BlobLocation {
  const kind = blobKindName(bytes.readUInt8(at + 60))
  if (kind === undefined) throw damaged('index', `an entry is of the unknown kind ${bytes.readUInt8(at + 60)}`)
  return {
    identity: Buffer.from(bytes.subarray(at, at + IDENTITY_BYTES)),
    kind,
    pack: bytes.toString('hex', at + 32, at + 48),
    offset: bytes.readUInt32LE(at + 48),
    storedBytes: bytes.readUInt32LE(at + 52),
    rawBytes: bytes.readUInt32LE(at + 56),
  }
}

/** Sorted entries without repeats, back to back. */
export function sortIndexEntries(entries: readonly Buffer[]): Buffer {
  const sorted = entries.toSorted((left, right) => left.compare(right))
  return Buffer.concat(sorted.filter((entry, index) => index === 0 || !entry.equals(sorted[index - 1]!)))
}

/** The single entries of a stretch of them. */
export function splitIndexEntries(entries: Uint8Array): Buffer[] {
  const bytes = Buffer.from(entries.buffer, entries.byteOffset, entries.byteLength)
  return Array.from({ length: bytes.length / INDEX_ENTRY_BYTES }, (_, at) =>
    bytes.subarray(at * INDEX_ENTRY_BYTES, (at + 1) * INDEX_ENTRY_BYTES),
  )
}

/** One sorted table of index entries on the local disk. Close it. */
export class IndexTable {
  readonly #file: number
  readonly #entries: number
  readonly #memory: Buffer | undefined

  constructor(path: string) {
    this.#file = openSync(path, 'r')
    const { size } = fstatSync(this.#file)
    this.#entries = Math.floor((size - TABLE_MAC_BYTES) / INDEX_ENTRY_BYTES)
    if (size <= IN_MEMORY_BYTES) this.#memory = this.#read(0, this.#entries)
  }

  get entries(): number {
    return this.#entries
  }

  /** All places of one identity, in this table. */
  find(identity: Buffer): BlobLocation[] {
    const found: BlobLocation[] = []
    for (let at = this.#lowerBound(identity); at < this.#entries; at++) {
      const entry = this.#read(at, 1)
      if (entry.compare(identity, 0, IDENTITY_BYTES, 0, IDENTITY_BYTES) !== 0) break
      found.push(decodeIndexEntry(entry, 0))
    }
    return found
  }

  /** Entries as stored, `count` of them from `first` on. */
  read(first: number, count: number): Buffer {
    return this.#read(first, Math.min(count, this.#entries - first))
  }

  close(): void {
    closeSync(this.#file)
  }

  /** The first entry that is not before `identity`. Identities are uniform, so that a guess by proportion lands near. */
  #lowerBound(identity: Buffer): number {
    let low = 0
    let high = this.#entries
    const wanted = identity.readUIntBE(0, 6)
    let lowValue = 0
    let highValue = 2 ** 48
    for (let guesses = 0; high - low > BLOCK_ENTRIES; guesses++) {
      const share = guesses < INTERPOLATIONS_MAX ? (wanted - lowValue) / Math.max(1, highValue - lowValue) : 0.5
      const middle = Math.min(high - 1, Math.max(low, low + Math.floor((high - low) * share)))
      const entry = this.#read(middle, 1)
      if (entry.compare(identity, 0, IDENTITY_BYTES, 0, IDENTITY_BYTES) < 0) {
        low = middle + 1
        lowValue = entry.readUIntBE(0, 6)
      } else {
        high = middle
        highValue = entry.readUIntBE(0, 6)
      }
    }
    const first = low
    const block = this.#read(first, high - first)
    while (low < high) {
      const middle = (low + high) >>> 1
      const at = (middle - first) * INDEX_ENTRY_BYTES
      if (block.compare(identity, 0, IDENTITY_BYTES, at, at + IDENTITY_BYTES) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  #read(first: number, count: number): Buffer {
    const start = first * INDEX_ENTRY_BYTES
    const length = count * INDEX_ENTRY_BYTES
    if (this.#memory !== undefined) return this.#memory.subarray(start, start + length)
    const buffer = Buffer.allocUnsafe(length)
    for (let done = 0; done < length;) {
      const read = readSync(this.#file, buffer, done, length - done, start + done)
      if (read === 0) throw damaged('index', 'a local table of it ends early; it will be made again')
      done += read
    }
    return buffer
  }
}
