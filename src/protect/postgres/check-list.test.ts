import assert from 'node:assert/strict'
import test from 'node:test'
import pg from 'pg'
import { systemClock } from '../../clock.ts'
import { CheckList, type Finding } from './check-list.ts'

async function listOf(...findings: readonly (Finding | Error)[]): Promise<CheckList> {
  const checks = new CheckList(systemClock, new AbortController().signal)
  for (const [index, each] of findings.entries())
    await checks.run({ name: `check ${index}`, expected: '' }, async () => {
      if (each instanceof Error) throw each
      return each
    })
  return checks
}

const failed = (findings: unknown): Finding => ({ verdict: 'failed', found: 'x', findings })

test('findings are bounded for each check and in all, whatever they are', async () => {
  const one = await listOf(failed('é'.repeat(40_000)))
  assert.deepEqual(one.details[0]?.findings, { cut: true, bytes: 80_002 })
  const deep = JSON.parse(`${'['.repeat(200_000)}${']'.repeat(200_000)}`) as unknown
  assert.deepEqual(
    (await listOf(failed(deep), failed(10n))).details.map(({ findings }) => (findings as { cut: boolean }).cut),
    [true, true],
  )
  const many = await listOf(...Array.from({ length: 5000 }, () => ({ ...failed('y'.repeat(2000)), found: 'z'.repeat(10_000) })))
  assert.equal(many.checks.length, 5000)
  assert.ok(Buffer.byteLength(JSON.stringify(many.details)) < 1024 ** 2)
  assert.match(many.details.at(-1)?.said ?? '', /^\d+ more checks have findings$/)
})

test('texts and findings are of whole characters', async () => {
  const { checks, details } = await listOf({
    verdict: 'failed',
    found: 'a\ud800b',
    findings: { 'k\udc00': ['v\ud800', new Date(0)] },
  })
  assert.equal(checks[0]?.found, 'a\ufffdb')
  assert.deepEqual(details[0]?.findings, { 'k\ufffd': ['v\ufffd', '1970-01-01T00:00:00.000Z'] })
})

test('what the server says is found without the values of rows, which go into the details', async () => {
  const said = (code: string, message: string) => Object.assign(new pg.DatabaseError(message, message.length, 'error'), { code })
  const errors = [
    said('22P02', 'invalid input syntax for type integer: "Ada Obi"'),
    said('22003', 'value "5550199" is out of range for type smallint'),
    said('23505', 'could not create unique index "by_name": Ada Obi'),
    said('P0001', 'patient Ada Obi has no ward'),
    said('XX002', 'item order invariant violated for index "by_name", block 7'),
  ]
  const { checks, details } = await listOf(...errors)
  assert.deepEqual(
    checks.map(({ found }) => found),
    [
      'invalid input syntax for type integer (SQLSTATE 22P02)',
      'value "…" is out of range for type smallint (SQLSTATE 22003)',
      'could not create unique index "by_name" (SQLSTATE 23505)',
      'SQLSTATE P0001',
      'item order invariant violated for index "by_name", block 7',
    ],
  )
  assert.equal(details[0]?.findings, errors[0]?.message)
})
