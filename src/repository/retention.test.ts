import assert from 'node:assert/strict'
import test from 'node:test'
import { decideRetention, keepSchema, type KeepReason, type RetainableBackup, type RetainedLine } from './retention.ts'

const DAY_MS = 24 * 3600 * 1000
const MAIN: RetainedLine = [{ branch: 'main', endLsn: undefined }]
const NONE = { daily: 0, weekly: 0, monthly: 0, pitrDays: 0 }

/** Backups at these times, in this order; the sequence is the order. */
function at(...times: string[]): RetainableBackup[] {
  return times.map((time, index) => ({
    id: time,
    sequence: index + 1,
    timeMs: Date.parse(time),
    branch: 'main',
    stopLsn: BigInt(100 * (index + 1)),
  }))
}

function decide(
  backups: readonly RetainableBackup[],
  keep: Partial<typeof NONE>,
  more: { now?: string; lines?: readonly RetainedLine[]; proven?: readonly string[] } = {},
): Record<string, readonly KeepReason[]> {
  const { now = '2026-11-21T12:00:00Z', lines = [MAIN], proven = [] } = more
  const question = { keep: { ...NONE, ...keep }, backups, lines, proven: new Set(proven), nowMs: Date.parse(now) }
  return Object.fromEntries([...decideRetention(question)].filter(([, reasons]) => reasons.length > 0))
}

test('of each day, week and month that has a backup the newest stays, in UTC', () => {
  const backups = at(
    '2026-09-30T23:59:59Z',
    '2026-10-01T00:00:00Z',
    '2026-11-01T23:00:00Z',
    '2026-11-15T23:59:59Z',
    '2026-11-16T00:00:00Z',
    '2026-11-20T01:00:00Z',
    '2026-11-20T23:00:00Z',
    '2026-11-21T01:00:00Z',
  )
  assert.deepEqual(decide(backups, { daily: 2, weekly: 3, monthly: 3 }), {
    '2026-11-21T01:00:00Z': ['newest', 'pitr', 'daily', 'weekly', 'monthly'],
    '2026-11-20T23:00:00Z': ['daily'],
    // Sunday night is of the week before.
    '2026-11-15T23:59:59Z': ['weekly'],
    '2026-11-01T23:00:00Z': ['weekly'],
    '2026-10-01T00:00:00Z': ['monthly'],
    '2026-09-30T23:59:59Z': ['monthly'],
  })
})

test('when no backups are made any more, the last ones stay', () => {
  const backups = at('2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z', '2026-01-03T00:00:00Z', '2026-01-04T00:00:00Z')
  assert.deepEqual(
    Object.keys(decide(backups, { daily: 3 })),
    backups
      .slice(1)
      .map(({ id }) => id)
      .toReversed(),
  )
})

test('every instant of the window stays reachable: the newest backup before it stays too', () => {
  const backups = at('2026-11-08T00:00:00Z', '2026-11-10T00:00:00Z', '2026-11-15T00:00:00Z', '2026-11-20T00:00:00Z')
  assert.deepEqual(decide(backups, { pitrDays: 7 }), {
    '2026-11-20T00:00:00Z': ['newest', 'pitr'],
    '2026-11-15T00:00:00Z': ['pitr'],
    '2026-11-10T00:00:00Z': ['pitr'],
  })
  // Exactly at the window's start it is reached from the backup that ends there.
  assert.deepEqual(Object.keys(decide(backups, { pitrDays: 6 }, { now: '2026-11-21T00:00:00Z' })), [
    '2026-11-20T00:00:00Z',
    '2026-11-15T00:00:00Z',
  ])
})

test('each line on which instants of the window lie keeps a backup to begin from', () => {
  const [first, second, abandoned, after] = at(
    '2026-11-01T00:00:00Z',
    '2026-11-02T00:00:00Z',
    '2026-11-10T00:00:00Z',
    '2026-11-19T00:00:00Z',
  )
  const backups = [first!, second!, abandoned!, { ...after!, branch: 'second' }]
  // The cluster was restored to a place between the second backup and the third, and went on from there.
  const second_: RetainedLine = [
    { branch: 'main', endLsn: 250n },
    { branch: 'second', endLsn: undefined },
  ]
  assert.deepEqual(decide(backups, { pitrDays: 7 }, { lines: [MAIN, second_] }), {
    '2026-11-19T00:00:00Z': ['newest', 'pitr'],
    '2026-11-10T00:00:00Z': ['pitr'],
    '2026-11-02T00:00:00Z': ['pitr'],
  })
  assert.deepEqual(Object.keys(decide(backups, { pitrDays: 7 }, { lines: [second_] })), [
    '2026-11-19T00:00:00Z',
    '2026-11-02T00:00:00Z',
  ])
})

test('the newest backup of all and the proven ones stay, whatever their age', () => {
  const backups = at('2020-01-01T00:00:00Z', '2020-02-01T00:00:00Z', '2020-03-01T00:00:00Z')
  assert.deepEqual(decide(backups, {}, { lines: [], proven: ['2020-01-01T00:00:00Z'] }), {
    '2020-03-01T00:00:00Z': ['newest'],
    '2020-01-01T00:00:00Z': ['proven'],
  })
})

test('newer is what has the greater sequence: neither names, nor failed attempts, nor a clock that was wrong decide', () => {
  const [first, second, third] = at('2026-11-20T10:00:00Z', '2026-11-20T09:00:00Z', '2026-11-20T08:00:00Z')
  const backups = [second!, third!, first!]
  assert.deepEqual(decide(backups, { daily: 1 }), { '2026-11-20T08:00:00Z': ['newest', 'pitr', 'daily'] })
})

test('a hundred days of four backups each: what stays is what the policy says, and every instant of the window is covered', () => {
  const nowMs = Date.parse('2026-11-21T12:00:00Z')
  const times = Array.from({ length: 400 }, (_, index) => new Date(nowMs - (400 - index) * (DAY_MS / 4)).toISOString())
  const kept = Object.values(decide(at(...times), keepSchema.parse({})))
  const having = (reason: KeepReason) => kept.filter((reasons) => reasons.includes(reason)).length
  assert.deepEqual([having('newest'), having('daily'), having('weekly'), having('monthly'), having('pitr')], [1, 7, 4, 4, 4 * 30])
})

test('no backups: nothing stays and nothing goes', () => {
  assert.deepEqual(decide([], { daily: 7 }), {})
})

test('what is no policy is refused, with what is wanted', () => {
  const problem = (value: unknown) => keepSchema.safeParse(value).error?.issues[0]?.message
  assert.equal(problem({ daily: 0, weekly: 0, monthly: 0, pitrDays: 1 }), undefined)
  assert.equal(problem({ daily: -1 }), 'a number, 0 or more')
  assert.equal(problem({ daily: 1.5 }), 'a whole number')
  assert.match(problem({ pitrDays: 10_000 })!, /3660 at most/)
  assert.match(problem(NONE)!, /at least one number above 0/)
  assert.match(problem({ dayly: 3 })!, /dayly/)
  assert.deepEqual(keepSchema.parse({}), { daily: 7, weekly: 4, monthly: 12, pitrDays: 30 })
})
