import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import test, { after } from 'node:test'
import { HERE, invited, PASSWORD, selfOf, sessionOf, testAccounts, type TestAccounts } from '../../test/services/accounts.ts'
import { Authenticator } from '../../test/services/authenticator.ts'
import { stopTestStore } from '../../test/services/store.ts'
import { siteOf } from './passkeys.ts'

after(stopTestStore)

const ADA = { name: 'ada', password: PASSWORD }

/** Somebody with a passkey alone. */
async function withPasskey({ accounts }: TestAccounts, name = 'ada') {
  const person = await invited(accounts, name)
  const self = await selfOf(accounts, sessionOf(await accounts.logOn({ name, password: PASSWORD }, HERE)))
  const authenticator = new Authenticator('resus.test')
  const made = await accounts.own.finishPasskey(
    self,
    authenticator.register(await accounts.own.beginPasskey(self, { label: 'key' })),
  )
  assert.equal(made.factor.kind, 'passkey')
  return { person, authenticator, session: made.session! }
}

test('a passkey is made, logs on, and shows its person for one approval', async (t) => {
  const all = await testAccounts(t)
  const { accounts } = all
  const { person, authenticator, session } = await withPasskey(all)
  assert.equal((await selfOf(accounts, session)).principal.factor, 'passkey')
  const first = await accounts.logOn(ADA, HERE)
  assert(first.kind === 'second-factor' && first.passkey !== null)
  assert.deepEqual(first.factors, ['passkey'])
  const given = { kind: 'passkey', response: authenticator.assert(first.passkey) } as const
  const logged = await accounts.secondFactor(first.ticket, given, HERE)
  assert.equal((await selfOf(accounts, logged)).principal.factor, 'passkey')
  const digest = randomBytes(32)
  const challenge = (await accounts.approvalChallenge(person.id, digest))!
  const response = authenticator.assert(challenge)
  const shown = await accounts.freshFactor(person.id, { kind: 'passkey', response }, digest, HERE)
  assert.deepEqual([shown.kind, shown.label], ['passkey', 'key'])
  await assert.rejects(accounts.freshFactor(person.id, { kind: 'passkey', response }, digest), { code: 'FACTOR_WRONG' })
})

test('an answer to a challenge is good for nothing else: another approval, person, purpose, site, key, later, or unverified', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock } = all
  const { person, authenticator, session } = await withPasskey(all)
  const digest = randomBytes(32)
  const challenge = async () => (await accounts.approvalChallenge(person.id, digest))!
  const refused = async (response: ReturnType<Authenticator['assert']>, by = digest, of = person.id) => {
    await assert.rejects(accounts.freshFactor(of, { kind: 'passkey', response }, by), { code: 'FACTOR_WRONG' })
    await all.store.sql.updateTable('people').set({ failures: 0, locked_until: null }).execute()
  }
  await refused(authenticator.assert(await challenge()), randomBytes(32))
  await refused(authenticator.assert(await challenge(), { origin: 'https://resus.evil.test' }))
  await refused(authenticator.assert(await challenge(), { isVerified: false }))
  await refused(new Authenticator('resus.test').assert(await challenge()))
  await refused(authenticator.assert({ challenge: randomBytes(48).toString('base64url') }))
  const logOn = await accounts.logOn(ADA, HERE)
  assert(logOn.kind === 'second-factor')
  await refused(authenticator.assert(logOn.passkey!))
  await refused(authenticator.assert((await accounts.own.challenge(await selfOf(accounts, session)))!))
  const eve = await withPasskey(all, 'eve')
  await refused(eve.authenticator.assert(await challenge()), digest, eve.person.id)
  const forged = authenticator.assert(await challenge())
  await refused({
    ...forged,
    response: { ...forged.response, signature: eve.authenticator.assert(await challenge()).response.signature },
  })
  const late = await challenge()
  clock.move(5 * 60_000)
  await refused(authenticator.assert(late))
  await accounts.freshFactor(person.id, { kind: 'passkey', response: authenticator.assert(await challenge()) }, digest)
})

test('an answer that was wrong has used its challenge too', async (t) => {
  const all = await testAccounts(t)
  const { accounts } = all
  const { person, authenticator } = await withPasskey(all)
  const digest = randomBytes(32)
  const challenge = (await accounts.approvalChallenge(person.id, digest))!
  const show = async (response: ReturnType<Authenticator['assert']>) =>
    accounts.freshFactor(person.id, { kind: 'passkey', response }, digest)
  await assert.rejects(show(authenticator.assert(challenge, { isVerified: false })), { code: 'FACTOR_WRONG' })
  await assert.rejects(show(authenticator.assert(challenge)), { code: 'FACTOR_WRONG' })
})

test('one answer that is shown on two nodes at once is good once', async (t) => {
  const all = await testAccounts(t)
  const { person, authenticator } = await withPasskey(all)
  const nodes = [all.accounts, all.another()]
  const digest = randomBytes(32)
  const response = authenticator.assert((await all.accounts.approvalChallenge(person.id, digest))!)
  const outcomes = await Promise.allSettled(
    nodes.map(async (node) => node.freshFactor(person.id, { kind: 'passkey', response }, digest)),
  )
  assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
})

test('an enrolment takes what was made for it: here, now, verified, and nobody’s yet', async (t) => {
  const all = await testAccounts(t)
  const { accounts } = all
  const { authenticator } = await withPasskey(all)
  await invited(accounts, 'eve')
  const self = await selfOf(accounts, sessionOf(await accounts.logOn({ name: 'eve', password: PASSWORD }, HERE)))
  const begin = async () => accounts.own.beginPasskey(self, { label: 'key' })
  const refused = async (response: ReturnType<Authenticator['register']>) =>
    assert.rejects(accounts.own.finishPasskey(self, response), { code: 'FACTOR_WRONG' })
  const own = new Authenticator('resus.test')
  await refused(own.register(await begin(), { origin: 'https://evil.test' }))
  await refused(own.register(await begin(), { isVerified: false }))
  await refused(own.register({ challenge: randomBytes(48).toString('base64url') }))
  await refused(new Authenticator('evil.test').register(await begin()))
  await refused(authenticator.register(await begin()))
  const good = own.register(await begin())
  await accounts.own.finishPasskey(self, good)
  await refused(good)
})

test('where nobody has said under which name people reach us, there are no passkeys', async (t) => {
  const { accounts } = await testAccounts(t, { site: null })
  await invited(accounts, 'ada')
  const self = await selfOf(accounts, sessionOf(await accounts.logOn(ADA, HERE)))
  await assert.rejects(accounts.own.beginPasskey(self, { label: 'key' }), { code: 'ARGUMENTS_INVALID', message: /url|name/ })
})

test('a passkey belongs to the name that people reach us by, and to no number', () => {
  assert.deepEqual(siteOf('https://resus.test:8443'), { origin: 'https://resus.test:8443', rpId: 'resus.test' })
  for (const url of [undefined, 'https://192.0.2.1', 'http://127.0.0.1:7400']) assert.equal(siteOf(url), null)
})
