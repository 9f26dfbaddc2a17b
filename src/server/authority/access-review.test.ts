import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after } from 'node:test'
import { enrolled, testAccounts } from '../../../test/services/accounts.ts'
import { stopTestStore } from '../../../test/services/store.ts'
import { AuditTrail } from '../../authority/audit-trail.ts'
import { AccessReview, REVIEW_ACTION } from './access-review.ts'
import { ApprovalNews } from './approval-news.ts'

after(stopTestStore)

const DAY_MS = 24 * 3_600_000

test('when the first day is over everybody is told who was made by whom, and then once a quarter', async (t) => {
  const all = await testAccounts(t)
  const { accounts, store, clock } = all
  const state = await mkdtemp(join(tmpdir(), 'resus-review-'))
  t.after(async () => rm(state, { recursive: true, force: true }))
  const trail = new AuditTrail({ store, node: 'one', clock, state })
  await trail.begin(undefined)
  const review = new AccessReview(store, trail, clock)
  assert.deepEqual(await review.dates(), { last: null, due: null })
  const firstMs = clock.now()
  const { person } = await enrolled(all, 'ada', [{ role: 'administrator', facilities: null }])
  const grants = [{ role: 'approver' as const, facilities: null }]
  await accounts.people.insertPerson({ name: 'ben', displayName: 'Ben', email: null, grants }, { id: person.id })
  assert.deepEqual(await review.dates(), { last: null, due: new Date(firstMs + DAY_MS) })

  const told: (string | null)[] = []
  const news = new ApprovalNews(
    async (_kind, _place, found) => void told.push(found?.text ?? null),
    async () => undefined,
  )
  const tell = async () => news.tellAccessReview((await review.dates()).due, clock.now(), async () => review.makers())
  clock.move(DAY_MS - 60_000)
  await tell()
  assert.deepEqual(told, [])
  clock.move(60_000)
  await tell()
  await tell()
  assert.equal(told.length, 1)
  assert.match(told[0]!, /"ben" \(approver\) by "ada", "ada" \(administrator\) by bootstrap/)

  const actor = { kind: 'person', id: person.id, name: 'ada' } as const
  await trail.append(store.sql, { actor, action: REVIEW_ACTION, outcome: 'done' })
  assert.deepEqual((await review.dates()).due, new Date(clock.now() + 91 * DAY_MS))
  await tell()
  assert.deepEqual(told.slice(1), [null])
})
