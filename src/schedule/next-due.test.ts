import assert from 'node:assert/strict'
import test from 'node:test'
import { scheduleSchema, type Schedule } from '../config/schedule-settings.ts'
import { nextDue } from './next-due.ts'

const DAY_MS = 24 * 3_600_000
const ZONES = ['Africa/Lagos', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe']
const SEED = Number(process.env['RESUS_TEST_SEED'] ?? 20_260_328)

/** mulberry32 */
function randomOf(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296) * below)
  }
}

const walls = new Map(
  [...ZONES, 'Pacific/Apia'].map((timeZone) => [
    timeZone,
    new Intl.DateTimeFormat('sv-SE', { timeZone, dateStyle: 'short', timeStyle: 'short' }),
  ]),
)

/** What the wall of a zone shows, by another way than the code's: "2026-03-29 02:30". */
function wall(timeZone: string, at: Date): string {
  return walls.get(timeZone)!.format(at)
}

/** The minutes that the wall shows, as a number. */
function minuteOf(timeZone: string, atMs: number): number {
  return Date.parse(`${wall(timeZone, new Date(atMs)).replace(' ', 'T')}Z`) / 60_000
}

function due(schedule: Schedule, timeZone: string, from: string | Date, more: { lastDueAt?: Date; now?: Date } = {}): Date {
  const since = new Date(from)
  const found = nextDue(schedule, { timeZone, since, now: more.now ?? since, lastDueAt: more.lastDueAt })
  assert.ok(found !== null)
  assert.equal(found.key, found.dueAt.toISOString())
  return found.dueAt
}

/** The instants of a cron schedule, each asked for as soon as it is due. */
function* instants(cron: string, timeZone: string, fromMs: number, toMs: number): Generator<Date> {
  let lastDueAt: Date | undefined
  const since = new Date(fromMs)
  for (let now = since; ; now = lastDueAt) {
    const found = nextDue({ cron }, { timeZone, now, lastDueAt, since })
    assert.ok(found !== null && found.dueAt > now, `${cron} in ${timeZone}: ${found?.key} after ${now.toISOString()}`)
    if (found.dueAt.getTime() > toMs) return
    yield (lastDueAt = found.dueAt)
  }
}

test('a time that summer time leaves out runs when it begins, and only once', () => {
  assert.equal(due({ cron: '30 2 * * *' }, 'Europe/Berlin', '2026-03-28T12:00Z').toISOString(), '2026-03-29T01:00:00.000Z')
  assert.equal(due({ cron: '30 2 * * *' }, 'Europe/Berlin', '2026-03-29T01:00Z').toISOString(), '2026-03-30T00:30:00.000Z')
  assert.equal(due({ cron: '15 2 * * *' }, 'Australia/Lord_Howe', '2026-10-03T00:00Z').toISOString(), '2026-10-03T15:30:00.000Z')
  // All four of the hour that is left out, and the one at its end, are one.
  const quarters = [...instants('*/15 * * * *', 'Europe/Berlin', Date.UTC(2026, 2, 29, 0, 40), Date.UTC(2026, 2, 29, 1, 20))]
  assert.deepEqual(
    quarters.map((each) => each.toISOString().slice(11, 16)),
    ['00:45', '01:00', '01:15'],
  )
})

test('a time that exists twice runs at the first, and only once', () => {
  assert.equal(due({ cron: '30 2 * * *' }, 'Europe/Berlin', '2026-10-24T12:00Z').toISOString(), '2026-10-25T00:30:00.000Z')
  for (const between of ['2026-10-25T00:30Z', '2026-10-25T00:45Z', '2026-10-25T01:15Z', '2026-10-25T01:45Z']) {
    assert.equal(due({ cron: '30 2 * * *' }, 'Europe/Berlin', between).toISOString(), '2026-10-26T01:30:00.000Z', between)
  }
  // Missed at its first time, it is caught up in the hour that comes again.
  const missed = due({ cron: '30 2 * * *' }, 'Europe/Berlin', '2026-10-24T12:00Z', { now: new Date('2026-10-25T01:10Z') })
  assert.equal(missed.toISOString(), '2026-10-25T00:30:00.000Z')
})

