import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import {
  encounterRecord,
  invoiceRecord,
  knownPatientRecord,
  observationRecord,
  patientRecord,
  referralRecord,
  write,
  writeRecords,
  writeSharedPatient,
} from '../../test/services/clinical-records.ts'
import { GROUP, skip, testHospital, type TestHospital } from '../../test/services/hospital-database.ts'
import { makeToken } from '../http/authentication.ts'
import { buildServer } from '../http/server.ts'
import { periodOf } from './analytics.ts'
import { analyticsOf } from './analytics-rows.ts'
import { addUser } from './users.ts'

/** What any of the answers has. */
interface Body {
  readonly period?: object
  readonly facilities?: readonly { readonly id: string }[]
  readonly totals?: object
  readonly facility?: string | null
  readonly detail?: string
}

type Ask = (url: string, as?: string) => Promise<{ readonly status: number; readonly body: Body }>

/** The service, asked without a network by a clerk of each facility, by one of the group, or by nobody. */
async function service(t: TestContext, hospital: TestHospital): Promise<Ask> {
  const server = await buildServer({ database: hospital.database, filesDirectory: hospital.home })
  t.after(async () => server.close())
  const tokens = new Map<string, string>()
  for (const id of ['FAC001', 'FAC002', 'FAC003', 'group']) {
    const user = {
      id: `clerk.${id.toLowerCase()}`,
      name: id,
      role: id === 'group' ? 'group' : 'clerk',
      facility: id === 'group' ? null : id,
    } as const
    await hospital.database.transaction(GROUP, async (tx) => addUser(tx, user))
    tokens.set(id, await makeToken(hospital.admin, user.id))
  }
  return async (url, as) => {
    const token = as === undefined ? undefined : (tokens.get(as) ?? as)
    const answer = await server.inject({ url, headers: token === undefined ? {} : { authorization: `Bearer ${token}` } })
    return { status: answer.statusCode, body: answer.json<Body>() }
  }
}

const IMP = { class: { system: 'http://terminology.hl7.org/CodeSystem/v3-ActCode', code: 'IMP' } }
const EMER = { class: { system: 'http://terminology.hl7.org/CodeSystem/v3-ActCode', code: 'EMER' } }
const MARCH = '/analytics/facilities?from=2025-03-01&to=2025-04-01'

/** Counted by hand below. */
async function march({ database }: TestHospital): Promise<void> {
  const { recordId: patient } = await write(database, patientRecord('FAC001'))
  await write(database, patientRecord('FAC001'))
  const one = { at: 'FAC001', patient }
  const period = (start: string, end?: string) => ({ period: end === undefined ? { start } : { start, end } })
  // Bed days of March: 2.5 wholly inside, 1 of a stay that began in February, 0.5 of one that ends in April, 0 of February's.
  await write(database, encounterRecord(one, { ...IMP, ...period('2025-03-10T00:00:00Z', '2025-03-12T12:00:00Z') }))
  await write(database, encounterRecord(one, { ...IMP, ...period('2025-02-20T00:00:00Z', '2025-03-02T00:00:00Z') }))
  await write(database, encounterRecord(one, { ...IMP, ...period('2025-03-31T12:00:00Z', '2025-04-10T00:00:00Z') }))
  await write(database, encounterRecord(one, { ...IMP, ...period('2025-02-01T00:00:00Z', '2025-02-03T00:00:00Z') }))
  await write(
    database,
    encounterRecord(one, { ...IMP, status: 'cancelled', ...period('2025-03-05T00:00:00Z', '2025-03-06T00:00:00Z') }),
  )
  await write(database, encounterRecord(one, { ...EMER, ...period('2025-03-05T00:00:00Z', '2025-03-06T00:00:00Z') }))
  for (const day of ['03-01', '03-31', '04-01'])
    await write(database, encounterRecord(one, period(`2025-${day}T00:00:00Z`, `2025-${day}T01:00:00Z`)))
  // Turnarounds of 10, 20, 30, 40 and 100 minutes: the median is 30, and nine tenths are at 76.
  for (const minutes of [10, 20, 30, 40, 100]) await write(database, laboratory(one, minutes))
  await write(database, laboratory(one, 5, { status: 'preliminary' }))
  await write(database, laboratory(one, 5, { category: [{ coding: [{ code: 'vital-signs' }] }] }))
  await write(database, laboratory(one, -5))
  for (const [status, value] of [
    ['issued', 1000.5],
    ['balanced', 2000],
    ['draft', 7],
    ['cancelled', 7],
  ] as const) {
    await write(database, invoiceRecord(one, { status, totalNet: { value, currency: 'NGN' } }))
  }
  await write(database, invoiceRecord(one, { totalNet: { value: 5, currency: 'USD' } }))
  await write(database, invoiceRecord(one, { date: '2025-04-01T00:00:00Z' }))
  await write(database, referralRecord(one, 'FAC002'))
  await write(database, referralRecord(one, 'FAC002', { status: 'completed' }))
  await write(database, referralRecord(one, 'FAC003', { authoredOn: '2025-04-02T00:00:00Z' }))
  await write(database, knownPatientRecord('FAC002', patient))
  const { recordId: other } = await write(database, patientRecord('FAC002'))
  const two = { at: 'FAC002', patient: other }
  await write(database, encounterRecord(two, { ...IMP, ...period('2025-03-20T00:00:00Z', '2025-03-21T00:00:00Z') }))
  await write(database, laboratory(two, 60))
  await write(database, invoiceRecord(two, { totalNet: { value: 500, currency: 'NGN' } }))
}

