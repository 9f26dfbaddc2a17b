import assert from 'node:assert/strict'
import test, { after } from 'node:test'
import { stopTestStore, testStore } from '../../test/services/store.ts'
import { readCompliance, recordCompliance, rollUpCompliance, type ComplianceEntry } from './compliance.ts'

after(stopTestStore)

const NOW = Date.parse('2026-06-10T12:34:56Z')
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const ALL = { system: 'osun', from: new Date(0), to: new Date(NOW + DAY_MS) }

function entry(more: Partial<ComplianceEntry> = {}): ComplianceEntry {
  return { system: 'osun', component: 'his-db', objective: 'rpoMinutes', target: 5, actual: 0.1, verdict: 'met', ...more }
}

test('a minute is written once, and the later judgement of it stands', async (t) => {
  const { sql } = await testStore(t)
  await recordCompliance(sql, new Date(NOW), [entry()])
  await recordCompliance(sql, new Date(NOW + 3000), [
    entry({ actual: null, verdict: 'not proven' }),
    entry({ objective: 'rtoMinutes' }),
  ])
  await recordCompliance(sql, new Date(NOW + 5000), [])
  const points = await readCompliance(sql, { ...ALL, objective: 'rpoMinutes' })
  assert.deepEqual(points, [
    {
      system: 'osun',
      component: 'his-db',
      objective: 'rpoMinutes',
      at: new Date('2026-06-10T12:34:00Z'),
      per: 'minute',
      target: 5,
      actualLeast: null,
      actualGreatest: null,
      minutesMet: 0,
      minutesBroken: 0,
      minutesNotProven: 1,
    },
  ])
  assert.equal((await readCompliance(sql, ALL)).length, 2)
  assert.deepEqual(await readCompliance(sql, { ...ALL, component: 'other' }), [])
  assert.deepEqual(await readCompliance(sql, { ...ALL, system: 'other' }), [])
})

test('minutes become hours after two days, each counted once, however often and by how many it is done', async (t) => {
  const { sql } = await testStore(t)
  for (let minute = 0; minute < 90; minute += 1) {
    const verdict = minute < 40 ? 'met' : minute < 55 ? 'broken' : 'not proven'
    const actual = verdict === 'not proven' ? null : minute
    await recordCompliance(sql, new Date(Date.parse('2026-06-07T10:00:00Z') + minute * 60_000), [
      entry({ verdict, actual, target: minute }),
    ])
  }
  await recordCompliance(sql, new Date(NOW), [entry()])
  const rolled = () => rollUpCompliance(sql, new Date(NOW))
  await Promise.all([rolled(), rolled(), rolled()])
  await rolled()
  // A minute that came late joins its hour.
  await recordCompliance(sql, new Date('2026-06-07T11:59:00Z'), [entry({ verdict: 'broken', actual: 99 })])
  await rolled()
  const points = await readCompliance(sql, ALL)
  assert.deepEqual(
    points.map((each) => [each.per, each.at.toISOString(), each.target, each.actualLeast, each.actualGreatest]),
    [
      ['hour', '2026-06-07T10:00:00.000Z', 59, 0, 54],
      ['hour', '2026-06-07T11:00:00.000Z', 5, 99, 99],
      ['minute', '2026-06-10T12:34:00.000Z', 5, 0.1, 0.1],
    ],
  )
  assert.deepEqual(
    points.map((each) => [each.minutesMet, each.minutesBroken, each.minutesNotProven]),
    [
      [40, 15, 5],
      [0, 1, 30],
      [1, 0, 0],
    ],
  )
  assert.equal(
    (await readCompliance(sql, { ...ALL, from: new Date('2026-06-07T11:00Z'), to: new Date('2026-06-10T12:34Z') })).length,
    1,
  )
})

test('an hour is kept for 400 days', async (t) => {
  const { sql } = await testStore(t)
  for (const days of [401, 399]) await recordCompliance(sql, new Date(NOW - days * DAY_MS), [entry()])
  await rollUpCompliance(sql, new Date(NOW))
  const points = await readCompliance(sql, ALL)
  assert.deepEqual(
    points.map(({ at }) => at.toISOString().slice(0, 10)),
    [new Date(NOW - 399 * DAY_MS).toISOString().slice(0, 10)],
  )
})

test('a minute of more components than one statement takes is written whole', async (t) => {
  const { sql } = await testStore(t)
  await recordCompliance(
    sql,
    new Date(NOW),
    Array.from({ length: 2500 }, (_, index) => entry({ component: `db-${index}` })),
  )
  assert.equal((await readCompliance(sql, ALL)).length, 2500)
})
