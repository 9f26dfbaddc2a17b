import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after, type TestContext } from 'node:test'
import { generateSync } from 'otplib'
import { enrolled, HERE, PASSWORD, selfOf, sessionOf, testAccounts } from '../../../test/services/accounts.ts'
import { authApi, type Browser } from '../../../test/services/auth-api.ts'
import { CLIENT_SECRET, passProvider, testProvider } from '../../../test/services/identity-provider.ts'
import { stopTestStore } from '../../../test/services/store.ts'
import { identityProviderSchema, resolveIdentityProvider } from '../../authority/identity-provider-settings.ts'
import { IdentityProvider } from '../../authority/identity-provider.ts'
import { Secret } from '../../secret.ts'
import { loadSettings } from '../settings.ts'
import { oidcRoutes } from './oidc-routes.ts'

after(stopTestStore)

const REDIRECT = 'http://localhost:7400/api/v1/auth/oidc/callback'
const GROUPS = { viewer: 'everybody', operator: ['dba', 'everybody-else'], auditor: [] }
const WHOLE = { sub: 'ada', name: 'Ada', preferred_username: 'ada', email: 'ada@resus.test', groups: ['dba', 'unknown'] }

async function setUp(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'resus-oidc-'))
  t.after(async () => rm(directory, { recursive: true }))
  await writeFile(join(directory, 'secret'), `${CLIENT_SECRET}\n`, { mode: 0o600 })
  const provider = await testProvider(t, REDIRECT)
  provider.account = WHOLE
  const secret = new Secret(randomBytes(32))
  const key = () => secret
  const all = await testAccounts(t, { key })
  const given = { issuer: provider.issuer, clientId: 'resus', clientSecret: 'file:secret', redirect: REDIRECT, groups: GROUPS }
  const settings = resolveIdentityProvider(identityProviderSchema.parse(given), directory)
  const { accounts, store, clock, events } = all
  const note = async (event: (typeof events)[number]) => void events.push(event)
  const identityProvider = new IdentityProvider({ settings, accounts, store, clock, note, key })
  const { browser } = await authApi(t, accounts, async (server) => {
    await server.register(oidcRoutes, { prefix: '/api/v1', accounts, isSecure: false, identityProvider })
  })
  return { ...all, provider, browser, identityProvider }
}

/** There and back; what it takes to come back. */
async function go(browser: Browser): Promise<{ readonly query: string; readonly cookie: string }> {
  const begun = await browser.ask('GET /oidc/begin')
  assert.equal(begun.status, 302, JSON.stringify(begun.body))
  const cookie = begun.headers.getSetCookie()[0]!
  assert.match(cookie, /^resus-oidc=\S+; Max-Age=600; Path=\/; HttpOnly; SameSite=Lax$/)
  return { query: await passProvider(begun.headers.get('location')!, REDIRECT), cookie: cookie.split(';')[0]! }
}

async function comeBack(browser: Browser, { query, cookie }: { readonly query: string; readonly cookie: string }) {
  return await browser.ask(`GET /oidc/callback?${query}`, undefined, { cookie })
}

async function logOn(browser: Browser) {
  return await comeBack(browser, await go(browser))
}

test('who is in a group logs on by the identity provider, and is what the group is', async (t) => {
  const { browser, accounts, provider } = await setUp(t)
  const own = browser()
  const back = await logOn(own)
  assert.equal(back.status, 200, JSON.stringify(back.body))
  assert.equal(back.headers.get('refresh'), '0; url=/')
  const me = (await own.ask('GET /me')).body
  assert.deepEqual([me['name'], me['factor'], me['grants']], ['idp/ada', 'oidc', [{ role: 'operator', facilities: null }]])
  const known = await accounts.people.readByName('idp/ada')
  assert.deepEqual([known?.email, known?.grants, known?.hasPassword], ['ada@resus.test', [], false])
  provider.account = { ...WHOLE, groups: ['everybody'] }
  const again = browser()
  assert.equal((await logOn(again)).status, 200)
  assert.deepEqual((await again.ask('GET /me')).body['grants'], [{ role: 'viewer', facilities: null }])
  assert.equal((await accounts.people.list()).length, 1)
  await accounts.people.disable(known!.id, { id: 'bootstrap' })
  assert.equal((await logOn(browser())).status, 401)
})

