import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import { assert } from '../assert.ts'
import { releaseBytes } from '../stream/own-bytes.ts'
import type { CallOptions, Storage } from '../storage/storage.ts'
import { BLOB_KINDS, blobKindName, IDENTITY_BYTES, sealBlob, type BlobKind, type BlobLocation } from './blob.ts'
import type { KeyRing } from './key-ring.ts'
import { packId, packKey } from './layout.ts'
import { damaged, frameNonce, HEADER_BYTES, newHeader, openHeader, TAG_BYTES } from './sealed-object.ts'

// Packs (docs/format.md, "Packs"):
//
//   header 32 ‖ sealed blobs ‖ sealed directory ‖ u32 length of the sealed directory ‖ u32 entries ‖ "RSUSPACK"
//   directory entry 48: identity 32 ‖ offset u32 ‖ stored length u32 ‖ raw length u32 ‖ kind u8 ‖ zero 3

/** A pack is closed when it has grown to this. */
export const PACK_BYTES = 32 * 1024 * 1024
const ENTRY_BYTES = 48
const TRAILER_BYTES = 16
const TRAILER_MAGIC = Buffer.from('RSUSPACK')
const NONCE_DIRECTORY = 2
const DIRECTORY_MAX_BYTES = 64 * 1024 * 1024

/** Makes the bytes of one pack. `take()` gives what has been made since the last call, so that nothing waits in memory. */
export class PackBuilder {
  readonly pack: string
  readonly locations: BlobLocation[] = []
  readonly #header: Buffer
  readonly #key: KeyObject
  readonly #level: number
  #made: Buffer[] = []
  #madeBytes = 0
  #sizeBytes = 0

