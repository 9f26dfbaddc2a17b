import assert from 'node:assert/strict'
import test from 'node:test'
import { describeForecast, forecastRto, type MeasuredRun } from './forecast.ts'

const NOW = Date.UTC(2026, 10, 22)
const DAY_MS = 24 * 3_600_000

/** Every five days, the last one now. */
function drills(seconds: readonly (number | null)[]): MeasuredRun[] {
  return seconds.map((rtoSeconds, index) => ({
    madeAt: new Date(NOW - (seconds.length - 1 - index) * 5 * DAY_MS).toISOString(),
    verdict: 'verified',
    rtoSeconds,
  }))
}

test('growth leads to the day on which the objective is broken, and says by what', () => {
  // 10 s every five days: 2 s a day; 900 - 640 = 260 s are left: 130 days.
  const forecast = forecastRto(drills([600, 610, 620, 630, 640]), 15, NOW)
  assert.deepEqual([forecast?.secondsPerDay, forecast?.brokenOn], [2, '2027-04-01'])
  assert.match(
    describeForecast(forecast!, 15) ?? '',
    /the 15 minutes are broken on 2027-04-01, by 5 verified drills over 20 days/,
  )
})

test('one odd drill bends nothing, in whatever order they come', () => {
  const runs = drills([600, 610, 3000, 630, 640])
  assert.equal(forecastRto(runs.toReversed(), 15, NOW)?.secondsPerDay, 2)
})

test('what does not grow, grows too slowly to see, or has no objective is broken on no day', () => {
  for (const seconds of [
    [600, 600, 600],
    [640, 630, 620],
    [60, 60.01, 60.02],
  ]) {
    const forecast = forecastRto(drills(seconds), 15, NOW)
    assert.ok(forecast !== null && forecast.brokenOn === null, JSON.stringify(forecast))
    assert.equal(describeForecast(forecast, 15), null)
  }
  assert.equal(forecastRto(drills([1, 100, 200]), null, NOW)?.brokenOn, null)
})

test('what is broken already is broken now', () => {
  assert.equal(forecastRto(drills([950, 950, 950]), 15, NOW)?.brokenOn, '2026-11-22')
})

test('too few drills, or only failed ones, say nothing', () => {
  assert.equal(forecastRto(drills([600, 700]), 15, NOW), null)
  assert.equal(forecastRto(drills([600, null, 700]), 15, NOW), null)
  assert.equal(
    forecastRto(
      drills([1, 2, 3]).map((run) => ({ ...run, verdict: 'failed' })),
      15,
      NOW,
    ),
    null,
  )
})
