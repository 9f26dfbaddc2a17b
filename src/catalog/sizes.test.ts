import assert from 'node:assert/strict'
import test, { after } from 'node:test'
import { stopTestStore, testStore } from '../../test/services/store.ts'
import { forgetSizes, readSizes, readSizeTrends, recordSizes, type SizeEntry } from './sizes.ts'

after(stopTestStore)

const NOW_MS = Date.parse('2026-06-10T12:34:56Z')
const DAY_MS = 24 * 3_600_000
const FREE: SizeEntry = { system: 'osun', component: null, name: 'free', bytes: 500 }
const CLUSTER: SizeEntry = { system: 'osun', component: 'his-db', name: 'cluster', bytes: 7e12 }
const ALL = { system: 'osun', from: new Date(0), to: new Date(NOW_MS + DAY_MS) }

test('sizes are written once an hour, and come back oldest first', async (t) => {
  const { sql } = await testStore(t)
  await recordSizes(sql, new Date(NOW_MS), [FREE, CLUSTER])
  await recordSizes(sql, new Date(NOW_MS + 60_000), [{ ...FREE, bytes: 1 }])
  await recordSizes(sql, new Date(NOW_MS + 3_600_000), [{ ...FREE, bytes: 400 }])
  await recordSizes(sql, new Date(NOW_MS), [])
  const first = new Date('2026-06-10T12:00:00Z')
  const free = await readSizes(sql, { ...ALL, component: null })
  assert.deepEqual(free, [
    { ...FREE, at: first },
    { ...FREE, bytes: 400, at: new Date('2026-06-10T13:00:00Z') },
  ])
  assert.deepEqual(await readSizes(sql, { ...ALL, component: 'his-db' }), [{ ...CLUSTER, at: first }])
  assert.equal((await readSizes(sql, ALL)).length, 3)
  assert.deepEqual(await readSizes(sql, { ...ALL, system: 'another' }), [])
  const trends = await readSizeTrends(sql, { system: 'osun', from: new Date(0) })
  assert.deepEqual(
    trends.map(({ component, name, at }) => [component, name, at.getUTCHours()]),
    [
      [null, 'free', 12],
      ['his-db', 'cluster', 12],
    ],
  )
})

test('what is older than 400 days is forgotten', async (t) => {
  const { sql } = await testStore(t)
  await recordSizes(sql, new Date(NOW_MS - 401 * DAY_MS), [FREE])
  await recordSizes(sql, new Date(NOW_MS - 399 * DAY_MS), [FREE])
  await forgetSizes(sql, new Date(NOW_MS))
  assert.equal((await readSizes(sql, ALL)).length, 1)
})
