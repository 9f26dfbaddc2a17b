import assert from 'node:assert/strict'
import test, { after } from 'node:test'
import {
  enrolled,
  HERE,
  invited,
  OPERATOR,
  PASSWORD,
  selfOf,
  sessionOf,
  testAccounts,
  ticketOf,
} from '../../test/services/accounts.ts'
import { stopTestStore } from '../../test/services/store.ts'

after(stopTestStore)

test('whoever has a password alone may do nothing but make a second factor, and is known by both after that', async (t) => {
  const { accounts } = await testAccounts(t)
  await invited(accounts, 'ada')
  const first = await accounts.logOn({ name: 'Ada', password: PASSWORD }, HERE)
  assert(first.kind === 'session' && first.isFactorNeeded)
  const self = await selfOf(accounts, first.session)
  assert.deepEqual(self.principal.grants, [])
  assert.equal(self.principal.factor, 'password')
})

test('a log-on takes the password and the second factor, and gives what was granted', async (t) => {
  const all = await testAccounts(t)
  const { accounts } = all
  const { code } = await enrolled(all, 'ada')
  const ticket = ticketOf(await accounts.logOn({ name: 'ada', password: PASSWORD }, HERE))
  const session = await accounts.secondFactor(ticket, { kind: 'totp', code: code() }, HERE)
  const found = await accounts.principalOf({ kind: 'session', cookie: session.cookie }, HERE)
  assert.deepEqual(found?.principal.grants, OPERATOR)
  assert.equal(found.principal.factor, 'totp')
  assert.equal(found.session?.csrf, session.view.csrf)
  assert.throws(() => sessionOf({ kind: 'second-factor', ticket, factors: [], passkey: null }))
})
