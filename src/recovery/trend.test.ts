import assert from 'node:assert/strict'
import test from 'node:test'
import { changePerDay, daysLeft, type TrendPoint } from './trend.ts'

const HOUR_MS = 3_600_000

/** So many hours of something that changes by so much each hour. */
function hours(count: number, valueAt: (hour: number) => number): TrendPoint[] {
  return Array.from({ length: count }, (_, hour) => ({ atMs: hour * HOUR_MS, value: valueAt(hour) }))
}

test('what shrinks by a gigabyte an hour is used up when that is used up', () => {
  const points = hours(49, (hour) => 1000e9 - hour * 1e9)
  assert.equal(Math.round(changePerDay(points)! / 1e6), -24_000)
  assert.equal(Math.round(daysLeft(952e9, changePerDay(points))! * 24), 952)
})

test('an expiry that frees much at once does not bend the trend', () => {
  const points = hours(24 * 30, (hour) => 1000e9 - hour * 1e9 + (hour > 400 ? 100e9 : 0))
  const change = changePerDay(points)!
  assert(change < -20e9 && change > -26e9, String(change))
})

test('of less than a day, of nothing, and of what does not shrink nobody says when it ends', () => {
  assert.equal(changePerDay([]), null)
  assert.equal(changePerDay(hours(24, (hour) => 100 - hour)), null)
  assert.equal(daysLeft(100, null), null)
  assert.equal(daysLeft(100, changePerDay(hours(48, () => 100))), null)
  assert.equal(daysLeft(100, changePerDay(hours(48, (hour) => 100 + hour))), null)
  assert.equal(changePerDay(Array.from({ length: 50 }, () => ({ atMs: 0, value: 1 }))), null)
})