function laboratory(belonging: { at: string; patient: string }, minutes: number, more: object = {}) {
  const taken = Date.UTC(2025, 2, 15, 8)
  const issued = new Date(taken + minutes * 60_000).toISOString()
  return observationRecord(belonging, { effectiveDateTime: new Date(taken).toISOString(), issued, ...more })
}

const FAC001 = {
  patients: { home: 2, known: 2 },
  encounters: { total: 5, byClass: { AMB: 2, EMER: 1, IMP: 2 } },
  bedDays: 4,
  laboratory: { results: 5, medianMinutes: 30, p90Minutes: 76 },
  revenue: { invoices: 2, amount: 3000.5, currency: 'NGN' },
  referrals: [
    { from: 'FAC001', to: 'FAC002', status: 'active', count: 1 },
    { from: 'FAC001', to: 'FAC002', status: 'completed', count: 1 },
  ],
}
const FAC002 = {
  patients: { home: 1, known: 2 },
  encounters: { total: 1, byClass: { IMP: 1 } },
  bedDays: 1,
  laboratory: { results: 1, medianMinutes: 60, p90Minutes: 60 },
  revenue: { invoices: 1, amount: 500, currency: 'NGN' },
  referrals: FAC001.referrals,
}
const NOTHING = {
  patients: { home: 0, known: 0 },
  encounters: { total: 0, byClass: {} },
  bedDays: 0,
  laboratory: { results: 0, medianMinutes: null, p90Minutes: null },
  revenue: { invoices: 0, amount: 0, currency: 'NGN' },
  referrals: [],
}

test('analytics count what was counted by hand, for the group with totals', { skip }, async (t) => {
  const hospital = await testHospital(t)
  const ask = await service(t, hospital)
  await march(hospital)
  const { status, body } = await ask(MARCH, 'group')
  assert.equal(status, 200)
  assert.deepEqual(body.period, { from: '2025-03-01T00:00:00.000Z', to: '2025-04-01T00:00:00.000Z' })
  const named = (id: string) => ({ id, name: `${id} General Hospital`, lga: 'Osogbo', type: 'SECONDARY' })
  assert.deepEqual(body.facilities, [
    { ...named('FAC001'), ...FAC001 },
    { ...named('FAC002'), ...FAC002 },
    { ...named('FAC003'), ...NOTHING },
  ])
  assert.deepEqual(body.totals, {
    patients: { home: 3, known: 4 },
    encounters: { total: 6, byClass: { AMB: 2, EMER: 1, IMP: 3 } },
    bedDays: 5,
    laboratory: { results: 6, medianMinutes: 35, p90Minutes: 80 },
    revenue: { invoices: 3, amount: 3500.5, currency: 'NGN' },
    referrals: FAC001.referrals,
  })
})

test("a facility's people get their own facility's analytics and nothing of any other", { skip }, async (t) => {
  const hospital = await testHospital(t)
  const ask = await service(t, hospital)
  await march(hospital)
  for (const [id, counted] of Object.entries({ FAC001, FAC002, FAC003: NOTHING })) {
    const { body } = await ask(MARCH, id)
    assert.deepEqual(Object.keys(body), ['period', 'facilities'])
    assert.deepEqual(body.facilities, [{ id, name: `${id} General Hospital`, lga: 'Osogbo', type: 'SECONDARY', ...counted }])
  }
})

