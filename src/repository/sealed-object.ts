import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { constants } from 'node:zlib'
import { assert } from '../assert.ts'
import { Failure } from '../errors.ts'
import type { CallOptions, Storage } from '../storage/storage.ts'
import { ZstdCompressor, ZstdDecompressor } from '../stream/zstd.ts'
import { objectKey, type KeyRing } from './key-ring.ts'

// Sealed objects (docs/format.md, "Sealed objects"):
//
//   header 32: "RSUS", version u8, kind u8, 0 u16, data key 8, salt 16
//   frames:    u32 length of ciphertext (bit 31: last) ‖ ciphertext ‖ tag 16
//   plaintext of a frame: u8 encoding (0 plain, 1 zstd) ‖ u32 decoded length ‖ bytes; frame 0 is the head (JSON)

export const HEADER_BYTES = 32
export const TAG_BYTES = 16
const MAGIC = Buffer.from('RSUS')
const VERSION = 1
const FRAME_BYTES = 1024 * 1024
/** No frame is longer than this when sealed: what claims to be is damaged, and must not make us allocate. */
const SEALED_FRAME_MAX = FRAME_BYTES + 64 * 1024
const LAST = 0x80000000
const FRAME_PREFIX_BYTES = 5

export const OBJECT_KINDS = {
  pack: 1,
  index: 2,
  backup: 3,
  branch: 4,
  wal: 5,
  gap: 6,
  verdict: 7,
  lease: 8,
  mark: 9,
  system: 10,
  spool: 11,
  fingerprints: 12,
  expired: 13,
  notes: 14,
  damage: 15,
  packs: 16,
  control: 17,
  authority: 18,
  evidence: 19,
} as const
export type ObjectKind = keyof typeof OBJECT_KINDS

/** Makes a new object's header, and its key. */
export function newHeader(ring: KeyRing, kind: ObjectKind, name: string): { header: Buffer; key: Buffer } {
  const salt = randomBytes(16)
  const header = Buffer.concat([
    MAGIC,
    Buffer.from([VERSION, OBJECT_KINDS[kind], 0, 0]),
    Buffer.from(ring.sealingKey, 'hex'),
    salt,
  ])
  return { header, key: objectKey(ring, { name, key: ring.sealingKey, salt }) }
}

/** The key of a stored object, from its header. Throws OBJECT_DAMAGED, REPOSITORY_TOO_NEW, KEY_WRONG. */
export function openHeader(ring: KeyRing, kind: ObjectKind, name: string, header: Buffer): Buffer {
  if (header.length < HEADER_BYTES || !header.subarray(0, 4).equals(MAGIC)) throw damaged(name, 'it has no header of Resus')
  if (header[4] !== VERSION) {
    throw new Failure('REPOSITORY_TOO_NEW', `cannot open "${name}": it is of format ${header[4]}, this Resus knows ${VERSION}`, {
      hint: 'use a newer Resus',
    })
  }
  if (header[5] !== OBJECT_KINDS[kind])
    throw damaged(name, `it is of kind ${header[5]}, expected ${OBJECT_KINDS[kind]} (${kind})`)
  const key = header.subarray(8, 16).toString('hex')
  // A flipped bit in the name of the key is damage, not a wrong passphrase: with one key at hand nothing else can be meant.
  if (ring.objectKeys[key] === undefined) throw damaged(name, `it names the data key ${key}, which this repository does not have`)
  return objectKey(ring, { name, key, salt: header.subarray(16, HEADER_BYTES) })
}

/** An OBJECT_DAMAGED failure that names the object and what is wrong with it. */
export function damaged(name: string, what: string): Failure {
  return new Failure('OBJECT_DAMAGED', `object "${name}" is damaged: ${what}`, {
    hint: 'run "resus verify --all" to see what else is, and restore the object from another copy of the storage',
  })
}

/** The bytes of a sealed object, as they are to be put: a head (any JSON) and a body. */
export async function* sealObject(
  ring: KeyRing,
  object: { kind: ObjectKind; name: string; head: unknown },
  body: AsyncIterable<Uint8Array> | Iterable<Uint8Array> = [],
): AsyncGenerator<Uint8Array> {
  const { header, key } = newHeader(ring, object.kind, object.name)
  yield header
  // One frame behind, so that the last one is known when it is sealed.
  let frame: Buffer = Buffer.from(JSON.stringify(object.head))
  assert(frame.length <= FRAME_BYTES, `the head of "${object.name}" fits into one frame`)
  let number = 0n
  for await (const next of cutIntoFrames(body)) {
    yield sealFrame({ key, header, number, last: false }, frame)
    number += 1n
    frame = next
  }
  yield sealFrame({ key, header, number, last: true }, frame)
}

