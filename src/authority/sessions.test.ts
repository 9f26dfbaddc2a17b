import assert from 'node:assert/strict'
import { setImmediate as tick } from 'node:timers/promises'
import test, { after, type TestContext } from 'node:test'
import { enrolled, HERE, OPERATOR, selfOf, testAccounts } from '../../test/services/accounts.ts'
import { storeProxy } from '../../test/services/store-proxy.ts'
import { stopTestStore, testStore } from '../../test/services/store.ts'
import { waitUntil } from '../../test/services/wait-until.ts'
import { Store } from '../catalog/store.ts'
import type { Accounts } from './accounts.ts'

after(stopTestStore)

const MINUTE_MS = 60_000

async function ask(accounts: Accounts, cookie: string, isBackground = false) {
  return await accounts.principalOf({ kind: 'session', cookie }, { ...HERE, isBackground })
}

test('a secret is replaced after five minutes; the one before is good for half a minute beside it, and then ends the family', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock, replays, events } = all
  const { session, person } = await enrolled(all, 'ada')
  const old = session.cookie
  clock.move(5 * MINUTE_MS)
  const next = (await ask(accounts, old))!.cookie!
  assert.notEqual(next, old)
  assert.equal((await ask(accounts, old))?.cookie, null)
  assert.equal((await ask(accounts, next))?.principal.name, 'ada')
  clock.move(30_000)
  assert.equal(await ask(accounts, old), undefined)
  assert.deepEqual(replays, [{ person: { id: person.id, name: 'ada' }, from: { ...HERE, isBackground: false } }])
  assert.equal(await ask(accounts, next), undefined, 'whoever has which, both are out')
  assert.equal(await ask(accounts, old), undefined)
  assert.equal(replays.length, 1)
  assert.equal(events.filter(({ action }) => action === 'session.replay').length, 1)
})

test('an answer that is lost with the new secret ends nothing; what was in it is a replay then', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock, replays } = all
  const { session } = await enrolled(all, 'ada')
  const old = session.cookie
  clock.move(5 * MINUTE_MS)
  const lost = (await ask(accounts, old))!.cookie!
  clock.move(MINUTE_MS)
  const [first, second] = await Promise.all([ask(accounts, old), ask(all.another(), old)])
  const again = first?.cookie ?? second?.cookie
  assert(typeof again === 'string' && again !== lost, 'there is another')
  assert([first, second].every((each) => each?.principal.name === 'ada'))
  clock.move(MINUTE_MS)
  const third = (await ask(accounts, old))!.cookie
  assert.notEqual(third, null, 'that answer was lost too')
  assert.equal((await ask(accounts, third!))?.principal.name, 'ada')
  assert.equal((await ask(all.another(), old))?.cookie, null, 'what is under way has half a minute')
  assert.equal(replays.length, 0)
  assert.equal(await ask(accounts, lost), undefined, 'whoever has caught it is found out')
  assert.equal(replays.length, 1)
  assert.equal(await ask(accounts, third!), undefined)
})

test('a secret that nobody has seen the next one of is good while a session is, and no longer', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock, replays } = all
  const { session } = await enrolled(all, 'ada')
  const old = session.cookie
  clock.move(5 * MINUTE_MS)
  await ask(accounts, old)
  for (let minutes = 0; minutes < 14; minutes += 1) {
    clock.move(MINUTE_MS)
    assert.notEqual(await ask(accounts, old), undefined, `after ${minutes} minutes`)
  }
  clock.move(MINUTE_MS)
  assert.equal(await ask(accounts, old), undefined)
  assert.equal(replays.length, 1)
})

test('a secret of two changes ago is known for a replay too, on another node as well', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock, replays } = all
  const { session } = await enrolled(all, 'ada')
  let cookie = session.cookie
  for (let change = 0; change < 3; change += 1) {
    clock.move(5 * MINUTE_MS)
    cookie = (await ask(accounts, cookie))!.cookie!
  }
  assert.equal(await ask(all.another(), session.cookie), undefined)
  assert.equal(replays.length, 1)
  assert.equal(await ask(all.another(), cookie), undefined)
})

test('of many requests with one secret at once, on two nodes, one gets the next and nobody is thrown out', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock, replays } = all
  const node = all.another()
  const { session } = await enrolled(all, 'ada')
  clock.move(5 * MINUTE_MS)
  const answers = await Promise.all(
    Array.from({ length: 10 }, async (_, i) => ask(i % 2 === 0 ? accounts : node, session.cookie)),
  )
  assert(answers.every((each) => each?.principal.name === 'ada'))
  const given = new Set(answers.map((each) => each!.cookie).filter((each) => each !== null))
  assert.equal(given.size, 1)
  assert.equal((await ask(accounts, [...given][0]!))?.principal.name, 'ada')
  assert.equal(replays.length, 0)
})

test('fifteen minutes without a request end a session, and a page that asks by itself does not keep it', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock } = all
  const { session } = await enrolled(all, 'ada')
  let { cookie } = session
  const go = async (isBackground: boolean) => {
    clock.move(4 * MINUTE_MS)
    const found = await ask(accounts, cookie, isBackground)
    cookie = found?.cookie ?? cookie
    return found
  }
  for (let i = 0; i < 5; i += 1) assert.notEqual(await go(false), undefined)
  for (let i = 0; i < 3; i += 1) assert.notEqual(await go(true), undefined)
  assert.equal(await go(true), undefined)
  assert.equal(await go(false), undefined)
})

