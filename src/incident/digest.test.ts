import assert from 'node:assert/strict'
import test from 'node:test'
import { Failure } from '../errors.ts'
import { digestDateDue } from './digest.ts'
import { retryDelayMs } from './retry-delay.ts'

test('a digest is due from its time on, by the clock and the calendar of its zone', () => {
  const due = (at: string, timeZone: string, now: string) => digestDateDue({ at, timeZone }, Date.parse(now))
  assert.equal(due('07:00', 'Africa/Lagos', '2026-11-21T05:59:59Z'), undefined)
  assert.equal(due('07:00', 'Africa/Lagos', '2026-11-21T06:00:00Z'), '2026-11-21')
  assert.equal(due('07:00', 'Africa/Lagos', '2026-11-21T22:59:59Z'), '2026-11-21')
  assert.equal(due('07:00', 'Africa/Lagos', '2026-11-21T23:00:00Z'), undefined)
  assert.equal(due('00:00', 'Pacific/Auckland', '2026-12-31T11:00:00Z'), '2027-01-01')
  // 02:30 does not exist on the first, and exists twice on the second.
  assert.equal(due('02:30', 'Europe/Berlin', '2026-03-29T01:00:00Z'), '2026-03-29')
  assert.equal(due('02:30', 'Europe/Berlin', '2026-10-25T00:29:59Z'), undefined)
  assert.equal(due('02:30', 'Europe/Berlin', '2026-10-25T00:30:00Z'), '2026-10-25')
})

test('waits become longer up to a quarter of an hour, and are that long at once for what will not pass', () => {
  const passing = new Failure('CHANNEL_UNREACHABLE', 'busy')
  const waits = [1, 2, 3, 8, 9, 1_000].map((attempts) => retryDelayMs(attempts, passing))
  assert.deepEqual(waits, [5_000, 10_000, 20_000, 640_000, 900_000, 900_000])
  assert.equal(retryDelayMs(1, new Failure('CHANNEL_REFUSED', 'never')), 900_000)
})