/** A sealed object that is being read. `head` is there at once; `body` can be read once and fails if anything is wrong with it. */
export interface OpenedObject {
  readonly head: unknown
  readonly body: AsyncGenerator<Buffer>
}

/** Opens a sealed object from its stored bytes. Throws OBJECT_DAMAGED and what the source throws. */
export async function openObject(
  ring: KeyRing,
  object: { kind: ObjectKind; name: string },
  stored: AsyncIterable<Uint8Array>,
): Promise<OpenedObject> {
  const reader = new PieceReader(stored)
  const header = await reader.read(HEADER_BYTES)
  const key = await openOrClose(reader, () => openHeader(ring, object.kind, object.name, header))
  const frames = openFrames({ name: object.name, header, key }, reader)
  const first = await frames.next()
  if (first.done === true) throw damaged(object.name, 'it has no head')
  return { head: parseHead(object.name, first.value), body: frames }
}

async function openOrClose<T>(reader: PieceReader, open: () => T): Promise<T> {
  try {
    return open()
  } catch (error) {
    await reader.close()
    throw error
  }
}

/** Puts a sealed object under its name. Throws what the storage throws: OBJECT_EXISTS, STORAGE_UNREACHABLE, STORAGE_FULL. */
export async function putObject(
  storage: Storage,
  ring: KeyRing,
  object: { kind: ObjectKind; name: string; head: unknown; body?: AsyncIterable<Uint8Array> | Iterable<Uint8Array> },
  options: CallOptions = {},
): Promise<void> {
  await storage.put(object.name, sealObject(ring, object, object.body ?? []), options)
}

/** Opens a stored object by its name. Read `body` to its end, or `return()` it. */
export async function getObject(
  storage: Storage,
  ring: KeyRing,
  object: { kind: ObjectKind; name: string },
  options: CallOptions = {},
): Promise<OpenedObject> {
  return await openObject(ring, object, storage.get(object.name, options))
}

/** Reads an object that is all head: a backup, a lease, a mark. Throws OBJECT_MISSING, OBJECT_DAMAGED. */
export async function getRecord(
  storage: Storage,
  ring: KeyRing,
  object: { kind: ObjectKind; name: string },
  options: CallOptions = {},
): Promise<unknown> {
  const { head, body } = await getObject(storage, ring, object, options)
  for await (const _ of body) throw damaged(object.name, 'it has a body, and should be all head')
  return head
}

/**
 * Reads only the head of a stored object, by one range of up to 64 KiB (two if the head is longer). It is authenticated by itself;
 * that the body is whole is not known.
 */
export async function getHead(
  storage: Storage,
  ring: KeyRing,
  object: { kind: ObjectKind; name: string },
  options: CallOptions = {},
): Promise<unknown> {
  let start = await storage.getRange(object.name, { offset: 0, length: 64 * 1024 }, options)
  const needed =
    HEADER_BYTES + 4 + (start.length < HEADER_BYTES + 4 ? 0 : frameLength(start.readUInt32LE(HEADER_BYTES))) + TAG_BYTES
  if (needed > SEALED_FRAME_MAX + HEADER_BYTES + 4 + TAG_BYTES) throw damaged(object.name, 'its head claims an impossible length')
  if (needed > start.length && start.length === 64 * 1024) {
    start = await storage.getRange(object.name, { offset: 0, length: needed }, options)
  }
  const reader = new PieceReader([start])
  const header = await reader.read(HEADER_BYTES)
  const key = openHeader(ring, object.kind, object.name, header)
  const frame = await readFrame({ name: object.name, header, key }, reader, 0n)
  return parseHead(object.name, frame.plaintext)
}

interface FrameContext {
  readonly name: string
  readonly header: Buffer
  readonly key: Buffer
}

/** One of each for a thread, made when it is needed. Frames are made and opened in one step each, so that they never mix. */
let compressor: ZstdCompressor | undefined
let decompressor: ZstdDecompressor | undefined

function sealFrame(context: { key: Buffer; header: Buffer; number: bigint; last: boolean }, bytes: Buffer): Buffer {
  compressor ??= new ZstdCompressor({ [constants.ZSTD_c_compressionLevel]: 1 })
  const compressed = compressor.compress(bytes)
  const plain = compressed.length >= bytes.length
  const content = plain ? bytes : compressed
  const prefix = Buffer.alloc(FRAME_PREFIX_BYTES)
  prefix.writeUInt8(plain ? 0 : 1, 0)
  prefix.writeUInt32LE(bytes.length, 1)
  const length = Buffer.alloc(4)
  length.writeUInt32LE((content.length + FRAME_PREFIX_BYTES + (context.last ? LAST : 0)) >>> 0)
  const cipher = createCipheriv('aes-256-gcm', context.key, frameNonce(context.number, 0))
  cipher.setAAD(Buffer.concat([context.header, length]))
  return Buffer.concat([length, cipher.update(prefix), cipher.update(content), cipher.final(), cipher.getAuthTag()])
}

