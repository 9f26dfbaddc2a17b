import assert from 'node:assert/strict'
import test, { after } from 'node:test'
import fastifySwagger from '@fastify/swagger'
import Fastify from 'fastify'
import { jsonSchemaTransform, jsonSchemaTransformObject, serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod'
import { generateSync } from 'otplib'
import { enrolled, invited, PASSWORD, testAccounts } from '../../../test/services/accounts.ts'
import { authApi, type Browser } from '../../../test/services/auth-api.ts'
import { stopTestStore } from '../../../test/services/store.ts'
import { logOnRoutes } from './log-on-routes.ts'

after(stopTestStore)

const CREDENTIALS = { name: 'ada', password: PASSWORD }

async function logOn(browser: Browser, code: string): Promise<void> {
  const first = await browser.ask('POST /log-on', CREDENTIALS)
  assert.equal(first.status, 200, JSON.stringify(first.body))
  const factor = { kind: 'totp', code }
  const second = await browser.ask('POST /second-factor', { ticket: first.body['ticket'], factor })
  assert.equal(second.status, 200, JSON.stringify(second.body))
}

test('a browser logs on with two factors, sees who it is, and is nobody after it has logged off', async (t) => {
  const all = await testAccounts(t)
  const { code } = await enrolled(all, 'ada')
  const { browser } = await authApi(t, all.accounts)
  const own = browser()
  const first = await own.ask('POST /log-on', CREDENTIALS)
  assert.deepEqual([first.body['kind'], first.body['factors'], own.cookie], ['second-factor', ['totp'], ''])
  await logOn(own, code())
  const me = await own.ask('GET /me')
  assert.equal(me.status, 200)
  assert.deepEqual([me.body['name'], me.body['factor'], me.body['isFactorNeeded']], ['ada', 'totp', false])
  const cookie = own.cookie
  const off = await own.ask('POST /log-off')
  assert.equal(off.status, 204, JSON.stringify(off.body))
  assert.match(off.headers.getSetCookie().join(), /^resus-session=; Path=\/; HttpOnly; SameSite=Strict; Max-Age=0$/)
  own.cookie = cookie
  assert.equal((await own.ask('GET /me')).status, 401)
})

test('a name that nobody has, another password, a locked and a disabled account are answered alike', async (t) => {
  const { accounts } = await testAccounts(t)
  await invited(accounts, 'ada')
  const gone = await invited(accounts, 'ben')
  await accounts.people.disable(gone.id, { id: 'bootstrap' })
  const locked = await invited(accounts, 'cyd')
  const { browser } = await authApi(t, accounts)
  const own = browser()
  for (let attempt = 0; attempt < 5; attempt += 1) await own.ask('POST /log-on', { name: 'cyd', password: 'wrong' })
  assert.notEqual((await accounts.people.read(locked.id)).lockedUntil, null)
  const answers = []
  for (const [name, password] of [
    ['nobody', PASSWORD],
    ["o'; drop table people --", PASSWORD],
    ['ada', 'another'],
    ['ben', PASSWORD],
    ['cyd', PASSWORD],
  ]) {
    const { status, headers, body } = await own.ask('POST /log-on', { name, password })
    const { date: _, ...rest } = Object.fromEntries(headers)
    answers.push(JSON.stringify({ status, rest, body }))
  }
  assert.equal(new Set(answers).size, 1, answers.join('\n'))
  assert.match(answers[0]!, /"status":401.*LOG_ON_REFUSED/)
})

test('a session that was put into the browser before is worth nothing after the log-on', async (t) => {
  const all = await testAccounts(t)
  const { session } = await enrolled(all, 'eve')
  const { code: adas } = await enrolled(all, 'ada')
  const { browser } = await authApi(t, all.accounts)
  const victim = browser()
  victim.cookie = `resus-session=${session.cookie}`
  await logOn(victim, adas())
  assert.notEqual(victim.cookie, `resus-session=${session.cookie}`)
  assert.equal((await victim.ask('GET /me')).body['name'], 'ada')
  const attacker = browser()
  attacker.cookie = `resus-session=${session.cookie}`
  assert.equal((await attacker.ask('GET /me')).status, 401)
  const invented = browser()
  const made = `${crypto.randomUUID()}.1.${'A'.repeat(43)}.${'A'.repeat(22)}`
  invented.cookie = `resus-session=${made}`
  assert.equal((await invented.ask('GET /me')).status, 401)
  all.clock.move(30_000)
  await logOn(invented, adas())
  assert(!invented.cookie.includes('A'.repeat(22)))
})

test('another site’s page changes nothing: without the token, with another Origin, or as the browser says', async (t) => {
  const all = await testAccounts(t)
  const { code } = await enrolled(all, 'ada')
  const { browser, url } = await authApi(t, all.accounts)
  const own = browser()
  await logOn(own, code())
  const { csrf } = own
  const refused = async (headers: Record<string, string>, token = csrf) => {
    own.csrf = token
    const { status, body } = await own.ask('POST /log-off', undefined, headers)
    assert.deepEqual([status, body['code']], [403, 'FORBIDDEN'])
  }
  await refused({}, '')
  await refused(
    {},
    csrf.replace(/^./, (each) => (each === 'A' ? 'B' : 'A')),
  )
  await refused({ origin: 'https://evil.test' })
  await refused({ origin: 'null' })
  await refused({ 'sec-fetch-site': 'cross-site' })
  await refused({ 'sec-fetch-site': 'same-site' })
  own.csrf = csrf
  const another = await browser().ask('POST /log-on', CREDENTIALS, { origin: 'https://evil.test' })
  assert.equal(another.status, 403)
  assert.equal((await own.ask('POST /log-off', undefined, { origin: url, 'sec-fetch-site': 'same-origin' })).status, 204)
})

test('a second cookie of the same name, which a neighbour may have set, logs nobody on', async (t) => {
  const all = await testAccounts(t)
  const { session } = await enrolled(all, 'ada')
  const { browser } = await authApi(t, all.accounts)
  const own = browser()
  own.cookie = `resus-session=x; resus-session=${session.cookie}`
  assert.equal((await own.ask('GET /me')).status, 401)
  own.cookie = `resus-session=${session.cookie}`
  assert.equal((await own.ask('GET /me')).status, 200)
  const { status } = await own.ask('GET /me', undefined, { authorization: 'Bearer resus_nothing' })
  assert.equal(status, 401, 'a header is taken alone')
})

test('a browser gets its next cookie with an answer, and both are good for half a minute', async (t) => {
  const all = await testAccounts(t)
  const { session } = await enrolled(all, 'ada')
  const { browser } = await authApi(t, all.accounts)
  const own = browser()
  const old = `resus-session=${session.cookie}`
  own.cookie = old
  all.clock.move(6 * 60_000)
  assert.equal((await own.ask('GET /me')).status, 200)
  assert.notEqual(own.cookie, old)
  const late = browser()
  late.cookie = old
  assert.equal((await late.ask('GET /me')).status, 200)
  assert.equal((await own.ask('GET /me')).status, 200)
})

test('somebody who was invited chooses a password and makes a second factor; then they are somebody', async (t) => {
  const all = await testAccounts(t)
  const { accounts } = all
  const person = await accounts.people.insertPerson(
    { name: 'ada', displayName: 'Ada', email: null, grants: [{ role: 'viewer', facilities: null }] },
    { id: 'bootstrap' },
  )
  const { code } = await accounts.people.invite(person.id, { id: 'bootstrap' })
  const { browser } = await authApi(t, accounts)
  const own = browser()
  const weak = await own.ask('POST /invitation', { code, password: 'password1234' })
  assert.deepEqual([weak.status, weak.body['code']], [400, 'PASSWORD_WEAK'])
  const taken = await own.ask('POST /invitation', { code, password: PASSWORD })
  assert.deepEqual([taken.status, taken.body['isFactorNeeded']], [200, true])
  assert.equal((await browser().ask('POST /invitation', { code, password: PASSWORD })).status, 401)
  assert.deepEqual((await own.ask('GET /me')).body['grants'], [])
  const begun = await own.ask('POST /factors/totp', { label: 'phone' })
  assert.equal(begun.status, 200, JSON.stringify(begun.body))
  const before = own.cookie
  const epoch = Math.floor(all.clock.now() / 1000)
  const totp = generateSync({ secret: String(begun.body['secret']), epoch })
  const made = await own.ask('POST /factors/totp/finish', { ticket: begun.body['ticket'], code: totp })
  assert.equal(made.status, 200, JSON.stringify(made.body))
  assert.notEqual(own.cookie, before)
  assert.deepEqual((await own.ask('GET /me')).body['grants'], [{ role: 'viewer', facilities: null }])
  const stolen = browser()
  stolen.cookie = before
  assert.equal((await stolen.ask('GET /me')).status, 401)
})

test('a token of a program is shown once, says who it is, and neither makes tokens nor changes the account', async (t) => {
  const all = await testAccounts(t)
  const { session, code } = await enrolled(all, 'ada')
  const { browser } = await authApi(t, all.accounts)
  const own = browser()
  own.cookie = `resus-session=${session.cookie}`
  await own.ask('GET /me')
  const shown = () => {
    all.clock.move(30_000)
    return { kind: 'totp', code: code() }
  }
  const expiresAt = new Date(all.clock.now() + 86_400_000).toISOString()
  const wanted = { name: 'monitoring', grants: [{ role: 'viewer', facilities: null }], expiresAt }
  const more = await own.ask('POST /tokens', { ...wanted, grants: [{ role: 'operator', facilities: null }], shown: shown() })
  assert.deepEqual([more.status, more.body['code']], [403, 'APPROVAL_NEEDED'])
  assert.equal((await own.ask('POST /tokens', { ...wanted, isAdministrator: true })).status, 400)
  const stolen = await own.ask('POST /tokens', wanted)
  assert.deepEqual([stolen.status, stolen.body['code']], [403, 'FACTOR_NEEDED'], 'a session alone, which may be stolen')
  const used = shown()
  const made = await own.ask('POST /tokens', { ...wanted, shown: used })
  assert.equal(made.status, 201, JSON.stringify(made.body))
  const again = await own.ask('POST /tokens', { ...wanted, shown: used })
  assert.deepEqual([again.status, again.body['code']], [403, 'FACTOR_WRONG'], 'each code once')
  const program = browser()
  const headers = { authorization: `Bearer ${String(made.body['token'])}` }
  const me = await program.ask('GET /me', undefined, headers)
  assert.deepEqual([me.body['kind'], me.body['name']], ['token', 'ada (token "monitoring")'])
  assert.equal((await program.ask('POST /tokens', wanted, headers)).status, 403)
  assert.equal((await program.ask('POST /password', { old: PASSWORD, next: `${PASSWORD}!` }, headers)).status, 403)
  const { items } = (await own.ask('GET /tokens')).body as { items: { id: string; lastUsedAt: string | null }[] }
  assert.equal(items.length, 1)
  assert.equal(items[0]?.lastUsedAt, new Date(all.clock.now()).toISOString())
  assert.equal(JSON.stringify(items).includes('resus_'), false)
  assert.equal((await own.ask(`DELETE /tokens/${items[0]!.id}`)).status, 204)
  assert.equal((await program.ask('GET /me', undefined, headers)).status, 401)
})

test('each route says what it lets somebody do, and is described', async (t) => {
  const { accounts } = await testAccounts(t)
  const server = Fastify()
  server.setValidatorCompiler(validatorCompiler)
  server.setSerializerCompiler(serializerCompiler)
  const routes = new Map<string, unknown>()
  server.addHook('onRoute', ({ method, url, config }) => {
    if (method !== 'HEAD') routes.set(`${String(method)} ${url}`, config?.action)
  })
  await server.register(fastifySwagger, {
    openapi: {},
    transform: jsonSchemaTransform,
    transformObject: jsonSchemaTransformObject,
  })
  await server.register(logOnRoutes, {
    prefix: '/api/v1',
    accounts,
    isSecure: true,
    askForToken: async () => assert.fail('nobody asks for one'),
  })
  await server.ready()
  t.after(async () => server.close())
  const open = [...routes].filter(([, action]) => action === 'none').map(([route]) => route)
  assert.deepEqual(open, [
    'POST /api/v1/auth/log-on',
    'POST /api/v1/auth/second-factor',
    'POST /api/v1/auth/second-factor/challenge',
    'POST /api/v1/auth/invitation',
  ])
  assert.deepEqual([...new Set(routes.values())], ['none', 'self'])
  assert.equal(
    Object.keys(server.swagger().paths ?? {}).length,
    new Set([...routes.keys()].map((each) => each.split(' ')[1])).size,
  )
})
