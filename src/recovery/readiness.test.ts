import assert from 'node:assert/strict'
import test from 'node:test'
import {
  GATES,
  headroom,
  leastReady,
  readiness,
  WEIGHTS,
  type Gate,
  type Measurement,
  type ReadinessInput,
  type TermName,
} from './readiness.ts'

const HOLDS: Gate = { holds: true, why: '' }
const FULL: Measurement = { value: 1, why: '', asOf: '2026-11-22T00:00:00.000Z' }
const MISSING: Measurement = { value: null, why: 'nobody measures it', asOf: null }

function input(
  more: { terms?: Partial<ReadinessInput['terms']>; gates?: Partial<ReadinessInput['gates']> } = {},
): ReadinessInput {
  const terms = Object.fromEntries(Object.keys(WEIGHTS).map((name) => [name, FULL])) as Record<TermName, Measurement>
  const gates = Object.fromEntries(GATES.map((name) => [name, HOLDS])) as ReadinessInput['gates']
  return { terms: { ...terms, ...more.terms }, gates: { ...gates, ...more.gates } }
}

test('everything measured and good is 1, and nothing is left to do', () => {
  const { score, action } = readiness(input())
  assert.deepEqual([score, action], [1, null])
})

test('weights add up to 1, and what was not measured counts as nothing', () => {
  assert.ok(Math.abs(Object.values(WEIGHTS).reduce((sum, each) => sum + each, 0) - 1) < 1e-9)
  const missing = readiness(input({ terms: { playbooks: MISSING, contacts: MISSING } }))
  assert.deepEqual([missing.score, missing.action], [0.87, { what: 'rehearse the steps of the playbooks', gain: 0.08 }])
})

test('one gate that does not hold, or of which nobody can tell, leaves at most a half, and is the thing to do', () => {
  for (const holds of [false, null]) {
    const { score, action } = readiness(input({ gates: { immutable: { holds, why: '' } } }))
    assert.deepEqual([score, action?.gain], [0.5, 0.5])
    assert.match(action?.what ?? '', /Object Lock/)
  }
  const two = readiness(input({ gates: { immutable: { holds: null, why: '' }, verified: { holds: false, why: '' } } }))
  assert.equal(two.score, 0.5)
  assert.match(two.action?.what ?? '', /resus drill.*counts once "immutable" holds/)
})

test('headroom is full up to half of what is allowed, and nothing at its end', () => {
  assert.deepEqual(
    [0, 7.5, 11.25, 15, 60].map((minutes) => headroom(minutes, 15)),
    [1, 1, 0.5, 0, 0],
  )
  assert.deepEqual([headroom(0, 0), headroom(1, 0)], [1, 0])
})

test('a system is as ready as its least ready part', () => {
  assert.equal(leastReady([{ score: 0.9 }, { score: 0.4 }, { score: 0.7 }])?.score, 0.4)
  assert.equal(leastReady([]), undefined)
})
