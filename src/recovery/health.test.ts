import assert from 'node:assert/strict'
import test from 'node:test'
import { nextHealth, observeFigures, unknownHealth, type Health, type HealthState, type Observation } from './health.ts'

const LOOKS: Readonly<Record<string, Observation>> = {
  g: { kind: 'good' },
  s: { kind: 'slow', why: 'slow' },
  f: { kind: 'failed', why: 'no answer' },
}

function after(looks: string): Health {
  return looks.split('').reduce((health, look, index) => nextHealth(health, LOOKS[look]!, index + 1), unknownHealth(0))
}

test('every state goes on from every look as the table says', () => {
  const table: [string, HealthState][] = [
    ['', 'unknown'],
    ['g', 'up'],
    ['s', 'degraded'],
    ['f', 'unknown'],
    ['ff', 'unknown'],
    ['fff', 'down'],
    ['gg', 'up'],
    ['gs', 'up'],
    ['gss', 'up'],
    ['gsss', 'degraded'],
    ['gf', 'up'],
    ['gff', 'up'],
    ['gfff', 'down'],
    ['gfs', 'up'],
    ['gsf', 'up'],
    ['gssf', 'degraded'],
    ['gffs', 'degraded'],
    ['gffgff', 'up'],
    ['gssgss', 'up'],
    ['sg', 'up'],
    ['ss', 'degraded'],
    ['sff', 'degraded'],
    ['sfff', 'down'],
    ['fffg', 'up'],
    ['fffs', 'degraded'],
    ['ffff', 'down'],
    ['fffsff', 'degraded'],
    ['fffsfff', 'down'],
  ]
  for (const [looks, state] of table) assert.equal(after(looks).state, state, looks)
})

test('it is said since when, when it answered last, and what was wrong', () => {
  assert.deepEqual(after('gfff'), {
    state: 'down',
    sinceMs: 4,
    notGood: 3,
    failed: 3,
    lookedMs: 4,
    answeredMs: 1,
    why: 'no answer',
  })
  const back = after('gfffsg')
  assert.deepEqual([back.state, back.sinceMs, back.answeredMs, back.why], ['up', 6, 6, null])
  assert.equal(after('gg').sinceMs, 1)
})

test('a figure beyond its threshold is told with both; one that is not known says nothing', () => {
  const thresholds = [
    { name: 'lag', unit: 's', most: 30 },
    { name: 'space', unit: 'GB', least: 10 },
  ]
  assert.deepEqual(observeFigures({ lag: 30, space: 10 }, thresholds), { kind: 'good' })
  assert.deepEqual(observeFigures({ lag: null }, thresholds), { kind: 'good' })
  const found = observeFigures({ lag: 31, space: 9 }, thresholds)
  assert.deepEqual(found, { kind: 'slow', why: 'lag is 31 s, more than 30; space is 9 GB, less than 10' })
})
