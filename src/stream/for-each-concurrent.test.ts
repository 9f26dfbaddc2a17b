import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import test from 'node:test'
import { forEachConcurrent } from './for-each-concurrent.ts'

test('forEachConcurrent visits all items and never more than the limit at once', async () => {
  let now = 0
  let most = 0
  const seen: number[] = []
  await forEachConcurrent(
    Array.from({ length: 20 }, (_, index) => index),
    { limit: 3 },
    async (item) => {
      now += 1
      most = Math.max(most, now)
      await delay(1)
      seen.push(item)
      now -= 1
    },
  )
  assert.equal(most, 3)
  assert.equal(seen.length, 20)
})

test('forEachConcurrent stops at the first failure, after what was begun has settled', async () => {
  let settled = 0
  const visit = async (item: number) => {
    await delay(2)
    settled += 1
    if (item === 1) throw new Error('item 1')
  }
  await assert.rejects(forEachConcurrent([0, 1, 2, 3, 4, 5, 6, 7], { limit: 2 }, visit), /item 1/)
  const after = settled
  await delay(20)
  assert.equal(settled, after)
  assert.ok(settled < 8)
})
