import assert from 'node:assert/strict'
import { createCipheriv, randomBytes, randomInt } from 'node:crypto'
import { test } from 'node:test'
import { PageFingerprinter } from './page-fingerprint.ts'
import { FINGERPRINT_BYTES } from './region.ts'

const MASK_64 = (1n << 64n) - 1n
const NH_KEY_BYTES = 8192 + 48

/** The same as docs/format.md has it, in plain words and slowly. */
function plainFingerprint(pageKey: Uint8Array, page: Buffer): Buffer {
  const key = createCipheriv('aes-256-ctr', pageKey, Buffer.alloc(16)).update(Buffer.alloc(NH_KEY_BYTES + 320))
  const padded = Buffer.alloc(8192)
  page.copy(padded)
  const words: bigint[] = []
  for (let pass = 0; pass < 4; pass++) {
    let sum = 0n
    for (let at = 0; at < 8192; at += 4) {
      // Words 0 to 3 of each eight are paired with 4 to 7.
      if (at % 32 >= 16) continue
      const left = (padded.readUInt32LE(at) + key.readUInt32LE(at + 16 * pass)) >>> 0
      const right = (padded.readUInt32LE(at + 16) + key.readUInt32LE(at + 16 + 16 * pass)) >>> 0
      sum = (sum + BigInt(left) * BigInt(right)) & MASK_64
    }
    words.push(sum & 0xffffffffn, sum >> 32n)
  }
  const fingerprint = Buffer.alloc(FINGERPRINT_BYTES)
  for (let result = 0; result < 4; result++) {
    const keyAt = (index: number) => key.readBigUInt64LE(NH_KEY_BYTES + 8 * (10 * result + index))
    let sum = keyAt(9) + keyAt(8) * BigInt(page.length)
    for (const [index, word] of words.entries()) sum += keyAt(index) * word
    fingerprint.writeUInt32LE(Number((sum & MASK_64) >> 32n), 4 * result)
  }
  return fingerprint
}

function fingerprintOf(fingerprinter: PageFingerprinter, content: Uint8Array): Buffer {
  const fingerprints = Buffer.alloc(Math.ceil(content.length / 8192) * FINGERPRINT_BYTES)
  fingerprinter.fingerprint(content, fingerprints)
  return fingerprints
}

test('the fingerprint of a page is the one that the format says, whatever its length and the key', () => {
  for (const length of [1, 2, 31, 32, 33, 8191, 8192]) {
    const key = randomBytes(32)
    for (const page of [randomBytes(length), Buffer.alloc(length), Buffer.alloc(length, 0xff)]) {
      assert.deepEqual(fingerprintOf(new PageFingerprinter(key), page), plainFingerprint(key, page))
    }
  }
})

test('the fingerprints of pages stand one after the other, and what was there before does not reach them', () => {
  const key = randomBytes(32)
  const fingerprinter = new PageFingerprinter(key)
  const content = randomBytes(5 * 8192 + 777)
  const expected = [0, 1, 2, 3, 4, 5].map((page) => plainFingerprint(key, content.subarray(page * 8192, (page + 1) * 8192)))
  assert.deepEqual(fingerprintOf(fingerprinter, content), Buffer.concat(expected))
  assert.deepEqual(fingerprintOf(fingerprinter, content), Buffer.concat(expected))
})

test('every bit of a page counts, and its length, and the key', () => {
  const key = randomBytes(32)
  const fingerprinter = new PageFingerprinter(key)
  const page = randomBytes(8192)
  const seen = new Set([fingerprintOf(fingerprinter, page).toString('hex')])
  for (let bit = 0; bit < 8 * 8192; bit++) {
    const flipped = Buffer.from(page)
    flipped.writeUInt8(flipped.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3)
    seen.add(fingerprintOf(fingerprinter, flipped).toString('hex'))
  }
  assert.equal(seen.size, 1 + 8 * 8192)
  const zeros = [1, 100, 8191, 8192].map((length) => fingerprintOf(fingerprinter, Buffer.alloc(length)).toString('hex'))
  assert.equal(new Set(zeros).size, 4)
  assert.notDeepEqual(fingerprintOf(new PageFingerprinter(randomBytes(32)), page), fingerprintOf(fingerprinter, page))
})

test('pages with their words in another order have other fingerprints', () => {
  const fingerprinter = new PageFingerprinter(randomBytes(32))
  const page = randomBytes(8192)
  const whole = fingerprintOf(fingerprinter, page)
  for (let swaps = 0; swaps < 2000; swaps++) {
    const [from, to] = [4 * randomInt(2048), 4 * randomInt(2048)]
    if (from === to) continue
    const swapped = Buffer.from(page)
    page.copy(swapped, from, to, to + 4)
    page.copy(swapped, to, from, from + 4)
    assert.notDeepEqual(fingerprintOf(fingerprinter, swapped), whole)
  }
})
