import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { test } from 'node:test'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { ZstdCompressor, ZstdDecompressor } from './zstd.ts'

const LEVEL_1 = { [constants.ZSTD_c_compressionLevel]: 1 }

/** Text, noise and zeros, in stretches. */
function content(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at < length;) {
    const stretch = bytes.subarray(at, at + randomInt(1, 40_000))
    const kind = randomInt(3)
    if (kind === 0) stretch.fill(`observation ${at} of patient ${at % 977}, `)
    if (kind === 1) randomBytes(stretch.length).copy(stretch)
    at += stretch.length
  }
  return bytes
}

test('what one context compresses, block after block, the documented function opens', () => {
  const compressor = new ZstdCompressor(LEVEL_1)
  for (const length of [0, 1, 8192, 262_144, 100, 2_000_000, 262_144]) {
    const bytes = content(length)
    assert.deepEqual(zstdDecompressSync(compressor.compress(bytes)), bytes)
  }
})

test('one context opens frame after frame of any length and level', () => {
  const decompressor = new ZstdDecompressor()
  for (const length of [0, 1, 200, 255, 256, 70_000, 262_144, 3_000_000, 5]) {
    for (const level of [1, 3, 19]) {
      const bytes = content(length)
      const frame = zstdCompressSync(bytes, { params: { [constants.ZSTD_c_compressionLevel]: level } })
      assert.deepEqual(decompressor.decompress(frame, length), bytes)
    }
  }
})

test('a damaged frame is refused, and the next one opens all the same', () => {
  const decompressor = new ZstdDecompressor()
  const bytes = content(300_000)
  const frame = zstdCompressSync(bytes, { params: LEVEL_1 })
  const damaged: Buffer[] = [frame.subarray(0, -1), frame.subarray(0, frame.length / 2), frame.subarray(0, 5), frame.subarray(1)]
  damaged.push(Buffer.concat([frame, Buffer.from([0])]), Buffer.concat([frame, frame]), Buffer.alloc(0))
  for (const each of damaged) {
    assert.throws(() => decompressor.decompress(each, bytes.length), /frame/)
    assert.deepEqual(decompressor.decompress(frame, bytes.length), bytes)
  }
  assert.throws(() => decompressor.decompress(frame, bytes.length - 1))
  assert.deepEqual(decompressor.decompress(frame, bytes.length), bytes)
  assert.throws(() => decompressor.decompress(frame, bytes.length + 1), /frame/)
  assert.deepEqual(decompressor.decompress(frame, bytes.length), bytes)
})

test('a frame with flipped bits never spoils the ones behind it', () => {
  const decompressor = new ZstdDecompressor()
  const bytes = content(300_000)
  const frame = zstdCompressSync(bytes, { params: LEVEL_1 })
  for (let flips = 0; flips < 200; flips++) {
    const flipped = Buffer.from(frame)
    const at = randomInt(flipped.length)
    flipped.writeUInt8(flipped.readUInt8(at) ^ (1 << randomInt(8)), at)
    try {
      decompressor.decompress(flipped, bytes.length)
    } catch {
      // Most are noticed here; what is not, the seal around a frame notices.
    }
    assert.deepEqual(decompressor.decompress(frame, bytes.length), bytes)
  }
})
