import assert from 'node:assert/strict'
import test from 'node:test'
import type { Clock } from '../../clock.ts'
import { AlarmPace, Inflow } from './backlog.ts'

/** A clock that is moved by hand. */
function handClock(): Clock & { advance(ms: number): void } {
  let now = 0
  return { now: () => now, sleep: () => Promise.reject(new Error('nobody sleeps')), advance: (ms) => void (now += ms) }
}

test('a trouble is said at once, then every 30 s as long as it lasts, and at once again when it comes anew', () => {
  const clock = handClock()
  const pace = new AlarmPace(clock)
  const said: number[] = []
  for (let second = 0; second <= 90; second += 1) {
    if (pace.isDue('STORAGE_UNREACHABLE')) said.push(second)
    clock.advance(1000)
  }
  assert.deepEqual(said, [0, 30, 60, 90])
  assert.equal(pace.end('STORAGE_UNREACHABLE'), true)
  assert.equal(pace.end('STORAGE_UNREACHABLE'), false)
  assert.equal(pace.isDue('STORAGE_UNREACHABLE'), true)
})

test('one trouble does not silence another', () => {
  const pace = new AlarmPace(handClock())
  assert.deepEqual([pace.isDue('a'), pace.isDue('b'), pace.isDue('a')], [true, true, false])
})

test('the time until the spool is full follows from the rate of the last minute', () => {
  const clock = handClock()
  const inflow = new Inflow(clock)
  const spool = { sizeBytes: 400, bytesMax: 1000 }
  assert.deepEqual(inflow.forecast(spool), { waitingBytes: 400, spoolBytesMax: 1000, secondsUntilFull: null })
  // Fast long ago, 10 bytes a second now.
  for (let second = 0; second < 200; second += 1) {
    inflow.note(second < 100 ? BigInt(second) * 1000n : 100_000n + BigInt(second - 100) * 10n)
    clock.advance(1000)
  }
  const { secondsUntilFull } = inflow.forecast(spool)
  assert.ok(secondsUntilFull !== null && Math.abs(secondsUntilFull - 60) <= 2, `${secondsUntilFull}`)
  assert.equal(inflow.forecast({ sizeBytes: 2000, bytesMax: 1000 }).secondsUntilFull, 0)
})

test('WAL of another branch, which begins further back, does not count as a rate', () => {
  const clock = handClock()
  const inflow = new Inflow(clock)
  inflow.note(1_000_000n)
  clock.advance(1000)
  inflow.note(5n)
  assert.equal(inflow.forecast({ sizeBytes: 0, bytesMax: 10 }).secondsUntilFull, null)
})
