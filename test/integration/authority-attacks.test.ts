import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { copyFile, readdir, readFile, stat } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import test from 'node:test'
import { sql } from 'kysely'
import { ROLES } from '../../src/authority/principal.ts'
import { embeddedConnection } from '../../src/catalog/embedded-store.ts'
import { Store } from '../../src/catalog/store.ts'
import { systemClock } from '../../src/clock.ts'
import { listAuthority } from '../../src/repository/authority-objects.ts'
import { PEOPLES_PASSWORD, type Somebody } from '../services/people.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { nobody, person, twoFacilities, withoutFactor, type TwoFacilities } from '../services/two-facilities.ts'
import { waitUntil } from '../services/wait-until.ts'

const skip = await skipUnlessInstalled(18)
const EVERYWHERE = (role: (typeof ROLES)[number]) => [{ role, facilities: null }]
const DAY_MS = 24 * 3_600_000

/** What a change would show in. */
async function stateOf({ administrator: { ask } }: TwoFacilities, all: Somebody): Promise<unknown> {
  const people = (await ask('GET /people?limit=500')).body['items'] as { lastSeenAt: unknown; lockedUntil: unknown }[]
  const approvals = (await all.ask('GET /approvals?limit=500')).body['items']
  const tasks = (await all.ask('GET /backup-dr/tasks?limit=500')).body['items']
  const emergencies = (await all.ask('GET /emergencies')).body['items']
  const lasting = people.map((each) => ({ ...each, lastSeenAt: null, lockedUntil: null }))
  return { people: lasting, approvals, tasks, emergencies }
}

async function trailOf(all: Somebody, action: string): Promise<{ actor: { name: string }; outcome: string; reason: string }[]> {
  const { status, body } = await all.ask(`GET /audit?limit=500&action=${action}`)
  assert.equal(status, 200, JSON.stringify(body))
  return body['items'] as never
}

/** Whatever was refused, by a route or before it. */
async function refusals(all: Somebody): Promise<{ actor: { name: string } }[]> {
  return (await all.ask('GET /audit?limit=500&outcome=refused')).body['items'] as never
}

