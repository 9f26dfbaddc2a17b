import assert from 'node:assert/strict'
import test, { after } from 'node:test'
import { enrolled, HERE, OPERATOR, selfOf, testAccounts, type TestAccounts } from '../../test/services/accounts.ts'
import { stopTestStore } from '../../test/services/store.ts'
import { areWithin, within } from './grants.ts'
import type { Grant } from './principal.ts'

after(stopTestStore)

const DAY_MS = 86_400_000
const grant = (role: Grant['role'], ...facilities: string[]): Grant => ({
  role,
  facilities: facilities.length === 0 ? null : facilities,
})

async function owner(all: TestAccounts, grants: readonly Grant[] = OPERATOR) {
  const { session, person } = await enrolled(all, 'ada', grants)
  const { principal } = await selfOf(all.accounts, session)
  const make = async (wanted: readonly Grant[], days = 1) =>
    all.accounts.tokens.make(principal, { name: 'x', grants: wanted, expiresAt: new Date(all.clock.now() + days * DAY_MS) }, HERE)
  return { principal, person, make }
}

test('what lies within somebody’s grants: a role for all has it for some, and every role reads', () => {
  const own = [grant('operator', 'a', 'b'), grant('auditor')]
  const table: [Grant, Grant[]][] = [
    [grant('operator', 'a'), [grant('operator', 'a')]],
    [grant('operator', 'a', 'c'), [grant('operator', 'a')]],
    [grant('operator', 'c'), []],
    [grant('operator'), [grant('operator', 'a', 'b')]],
    [grant('viewer'), [grant('viewer')]],
    [grant('auditor', 'z'), [grant('auditor', 'z')]],
    [grant('approver'), []],
  ]
  for (const [wanted, found] of table) {
    assert.deepEqual(within([wanted], own), found)
    assert.equal(areWithin([wanted], own), JSON.stringify([wanted]) === JSON.stringify(found), JSON.stringify(wanted))
  }
  assert.deepEqual(within([grant('viewer')], [grant('operator', 'a')]), [grant('viewer', 'a')])
})

test('a token does no more than its owner, neither approves nor administers, and ends within 400 days', async (t) => {
  const all = await testAccounts(t)
  const { make } = await owner(all, [grant('operator', 'a'), grant('approver'), grant('administrator')])
  for (const wanted of [grant('operator'), grant('operator', 'b'), grant('approver'), grant('administrator'), grant('auditor')]) {
    await assert.rejects(make([wanted]), { code: 'FORBIDDEN' }, JSON.stringify(wanted))
  }
  for (const days of [0, -1, 401, Number.NaN]) await assert.rejects(make([grant('viewer')], days), { code: 'ARGUMENTS_INVALID' })
  const { token } = await make([grant('viewer'), grant('operator', 'a')], 400)
  assert.match(token, /^resus_[\w-]{43}$/)
})

test('what an owner may no more, their token may no more; and it is worth nothing after its end', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock } = all
  const { make, person } = await owner(all, [grant('operator', 'a', 'b')])
  const { token } = await make([grant('operator', 'a', 'b')])
  const bearer = { kind: 'bearer', token } as const
  assert.deepEqual((await accounts.principalOf(bearer))?.principal.grants, [grant('operator', 'a', 'b')])
  await accounts.people.setGrants(person.id, [grant('operator', 'b')], { id: 'somebody' })
  assert.deepEqual((await accounts.principalOf(bearer))?.principal.grants, [grant('operator', 'b')])
  clock.move(DAY_MS - 1_000)
  assert.notEqual(await accounts.principalOf(bearer), undefined)
  clock.move(1_000)
  assert.equal(await accounts.principalOf(bearer), undefined, 'also out of the memory')
})

test('a use is noted once a minute; a revoked token is nobody’s at once; nobody revokes another’s', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock } = all
  const { make, principal } = await owner(all)
  const { token, view } = await make(OPERATOR)
  const bearer = { kind: 'bearer', token } as const
  const usedMs = async () => (await accounts.tokens.list(principal.id))[0]?.lastUsedAt?.getTime()
  const first = clock.now()
  for (let i = 0; i < 5; i += 1) {
    await accounts.principalOf(bearer)
    assert.equal(await usedMs(), first)
    clock.move(14_000)
  }
  await accounts.principalOf(bearer)
  assert.equal(await usedMs(), clock.now())
  const { person: eve } = await enrolled(all, 'eve')
  await assert.rejects(accounts.tokens.revoke({ id: eve.id, name: 'eve' }, view.id, HERE), { code: 'NOT_FOUND' })
  await accounts.tokens.revoke({ id: principal.id, name: 'ada' }, view.id, HERE)
  assert.equal(await accounts.principalOf(bearer), undefined)
  assert.equal(await accounts.principalOf({ kind: 'bearer', token: `resus_${'A'.repeat(43)}` }), undefined)
})
