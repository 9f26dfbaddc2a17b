import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { systemClock, type Clock } from '../clock.ts'
import { AvailabilityBook } from './availability-book.ts'

const MINUTE_MS = 60_000

async function scene(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'resus-availability-'))
  t.after(() => rm(directory, { recursive: true }))
  let now = Date.parse('2026-11-22T03:00:00Z')
  const clock: Clock = { ...systemClock, now: () => now }
  return { directory, clock, pass: (ms: number) => void (now += ms) }
}

/** Looks every five seconds for so many minutes. */
function watch(
  book: AvailabilityBook,
  state: 'up' | 'down',
  { minutes, pass }: { minutes: number; pass: (ms: number) => void },
): void {
  for (let look = 0; look < minutes * 12; look += 1) {
    pass(5_000)
    book.note('his-db', state)
  }
}

test('what was measured is there after a restart, and the time between is not known', async (t) => {
  const { directory, clock, pass } = await scene(t)
  const book = await AvailabilityBook.open(directory, clock)
  assert.equal(book.measure('his-db'), null)
  watch(book, 'up', { minutes: 30, pass })
  watch(book, 'down', { minutes: 10, pass })
  await book.keep(new Set(['his-db']))
  assert.deepEqual(await readdir(directory), ['availability.json'])
  pass(5 * MINUTE_MS)
  const next = await AvailabilityBook.open(directory, clock)
  next.note('his-db', 'up')
  const { upSeconds, downSeconds, unknownSeconds, longestDownSeconds } = next.measure('his-db')!
  assert(Math.abs(upSeconds - 1800) <= 10 && Math.abs(downSeconds - 600) <= 10, `${upSeconds} ${downSeconds}`)
  assert.equal(longestDownSeconds, downSeconds)
  assert(Math.abs(unknownSeconds - 300) <= 10, String(unknownSeconds))
})

test('it is written once a minute, without what is configured no more', async (t) => {
  const { directory, clock, pass } = await scene(t)
  const book = await AvailabilityBook.open(directory, clock)
  book.note('gone', 'up')
  await book.keep(new Set())
  assert.deepEqual(await readdir(directory), [])
  pass(MINUTE_MS)
  watch(book, 'up', { minutes: 1, pass })
  await book.keep(new Set(['his-db']))
  const next = await AvailabilityBook.open(directory, clock)
  assert.equal(next.measure('gone'), null)
  assert.notEqual(next.measure('his-db'), null)
})

test('a file that cannot be read, and one of the future, are begun anew', async (t) => {
  const { directory, clock } = await scene(t)
  for (const text of ['{', '{"his-db":[{"state":"sideways"}]}', '']) {
    await writeFile(join(directory, 'availability.json'), text)
    assert.equal((await AvailabilityBook.open(directory, clock)).measure('his-db'), null)
  }
  const later = clock.now() + 3_600_000
  await writeFile(
    join(directory, 'availability.json'),
    JSON.stringify({ 'his-db': [{ beginMs: clock.now(), endMs: later, state: 'up' }] }),
  )
  assert.equal((await AvailabilityBook.open(directory, clock)).measure('his-db')?.upSeconds, 0)
})
