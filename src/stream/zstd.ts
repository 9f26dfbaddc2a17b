import { constants, createZstdCompress, createZstdDecompress, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { assert } from '../assert.ts'

// zstd for many small blocks, one after the other. `zstdCompressSync` makes a stream, a context and an output buffer for each call; here one
// context and one buffer serve a thread for ever: a quarter to a half faster (docs/decisions/0006-zstd-contexts.md).

/** Most that zstd makes of `length` bytes (zstd.h, ZSTD_COMPRESSBOUND). */
function compressBound(length: number): number {
  return length + (length >> 8) + 64 * 1024
}

/*
 * What Node's zlib streams do each block with (lib/zlib.js, processChunkSync). It is not documented, so it is used only where a trial
 * shows that it works; else the documented functions are.
 */
interface Handle {
  onerror: (message: string) => void
  writeSync(
    flush: number,
    input: Uint8Array,
    inAt: number,
    inLength: number,
    out: Uint8Array,
    outAt: number,
    outLength: number,
  ): void
}

interface Context {
  readonly handle: Handle
  /** After a write: bytes left in the output, bytes left in the input. */
  readonly left: Uint32Array
}

/** Compresses blocks of one thread, each into a frame of its own. */
export class ZstdCompressor {
  readonly #params: Readonly<Record<number, number>>
  readonly #context: Context | undefined
  #out = Buffer.alloc(0)

  constructor(params: Readonly<Record<number, number>>) {
    this.#params = params
    this.#context = tried(
      () => contextOf(createZstdCompress({ params })),
      (context) => zstdDecompressSync(this.#compress(context, TRIAL)),
    )
  }

  /** A frame that holds `content`. Its bytes are good until the next call. */
  compress(content: Uint8Array): Buffer {
    return this.#context === undefined
      ? zstdCompressSync(content, { params: this.#params })
      : this.#compress(this.#context, content)
  }

  #compress(context: Context, content: Uint8Array): Buffer {
    const bound = compressBound(content.length)
    if (this.#out.length < bound) this.#out = Buffer.allocUnsafeSlow(bound)
    return this.#out.subarray(0, runContext(context, content, this.#out))
  }
}

/** Opens frames, one after the other. */
export class ZstdDecompressor {
  #context = newDecompressor()

  /** The content of a frame that has `length` bytes of it. Throws for a frame that is damaged, or has another length. */
  decompress(frame: Uint8Array, length: number): Buffer {
    const out = Buffer.allocUnsafeSlow(length)
    if (this.#context === undefined) {
      // zlib takes a second buffer when the first is filled to its end.
      const content = zstdDecompressSync(frame, { chunkSize: length + 64, maxOutputLength: Math.max(1, length) })
      assert(content.length === length, `a frame holds the ${length} bytes that it is said to`)
      return content
    }
    // Half a frame would leave the context in the middle of it, and spoil the next one.
    assert(frameLength(frame) === frame.length, 'a frame ends where its bytes end')
    try {
      assert(runContext(this.#context, frame, out) === length, `a frame holds the ${length} bytes that it is said to`)
      return out
    } catch (error) {
      // What a damaged frame left in the context must not meet the next one.
      this.#context = newDecompressor()
      throw error
    }
  }
}

const TRIAL = Buffer.from('zstd '.repeat(1000))

function newDecompressor(): Context | undefined {
  const frame = zstdCompressSync(TRIAL)
  return tried(
    () => contextOf(createZstdDecompress()),
    (context) => {
      const out = Buffer.alloc(TRIAL.length)
      return out.subarray(0, runContext(context, frame, out))
    },
  )
}

/** The context, if it gives TRIAL back twice: the second time shows that it can be used again. */
function tried(make: () => Context | undefined, roundTrip: (context: Context) => Buffer): Context | undefined {
  try {
    const context = make()
    if (context === undefined) return undefined
    return roundTrip(context).equals(TRIAL) && roundTrip(context).equals(TRIAL) ? context : undefined
  } catch {
    // Another Node, other insides: the documented way is slower, and right.
    return undefined
  }
}

function contextOf(stream: object): Context | undefined {
  const handle: unknown = Reflect.get(stream, '_handle')
  const left: unknown = Reflect.get(stream, '_writeState')
  const usable = typeof handle === 'object' && handle !== null && 'writeSync' in handle && left instanceof Uint32Array
  return usable ? { handle: handle as Handle, left } : undefined
}

/** Runs one whole block through the context. Gives the number of bytes it made; throws when it took or made less than all. */
function runContext({ handle, left }: Context, input: Uint8Array, out: Uint8Array): number {
  let failure: string | undefined
  handle.onerror = (message) => (failure = message)
  handle.writeSync(constants.ZSTD_e_end, input, 0, input.length, out, 0, out.length)
  if (failure !== undefined) throw new Error(`zstd: ${failure}`)
  const [outLeft = 0, inLeft = 0] = left
  assert(inLeft === 0, 'zstd takes all of a block')
  return out.length - outLeft
}

/*
 * A frame (RFC 8878, 3.1.1): magic 4 ‖ descriptor 1 ‖ window 0-1 ‖ dictionary 0-4 ‖ content size 0-8 ‖ blocks ‖ checksum 0 or 4.
 * A block: header 3 (bit 0 last, bits 1-2 type: 0 raw, 1 one byte repeated, 2 compressed; then its size) ‖ content.
 */
const MAGIC = 0xfd2fb528
const DICTIONARY_BYTES = [0, 1, 2, 4] as const
const SIZE_BYTES = [0, 2, 4, 8] as const
const BLOCK_REPEATED = 1
const BLOCK_RESERVED = 3

/** Where the first frame in `bytes` ends; NaN when it does not end in them, or is none. */
function frameLength(bytes: Uint8Array): number {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  if (view.length < 6 || view.readUInt32LE(0) !== MAGIC) return Number.NaN
  const descriptor = view.readUInt8(4)
  const single = (descriptor & 0x20) !== 0
  const sizeBytes = single && descriptor >> 6 === 0 ? 1 : SIZE_BYTES[(descriptor >> 6) as 0 | 1 | 2 | 3]
  let at = 5 + (single ? 0 : 1) + DICTIONARY_BYTES[(descriptor & 3) as 0 | 1 | 2 | 3] + sizeBytes
  for (let last = false; !last;) {
    if (at + 3 > view.length) return Number.NaN
    const header = view.readUIntLE(at, 3)
    const type = (header >> 1) & 3
    if (type === BLOCK_RESERVED) return Number.NaN
    at += 3 + (type === BLOCK_REPEATED ? 1 : header >> 3)
    last = (header & 1) !== 0
  }
  return at + ((descriptor & 4) !== 0 ? 4 : 0)
}