test('a period that is none is refused with what is wrong about it', { skip }, async (t) => {
  const ask = await service(t, await testHospital(t))
  for (const [search, detail] of Object.entries({
    'from=yesterday': /from: a date, or a time with its zone/,
    'to=2025-02-30': /to: a date/,
    'from=2025-03-01T08:00:00': /from: a date/,
    'from=2025-03-02&to=2025-03-01': /from .* is not before to/,
    'from=2025-03-01&to=2025-03-01': /is not before/,
    'from=1990-01-01&to=2025-03-01': /longer than 3660 days/,
    'since=2025-03-01': /since/,
    'from=2025-03-01&from=2025-03-02': /from: a date/,
    "from=2025-03-01'--": /from: a date/,
  })) {
    const { status, body } = await ask(`/analytics/facilities?${search}`, 'group')
    assert.equal(status, 400, search)
    assert.match(body.detail ?? '', detail)
  }
  assert.equal((await ask('/analytics/facilities')).status, 401)
})

test('without a period the last thirty days are meant; times keep their zone', () => {
  const now = new Date('2025-03-31T10:00:00Z')
  assert.deepEqual(periodOf({}, now), { from: new Date('2025-03-01T10:00:00Z'), to: now })
  assert.deepEqual(periodOf({ from: '2025-03-30' }, now), { from: new Date('2025-03-30T00:00:00Z'), to: now })
  assert.deepEqual(periodOf({ from: '2025-03-01T01:00:00+01:00', to: '2025-03-02' }, now), {
    from: new Date('2025-03-01T00:00:00Z'),
    to: new Date('2025-03-02T00:00:00Z'),
  })
})

test('rows become an answer: a facility without rows has nothing, hundredths are kept, a total is of null', () => {
  const period = { from: new Date('2025-03-01'), to: new Date('2025-04-01') }
  const rows = {
    facilities: [{ id: 'FAC001', name: 'A', lga: 'Ede', type: 'PRIMARY', home: 3, known: 5 }],
    encounters: [{ facility: null, class: 'AMB', count: 4 }],
    bedDays: [{ facility: 'FAC001', days: 1.23456 }],
    laboratory: [{ facility: null, results: 2, median: 10.005, p90: null }],
    revenue: [{ facility: 'FAC001', invoices: 1, amount: '12.50' }],
    referrals: [{ from: 'FAC001', to: 'FAC002', status: 'active', count: 1 }],
  }
  const { facilities, totals } = analyticsOf(rows, period, true)
  assert.equal(facilities[0]?.bedDays, 1.23)
  assert.deepEqual(facilities[0]?.encounters, { total: 0, byClass: {} })
  assert.deepEqual(facilities[0]?.revenue, { invoices: 1, amount: 12.5, currency: 'NGN' })
  assert.deepEqual(
    [totals?.encounters.total, totals?.bedDays, totals?.laboratory.p90Minutes, totals?.patients.known],
    [4, 0, null, 5],
  )
  assert.equal(analyticsOf(rows, period, false).totals, undefined)
})

test(
  "over HTTP a facility's token shows its own facility, whatever is asked for, and no token shows nothing",
  { skip },
  async (t) => {
    const hospital = await testHospital(t)
    const ask = await service(t, hospital)
    await writeRecords(hospital.database, 'FAC001')
    await writeSharedPatient(hospital.database)
    for (const id of ['FAC001', 'FAC002', 'FAC003']) {
      assert.deepEqual((await ask('/facility-context', id)).body.facility, id)
      // What a request names does not widen what its token stands for.
      for (const extra of ['&facility=FAC001', '&facility_context=FAC001', '&id=FAC001']) {
        assert.equal((await ask(`${MARCH}${extra}`, id)).status, 400, extra)
      }
    }
    assert.equal((await ask('/facility-context', 'group')).body.facility, null)
    for (const url of ['/facilities', '/facility-context', MARCH, '/facilities/FAC001']) {
      assert.equal((await ask(url)).status, 401, url)
      assert.equal((await ask(url, 'x'.repeat(43))).status, 401, url)
    }
    const seen = await Promise.all(
      Array.from({ length: 60 }, async (_, n) => {
        const id = `FAC00${1 + (n % 3)}`
        const { body } = await ask(MARCH, id)
        return body.facilities?.map((each) => each.id === id).join()
      }),
    )
    assert.deepEqual([...new Set(seen)], ['true'])
  },
)
