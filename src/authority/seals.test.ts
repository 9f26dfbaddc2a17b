import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import test, { after } from 'node:test'
import { sql } from 'kysely'
import { enrolled, HERE, invited, OPERATOR, PASSWORD, selfOf, testAccounts, ticketOf } from '../../test/services/accounts.ts'
import { stopTestStore } from '../../test/services/store.ts'
import type { ChangedOutside } from './sealed-people.ts'
import { digestOf } from './sealing-key.ts'

after(stopTestStore)

const FRESH_MS = 5_000
const BOSS = JSON.stringify([{ role: 'administrator', facilities: null }])
const BY = { id: 'bootstrap' }

async function place(t: Parameters<typeof testAccounts>[0]) {
  const found: ChangedOutside[] = []
  const all = await testAccounts(t, { onChanged: (each) => found.push(each) })
  const { session, person, code } = await enrolled(all, 'ada')
  const { accounts, clock, store } = all
  const { principal } = await selfOf(accounts, session)
  const wanted = { name: 'x', grants: OPERATOR, expiresAt: new Date(clock.now() + 3_600_000) }
  const { token, view } = await accounts.tokens.make(principal, wanted, HERE)
  const run = async (text: string) => {
    await sql.raw(text).execute(store.sql)
    clock.move(FRESH_MS)
  }
  const bySession = async () => accounts.principalOf({ kind: 'session', cookie: session.cookie }, HERE)
  const byToken = async () => accounts.principalOf({ kind: 'bearer', token }, HERE)
  const logOn = async () => accounts.logOn({ name: 'ada', password: PASSWORD }, HERE)
  return { ...all, found, session, person, code, run, bySession, byToken, logOn, token: view.id }
}

test('whatever somebody changes of an account in the store, it is nobody’s; put right again it is theirs', async (t) => {
  const here = await place(t)
  const { id } = here.person
  const at = `where id = '${id}'`
  const changes: readonly (readonly [change: string, back: string])[] = [
    [`set grants = '${BOSS}'`, `set grants = '${JSON.stringify(OPERATOR)}'`],
    [`set grants = 'null'`, `set grants = '${JSON.stringify(OPERATOR)}'`],
    [`set email = 'eve@resus.test'`, `set email = null`],
    [`set issuer = 'https://eve.test', subject = 'eve'`, `set issuer = null, subject = null`],
    [`set made_by = 'somebody'`, `set made_by = 'bootstrap'`],
    [`set made_at = made_at + interval '1 day'`, `set made_at = made_at - interval '1 day'`],
    [`set reset_at = reset_at - interval '2 days'`, `set reset_at = reset_at + interval '2 days'`],
    [`set version = version + 1`, `set version = version - 1`],
    [`set display_name = 'Eve'`, `set display_name = 'ada'`],
  ]
  for (const [change, back] of changes) {
    assert.notEqual(await here.bySession(), undefined)
    here.found.length = 0
    await here.run(`update resus_control.people ${change} ${at}`)
    assert.equal(await here.bySession(), undefined, change)
    assert.equal(await here.byToken(), undefined, change)
    await assert.rejects(here.logOn(), { code: 'LOG_ON_REFUSED' }, change)
    assert.deepEqual(
      here.found.map(({ person, what }) => [person.id, what]),
      [1, 2, 3].map(() => [id, 'account']),
      change,
    )
    await assert.rejects(here.accounts.people.setGrants(id, OPERATOR, BY), { code: 'PEOPLE_CHANGED_OUTSIDE' })
    await assert.rejects(here.accounts.people.resetFactors(id, BY), { code: 'PEOPLE_CHANGED_OUTSIDE' })
    await assert.rejects(here.accounts.people.invite(id, BY), { code: 'PEOPLE_CHANGED_OUTSIDE' })
    await here.run(`update resus_control.people ${back} ${at}`)
  }
  assert.equal((await here.logOn()).kind, 'second-factor')
  assert.notEqual(await here.byToken(), undefined)
})

test('factors that somebody takes away, puts in or changes in the store are those of nobody', async (t) => {
  const here = await place(t)
  const { store, accounts } = here
  const own = await store.sql.selectFrom('factors').selectAll().executeTakeFirstOrThrow()
  await here.run(`delete from resus_control.factors`)
  await assert.rejects(here.logOn(), { code: 'LOG_ON_REFUSED' }, 'a password alone makes no first factor')
  await store.sql
    .insertInto('factors')
    .values({ ...own, counter: null })
    .execute()
  assert.equal((await here.logOn()).kind, 'second-factor')
  await store.sql
    .insertInto('factors')
    .values({ ...own, id: randomUUID(), counter: null })
    .execute()
  await assert.rejects(here.logOn(), { code: 'LOG_ON_REFUSED' })
  const given = { kind: 'totp', code: here.code() } as const
  await assert.rejects(accounts.freshFactor(here.person.id, given, randomBytes(32)), { code: 'PEOPLE_CHANGED_OUTSIDE' })
})

