import assert from 'node:assert/strict'
import test from 'node:test'
import { judgeBeat } from './heartbeat-check.ts'

const ASKED = Date.parse('2026-01-02T03:04:05Z')
const beat = (seconds: number) => ({ sequence: '7', at: new Date(ASKED + seconds * 1000) })

test('a beat that is later than the time recovery was told to stop at fails; the newest moment is only near', () => {
  const verdict = (seconds: number, isTimed: boolean) => judgeBeat(beat(seconds), { askedMs: ASKED, isTimed }).verdict
  assert.deepEqual(
    [-61, -59, 0, 1.9].map((seconds) => verdict(seconds, true)),
    ['not proven', 'verified', 'verified', 'verified'],
  )
  assert.deepEqual(
    [2.1, 30, 61].map((seconds) => verdict(seconds, true)),
    ['failed', 'failed', 'failed'],
  )
  assert.deepEqual(
    [2.1, 30, 61].map((seconds) => verdict(seconds, false)),
    ['verified', 'verified', 'failed'],
  )
})
