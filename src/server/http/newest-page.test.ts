import assert from 'node:assert/strict'
import test from 'node:test'
import { compareDated, newestPage, type Dated } from './newest-page.ts'

/** Backups of so many components, in order each; a few of them at the same instant. */
function listsOf(components: number, backups: number): Dated[][] {
  return Array.from({ length: components }, (_, number) =>
    Array.from({ length: backups }, (__, index) => ({
      finishedAt: new Date(Date.UTC(2026, 10, 22) - index * 60_000 * (1 + (number % 3))).toISOString(),
      system: 'osun-his',
      component: `component-${number}`,
      id: `backup-${index}`,
    })),
  )
}

test('pages of many lists are, one behind the other, all of them in order', () => {
  const lists = listsOf(7, 23)
  const expected = lists.flat().toSorted((left, right) => compareDated(right, left))
  for (const limit of [1, 5, 50, 161, 500]) {
    const seen: Dated[] = []
    for (let after: Dated | undefined; ; after = seen.at(-1)) {
      const page = newestPage(lists, { after, limit })
      seen.push(...page.items)
      assert.equal(page.hasMore, seen.length < expected.length)
      if (!page.hasMore) break
    }
    assert.deepEqual(seen, expected)
  }
})

test('a page goes on behind a backup that has expired since', () => {
  const lists = listsOf(3, 5)
  const expected = lists.flat().toSorted((left, right) => compareDated(right, left))
  const after = expected[4]!
  const without = lists.map((list) => list.filter((each) => each !== after))
  assert.deepEqual(newestPage(without, { after, limit: 100 }).items, expected.slice(5))
})

test('no lists, and a place behind the last, give an empty page', () => {
  assert.deepEqual(newestPage([], { after: undefined, limit: 5 }), { items: [], hasMore: false })
  const [list] = listsOf(1, 3)
  assert.deepEqual(newestPage([list!], { after: list!.at(-1), limit: 5 }), { items: [], hasMore: false })
})