test(`a daily schedule runs once on each day of years, whatever the clocks do (seed ${SEED})`, () => {
  const random = randomOf(SEED)
  for (const timeZone of ZONES) {
    for (let round = 0; round < 6; round += 1) {
      const cron = `${random(60)} ${round < 3 ? 1 + random(2) : random(24)} * * *`
      const fromMs = Date.UTC(2020 + random(10), random(12), 1 + random(28))
      const days = [...instants(cron, timeZone, fromMs, fromMs + 800 * DAY_MS)].map((each) => wall(timeZone, each).slice(0, 10))
      assert.equal(new Set(days).size, days.length, `${cron} in ${timeZone}: twice on a day`)
      const whole = (Date.parse(days.at(-1)!) - Date.parse(days[0]!)) / DAY_MS + 1
      assert.equal(days.length, whole, `${cron} in ${timeZone}: a day without`)
    }
  }
})

test(`every instant of a schedule is at a time that its expression names, and none is left out (seed ${SEED})`, () => {
  const random = randomOf(SEED + 1)
  for (const timeZone of ZONES) {
    const step = [5, 15, 20][random(3)]!
    for (const around of [
      Date.UTC(2027, 2, 13),
      Date.UTC(2027, 2, 27),
      Date.UTC(2027, 3, 3),
      Date.UTC(2027, 9, 2),
      Date.UTC(2027, 9, 30),
      Date.UTC(2027, 10, 6),
    ]) {
      const found = [...instants(`*/${step} * * * *`, timeZone, around, around + 2 * DAY_MS)]
      const expected: number[] = []
      const seen = new Set<number>()
      let before = minuteOf(timeZone, around)
      for (let at = around + 60_000; at <= around + 2 * DAY_MS; at += 60_000) {
        const shown = minuteOf(timeZone, at)
        // A change stands for what it leaves out, and for the time to which it leads.
        const named = Math.floor(shown / step) > Math.floor(before / step)
        if (named && !seen.has(shown)) expected.push(at)
        if (before < shown) seen.add(shown)
        before = shown
      }
      assert.deepEqual(found.map(Number), expected, `*/${step} in ${timeZone} from ${new Date(around).toISOString()}`)
    }
  }
})

test(`what fell due while nothing ran is caught up once (seed ${SEED})`, () => {
  const random = randomOf(SEED + 2)
  for (const timeZone of ZONES) {
    const since = new Date(Date.UTC(2025, 0, 1))
    let lastDueAt: Date | undefined
    let now = since
    for (let round = 0; round < 300; round += 1) {
      now = new Date(+now + random(5 * DAY_MS))
      const first = nextDue({ cron: '10 1,2,13 * * *' }, { timeZone, now, lastDueAt, since })!
      assert.ok(lastDueAt === undefined || first.dueAt > lastDueAt, `${timeZone}: ${first.key} is not behind the last`)
      if (first.dueAt > now) continue
      lastDueAt = first.dueAt
      const second = nextDue({ cron: '10 1,2,13 * * *' }, { timeZone, now, lastDueAt, since })!
      assert.ok(second.dueAt > now, `${timeZone}: due again at once, ${second.key}`)
    }
  }
})

test('of several that were missed the newest is caught up; what was before the schedule is nobody’s', () => {
  const schedule = { cron: '0 2 * * *' }
  const since = new Date('2026-06-01T12:00Z')
  const found = nextDue(schedule, {
    timeZone: 'UTC',
    now: new Date('2026-06-09T12:00Z'),
    since,
    lastDueAt: new Date('2026-06-03T02:00Z'),
  })
  assert.equal(found?.key, '2026-06-09T02:00:00.000Z')
  assert.equal(nextDue(schedule, { timeZone: 'UTC', now: since, since })?.key, '2026-06-02T02:00:00.000Z')
})

