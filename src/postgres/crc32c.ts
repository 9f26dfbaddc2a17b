import { endianness } from 'node:os'
import { assert } from '../assert.ts'
import { FOLD_BYTES, makeFolder } from './crc32c-fold.ts'

/** Castagnoli's polynomial, bits reversed: the lowest bit stands for the highest power. PostgreSQL: pg_crc32c.h. */
const POLYNOMIAL = 0x82f63b78

/** Below this many bytes the word loop does not pay for itself. */
const WORDS_FROM_BYTES = 256
/** From this many on, vectors do most of it. */
const FOLD_FROM_BYTES = 1024

// The word loop and the page code read typed arrays as PostgreSQL's little-endian files.
assert(endianness() === 'LE', 'the processor is little-endian')

/** Sixteen tables of 256 entries: the k-th tells what a byte becomes when k more bytes follow it. */
const TABLES = makeTables()

const foldBlocks = makeFolder((crc) => TABLES[crc & 0xff]! ^ (crc >>> 8))

/** x to the power of 2^n modulo the polynomial, n from 0: lengths up to 2^53 bytes are 2^56 bits. */
const POWERS = makePowers(64)

/**
 * CRC-32C of the bytes, as PostgreSQL computes it for WAL records, the control file and manifests. `seed` is the CRC of the bytes
 * before these, so that a stream can be fed piece by piece.
 */
export function crc32c(bytes: Uint8Array, seed = 0): number {
  if (bytes.length < FOLD_FROM_BYTES || foldBlocks === undefined) return ~update(~seed, bytes) >>> 0
  const end = bytes.length - (bytes.length % FOLD_BYTES)
  const folded = update(0, foldBlocks(bytes.subarray(0, end), ~seed))
  return ~update(folded, bytes.subarray(end)) >>> 0
}

/** The register after these bytes. */
function update(seed: number, bytes: Uint8Array): number {
  const table = TABLES
  let crc = seed
  let at = 0
  if (bytes.length >= WORDS_FROM_BYTES) {
    for (; ((bytes.byteOffset + at) & 3) !== 0; at++) crc = table[(crc ^ bytes[at]!) & 0xff]! ^ (crc >>> 8)
    const words = new Int32Array(bytes.buffer, bytes.byteOffset + at, ((bytes.length - at) >>> 4) << 2)
    crc = updateByWords(crc, words)
    at += words.length * 4
  }
  for (; at < bytes.length; at++) crc = table[(crc ^ bytes[at]!) & 0xff]! ^ (crc >>> 8)
  return crc
}

/** CRC of A followed by B, from the CRCs of both and B's length in bytes: parts may be read in any order and joined afterwards. */
export function crc32cCombine(crcA: number, crcB: number, lengthB: number): number {
  assert(Number.isSafeInteger(lengthB) && lengthB >= 0, `${lengthB} is a length in bytes`)
  // Appending B multiplies A's remainder by x^(8 * length): the product of x^(2^n) for every bit n of that number.
  let product = 1 << 31
  for (let bit = 3, rest = lengthB; rest > 0; bit++, rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) product = multiply(POWERS[bit]!, product)
  }
  return (multiply(product, crcA) ^ crcB) >>> 0
}

/** Sixteen bytes a round, each byte through its own table: no step waits for the one before it. Length is a multiple of four. */
function updateByWords(seed: number, words: Int32Array): number {
  const t = TABLES
  let crc = seed
  for (let i = 0; i < words.length; i += 4) {
    const a = words[i]! ^ crc
    const b = words[i + 1]!
    const c = words[i + 2]!
    const d = words[i + 3]!
    crc =
      t[3840 + (a & 0xff)]! ^
      t[3584 + ((a >>> 8) & 0xff)]! ^
      t[3328 + ((a >>> 16) & 0xff)]! ^
      t[3072 + (a >>> 24)]! ^
      t[2816 + (b & 0xff)]! ^
      t[2560 + ((b >>> 8) & 0xff)]! ^
      t[2304 + ((b >>> 16) & 0xff)]! ^
      t[2048 + (b >>> 24)]! ^
      t[1792 + (c & 0xff)]! ^
      t[1536 + ((c >>> 8) & 0xff)]! ^
      t[1280 + ((c >>> 16) & 0xff)]! ^
      t[1024 + (c >>> 24)]! ^
      t[768 + (d & 0xff)]! ^
      t[512 + ((d >>> 8) & 0xff)]! ^
      t[256 + ((d >>> 16) & 0xff)]! ^
      t[d >>> 24]!
  }
  return crc
}

function makeTables(): Int32Array {
  const tables = new Int32Array(16 * 256)
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte
    for (let bit = 0; bit < 8; bit++) crc = timesX(crc)
    tables[byte] = crc
  }
  for (let i = 256; i < tables.length; i++) {
    const before = tables[i - 256]!
    tables[i] = (before >>> 8) ^ tables[before & 0xff]!
  }
  return tables
}

function makePowers(count: number): Int32Array {
  const powers = new Int32Array(count)
  powers[0] = 1 << 30
  for (let n = 1; n < count; n++) powers[n] = multiply(powers[n - 1]!, powers[n - 1]!)
  return powers
}

/** The product of two polynomials over GF(2), modulo the polynomial. */
function multiply(a: number, b: number): number {
  let product = 0
  let shifted = b
  for (let bit = 31; bit >= 0; bit--) {
    if (((a >>> bit) & 1) === 1) product ^= shifted
    shifted = timesX(shifted)
  }
  return product
}

function timesX(a: number): number {
  return (a & 1) === 1 ? (a >>> 1) ^ POLYNOMIAL : a >>> 1
}
