import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import test, { after } from 'node:test'
import { sql } from 'kysely'
import { generateSync } from 'otplib'
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
import { Secret } from '../secret.ts'
import type { From } from './account-event.ts'

after(stopTestStore)

const ADA = { name: 'ada', password: PASSWORD }
const WRONG = { name: 'ada', password: 'another one altogether' }
const BOOT = { id: 'bootstrap' }

test('whoever has a password alone may do nothing but make a second factor', async (t) => {
  const { accounts } = await testAccounts(t)
  await invited(accounts, 'ada')
  const logOn = await accounts.logOn({ ...ADA, name: 'Ada' }, HERE)
  assert(logOn.kind === 'session' && logOn.isFactorNeeded)
  const { principal } = await selfOf(accounts, logOn.session)
  assert.deepEqual([principal.grants, principal.factor], [[], 'password'])
})

test('a log-on takes the password and the second factor, and gives what was granted', async (t) => {
  const all = await testAccounts(t)
  const { accounts } = all
  const { code } = await enrolled(all, 'ada')
  const ticket = ticketOf(await accounts.logOn(ADA, HERE))
  const session = await accounts.secondFactor(ticket, { kind: 'totp', code: code() }, HERE)
  const found = await accounts.principalOf({ kind: 'session', cookie: session.cookie }, HERE)
  assert.deepEqual([found?.principal.grants, found?.principal.factor], [OPERATOR, 'totp'])
  assert.equal(found?.session?.csrf, session.view.csrf)
})

test('five failures lock an account out for a minute, each further one for twice as long, up to an hour', async (t) => {
  const { accounts, clock, events } = await testAccounts(t)
  const { id } = await invited(accounts, 'ada')
  for (let failure = 1; failure <= 4; failure += 1) await assert.rejects(accounts.logOn(WRONG, HERE), { code: 'LOG_ON_REFUSED' })
  const expected = [60, 120, 240, 480, 960, 1920, 3600, 3600]
  for (const seconds of expected) {
    await assert.rejects(accounts.logOn(WRONG, HERE), { code: 'LOG_ON_REFUSED' })
    const { lockedUntil } = await accounts.people.read(id)
    assert.equal((lockedUntil!.getTime() - clock.now()) / 1000, seconds)
    await assert.rejects(accounts.logOn(ADA, HERE), { code: 'LOG_ON_REFUSED' }, 'locked out, whatever the password')
    clock.move(seconds * 1000)
  }
  assert.equal(events.filter(({ action }) => action === 'lock-out').length, expected.length)
  sessionOf(await accounts.logOn(ADA, HERE))
  assert.equal((await accounts.people.read(id)).lockedUntil, null)
  await assert.rejects(accounts.logOn(WRONG, HERE), { code: 'LOG_ON_REFUSED' })
  sessionOf(await accounts.logOn(ADA, HERE))
})

test('twenty guesses at once, on two nodes, are looked at no more than five in a row', async (t) => {
  const { accounts, another, store, events } = await testAccounts(t)
  const { id } = await invited(accounts, 'ada')
  const nodes = [accounts, another()]
  const outcomes = await Promise.allSettled(Array.from({ length: 20 }, async (_, i) => nodes[i % 2]!.logOn(WRONG, HERE)))
  assert(outcomes.every(({ status }) => status === 'rejected'))
  const { failures } = await store.sql.selectFrom('people').select('failures').where('id', '=', id).executeTakeFirstOrThrow()
  assert.equal(failures, 5)
  assert.equal(events.filter(({ reason }) => reason === 'another password').length, 5)
})