test('a clock that was set back neither silences a schedule nor runs it twice', () => {
  const since = new Date('2026-06-01T00:00Z')
  const now = new Date('2026-06-10T01:30Z')
  const wrong = { timeZone: 'UTC', now, since, lastDueAt: new Date('2040-01-01T02:00Z') }
  assert.equal(nextDue({ cron: '0 2 * * *' }, wrong)?.key, '2026-06-10T02:00:00.000Z')
  assert.equal(
    nextDue({ cron: '0 2 * * *' }, { ...wrong, lastDueAt: new Date('2026-06-10T02:00Z') })?.key,
    '2026-06-11T02:00:00.000Z',
  )
  const last = new Date('2026-06-10T01:00Z')
  const after = { timeZone: 'UTC', now, since, lastDueAt: last, lastEndedAt: new Date('2040-01-01T00:00Z') }
  assert.equal(nextDue({ after: '1 h' }, after)?.key, '2026-06-10T02:00:00.000Z')
})

test('a schedule behind the last runs at once when there was none, and then so long behind its end', () => {
  const since = new Date('2026-06-01T00:00Z')
  const now = new Date('2026-06-01T06:00Z')
  const input = { timeZone: 'Africa/Lagos', now, since }
  assert.equal(nextDue({ after: '6 h' }, input)?.key, since.toISOString())
  const ended = { ...input, lastDueAt: since, lastEndedAt: new Date('2026-06-01T01:20Z') }
  assert.equal(nextDue({ after: '6 h' }, ended)?.key, '2026-06-01T07:20:00.000Z')
  // Asked for again, and its end is not known: the earlier end says nothing of it.
  assert.equal(nextDue({ after: '6 h' }, { ...ended, lastDueAt: new Date('2026-06-01T05:00Z') })?.key, '2026-06-01T11:00:00.000Z')
  assert.equal(nextDue('never', input), null)
})

test('the 29th of February comes, also behind a century without', () => {
  assert.equal(due({ cron: '0 3 29 2 *' }, 'Europe/Berlin', '2097-01-01T00:00Z').toISOString(), '2104-02-29T02:00:00.000Z')
})

test('a day that the zone has left out altogether is made up for when the next begins', () => {
  // Samoa had no 30 December 2011.
  const found = [...instants('0 12 * * *', 'Pacific/Apia', Date.UTC(2011, 11, 29), Date.UTC(2012, 0, 1))]
  assert.deepEqual(
    found.map((each) => wall('Pacific/Apia', each)),
    ['2011-12-29 12:00', '2011-12-31 00:00', '2011-12-31 12:00', '2012-01-01 12:00'],
  )
})

test('what no schedule is is refused, with what was wanted', () => {
  const refused: [unknown, RegExp][] = [
    [{ cron: '0 0 30 2 *' }, /never comes/],
    [{ cron: '0 0 31 4,6,9,11 *' }, /never comes/],
    [{ cron: '*/5 * * * * *' }, /five fields/],
    [{ cron: '@daily' }, /five fields/],
    [{ cron: '@reboot' }, /five fields/],
    [{ cron: '' }, /five fields/],
    [{ cron: '0 2 * *' }, /five fields/],
    [{ cron: ' 0 2 * * *' }, /five fields/],
    [{ cron: 'H 2 * * *' }, /a minute/],
    [{ cron: '0 2 * H *' }, /a month/],
    [{ cron: '61 2 * * *' }, /61/],
    [{ cron: '0 2 * * * ; rm' }, /five fields/],
    [{ after: '0 h' }, /a time of 1 min/],
    [{ after: '5 s' }, /a time of 1 min/],
    [{ after: '400 d' }, /a time of 1 min/],
    [{ after: '6 h', cron: '0 2 * * *' }, /or never/],
    ['sometimes', /or never/],
    [{}, /or never/],
  ]
  for (const [value, wanted] of refused) {
    const result = scheduleSchema.safeParse(value)
    assert.ok(!result.success, JSON.stringify(value))
    assert.match(result.error.issues.map(({ message }) => message).join('; '), wanted, JSON.stringify(value))
  }
  for (const value of [
    { cron: '0 2 * * mon-fri' },
    { cron: '*/15 8-18 L JAN,feb *' },
    { cron: '0 4 * * 5L' },
    { after: '90min' },
    'never',
  ]) {
    assert.ok(scheduleSchema.safeParse(value).success, JSON.stringify(value))
  }
})
