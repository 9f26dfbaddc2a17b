import assert from 'node:assert/strict'
import test from 'node:test'
import { CredentialMemory, type Remembered } from './credential-memory.ts'

const NOW = 1_000_000

function remembered(id: string, person: string, goodUntilMs = Number.MAX_SAFE_INTEGER): Remembered {
  const principal = { kind: 'person', id: person, person, name: person, grants: [], factor: 'totp' } as const
  return { principal, session: null, id, person, goodUntilMs }
}

test('what was asked is known for five seconds, while the store is away for fifteen minutes, and no longer than it is good', () => {
  const memory = new CredentialMemory()
  memory.keep('a', remembered('1', 'ada'), { era: memory.era, nowMs: NOW })
  memory.keep('b', remembered('2', 'ada', NOW + 1_000), { era: memory.era, nowMs: NOW })
  const known = (key: string, afterMs: number) => [
    memory.fresh(key, NOW + afterMs) !== undefined,
    memory.whileAway(key, NOW + afterMs) !== undefined,
  ]
  assert.deepEqual(known('a', 4_999), [true, true])
  assert.deepEqual(known('a', 5_000), [false, true])
  assert.deepEqual(known('a', 899_999), [false, true])
  assert.deepEqual(known('a', 900_000), [false, false])
  assert.deepEqual(known('a', -1), [false, false], 'a clock that was set back makes nothing younger')
  assert.deepEqual(known('b', 999), [true, true])
  assert.deepEqual(known('b', 1_000), [false, false])
})

test('what is forgotten is gone at once, also when it was being asked at that moment', () => {
  const memory = new CredentialMemory()
  memory.keep('a', remembered('1', 'ada'), { era: memory.era, nowMs: NOW })
  memory.keep('b', remembered('2', 'ben'), { era: memory.era, nowMs: NOW })
  memory.keep('c', remembered('3', 'ben'), { era: memory.era, nowMs: NOW })
  const { era } = memory
  memory.forget({ person: 'ada' })
  memory.forget({ id: '3' })
  memory.keep('a', remembered('1', 'ada'), { era, nowMs: NOW })
  assert.deepEqual(
    ['a', 'b', 'c'].map((key) => memory.whileAway(key, NOW) !== undefined),
    [false, true, false],
  )
})

test('it holds five thousand, the newest', () => {
  const memory = new CredentialMemory()
  for (let i = 0; i <= 5_000; i += 1) memory.keep(`${i}`, remembered(`${i}`, 'ada'), { era: memory.era, nowMs: NOW })
  assert.equal(memory.fresh('0', NOW), undefined)
  assert.notEqual(memory.fresh('1', NOW), undefined)
  assert.notEqual(memory.fresh('5000', NOW), undefined)
})