test('who goes on from one address is slowed down whatever the name, and nobody else is', async (t) => {
  const { accounts, clock } = await testAccounts(t)
  await invited(accounts, 'ada')
  const from = (address: string): From => ({ address, userAgent: null })
  const guess = async (i: number, address: string) => accounts.logOn({ name: `nobody${i}`, password: 'x' }, from(address))
  for (let i = 0; i < 30; i += 1) await assert.rejects(guess(i, `2001:db8::${i + 1}`), { code: 'LOG_ON_REFUSED' })
  await assert.rejects(guess(31, '2001:db8:0:0:ffff::1'), { code: 'LOCKED_OUT' })
  await assert.rejects(accounts.logOn(ADA, from('2001:db8::1')), { code: 'LOCKED_OUT' })
  sessionOf(await accounts.logOn(ADA, from('2001:db8:0:1::1')))
  clock.move(6_000)
  sessionOf(await accounts.logOn(ADA, from('2001:db8::1')))
})

test('a ticket is good for one log-on, on one node, for five minutes', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock } = all
  const node = all.another()
  const { code } = await enrolled(all, 'ada')
  const ticket = ticketOf(await accounts.logOn(ADA, HERE))
  // Two codes, each good: the ticket alone is what they have in common.
  const both = await Promise.allSettled([
    accounts.secondFactor(ticket, { kind: 'totp', code: code(0) }, HERE),
    node.secondFactor(ticket, { kind: 'totp', code: code(1) }, HERE),
  ])
  assert.equal(both.filter(({ status }) => status === 'fulfilled').length, 1, JSON.stringify(both))
  await assert.rejects(accounts.secondFactor(ticket, { kind: 'totp', code: code(1) }, HERE), { code: 'LOG_ON_REFUSED' })
  const late = ticketOf(await accounts.logOn(ADA, HERE))
  clock.move(5 * 60_000)
  await assert.rejects(accounts.secondFactor(late, { kind: 'totp', code: code() }, HERE), { code: 'LOG_ON_REFUSED' })
})

test('one code that is shown twice at the same time, on two nodes, is good once', async (t) => {
  const all = await testAccounts(t)
  const { accounts } = all
  const node = all.another()
  const { person, code } = await enrolled(all, 'ada')
  const given = { kind: 'totp', code: code() } as const
  const digest = randomBytes(32)
  const outcomes = await Promise.allSettled(
    Array.from({ length: 4 }, async (_, i) => (i % 2 === 0 ? accounts : node).freshFactor(person.id, given, digest, HERE)),
  )
  assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
  await assert.rejects(accounts.freshFactor(person.id, given, digest), { code: 'FACTOR_WRONG' })
})

test('a code is good one step early and one late, and no older than the last that was taken', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock } = all
  const { person, code } = await enrolled(all, 'ada')
  const digest = randomBytes(32)
  const show = async (step: number) => accounts.freshFactor(person.id, { kind: 'totp', code: code(step) }, digest)
  clock.move(120_000)
  await assert.rejects(show(2), { code: 'FACTOR_WRONG' })
  await assert.rejects(show(-2), { code: 'FACTOR_WRONG' })
  assert.equal((await show(-1)).kind, 'totp')
  assert.equal((await show(1)).kind, 'totp')
  await assert.rejects(show(0), { code: 'FACTOR_WRONG' })
})

test('guesses of the second factor lock the account out, though the password is right every time', async (t) => {
  const all = await testAccounts(t)
  const { accounts } = all
  const { code } = await enrolled(all, 'ada')
  const wrong = code(100)
  for (let i = 0; i < 5; i += 1) {
    const ticket = ticketOf(await accounts.logOn(ADA, HERE))
    await assert.rejects(accounts.secondFactor(ticket, { kind: 'totp', code: wrong }, HERE), { code: 'FACTOR_WRONG' })
  }
  await assert.rejects(accounts.logOn(ADA, HERE), { code: 'LOG_ON_REFUSED' })
})