test('a token of another issuer, for another client, with another nonce, expired, signed by another key or by nothing is refused', async (t) => {
  const { browser, provider, events, accounts } = await setUp(t)
  const seconds = Math.floor(Date.now() / 1000)
  const refused = async (what: string) => {
    const own = browser()
    const { status, body } = await logOn(own)
    assert.deepEqual([status, body['code']], [401, 'LOG_ON_REFUSED'], what)
    assert.equal(own.cookie, '', what)
  }
  const forgeries = {
    issuer: { iss: 'https://evil.test' },
    audience: { aud: 'another' },
    nonce: { nonce: 'another' },
    'no nonce': { nonce: undefined },
    expired: { iat: seconds - 7200, exp: seconds - 3600 },
  }
  for (const [what, change] of Object.entries(forgeries)) {
    provider.forge = (claims) => ({ ...claims, ...change })
    await refused(what)
  }
  provider.forge = undefined
  for (const algorithm of ['none', 'another key'] as const) {
    provider.algorithm = algorithm
    await refused(algorithm)
  }
  provider.algorithm = 'RS256'
  assert.equal((await accounts.people.list()).length, 0)
  const reasons = events.filter(({ outcome }) => outcome === 'refused').map(({ reason }) => reason ?? '')
  assert.equal(reasons.length, 7)
  for (const reason of reasons) assert.match(reason, /^what the provider gave is not taken \(OAUTH_/)
  // The forging itself works.
  provider.forge = (claims) => claims
  assert.equal((await logOn(browser())).status, 200)
})

test('a state is good once, in the browser that began, for ten minutes', async (t) => {
  const { browser, clock } = await setUp(t)
  const own = browser()
  const first = await go(own)
  assert.equal((await comeBack(own, first)).status, 200)
  assert.equal((await comeBack(browser(), first)).status, 401, 'replayed')
  const begun = await own.ask('GET /oidc/begin')
  const cookie = begun.headers.getSetCookie()[0]!.split(';')[0]!
  const codes = [
    await passProvider(begun.headers.get('location')!, REDIRECT),
    await passProvider(begun.headers.get('location')!, REDIRECT),
  ]
  const both = await Promise.all(codes.map(async (query) => (await comeBack(own, { query, cookie })).status))
  assert.deepEqual(
    both.toSorted((left, right) => left - right),
    [200, 401],
    'with another code',
  )
  const second = await go(own)
  assert.equal((await comeBack(browser(), { ...second, cookie: 'x=y' })).status, 401, 'in another browser')
  const third = await go(own)
  assert.equal((await comeBack(own, { query: third.query, cookie: second.cookie })).status, 401, 'of another log-on')
  const state = 'A'.repeat(43)
  const invented = {
    query: `code=x&state=${state}.zzzzzzzz.${'A'.repeat(22)}`,
    cookie: `resus-oidc=${state}.zzzzzzzz.${'A'.repeat(22)}`,
  }
  assert.equal((await comeBack(own, invented)).status, 401, 'invented')
  const late = await go(own)
  clock.move(10 * 60_000)
  assert.equal((await comeBack(own, late)).status, 401, 'late')
  const refusedThere = await go(own)
  const error = `error=access_denied&${refusedThere.query.replace(/code=[^&]*&?/, '')}`
  assert.equal((await comeBack(own, { ...refusedThere, query: error })).status, 401, 'refused there')
})

test('who is in no group is nobody; a name of ours is not taken by one of theirs', async (t) => {
  const all = await setUp(t)
  const { browser, provider, accounts } = all
  const { person } = await enrolled(all, 'ada')
  for (const groups of [undefined, [], ['unknown'], 'unknown', { viewer: true }, [1]]) {
    provider.account = { ...WHOLE, groups }
    assert.equal((await logOn(browser())).status, 401, JSON.stringify(groups))
  }
  provider.account = WHOLE
  assert.equal((await logOn(browser())).status, 200)
  provider.account = { ...WHOLE, sub: 'another' }
  const own = browser()
  assert.equal((await logOn(own)).status, 200)
  assert.equal((await own.ask('GET /me')).body['name'], 'idp/another')
  assert.equal((await accounts.people.read(person.id)).identity, null)
})

test('the provider’s word makes no factor and no token; with local grants, it takes a factor of ours', async (t) => {
  const all = await setUp(t)
  const { browser, accounts, clock } = all
  const own = browser()
  await logOn(own)
  await own.ask('GET /me')
  const factor = await own.ask('POST /factors/totp', { label: 'phone' })
  assert.deepEqual([factor.status, factor.body['code']], [403, 'FORBIDDEN'])
  const expiresAt = new Date(clock.now() + 60_000).toISOString()
  const token = { name: 'x', grants: [{ role: 'viewer', facilities: null }], expiresAt }
  assert.equal((await own.ask('POST /tokens', token)).status, 403)
  const known = (await accounts.people.readByName('idp/ada'))!
  await accounts.people.setGrants(known.id, [{ role: 'approver', facilities: null }], { id: 'bootstrap' })
  assert.deepEqual((await own.ask('GET /me')).body['grants'], [{ role: 'operator', facilities: null }])
})

test('with a factor of ours as well, what we have granted counts too', async (t) => {
  const { browser, accounts, clock } = await setUp(t)
  await logOn(browser())
  const { id, name } = (await accounts.people.readByName('idp/ada'))!
  await accounts.people.setGrants(id, [{ role: 'approver', facilities: null }], { id: 'bootstrap' })
  const { code } = await accounts.people.invite(id, { id: 'bootstrap' })
  const self = await selfOf(accounts, sessionOf(await accounts.acceptInvitation({ code, password: PASSWORD }, HERE)))
  const { ticket, secret } = await accounts.own.beginTotp(self, { label: 'phone' })
  const totp = () => generateSync({ secret, epoch: Math.floor(clock.now() / 1000) })
  await accounts.own.finishTotp(self, { ticket, code: totp() })
  clock.move(30_000)
  const own = browser()
  const back = await logOn(own)
  assert.equal(own.cookie, '')
  const second = /^0; url=\/#second-factor=([\w-]{43})$/.exec(back.headers.get('refresh') ?? '')?.[1]
  const done = await own.ask('POST /second-factor', { ticket: second, factor: { kind: 'totp', code: totp() } })
  assert.equal(done.status, 200, JSON.stringify(done.body))
  const roles = ((await own.ask('GET /me')).body['grants'] as { role: string }[]).map(({ role }) => role)
  assert.deepEqual(roles, ['approver', 'operator'])
  assert.equal((await accounts.logOn({ name, password: PASSWORD }, HERE)).kind, 'second-factor')
})

test('a provider that fails is said to fail, and is asked again', async (t) => {
  const { browser, provider } = await setUp(t)
  provider.manner = 'fail'
  const { status, body } = await browser().ask('GET /oidc/begin')
  assert.deepEqual([status, body['code']], [502, 'IDENTITY_PROVIDER_UNREACHABLE'])
  provider.manner = 'work'
  const own = browser()
  const there = await go(own)
  provider.manner = 'fail'
  assert.equal((await comeBack(own, there)).status, 502)
  provider.manner = 'work'
  assert.equal((await logOn(own)).status, 200)
})

test('a file that lets the provider grant approver or administrator, or that holds the secret itself, is refused', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'resus-oidc-'))
  t.after(async () => rm(directory, { recursive: true }))
  const file = join(directory, 'server.yaml')
  const good = {
    issuer: 'https://idp.test',
    clientId: 'x',
    clientSecret: 'env:X',
    redirect: `https://resus.test/callback`,
    groups: {},
  }
  const load = async (changes: object) => {
    await writeFile(file, JSON.stringify({ state: directory, identityProvider: { ...good, ...changes } }))
    return await loadSettings(file, { named: true })
  }
  assert.equal((await load({ groups: { operator: 'dba' } })).identityProvider?.roles.get('dba')?.[0], 'operator')
  for (const role of ['approver', 'administrator']) {
    await assert.rejects(load({ groups: { [role]: 'dba' } }), { code: 'CONFIG_INVALID', message: /never grants/ })
  }
  await assert.rejects(load({ clientSecret: 'hunter2 hunter2' }), (error) => {
    assert.match(String(error), /clientSecret/)
    assert.doesNotMatch(String(error), /hunter2/)
    return true
  })
  await assert.rejects(load({ issuer: 'http://idp.test' }), { code: 'CONFIG_INVALID' })
})
