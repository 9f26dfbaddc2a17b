import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { test } from 'node:test'
import { crc32c, crc32cCombine } from './crc32c.ts'
import { FOLD_BYTES, makeFolder } from './crc32c-fold.ts'

const SEQUENCE = Uint8Array.from({ length: 32 }, (_, i) => i)
// RFC 3720, B.4: an iSCSI read command.
const READ_COMMAND = Buffer.from(
  '01c00000000000000000000000000000140000000000040000000014000000182800000000000000' + '0200000000000000',
  'hex',
)

/** Bit by bit, straight from the definition. */
function slowCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  }
  return ~crc >>> 0
}

test('the vectors of RFC 3720 B.4 come out', () => {
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa)
  assert.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43)
  assert.equal(crc32c(SEQUENCE), 0x46dd794e)
  assert.equal(crc32c(SEQUENCE.toReversed()), 0x113fdb5c)
  assert.equal(crc32c(READ_COMMAND), 0xd9963a56)
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
  assert.equal(crc32c(new Uint8Array()), 0)
})

test('every length, alignment and split gives what the definition gives', () => {
  const bytes = randomBytes(5000)
  for (let round = 0; round < 300; round++) {
    const from = randomInt(20)
    const part = bytes.subarray(from, from + randomInt(4000))
    const cut = randomInt(part.length + 1)
    const expected = slowCrc(part)
    assert.equal(crc32c(part), expected, `from ${from}, ${part.length} bytes`)
    assert.equal(crc32c(part.subarray(cut), crc32c(part.subarray(0, cut))), expected, `cut at ${cut}`)
  }
})

test('long input, which vectors fold piece by piece, gives what the definition gives', () => {
  const bytes = randomBytes(400_000)
  for (let round = 0; round < 20; round++) {
    const from = randomInt(200)
    const part = bytes.subarray(from, from + randomInt(1000, 300_000))
    const seed = randomInt(2 ** 32)
    const expected = slowCrc(part)
    assert.equal(crc32c(part), expected, `from ${from}, ${part.length} bytes`)
    assert.equal(crc32c(part, seed), crc32cCombine(seed, expected, part.length), `from ${from}, seed ${seed}`)
  }
})

test('this machine folds in vectors, and what it folds into counts for all that was folded', () => {
  const fold = makeFolder((crc) => (slowCrc(Uint8Array.of(crc & 0xff)) ^ slowCrc(new Uint8Array(1)) ^ (crc >>> 8)) | 0)
  assert(fold !== undefined)
  const bytes = randomBytes(FOLD_BYTES * 1000)
  const folded = fold(bytes, 0)
  assert.equal(folded.length, FOLD_BYTES)
  // With a register of zero in front of both, they differ by what a register of ones in front does to each: nothing else.
  const linear = (content: Uint8Array) => slowCrc(content) ^ slowCrc(new Uint8Array(content.length))
  assert.equal(linear(folded), linear(bytes))
})

test('two CRCs combine into that of the joined bytes', () => {
  const bytes = randomBytes(3000)
  for (let round = 0; round < 300; round++) {
    const cut = randomInt(bytes.length + 1)
    const [a, b] = [bytes.subarray(0, cut), bytes.subarray(cut)]
    assert.equal(crc32cCombine(crc32c(a), crc32c(b), b.length), crc32c(bytes), `cut at ${cut}`)
  }
})

test('CRCs combine over lengths that no buffer holds', () => {
  // The CRC of 2^40 zeros, made by doubling, against one step.
  const start = crc32c(SEQUENCE)
  let zeros = crc32c(new Uint8Array(1))
  for (let length = 1; length < 2 ** 40; length *= 2) zeros = crc32cCombine(zeros, zeros, length)
  const once = crc32cCombine(start, zeros, 2 ** 40)
  let half = crc32c(new Uint8Array(1))
  for (let length = 1; length < 2 ** 39; length *= 2) half = crc32cCombine(half, half, length)
  assert.equal(once, crc32cCombine(crc32cCombine(start, half, 2 ** 39), half, 2 ** 39))
  assert.equal(crc32cCombine(start, 0, 0), start)
})