test('twelve hours end a session, whoever uses it', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock } = all
  const { session } = await enrolled(all, 'ada')
  let { cookie } = session
  for (let minutes = 10; minutes < 12 * 60; minutes += 10) {
    clock.move(10 * MINUTE_MS)
    const found = await ask(accounts, cookie)
    assert.notEqual(found, undefined, `after ${minutes} minutes`)
    cookie = found?.cookie ?? cookie
  }
  clock.move(10 * MINUTE_MS)
  assert.equal(await ask(accounts, cookie), undefined)
})

test('a secret that somebody has invented, cut or changed is nobody’s, and ends nothing', async (t) => {
  const all = await testAccounts(t)
  const { accounts, replays } = all
  const { session } = await enrolled(all, 'ada')
  const [id, generation, random, mark] = session.cookie.split('.')
  const changed = (text: string) => `${text[0] === 'A' ? 'B' : 'A'}${text.slice(1)}`
  const invented = [
    '',
    'x',
    `${id}.0.${random}.${mark}`,
    `${id}.2.${random}.${mark}`,
    `${id}.${generation}.${changed(random!)}.${mark}`,
    `${id}.${generation}.${random}.${changed(mark!)}`,
    `${crypto.randomUUID()}.${generation}.${random}.${mark}`,
    session.cookie.slice(0, -1),
    `${session.cookie}A`,
  ]
  for (const cookie of invented) assert.equal(await ask(accounts, cookie), undefined, cookie)
  assert.notEqual(await ask(accounts, session.cookie), undefined)
  assert.equal(replays.length, 0)
})

test('a log-off holds at once here, and within five seconds on another node', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock } = all
  const node = all.another()
  const { session } = await enrolled(all, 'ada')
  const { principal } = (await ask(accounts, session.cookie))!
  assert.notEqual(await ask(node, session.cookie), undefined)
  await accounts.logOffEverywhere(principal, HERE)
  assert.equal(await ask(accounts, session.cookie), undefined)
  assert.notEqual(await ask(node, session.cookie), undefined)
  clock.move(5_000)
  assert.equal(await ask(node, session.cookie), undefined)
})

test('what ends while the store is being asked is not remembered', async (t) => {
  const all = await testAccounts(t)
  const { accounts } = all
  const { session, person } = await enrolled(all, 'ada')
  const asked = ask(accounts, session.cookie)
  const disabled = accounts.people.disable(person.id, { id: 'bootstrap' })
  await Promise.all([asked, disabled])
  assert.equal(await ask(accounts, session.cookie), undefined)
})

test('hundreds of requests ask the store once in five seconds', async (t) => {
  const all = await testAccounts(t)
  const { accounts, clock, store } = all
  const { session } = await enrolled(all, 'ada')
  clock.move(6_000)
  let asked = 0
  const counted = new Proxy(store, {
    get: (target, name) => {
      if (name === 'sql') asked += 1
      return Reflect.get(target, name, target) as unknown
    },
  })
  const node = all.another({ store: counted })
  asked = 0
  for (let round = 0; round < 4; round += 1) {
    await Promise.all(Array.from({ length: 200 }, async () => ask(node, session.cookie)))
    clock.move(1_000)
  }
  assert(asked >= 1 && asked <= 3, `it was asked ${asked} times`)
  assert.notEqual(await ask(accounts, session.cookie), undefined)
})

async function behindProxy(t: TestContext) {
  const direct = await testStore(t)
  const proxy = await storeProxy(t, direct.connectionString)
  const store = await Store.open(proxy.connectionString)
  t.after(async () => store[Symbol.asyncDispose]())
  return { proxy, ...(await testAccounts(t, { store })) }
}

for (const manner of ['refuse', 'stall'] as const) {
  test(`while the store is away (${manner}), who was here a quarter of an hour ago may read, and nobody logs on`, async (t) => {
    const all = await behindProxy(t)
    const { accounts, clock, proxy } = all
    const { session } = await enrolled(all, 'ada')
    const { principal } = await selfOf(accounts, session)
    const expiresAt = new Date(clock.now() + 3_600_000)
    const { token } = await accounts.tokens.make(principal, { name: 'x', grants: OPERATOR, expiresAt }, HERE)
    const bearer = { kind: 'bearer', token } as const
    assert.equal((await accounts.principalOf(bearer))?.isReadOnly, false)
    proxy.behave(manner)
    clock.move(6_000)
    const asked = ask(accounts, session.cookie)
    await tick()
    clock.move(2_000)
    const found = await asked
    assert.deepEqual([found?.principal.name, found?.isReadOnly], ['ada', true])
    assert.equal((await accounts.principalOf(bearer))?.isReadOnly, true, 'at once: it is known to be away')
    if (manner === 'refuse') {
      await assert.rejects(accounts.logOn({ name: 'ada', password: 'x' }, HERE))
      await assert.rejects(ask(all.another(), session.cookie))
    }
    clock.move(15 * MINUTE_MS)
    proxy.behave('refuse')
    await assert.rejects(ask(accounts, session.cookie))
    await assert.rejects(accounts.principalOf(bearer))
    proxy.behave('pass')
    await waitUntil('the store is asked again', async () =>
      accounts.principalOf(bearer).then(
        (again) => again?.isReadOnly === false,
        () => false,
      ),
    )
  })
}