test('the secret of a code in the store opens for its person and row alone, and under the key alone', async (t) => {
  const all = await testAccounts(t)
  const { accounts, store } = all
  const ada = await enrolled(all, 'ada')
  const eve = await enrolled(all, 'eve')
  const digest = randomBytes(32)
  const other = all.another({ key: () => new Secret(randomBytes(32)) })
  await assert.rejects(other.freshFactor(ada.person.id, { kind: 'totp', code: ada.code() }, digest), {
    code: 'PEOPLE_CHANGED_OUTSIDE',
  })
  // Somebody who may write to the store gives Ada's row their own secret.
  await sql`update resus_control.factors set sealed_secret = (select sealed_secret from resus_control.factors where person = ${eve.person.id})
    where person = ${ada.person.id}`.execute(store.sql)
  await assert.rejects(accounts.freshFactor(ada.person.id, { kind: 'totp', code: eve.code() }, digest), {
    code: 'PEOPLE_CHANGED_OUTSIDE',
  })
})

test('what was handed out is nowhere in the store, nor in what is noted', async (t) => {
  const all = await testAccounts(t)
  const { accounts, store, events, clock } = all
  const { session, person } = await enrolled(all, 'ada')
  const { principal } = await selfOf(accounts, session)
  const ticket = ticketOf(await accounts.logOn(ADA, HERE))
  const { code } = await accounts.people.invite(person.id, BOOT)
  const wanted = { name: 'x', grants: OPERATOR, expiresAt: new Date(clock.now() + 1000) }
  const { token } = await accounts.tokens.make(principal, wanted, HERE)
  const tables = ['people', 'factors', 'session_families', 'tokens', 'tickets']
  const rows = await Promise.all(
    tables.map(async (each) => (await sql`select * from ${sql.table(`resus_control.${each}`)}`.execute(store.sql)).rows),
  )
  const text = JSON.stringify([rows, events], (_, value: unknown) =>
    typeof value === 'object' && value !== null && 'type' in value && value.type === 'Buffer'
      ? Buffer.from((value as unknown as { data: number[] }).data).toString('latin1')
      : value,
  )
  for (const secret of [PASSWORD, session.cookie, session.cookie.split('.')[2]!, ticket, code, token])
    assert(!text.includes(secret))
})

test('a change of the password asks for the old one and ends all other sessions', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock, events } = all
  const { session, code } = await enrolled(all, 'ada')
  const self = await selfOf(accounts, session)
  const other = await accounts.secondFactor(ticketOf(await accounts.logOn(ADA, HERE)), { kind: 'totp', code: code() }, HERE)
  const next = 'eleven herons by the mangroves'
  await assert.rejects(accounts.own.changePassword(self, { old: 'another', next }), { code: 'FACTOR_WRONG' })
  await assert.rejects(accounts.own.changePassword(self, { old: PASSWORD, next: 'ada' }), { code: 'PASSWORD_WEAK' })
  await accounts.own.changePassword(self, { old: PASSWORD, next })
  assert.equal(await accounts.principalOf({ kind: 'session', cookie: other.cookie }), undefined)
  assert.notEqual(await accounts.principalOf({ kind: 'session', cookie: session.cookie }), undefined)
  await assert.rejects(accounts.logOn(ADA, HERE), { code: 'LOG_ON_REFUSED' })
  clock.move(60_000)
  ticketOf(await accounts.logOn({ name: 'ada', password: next }, HERE))
  const changes = events.filter(({ action }) => action === 'password.changed')
  assert.deepEqual(
    changes.map(({ outcome }) => outcome),
    ['refused', 'done'],
  )
})

test('a stolen session makes no factor and removes none without the one there is; the last one stays', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock } = all
  const { session, code } = await enrolled(all, 'ada')
  const self = await selfOf(accounts, session)
  await assert.rejects(accounts.own.beginTotp(self, { label: 'mine' }), { code: 'FACTOR_NEEDED' })
  await assert.rejects(accounts.own.beginPasskey(self, { label: 'mine' }), { code: 'FACTOR_NEEDED' })
  const wrong = { kind: 'totp', code: code(50) } as const
  await assert.rejects(accounts.own.beginTotp(self, { label: 'mine', shown: wrong }), { code: 'FACTOR_WRONG' })
  const [only] = await accounts.factors.list(self.principal.id)
  const shown = { kind: 'totp', code: code() } as const
  await assert.rejects(accounts.own.removeFactor(self, only!.id, undefined), { code: 'FACTOR_NEEDED' })
  await assert.rejects(accounts.own.removeFactor(self, only!.id, shown), { code: 'FACTOR_NEEDED' })
  clock.move(30_000)
  await accounts.own.beginTotp(self, { label: 'second', shown: { kind: 'totp', code: code() } })
})

