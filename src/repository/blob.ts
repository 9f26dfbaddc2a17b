import { createCipheriv, createDecipheriv, createHmac, createSecretKey, hash, type KeyObject } from 'node:crypto'
import { constants } from 'node:zlib'
import { releaseBytes } from '../stream/own-bytes.ts'
import { ZstdCompressor, ZstdDecompressor } from '../stream/zstd.ts'
import type { KeyRing } from './key-ring.ts'
import { damaged, frameNonce, TAG_BYTES } from './sealed-object.ts'

// Blobs (docs/format.md, "Blobs"): content, found by its keyed identity.

export const PIECE_BYTES = 8192
export const CHUNK_BYTES = 256 * 1024
export const IDENTITY_BYTES = 32
const NONCE_BLOB = 1

export const BLOB_KINDS = { chunk: 1, region: 2, overlay: 3, regions: 4, leaf: 5, node: 6 } as const
export type BlobKind = keyof typeof BLOB_KINDS

const KIND_NAMES = new Map<number, BlobKind>(Object.entries(BLOB_KINDS).map(([name, code]) => [code, name as BlobKind]))

export function blobKindName(code: number): BlobKind | undefined {
  return KIND_NAMES.get(code)
}

/** Where a blob lies, as the index and the directories of packs say. */
export interface BlobLocation {
  readonly identity: Buffer
  readonly kind: BlobKind
  /** 32 hex digits. */
  readonly pack: string
  readonly offset: number
  /** Stored bytes, the tag included. */
  readonly storedBytes: number
  readonly rawBytes: number
}

/** The identity of content: HMAC-SHA-256(blob key, kind ‖ length ‖ SHA-256 of the content). */
export function blobIdentity(ring: Pick<KeyRing, 'blobKey'>, kind: BlobKind, content: Uint8Array): Buffer {
  const prefix = Buffer.allocUnsafe(9)
  prefix.writeUInt8(BLOB_KINDS[kind])
  prefix.writeBigUInt64LE(BigInt(content.length), 1)
  return createHmac('sha256', blobKeyObject(ring))
    .update(prefix)
    .update(hash('sha256', content, 'buffer'))
    .digest()
}

const blobKeys = new WeakMap<Uint8Array, KeyObject>()

/** The key as an object that is made once: made anew for each blob it would cost more than the HMAC. */
function blobKeyObject({ blobKey }: Pick<KeyRing, 'blobKey'>): KeyObject {
  const known = blobKeys.get(blobKey)
  if (known !== undefined) return known
  const key = createSecretKey(blobKey)
  blobKeys.set(blobKey, key)
  return key
}

/** Compresses and seals a blob for its place in a pack. `level` is zstd's. */
export function sealBlob(
  place: { key: KeyObject; offset: number; kind: BlobKind; identity: Buffer },
  content: Uint8Array,
  level: number,
): Buffer[] {
  const compressed = compressorOf(level).compress(content)
  const plaintext = compressed.length < content.length ? compressed : content
  const cipher = createCipheriv('aes-256-gcm', place.key, frameNonce(BigInt(place.offset), NONCE_BLOB))
  cipher.setAAD(blobContext(place.kind, place.identity))
  const sealed = cipher.update(plaintext)
  cipher.final()
  return [sealed, cipher.getAuthTag()]
}

/**
 * Opens a blob from its stored bytes: the tag proves that these are the bytes that were sealed under this identity. Throws OBJECT_DAMAGED,
 * naming the pack.
 */
export function openBlob(key: KeyObject, location: BlobLocation, stored: Uint8Array, packName: string): Buffer {
  const what = `blob ${location.identity.toString('hex').slice(0, 16)} at ${location.offset}`
  if (stored.length !== location.storedBytes || stored.length < TAG_BYTES) throw damaged(packName, `${what} ends early`)
  const length = stored.length - TAG_BYTES
  const decipher = createDecipheriv('aes-256-gcm', key, frameNonce(BigInt(location.offset), NONCE_BLOB))
  decipher.setAAD(blobContext(location.kind, location.identity))
  decipher.setAuthTag(stored.subarray(length))
  const opened = decipher.update(stored.subarray(0, length))
  try {
    decipher.final()
  } catch {
    throw damaged(packName, `${what} is not as it was written`)
  }
  if (length === location.rawBytes) return opened
  const content = decompressor.decompress(opened, location.rawBytes)
  releaseBytes(opened)
  return content
}

const decompressor = new ZstdDecompressor()
const compressors = new Map<number, ZstdCompressor>()

function compressorOf(level: number): ZstdCompressor {
  const known = compressors.get(level)
  if (known !== undefined) return known
  const compressor = new ZstdCompressor(zstdParams(level))
  compressors.set(level, compressor)
  return compressor
}

/** How a level compresses. 1 takes matches of 5 bytes and not of 6: pages become 2 % smaller, and no slower with a table that stays in the first cache. */
export function zstdParams(level: number): Readonly<Record<number, number>> {
  const finer = level === 1 ? { [constants.ZSTD_c_minMatch]: 5, [constants.ZSTD_c_hashLog]: 13 } : {}
  return { [constants.ZSTD_c_compressionLevel]: level, ...finer }
}

function blobContext(kind: BlobKind, identity: Buffer): Buffer {
  const context = Buffer.allocUnsafe(1 + IDENTITY_BYTES)
  context.writeUInt8(BLOB_KINDS[kind])
  identity.copy(context, 1)
  return context
}