async function* openFrames(context: FrameContext, reader: PieceReader): AsyncGenerator<Buffer> {
  try {
    for (let number = 0n; ; number += 1n) {
      const frame = await readFrame(context, reader, number)
      yield frame.plaintext
      if (frame.last) break
    }
    if (!(await reader.atEnd())) throw damaged(context.name, 'there is more behind its last frame')
  } finally {
    await reader.close()
  }
}

async function readFrame(
  context: FrameContext,
  reader: PieceReader,
  number: bigint,
): Promise<{ plaintext: Buffer; last: boolean }> {
  const length = await reader.read(4)
  if (length.length < 4) throw damaged(context.name, `it ends before frame ${number}`)
  const size = frameLength(length.readUInt32LE())
  if (size > SEALED_FRAME_MAX || size < FRAME_PREFIX_BYTES) throw damaged(context.name, `frame ${number} claims ${size} bytes`)
  const sealed = await reader.read(size + TAG_BYTES)
  if (sealed.length < size + TAG_BYTES) throw damaged(context.name, `it ends inside frame ${number}`)
  const decipher = createDecipheriv('aes-256-gcm', context.key, frameNonce(number, 0))
  decipher.setAAD(Buffer.concat([context.header, length]))
  decipher.setAuthTag(sealed.subarray(size))
  const opened = decipher.update(sealed.subarray(0, size))
  try {
    decipher.final()
  } catch {
    throw damaged(context.name, `frame ${number} is not as it was written`)
  }
  return { plaintext: decodeFrame(opened), last: length.readUInt32LE() >= LAST }
}

function decodeFrame(opened: Buffer): Buffer {
  const length = opened.readUInt32LE(1)
  const content = opened.subarray(FRAME_PREFIX_BYTES)
  if (opened[0] === 0) return content
  decompressor ??= new ZstdDecompressor()
  return decompressor.decompress(content, length)
}

function parseHead(name: string, frame: Buffer): unknown {
  try {
    return JSON.parse(frame.toString('utf8')) as unknown
  } catch (cause) {
    throw new Failure('OBJECT_DAMAGED', `object "${name}" is damaged: its head is not JSON`, { cause })
  }
}

function frameLength(word: number): number {
  return word & 0x7fffffff
}

/** A nonce that counts: u64 number, u32 purpose. The key is of one object alone, so counting is enough. */
export function frameNonce(number: bigint, purpose: number): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeBigUInt64LE(number)
  nonce.writeUInt32LE(purpose, 8)
  return nonce
}

async function* cutIntoFrames(body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): AsyncGenerator<Buffer> {
  let pieces: Uint8Array[] = []
  let held = 0
  for await (const piece of body) {
    for (let at = 0; at < piece.length;) {
      const part = piece.subarray(at, at + FRAME_BYTES - held)
      pieces.push(part)
      held += part.length
      at += part.length
      if (held === FRAME_BYTES) {
        yield Buffer.concat(pieces)
        pieces = []
        held = 0
      }
    }
  }
  if (held > 0) yield Buffer.concat(pieces)
}

/** Reads exact numbers of bytes from pieces of any size. */
class PieceReader {
  readonly #pieces: AsyncIterator<Uint8Array> | Iterator<Uint8Array>
  #held: Uint8Array[] = []
  #heldBytes = 0

  constructor(source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>) {
    this.#pieces = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
  }

  /** `length` bytes, or fewer when the source ends. */
  async read(length: number): Promise<Buffer> {
    while (this.#heldBytes < length && (await this.#pull())) continue
    const all = Buffer.concat(this.#held)
    this.#held = all.length > length ? [all.subarray(length)] : []
    this.#heldBytes = Math.max(0, all.length - length)
    return all.subarray(0, length)
  }

  async atEnd(): Promise<boolean> {
    return this.#heldBytes === 0 && !(await this.#pull())
  }

  /** Lets go of the source, which may hold a file or a connection. */
  async close(): Promise<void> {
    await this.#pieces.return?.()
  }

  async #pull(): Promise<boolean> {
    const next = await this.#pieces.next()
    if (next.done === true) return false
    this.#held.push(next.value)
    this.#heldBytes += next.value.length
    return true
  }
}
