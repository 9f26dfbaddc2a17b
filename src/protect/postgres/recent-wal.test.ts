import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import test from 'node:test'
import { RecentWal } from './recent-wal.ts'

const START = 0x1_0000_0000n

test('what was appended is read back, over pieces of any size, while it is held', () => {
  const all = randomBytes(6 * 1024 * 1024)
  const recent = new RecentWal()
  let at = 0
  while (at < all.length) {
    const piece = all.subarray(at, at + 1 + randomInt(randomInt(2) === 0 ? 300 : 200_000))
    recent.append(START + BigInt(at), piece)
    at += piece.length
    const length = Math.min(at, 1 + randomInt(1024 * 1024))
    const read = recent.read({ from: START + BigInt(at - length), to: START + BigInt(at) })
    assert.ok(read !== undefined && Buffer.concat(read).equals(all.subarray(at - length, at)))
    const middle = recent.read({ from: START + BigInt(at - length), to: START + BigInt(at - length + 1) })
    assert.deepEqual(Buffer.concat(middle!), all.subarray(at - length, at - length + 1))
  }
  assert.equal(recent.read({ from: START, to: START + 1n }), undefined, 'it holds no more than its limit')
})

test('what is not held whole is not given in part', () => {
  const recent = new RecentWal()
  assert.equal(recent.read({ from: START, to: START + 1n }), undefined)
  recent.append(START, Buffer.alloc(100, 1))
  assert.equal(recent.read({ from: START, to: START + 101n }), undefined)
  assert.equal(recent.read({ from: START - 1n, to: START + 1n }), undefined)
  // Another place: what was before it is no longer believed to lie before it.
  recent.append(START + 500n, Buffer.alloc(10, 2))
  assert.equal(recent.read({ from: START, to: START + 100n }), undefined)
  assert.deepEqual(Buffer.concat(recent.read({ from: START + 500n, to: START + 510n })!), Buffer.alloc(10, 2))
})

test('what a reader was given does not change when more is appended', () => {
  const recent = new RecentWal()
  recent.append(START, Buffer.alloc(1000, 7))
  const read = recent.read({ from: START, to: START + 1000n })!
  for (let at = 1000n; at < 8_000_000n; at += 100_000n) recent.append(START + at, Buffer.alloc(100_000, 9))
  assert.deepEqual(Buffer.concat(read), Buffer.alloc(1000, 7))
})