  constructor(ring: KeyRing, level: number, runSuffix?: string) {
    this.pack = packId(runSuffix)
    this.#level = level
    const { header, key } = newHeader(ring, 'pack', packKey(this.pack))
    this.#header = header
    this.#key = createSecretKey(key)
    this.#append(header)
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  add(kind: BlobKind, identity: Buffer, content: Uint8Array): BlobLocation {
    const offset = this.#sizeBytes
    const sealed = sealBlob({ key: this.#key, offset, kind, identity }, content, this.#level)
    for (const part of sealed) this.#append(part)
    const location = { identity, kind, pack: this.pack, offset, storedBytes: this.#sizeBytes - offset, rawBytes: content.length }
    this.locations.push(location)
    return location
  }

  /** Appends directory and trailer. Nothing may be added after that. */
  close(): void {
    const directory = Buffer.alloc(this.locations.length * ENTRY_BYTES)
    for (const [index, location] of this.locations.entries()) {
      const at = index * ENTRY_BYTES
      location.identity.copy(directory, at)
      directory.writeUInt32LE(location.offset, at + 32)
      directory.writeUInt32LE(location.storedBytes, at + 36)
      directory.writeUInt32LE(location.rawBytes, at + 40)
      directory.writeUInt8(BLOB_KINDS[location.kind], at + 44)
    }
    const cipher = createCipheriv('aes-256-gcm', this.#key, frameNonce(BigInt(this.#sizeBytes), NONCE_DIRECTORY))
    cipher.setAAD(directoryContext(this.#header, this.locations.length))
    const sealed = Buffer.concat([cipher.update(directory), cipher.final(), cipher.getAuthTag()])
    const trailer = Buffer.alloc(TRAILER_BYTES)
    trailer.writeUInt32LE(sealed.length)
    trailer.writeUInt32LE(this.locations.length, 4)
    TRAILER_MAGIC.copy(trailer, 8)
    this.#append(sealed)
    this.#append(trailer)
  }

  /** The bytes made since the last call, in a buffer of their own. */
  take(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.#madeBytes)
    let at = 0
    for (const part of this.#made) {
      bytes.set(part, at)
      at += part.length
      releaseBytes(part)
    }
    this.#made = []
    this.#madeBytes = 0
    return bytes
  }

  #append(part: Buffer): void {
    this.#made.push(part)
    this.#madeBytes += part.length
    this.#sizeBytes += part.length
  }
}

/** The key of a stored pack, from its header. Throws OBJECT_DAMAGED. */
export function openPackHeader(ring: KeyRing, pack: string, header: Buffer): KeyObject {
  return createSecretKey(openHeader(ring, 'pack', packKey(pack), header))
}

/** Reads where a pack's blobs lie, from the pack itself. Throws OBJECT_MISSING, OBJECT_DAMAGED. */
export async function readPackDirectory(
  storage: Storage,
  ring: KeyRing,
  stored: { pack: string; sizeBytes: number },
  options: CallOptions = {},
): Promise<BlobLocation[]> {
  const name = packKey(stored.pack)
  const header = await storage.getRange(name, { offset: 0, length: HEADER_BYTES }, options)
  const trailerAt = stored.sizeBytes - TRAILER_BYTES
  if (trailerAt < HEADER_BYTES) throw damaged(name, `it has only ${stored.sizeBytes} bytes`)
  const trailer = await storage.getRange(name, { offset: trailerAt, length: TRAILER_BYTES }, options)
  const length = directoryLength(name, trailer, trailerAt)
  const sealed = await storage.getRange(name, { offset: trailerAt - length, length }, options)
  return openPackDirectory(ring, stored.pack, { header, sealed, trailer, offset: trailerAt - length })
}

/** The same from a pack that is in memory whole. */
export function packDirectory(ring: KeyRing, pack: string, bytes: Buffer): BlobLocation[] {
  const name = packKey(pack)
  const trailerAt = bytes.length - TRAILER_BYTES
  if (trailerAt < HEADER_BYTES) throw damaged(name, `it has only ${bytes.length} bytes`)
  const trailer = bytes.subarray(trailerAt)
  const offset = trailerAt - directoryLength(name, trailer, trailerAt)
  const sealed = bytes.subarray(offset, trailerAt)
  return openPackDirectory(ring, pack, { header: bytes.subarray(0, HEADER_BYTES), sealed, trailer, offset })
}

function directoryLength(name: string, trailer: Buffer, trailerAt: number): number {
  if (trailer.length < TRAILER_BYTES || !trailer.subarray(8).equals(TRAILER_MAGIC)) throw damaged(name, 'it has no trailer')
  const length = trailer.readUInt32LE(0)
  const whole = length === trailer.readUInt32LE(4) * ENTRY_BYTES + TAG_BYTES
  if (!whole || length > DIRECTORY_MAX_BYTES || length > trailerAt - HEADER_BYTES) throw damaged(name, 'its trailer is wrong')
  return length
}

function openPackDirectory(
  ring: KeyRing,
  pack: string,
  stored: { header: Buffer; sealed: Buffer; trailer: Buffer; offset: number },
): BlobLocation[] {
  const name = packKey(pack)
  const key = openPackHeader(ring, pack, stored.header)
  const length = stored.sealed.length - TAG_BYTES
  const decipher = createDecipheriv('aes-256-gcm', key, frameNonce(BigInt(stored.offset), NONCE_DIRECTORY))
  decipher.setAAD(directoryContext(stored.header, stored.trailer.readUInt32LE(4)))
  decipher.setAuthTag(stored.sealed.subarray(length))
  const directory = decipher.update(stored.sealed.subarray(0, length))
  try {
    decipher.final()
  } catch {
    throw damaged(name, 'its directory is not as it was written')
  }
  const locations: BlobLocation[] = []
  for (let at = 0; at < directory.length; at += ENTRY_BYTES) {
    const kind = blobKindName(directory.readUInt8(at + 44))
    assert(kind !== undefined, `the kind ${directory.readUInt8(at + 44)} in "${name}" is known`)
    locations.push({
      identity: directory.subarray(at, at + IDENTITY_BYTES),
      kind,
      pack,
      offset: directory.readUInt32LE(at + 32),
      storedBytes: directory.readUInt32LE(at + 36),
      rawBytes: directory.readUInt32LE(at + 40),
    })
  }
  return locations
}

function directoryContext(header: Buffer, entries: number): Buffer {
  const count = Buffer.alloc(4)
  count.writeUInt32LE(entries)
  return Buffer.concat([header, count])
}