test('an account that somebody writes into the store is nobody’s, and a password that they know opens none', async (t) => {
  const here = await place(t)
  const eve = randomUUID()
  const password = `(select password from resus_control.people where id = '${here.person.id}')`
  await here.run(`insert into resus_control.people (id, name, display_name, grants, state, password, made_by, made_at)
    values ('${eve}', 'eve', 'Eve', '${BOSS}', 'active', ${password}, 'bootstrap', now())`)
  await assert.rejects(here.accounts.logOn({ name: 'eve', password: PASSWORD }, HERE), { code: 'LOG_ON_REFUSED' })
  const seal = `(select seal from resus_control.people where id = '${here.person.id}')`
  await here.run(`update resus_control.people set seal = ${seal} where id = '${eve}'`)
  await assert.rejects(
    here.accounts.logOn({ name: 'eve', password: PASSWORD }, HERE),
    { code: 'LOG_ON_REFUSED' },
    'another’s seal',
  )
  assert.deepEqual(
    here.found.map(({ person }) => person.name),
    ['eve', 'eve'],
  )
})

test('a session or a token that somebody gives more, or to another, is worth nothing', async (t) => {
  const here = await place(t)
  const boss = await enrolled(here, 'boss', [{ role: 'administrator', facilities: null }])
  for (const change of [
    `person = '${boss.person.id}'`,
    `grants = '${BOSS}'`,
    `factor = 'passkey'`,
    `made_at = made_at + interval '1 hour'`,
  ]) {
    const of = here.store.sql.selectFrom('session_families').selectAll().where('id', '=', here.session.view.id)
    const { person, grants, factor, made_at } = await of.executeTakeFirstOrThrow()
    await here.run(`update resus_control.session_families set ${change} where id = '${here.session.view.id}'`)
    assert.equal(await here.bySession(), undefined, change)
    const back = { person, grants: JSON.stringify(grants), factor, made_at }
    await here.store.sql.updateTable('session_families').set(back).where('id', '=', here.session.view.id).execute()
    here.clock.move(FRESH_MS)
    assert.notEqual(await here.bySession(), undefined, change)
  }
  for (const change of [`grants = '${BOSS}'`, `expires_at = expires_at + interval '1 day'`, `person = '${boss.person.id}'`]) {
    const { token, view } = await here.accounts.tokens.make(
      (await selfOf(here.accounts, boss.session)).principal,
      { name: 'y', grants: [{ role: 'viewer', facilities: null }], expiresAt: new Date(here.clock.now() + 3_600_000) },
      HERE,
    )
    const who = change.startsWith('person') ? `person = '${here.person.id}'` : change
    await here.run(`update resus_control.tokens set ${who} where id = '${view.id}'`)
    assert.equal(await here.accounts.principalOf({ kind: 'bearer', token }, HERE), undefined, who)
  }
  assert.deepEqual([...new Set(here.found.map(({ what }) => what))], ['session', 'token'])
})

test('an invitation, or a log-on that waits for its factor, that somebody writes into the store is none', async (t) => {
  const here = await place(t)
  const { id } = here.person
  const code = randomBytes(32).toString('base64url')
  const digest = `'\\x${digestOf(code).toString('hex')}'`
  const until = `'${new Date(here.clock.now() + 3_600_000).toISOString()}'`
  await here.run(`insert into resus_control.tickets (digest, purpose, person, data, made_at, expires_at)
    values (${digest}, 'invitation', '${id}', '{}', ${until}, ${until})`)
  await assert.rejects(here.accounts.acceptInvitation({ code, password: `${PASSWORD}!` }, HERE), { code: 'LOG_ON_REFUSED' })
  const ticket = ticketOf(await here.logOn())
  await here.run(`update resus_control.tickets set data = '{"grants": ${BOSS}}' where purpose = 'second factor'`)
  here.clock.move(30_000)
  const given = { kind: 'totp', code: here.code() } as const
  await assert.rejects(here.accounts.secondFactor(ticket, given, HERE), { code: 'LOG_ON_REFUSED' })
})

test('who was changed is disabled, which takes everything from them, and is made good again', async (t) => {
  const here = await place(t)
  const { id } = here.person
  const { people } = here.accounts
  await here.run(`update resus_control.people set grants = '${BOSS}' where id = '${id}'`)
  await people.disable(id, BY)
  const { grants, hasPassword, state } = await people.read(id)
  assert.deepEqual([grants, hasPassword, state, await here.accounts.factors.list(id)], [[], false, 'disabled', []])
  await people.enable(id, BY)
  await people.setGrants(id, OPERATOR, BY)
  const { code } = await people.invite(id, BY)
  assert.equal((await here.accounts.acceptInvitation({ code, password: PASSWORD }, HERE)).kind, 'session')
  assert.equal((await here.logOn()).kind, 'session')
})

test('changes at the same time, on two nodes, leave a row that fits its seal', async (t) => {
  const all = await testAccounts(t)
  const { id } = await invited(all.accounts, 'ada')
  const another = all.another()
  const changes = Array.from({ length: 20 }, async (_, turn) => {
    const { people } = turn % 2 === 0 ? all.accounts : another
    return await (turn % 4 < 2 ? people.setGrants(id, OPERATOR, BY) : people.enable(id, BY))
  })
  const read = Array.from({ length: 20 }, async () => another.people.read(id))
  await Promise.all([...changes, ...read])
  const { version } = await all.store.sql.selectFrom('people').select('version').executeTakeFirstOrThrow()
  assert.equal(version, 23, 'made, invited, come, and changed twenty times')
})