test('of two who make the first factor of one account at the same time, one does', async (t) => {
  const { accounts, clock } = await testAccounts(t)
  await invited(accounts, 'ada')
  const begin = async () => {
    const self = await selfOf(accounts, sessionOf(await accounts.logOn(ADA, HERE)))
    const begun = await accounts.own.beginTotp(self, { label: 'phone' })
    return { self, ticket: begun.ticket, code: generateSync({ secret: begun.secret, epoch: clock.now() / 1000 }) }
  }
  const attempts = [await begin(), await begin()]
  const outcomes = await Promise.allSettled(attempts.map(async ({ self, ...given }) => accounts.own.finishTotp(self, given)))
  assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
  const [first] = attempts
  assert.equal((await accounts.factors.list(first!.self.principal.id)).length, 1)
})

test('who is disabled is out at once: sessions, tokens, tickets; and a reset leaves an invitation as the only way in', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock } = all
  const { person, session, code } = await enrolled(all, 'ada')
  const { principal } = await selfOf(accounts, session)
  const wanted = { name: 'x', grants: OPERATOR, expiresAt: new Date(clock.now() + 86_400_000) }
  const { token } = await accounts.tokens.make(principal, wanted, HERE)
  const bearer = { kind: 'bearer', token } as const
  assert.deepEqual((await accounts.principalOf(bearer))?.principal.grants, OPERATOR)
  const ticket = ticketOf(await accounts.logOn(ADA, HERE))
  await accounts.people.disable(person.id, BOOT)
  assert.equal(await accounts.principalOf(bearer), undefined)
  assert.equal(await accounts.principalOf({ kind: 'session', cookie: session.cookie }), undefined)
  await assert.rejects(accounts.secondFactor(ticket, { kind: 'totp', code: code() }, HERE), { code: 'LOG_ON_REFUSED' })
  await assert.rejects(accounts.freshFactor(person.id, { kind: 'totp', code: code() }, randomBytes(32)), { code: 'LOCKED_OUT' })
  await accounts.people.enable(person.id, BOOT)
  assert.equal(await accounts.principalOf({ kind: 'session', cookie: session.cookie }), undefined, 'ended is ended')
  assert.equal(await accounts.principalOf(bearer), undefined, 'a token too')
  const { token: second } = await accounts.tokens.make(principal, wanted, HERE)
  const reset = await accounts.people.resetFactors(person.id, { id: 'somebody' })
  assert.deepEqual([reset.resetBy, reset.hasPassword], ['somebody', false])
  assert.equal(await accounts.principalOf({ kind: 'bearer', token: second }), undefined, 'of who was reset nothing is left')
  await assert.rejects(accounts.logOn(ADA, HERE), { code: 'LOG_ON_REFUSED' })
  const { code: invitation } = await accounts.people.invite(person.id, BOOT)
  const again = await accounts.acceptInvitation({ code: invitation, password: PASSWORD }, HERE)
  assert(again.kind === 'session' && again.isFactorNeeded)
})

test('names are unique whatever their case; two who make the same person at once make one', async (t) => {
  const { accounts } = await testAccounts(t)
  const make = async (name: string) => accounts.people.insertPerson({ name, displayName: 'x', email: null, grants: [] }, BOOT)
  const outcomes = await Promise.allSettled([make('Ada'), make('ada'), make('ADA')])
  assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
  for (const name of ['', 'a b', 'a/b', 'é', 'x'.repeat(64)]) await assert.rejects(make(name), { code: 'ARGUMENTS_INVALID' })
  await make('ben')
  const names = (await accounts.people.list({ behind: 'ada' })).map(({ name, factors }) => `${name} ${factors}`)
  assert.deepEqual(names, ['ben 0'])
})
