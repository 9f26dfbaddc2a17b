import assert from 'node:assert/strict'
import test from 'node:test'
import { formatMicros, microsToMs, msToMicros } from './timestamp.ts'

test('times keep their microseconds, before 2000 and before 1970 as well', () => {
  for (const [micros, ms, text] of [
    [0n, 946_684_800_000, '2000-01-01T00:00:00.000Z'],
    [1n, 946_684_800_000, '2000-01-01T00:00:00.000001Z'],
    [999n, 946_684_800_000, '2000-01-01T00:00:00.000999Z'],
    [1000n, 946_684_800_001, '2000-01-01T00:00:00.001Z'],
    [-1n, 946_684_799_999, '1999-12-31T23:59:59.999999Z'],
    [-946_684_800_000_001n, -1, '1969-12-31T23:59:59.999999Z'],
  ] as const) {
    assert.equal(microsToMs(micros), ms)
    assert.equal(formatMicros(micros), text)
    assert.equal(formatMicros(msToMicros(ms)), new Date(ms).toISOString())
  }
})