test('attacks on people, sessions, requests and decisions: refused, nothing changed, and in the trail', { skip }, async (t) => {
  const clock = { aheadMs: 0, now: () => Date.now() + clock.aheadMs, sleep: systemClock.sleep.bind(systemClock) }
  await using here = await twoFacilities(t, clock)
  const { plane, administrator, backups } = here
  const { somebody: all } = await person(
    here,
    'everything',
    ROLES.map((role) => ({ role, facilities: null })),
  )
  const { somebody: operator } = await person(here, 'operator', EVERYWHERE('operator'))
  const { somebody: approver } = await person(here, 'approver', EVERYWHERE('approver'))
  const { somebody: own } = await person(here, 'own', [{ role: 'operator', facilities: ['fac-own'] }])
  const recovery = async (by: Somebody, component = 'own-db') =>
    String((await by.ask('POST /backup-dr/recovery', { component, name: randomBytes(8).toString('hex') })).body['id'])
  const refused = async (what: string, attack: () => Promise<void>) =>
    t.test(what, async () => {
      const before = await stateOf(here, all)
      await attack()
      assert.deepEqual(await stateOf(here, all), before)
    })
  const bearer = async (token: string, path = '/backup-dr/status') =>
    (await plane.ask(`GET ${path}`, { token: null, headers: { authorization: `Bearer ${token}` } })).status

  const token = async (by: Somebody, lastsMs: number) => {
    const body = { name: 'a token', grants: EVERYWHERE('viewer'), expiresAt: new Date(clock.now() + lastsMs).toISOString() }
    const made = await by.makeToken(body)
    assert.equal(made.status, 201, JSON.stringify(made.body))
    return { token: String(made.body['token']), id: (made.body['view'] as { id: string }).id }
  }
  const tokens = [await token(operator, 60_000), await token(operator, DAY_MS)] as const

  await refused('a token by a stolen session: without a factor, or with one that was shown for another', async () => {
    const wanted = { name: 'x', grants: EVERYWHERE('viewer'), expiresAt: new Date(clock.now() + DAY_MS).toISOString() }
    const bare = await operator.ask('POST /auth/tokens', wanted)
    assert.deepEqual([bare.status, bare.body['code']], [403, 'FACTOR_NEEDED'])
    const more = { ...wanted, grants: EVERYWHERE('operator') }
    assert.equal((await operator.ask('POST /auth/tokens', more)).body['code'], 'FACTOR_NEEDED', 'nobody is asked either')
    const swapped = await operator.makeToken(wanted, {
      ...wanted,
      expiresAt: new Date(clock.now() + 400 * DAY_MS - 1).toISOString(),
    })
    assert.deepEqual([swapped.status, swapped.body['code']], [403, 'FACTOR_WRONG'])
  })

  await refused('tokens: expired, revoked, of the file, of another shape, of nobody', async () => {
    for (const { token: each } of tokens) assert.equal(await bearer(each), 200)
    clock.aheadMs += 61_000
    assert.equal(await bearer(tokens[0].token), 401, 'expired')
    assert.equal((await own.ask(`DELETE /auth/tokens/${tokens[1].id}`)).status, 404, 'somebody else’s is not there')
    assert.equal(await bearer(tokens[1].token), 200)
    assert.equal((await operator.ask(`DELETE /auth/tokens/${tokens[1].id}`)).status, 204)
    assert.equal(await bearer(tokens[1].token), 401, 'revoked')
    const none = Buffer.from('{"alg":"none"}').toString('base64url')
    const jwt = `${none}.${Buffer.from(JSON.stringify({ sub: administrator.id, role: 'administrator' })).toString('base64url')}.`
    for (const each of [
      plane.token,
      jwt,
      `resus_${randomBytes(32).toString('base64url')}`,
      'resus_',
      'x'.repeat(300),
      operator.cookie(),
    ])
      assert.equal(await bearer(each), 401, each)
  })

  await refused('a browser that another site makes ask', async () => {
    const ask = async (headers: Record<string, string>) =>
      await plane.ask('POST /emergencies', {
        body: { reason: 'forged by a page' },
        token: null,
        headers: { cookie: administrator.cookie(), ...headers },
      })
    const right = { 'x-resus-csrf': administrator.csrf() }
    const forged = [
      {},
      { 'x-resus-csrf': 'x'.repeat(administrator.csrf().length) },
      { 'x-resus-csrf': operator.csrf() },
      { ...right, origin: 'https://elsewhere.test' },
      { ...right, origin: 'null' },
      { ...right, 'sec-fetch-site': 'cross-site' },
      { ...right, 'sec-fetch-site': 'same-site' },
    ]
    for (const headers of forged) assert.equal((await ask(headers)).status, 403, JSON.stringify(headers))
    const noted = await trailOf(all, 'request.refused')
    // Once a minute for each thing.
    assert(noted.some(({ reason }) => reason.includes('another site')))
    const logOn = { name: 'operator', password: PEOPLES_PASSWORD }
    const foreign = await plane.ask('POST /auth/log-on', {
      body: logOn,
      token: null,
      headers: { origin: 'https://elsewhere.test' },
    })
    assert.equal(foreign.status, 403)
  })

  await refused('paths and SQL in every parameter of every route', async () => {
    const { paths } = (await all.ask('GET /docs/json')).body as {
      paths: Record<string, Record<string, { parameters?: { name: string; in: string }[] }>>
    }
    const evil = [
      "' or 1=1; drop table resus_control.people; --",
      '../../../../etc/passwd',
      '..\\..\\x',
      '%',
      '\u0000',
      '{"$ne":1}',
      '-1',
      '\u202e'.repeat(300),
      '__proto__',
    ]
    let asked = 0
    for (const [path, methods] of Object.entries(paths)) {
      for (const [method, { parameters = [] }] of Object.entries(methods)) {
        if (path.includes('log-off')) continue
        for (const { name, in: where } of parameters.filter((each) => each.in === 'path' || each.in === 'query')) {
          for (const text of evil) {
            const value = encodeURIComponent(text)
            const url =
              where === 'path' ? path.replace(`{${name}}`, value) : `${path.replaceAll(/\{\w+\}/g, 'x')}?${name}=${value}`
            const { status, body } = await all.ask(
              `${method.toUpperCase()} ${url.slice('/api/v1'.length)}`,
              method === 'post' ? {} : undefined,
            )
            const isFine = status === 200 && where === 'query'
            assert(isFine || [400, 403, 404, 414, 501].includes(status), `${method} ${url}: ${status} ${JSON.stringify(body)}`)
            assert(!/syntax error|ENOENT|root:x|stack|relation /.test(JSON.stringify(body)), JSON.stringify(body))
            asked += 1
          }
        }
      }
    }
    assert(asked > 200, `${asked} asked`)
  })

  const pending = await recovery(operator)
  await refused('members of a body that nobody asked for', async () => {
    const shown = (await approver.ask(`GET /approvals/${pending}`)).body
    const decision = { decision: 'approve', digest: shown['digest'], factor: { kind: 'totp', code: '000000' } }
    const bodies: Readonly<Record<string, object>> = {
      'POST /backup-dr/recovery': { component: 'own-db' },
      'POST /backup-dr/backups/database': { component: 'own-db' },
      'POST /backup-dr/backups/cleanup': { component: 'own-db' },
      [`POST /backup-dr/backups/${backups.own}/verify`]: {},
      [`POST /backup-dr/backups/${backups.own}/restore`]: {},
      'POST /people': { change: 'make', name: 'eve', displayName: 'Eve', email: null, grants: EVERYWHERE('approver') },
      [`POST /approvals/${pending}/decision`]: decision,
      'POST /emergencies': { reason: 'a reason' },
      'POST /auth/tokens': { name: 'x', grants: EVERYWHERE('viewer'), expiresAt: new Date(clock.now() + DAY_MS).toISOString() },
      'POST /auth/log-on': { name: 'operator', password: PEOPLES_PASSWORD },
      'POST /auth/password': { old: PEOPLES_PASSWORD, next: 'another that nobody has seen' },
    }
    const more = {
      state: 'approved',
      decidedBy: all.id,
      id: pending,
      clearance: `emergency:${pending}`,
      isNewPlace: true,
      role: 'approver',
      grants2: [],
    }
    for (const [what, body] of Object.entries(bodies)) {
      for (const [name, value] of Object.entries(more)) {
        assert.equal((await all.ask(what, { ...body, [name]: value })).status, 400, `${what} with ${name}`)
      }
    }
    for (const text of ['a\0b', 'a\ud800b']) {
      const body = { change: 'make', name: 'eve', displayName: text, email: null, grants: EVERYWHERE('viewer') }
      for (const [what, each] of [
        ['POST /people', body],
        ['POST /emergencies', { reason: text }],
        ['POST /auth/log-on', { name: text, password: text }],
      ] as const)
        assert.equal((await all.ask(what, each)).status, 400, what)
    }
    const grants = [
      [{ role: 'root', facilities: null }],
      [{ role: 'approver' }],
      [{ role: 'approver', facilities: [] }],
      [{ role: 'approver', facilities: null, also: 1 }],
      { role: 'approver', facilities: null },
    ]
    for (const each of grants) {
      const body = { change: 'make', name: 'eve', displayName: 'Eve', email: null, grants: each }
      assert.equal((await all.ask('POST /people', body)).status, 400, JSON.stringify(each))
    }
    const people = { change: 'grants', person: operator.id, grants: EVERYWHERE('administrator') }
    assert.equal((await operator.ask('POST /people', people)).status, 403, 'one’s own grants')
  })

  const others = await recovery(operator, 'other-db')
  const { body: task } = await operator.ask('POST /backup-dr/backups/database', { component: 'other-db' })
  await refused('ids of another facility, beside names of one’s own', async () => {
    const id = String(task['id'])
    for (const [what, body] of [
      [`GET /backup-dr/tasks/${id}`],
      [`POST /backup-dr/tasks/${id}/cancel`],
      [`GET /backup-dr/tasks/${id}/log`],
      [`GET /approvals/${others}`],
      [`POST /approvals/${others}/revoke`],
      [`GET /backup-dr/backups/${backups.other}`],
      [`POST /backup-dr/backups/${backups.other}/restore`, { component: 'own-db' }],
      [`POST /backup-dr/backups/${backups.other}/verify`, { component: 'own-db' }],
      ['POST /backup-dr/recovery', { component: 'other-db' }],
      ['POST /backup-dr/backups/database', { system: 'test-his', component: 'other-db' }],
    ] as const) {
      assert.equal((await own.ask(what, body)).status, 404, what)
    }
    for (const what of [`POST /backup-dr/backups/${backups.shared}/restore`, `POST /backup-dr/backups/${backups.shared}/verify`])
      assert.equal((await own.ask(what, {})).status, 403, what)
    assert((await refusals(all)).some(({ actor }) => actor.name === 'own'))
  })

  await refused('decisions: another digest, another’s factor, one’s own request, a token', async () => {
    const [first, second] = [await approver.ask(`GET /approvals/${pending}`), await approver.ask(`GET /approvals/${others}`)]
    const wrong = async (by: Somebody, how: Parameters<Somebody['decide']>[1], code: string) => {
      const { status, body } = await by.decide(pending, how)
      assert.equal(body['code'], code, JSON.stringify(body))
      assert([403, 409].includes(status))
    }
    await wrong(approver, { digest: String(second.body['digest']) }, 'APPROVAL_INVALID')
    await wrong(approver, { factor: await approver.factorFor(others) }, 'FACTOR_WRONG')
    await wrong(approver, { factor: await all.factorFor(pending) }, 'FACTOR_WRONG')
    await wrong(operator, {}, 'FORBIDDEN')
    const body = { decision: 'approve', digest: first.body['digest'], factor: { kind: 'totp', code: '000000' } }
    const { token: one } = await token(approver, DAY_MS)
    const headers = { authorization: `Bearer ${one}` }
    assert.equal((await plane.ask(`POST /approvals/${pending}/decision`, { body, token: null, headers })).status, 403)
    assert((await trailOf(all, 'request.refused')).some(({ actor }) => actor.name.startsWith('approver (token')))
  })

  await t.test('an approver whom the asker made, or reset, decides nothing of theirs; nobody decides on their own', async () => {
    const eve = (await person({ ...here, administrator: all }, 'eve', EVERYWHERE('approver'))).somebody
    const asked = await recovery(all)
    for (const by of [eve, all]) assert.deepEqual([(await by.decide(asked)).status, by.name], [403, by.name])
    assert.equal((await eve.ask(`GET /approvals/${asked}`)).body['state'], 'pending')
    assert((await refusals(all)).some(({ actor }) => actor.name === 'eve'))
  })

  await t.test('tokens of somebody who is disabled, and of an account that was changed in the store', async () => {
    const { somebody: eve } = await person({ ...here, administrator: all }, 'evelyn', EVERYWHERE('viewer'))
    const { token: one } = await token(eve, DAY_MS)
    assert.equal(await bearer(one), 200)
    await using store = await Store.open((await embeddedConnection(plane.state))!)
    const more = JSON.stringify(EVERYWHERE('administrator'))
    await sql`update resus_control.people set grants = ${more}::jsonb where id = ${eve.id}`.execute(store.sql)
    clock.aheadMs += 5_000
    assert.deepEqual([await bearer(one), (await eve.ask('GET /people')).status], [401, 401])
    await waitUntil('everybody is told', async () =>
      (await trailOf(all, 'people.changed-outside')).some(({ reason }) => reason.includes('evelyn')),
    )
    const { items } = (await all.ask('GET /backup-dr/alarms')).body as { items: { kind: string; text: string }[] }
    assert(JSON.stringify(items).includes('PEOPLE_CHANGED_OUTSIDE'), JSON.stringify(items))
    const disabled = await all.ask('POST /people', { change: 'disable', person: eve.id })
    assert.equal(disabled.status, 202, JSON.stringify(disabled.body))
    if (disabled.body['approval'] !== null) await approver.decide((disabled.body['approval'] as { id: string }).id)
    const { somebody: gone } = await person({ ...here, administrator: all }, 'gone', EVERYWHERE('viewer'))
    const { token: theirs } = await token(gone, DAY_MS)
    assert.equal(await bearer(theirs), 200)
    assert.equal((await all.ask('POST /people', { change: 'disable', person: gone.id })).status, 202)
    assert.deepEqual([await bearer(theirs), (await gone.ask('GET /auth/me')).status], [401, 401])
    assert.equal((await all.ask('POST /people', { change: 'enable', person: gone.id })).status, 202)
    assert.equal(await bearer(theirs), 401, 'for good')
  })

  await t.test('what is put into the store or the repository by hand runs nothing', async () => {
    await using store = await Store.open((await embeddedConnection(plane.state))!)
    const asked = (await all.ask('POST /break-glass')).body as { approval: { id: string } }
    const decided = await recovery(operator)
    assert.equal((await approver.decide(decided)).body['state'], 'used')
    const again = await approver.decide(decided)
    assert.deepEqual([again.status, again.body['code']], [409, 'APPROVAL_INVALID'], 'twice')
    const folder = join(here.cluster.repositoryDirectory, 'control/authority/approvals')
    const names = (await readdir(here.cluster.repositoryDirectory, { recursive: true })).filter((name) =>
      name.endsWith(`${decided}.decided`),
    )
    assert.equal(names.length, 1, folder)
    const [from] = names.map((name) => join(here.cluster.repositoryDirectory, name))
    const forged = await recovery(operator)
    await copyFile(from!, from!.replace(decided, forged))
    const tasks = (await all.ask('GET /backup-dr/tasks?kind=restore')).body['items'] as unknown[]
    const ids = [asked.approval.id, forged, pending]
    await sql`update resus_control.approvals set state = 'approved', decided_by = ${approver.id}, decided_name = 'approver' where id in (${sql.join(ids)})`.execute(
      store.sql,
    )
    for (const id of ids)
      await waitUntil(`${id} has failed`, async () => (await all.ask(`GET /approvals/${id}`)).body['state'] === 'failed')
    assert.deepEqual((await all.ask('GET /backup-dr/tasks?kind=restore')).body['items'], tasks)
    assert.deepEqual(await listAuthority(here.cluster.repository, 'break-glass/'), [])
    await waitUntil('the trail has it', async () => (await trailOf(all, 'approval.failed')).length >= ids.length)
  })

  await t.test('fixation, and an old secret of a session: another family; and the end of one', async () => {
    const victim = (await person(here, 'victim', EVERYWHERE('viewer'))).somebody
    const old = { cookie: victim.cookie(), 'x-resus-csrf': victim.csrf() }
    const planted = await plane.ask('POST /auth/log-on', {
      body: { name: 'approver', password: PEOPLES_PASSWORD },
      token: null,
      headers: { cookie: `${victim.cookie()}; ${own.cookie()}` },
    })
    assert.equal(planted.body['kind'], 'second-factor')
    assert.deepEqual(planted.headers.getSetCookie(), [])
    clock.aheadMs += 6 * 60_000
    assert.equal((await victim.ask('GET /auth/me')).status, 200)
    assert.notEqual(victim.cookie(), old.cookie)
    assert.equal((await victim.ask('GET /auth/me')).status, 200, 'the new one has arrived')
    clock.aheadMs += 60_000
    assert.equal((await plane.ask('GET /auth/me', { token: null, headers: old })).status, 401)
    assert.equal((await victim.ask('GET /auth/me')).status, 401, 'whoever had it has it no more')
    const [replay] = await trailOf(all, 'session.replay')
    assert.deepEqual([replay?.actor.name, replay?.outcome], ['victim', 'refused'])

    // Shown before the new one was: it may be that an answer was lost. Whoever has the new one tells.
    const second = (await person(here, 'second', EVERYWHERE('viewer'))).somebody
    const stolen = { cookie: second.cookie(), 'x-resus-csrf': second.csrf() }
    clock.aheadMs += 6 * 60_000
    assert.equal((await second.ask('GET /auth/me')).status, 200)
    clock.aheadMs += 60_000
    const taken = await plane.ask('GET /auth/me', { token: null, headers: stolen })
    assert.equal(taken.status, 200)
    const got = { cookie: taken.headers.getSetCookie()[0]!.split(';')[0]! }
    assert.equal((await second.ask('GET /auth/me')).status, 401)
    clock.aheadMs += 5_000
    assert.equal((await plane.ask('GET /auth/me', { token: null, headers: got })).status, 401, 'the thief is out too')
    assert.equal((await trailOf(all, 'session.replay'))[0]?.actor.name, 'second')
  })

  await refused('bodies that are too large, broken or endless, where nobody is asked who they are', async () => {
    const slow = await Promise.all(Array.from({ length: 20 }, async () => slowly(plane.url)))
    const stranger = nobody(plane)
    for (const path of [
      'first-administrator',
      'auth/log-on',
      'auth/second-factor',
      'auth/second-factor/challenge',
      'auth/invitation',
    ]) {
      for (const [body, status] of [
        [JSON.stringify({ name: 'x'.repeat(65 * 1024) }), 413],
        ['{', 400],
        ['['.repeat(30_000), 400],
        ['null', 400],
        ['{"__proto__":{"name":"x"}}', 400],
        ['\u0000', 400],
      ] as const) {
        assert.equal((await plane.ask(`POST /${path}`, { body, token: null })).status, status, `${path} ${body.slice(0, 20)}`)
      }
    }
    assert.equal((await stranger.send('GET', '/api/v1/live')).status, 200, 'others are answered meanwhile')
    for (const socket of slow) socket.destroy()
  })

  await t.test('no secret is in a report, an argument, an environment, a name, or any file of the server in clear', async () => {
    const { token: one } = await token(all, DAY_MS)
    const bare = await withoutFactor(here, 'viewer-of-this-name', EVERYWHERE('viewer'))
    const totp = JSON.parse((await bare.send('POST', '/api/v1/auth/factors/totp', { label: 'phone' })).text) as { secret: string }
    const made = await administrator.ask('POST /people', {
      change: 'make',
      name: 'invited',
      displayName: 'invited',
      email: null,
      grants: EVERYWHERE('viewer'),
    })
    const invitation = (await administrator.ask(`POST /people/${String(made.body['person'])}/invitation`)).body['code']
    const { code: sealed } = (await all.ask('POST /break-glass')).body as { code: string }
    const values = [all, operator, approver, administrator].map((each) => each.cookie().split('=')[1]!)
    const secrets = [
      PEOPLES_PASSWORD,
      totp.secret,
      String(invitation),
      one,
      sealed,
      tokens[0].token,
      plane.token,
      ...values,
      ...values.map((each) => each.split('.')[2]!),
    ]
    const names = (await readdir(here.cluster.repositoryDirectory, { recursive: true })).join('\n')
    assert(names.length > 1000)
    const texts = [plane.reports.join('\n'), names, ...(await processesBelow(process.pid))]
    for (const secret of secrets) assert(!texts.some((text) => text.includes(secret)), secret.slice(0, 8))
    const found: string[] = []
    let isRead = false
    for (const root of [plane.state, here.cluster.repositoryDirectory]) {
      for (const name of await readdir(root, { recursive: true })) {
        const path = join(root, name)
        if (!(await stat(path).catch(() => undefined))?.isFile()) continue
        const bytes = await readFile(path).catch(() => Buffer.alloc(0))
        isRead ||= bytes.includes('viewer-of-this-name')
        if (secrets.some((secret) => bytes.includes(secret))) found.push(name)
      }
    }
    assert.deepEqual(found, [])
    assert(isRead, 'what is no secret is found in the same way')
  })

  await t.test('names and passwords that are tried: the same answer for each, then none at all', async () => {
    const logOn = async (name: string, password: string) =>
      await plane.ask('POST /auth/log-on', { body: { name, password }, token: null })
    const made = (await person(here, 'disabled', EVERYWHERE('viewer'))).somebody
    assert.equal((await administrator.ask('POST /people', { change: 'disable', person: made.id })).status, 202)
    for (let attempt = 0; attempt < 5; attempt += 1) assert.equal((await logOn('own', 'a wrong one')).status, 401)
    const answers = [
      await logOn('own', PEOPLES_PASSWORD),
      await logOn('operator', 'a wrong one'),
      await logOn('nobody-of-this-name', PEOPLES_PASSWORD),
      await logOn('disabled', PEOPLES_PASSWORD),
    ]
    for (const { status, body } of answers) assert.deepEqual([status, body], [answers[0]!.status, answers[0]!.body])
    assert.equal(answers[0]!.status, 401)
    let status = 401
    for (let attempt = 0; attempt < 40 && status === 401; attempt += 1) status = (await logOn(`name-${attempt}`, 'x')).status
    assert.equal(status, 429)
    assert((await trailOf(all, 'log-on.password')).filter(({ outcome }) => outcome === 'refused').length >= 5)
  })
})

/** A request whose body comes byte by byte, and never ends. */
async function slowly(url: string): Promise<Socket> {
  const { hostname, port, host } = new URL(url)
  const socket = connect(Number(port), hostname)
  socket.on('error', () => undefined)
  const head = `POST /api/v1/auth/log-on HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{`
  await new Promise<void>((resolve) => socket.write(head, () => resolve()))
  return socket
}

/** Arguments and environments of what this process has started, and of what that has. */
async function processesBelow(pid: number): Promise<string[]> {
  const texts: string[] = []
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const parent = /^PPid:\s+(\d+)$/m.exec(await readFile(`/proc/${name}/status`, 'utf8').catch(() => ''))?.[1]
    if (Number(parent) !== pid) continue
    for (const file of ['cmdline', 'environ']) texts.push(await readFile(`/proc/${name}/${file}`, 'utf8').catch(() => ''))
    texts.push(...(await processesBelow(Number(name))))
  }
  return texts
}
