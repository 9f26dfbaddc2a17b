import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import test from 'node:test'
import { z } from 'zod'
import { systemClock } from '../../src/clock.ts'
import { loadConfiguration } from '../../src/config/configuration.ts'
import { configuredAccess, configuredStorage } from '../../src/config/open.ts'
import { openTemporaryDirectory } from '../../src/postgres/staged-runtime.ts'
import { initRepository } from '../../src/repository/repository.ts'
import { controlPlane, type ApiAnswer, type ControlPlane } from '../services/control-plane.ts'
import { configurationText, strangeSystem } from '../services/strange-system.ts'
import { waitUntil } from '../services/wait-until.ts'

interface OpenApi {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
}

interface Operation {
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, { readonly schema: object }>> }>>
}

async function documentOf(plane: ControlPlane): Promise<OpenApi> {
  return (await plane.ask('GET /docs/json')).body as unknown as OpenApi
}

/** The answer is what the OpenAPI document says of this status. */
function assertDescribed(document: OpenApi, what: string, { status, headers, body }: ApiAnswer): void {
  const [method = '', path = ''] = what.split(' ')
  const operation = document.paths[`/api/v1${path}`]?.[method.toLowerCase()]
  assert(operation !== undefined, `${what} is in the document`)
  const response = operation.responses[String(status)] ?? operation.responses[`${String(status)[0]}XX`]
  assert(response !== undefined, `${what} says what ${status} is; it has ${Object.keys(operation.responses).join(', ')}`)
  const type = headers.get('content-type')?.split(';')[0] ?? ''
  const schema = (response.content?.[type] ?? Object.values(response.content ?? {})[0])?.schema
  assert(schema !== undefined, `${what}: ${status} has a schema`)
  z.fromJSONSchema(schema as never).parse(body)
}

/** By which people come in. */
const OPEN = /^\/api\/v1\/(first-administrator|auth\/(log-on|second-factor(\/challenge)?|invitation))$/

test('every route but liveness needs the token, in whatever form, and tells nothing without it', async (t) => {
  await using plane = await controlPlane(t, await strangeSystem(t))
  const document = await documentOf(plane)
  assert.equal(document.openapi, '3.1.0')
  const routes = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => [method, path] as const),
  )
  assert(routes.length >= 18, `${routes.length} routes`)
  const wrong = [
    undefined,
    'Bearer',
    'Bearer x',
    `Bearer ${plane.token}x`,
    `Basic ${Buffer.from('a:b').toString('base64')}`,
    'Bearer \u00e9',
    'Negotiate x',
  ]
  for (const [method, path] of [
    ...routes,
    ['get', '/api/v1/docs'],
    ['get', '/api/v1/nothing'],
    ['delete', '/api/v1/live'],
  ] as const) {
    for (const authorization of wrong) {
      const answer = await fetch(`${plane.url}${path.replace('{id}', '00000000-0000-4000-8000-000000000000')}`, {
        method: method.toUpperCase(),
        headers: authorization === undefined ? {} : { authorization: Buffer.from(authorization).toString('latin1') },
      })
      const text = await answer.text()
      if (path === '/api/v1/live' && method === 'get') assert.equal(answer.status, 200)
      // Ways in: what is no log-on is refused as one.
      else if (OPEN.test(path)) assert([400, 401, 403, 404].includes(answer.status), `${method} ${path}: ${text}`)
      else assert.equal(answer.status, 401, `${method} ${path}: ${text}`)
      assert(!text.includes('his-db'))
    }
  }
  const basic = await fetch(`${plane.url}/api/v1/docs/`, {
    headers: { authorization: `Basic ${Buffer.from(`any:${plane.token}`).toString('base64')}` },
  })
  assert.equal(basic.status, 200)
  const challenges = (await fetch(`${plane.url}/api/v1/docs/`)).headers.get('www-authenticate') ?? ''
  assert.match(challenges, /Bearer realm="resus", Basic realm="resus"/)
  const forged = await fetch(`${plane.url}/api/v1/backup-dr/backups/database`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(`any:${plane.token}`).toString('base64')}` },
  })
  assert.equal(forged.status, 401, 'what a browser sends along by itself starts nothing')
  const unread = await fetch(`${plane.url}/api/v1/%zz`)
  assert.match(unread.headers.get('content-security-policy') ?? '', /default-src 'none'/)
  const policy = basic.headers.get('content-security-policy') ?? ''
  assert.match(policy, /default-src 'none'; script-src 'self'/)
  assert(!policy.includes('http'), 'nothing of another host')
  assert.equal((await stat(join(plane.state, 'administrator-token'))).mode & 0o777, 0o600)
})

test('input of every bad kind gets the right status and starts nothing', async (t) => {
  await using plane = await controlPlane(t, await strangeSystem(t))
  const document = await documentOf(plane)
  const big = JSON.stringify({ type: 'x'.repeat(100_000) })
  const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`
  const cases: readonly (readonly [
    what: string,
    options: Parameters<ControlPlane['ask']>[1],
    status: number,
    code: string,
    path?: string,
  ])[] = [
    ['POST /backup-dr/backups/database', { body: '{' }, 400, 'ARGUMENTS_INVALID'],
    ['POST /backup-dr/backups/database', { body: deep }, 400, 'ARGUMENTS_INVALID'],
    ['POST /backup-dr/backups/database', { body: big }, 413, 'ARGUMENTS_INVALID'],
    ['POST /backup-dr/backups/database', { body: { type: 'sideways' } }, 400, 'ARGUMENTS_INVALID'],
    ['POST /backup-dr/backups/database', { body: { path: '/etc' } }, 400, 'ARGUMENTS_INVALID'],
    ['POST /backup-dr/backups/database', { body: { component: '--to' } }, 404, 'COMPONENT_UNKNOWN'],
    ['POST /backup-dr/backups/database', { body: [] }, 400, 'ARGUMENTS_INVALID'],
    ['POST /backup-dr/backups/database', { body: 'null' }, 400, 'ARGUMENTS_INVALID'],
    ['POST /backup-dr/backups/database', { body: '{"__proto__":{"type":"full"}}' }, 400, 'ARGUMENTS_INVALID'],
    [
      'POST /backup-dr/backups/database',
      { body: 'a=b', headers: { 'content-type': 'application/x-www-form-urlencoded' } },
      415,
      'ARGUMENTS_INVALID',
    ],
    ['POST /backup-dr/backups/database', { body: {}, headers: { 'idempotency-key': 'two words' } }, 400, 'ARGUMENTS_INVALID'],
    ['POST /backup-dr/recovery', { body: { name: '../../etc' } }, 400, 'ARGUMENTS_INVALID'],
    ['POST /backup-dr/recovery', { body: { name: 'ok', target: { time: 'yesterday' } } }, 400, 'ARGUMENTS_INVALID'],
    ['POST /backup-dr/recovery', { body: { name: 'ok', target: { name: '--preview' } } }, 400, 'ARGUMENTS_INVALID'],
    ['POST /backup-dr/recovery', { body: { target: { lsn: '0/1', xid: '5' } } }, 400, 'ARGUMENTS_INVALID'],
    ['POST /backup-dr/backups/{id}/restore', { body: {} }, 404, 'BACKUP_UNKNOWN', '/backup-dr/backups/..%2f..%2fetc/restore'],
    ['POST /backup-dr/backups/{id}/verify', { body: {} }, 404, 'BACKUP_UNKNOWN', '/backup-dr/backups/--all/verify'],
    ['GET /backup-dr/backups', {}, 400, 'ARGUMENTS_INVALID', '/backup-dr/backups?limit=0'],
    ['GET /backup-dr/backups', {}, 400, 'ARGUMENTS_INVALID', '/backup-dr/backups?limit=1e9'],
    ['GET /backup-dr/backups', {}, 400, 'ARGUMENTS_INVALID', '/backup-dr/backups?cursor=%00'],
    ['GET /backup-dr/backups', {}, 400, 'ARGUMENTS_INVALID', '/backup-dr/backups?order=desc'],
    ['GET /backup-dr/backups', {}, 404, 'COMPONENT_UNKNOWN', "/backup-dr/backups?system=';drop%20table%20tasks"],
    [
      'GET /backup-dr/tasks',
      {},
      400,
      'ARGUMENTS_INVALID',
      `/backup-dr/tasks?cursor=${Buffer.from('["x","y"]').toString('base64url')}`,
    ],
    ['GET /backup-dr/tasks/{id}', {}, 400, 'ARGUMENTS_INVALID', '/backup-dr/tasks/1'],
    ['GET /backup-dr/tasks/{id}', {}, 404, 'TASK_UNKNOWN', '/backup-dr/tasks/00000000-0000-4000-8000-000000000000'],
    [
      'POST /backup-dr/tasks/{id}/cancel',
      {},
      404,
      'TASK_UNKNOWN',
      '/backup-dr/tasks/00000000-0000-4000-8000-000000000000/cancel',
    ],
    ['POST /backup-dr/failover', { body: {} }, 501, 'NOT_BUILT'],
    ['GET /backup-dr/playbooks', {}, 501, 'NOT_BUILT'],
    ['GET /backup-dr/backups/{id}', {}, 404, 'BACKUP_UNKNOWN', `/backup-dr/backups/${'9'.repeat(64)}`],
  ]
  for (const [what, options, status, code, path] of cases) {
    const [method = '', url = ''] = what.split(' ')
    const answer = await plane.ask(`${method} ${path ?? url}`, options)
    assert.deepEqual(
      [answer.status, answer.body['code']],
      [status, code],
      `${what} ${path ?? ''} ${JSON.stringify(options).slice(0, 100)}: ${JSON.stringify(answer.body)}`,
    )
    assertDescribed(document, what, answer)
  }
  const nothing = await plane.ask('GET /backup-dr/tasks')
  assert.deepEqual(nothing.body, { items: [], next: null })
  assert.equal((await plane.ask('GET /nothing/at/all')).status, 404)
  assert.equal(await rawAnswer(plane.url, 'GET /%zz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'), 400)
})

test('answers are what the document says, with the system as the configuration has it, and a tag', async (t) => {
  await using plane = await controlPlane(t, await strangeSystem(t))
  const document = await documentOf(plane)
  for (const what of [
    'GET /live',
    'GET /backup-dr/backups',
    'GET /backup-dr/backups/status',
    'GET /backup-dr/tasks',
    'GET /backup-dr/config',
    'GET /backup-dr/health',
    'GET /backup-dr/status',
    'GET /backup-dr/monitor',
    'GET /backup-dr/recovery-objectives',
    'GET /backup-dr/schedules',
    'GET /backup-dr/alarms',
  ]) {
    const answer = await plane.ask(what)
    assert.equal(answer.status, 200)
    assertDescribed(document, what, answer)
  }
  const started = await plane.ask('POST /backup-dr/backups/database', { body: { type: 'full' } })
  assert.equal(started.status, 202)
  assertDescribed(document, 'POST /backup-dr/backups/database', started)
  const id = String(started.body['id'])
  const task = await plane.ask(`GET /backup-dr/tasks/${id}`)
  assert.equal(task.body['state'], 'waiting', 'no node reaches it')
  assertDescribed(document, 'GET /backup-dr/tasks/{id}', task)
  const tag = task.headers.get('etag') ?? ''
  assert.equal((await plane.ask(`GET /backup-dr/tasks/${id}`, { headers: { 'if-none-match': tag } })).status, 304)
  const cancelled = await plane.ask(`POST /backup-dr/tasks/${id}/cancel`)
  assert.equal(cancelled.body['state'], 'cancelled')
  assert.equal((await plane.ask(`GET /backup-dr/tasks/${id}`, { headers: { 'if-none-match': tag } })).status, 200)
  const status = (await plane.ask('GET /backup-dr/backups/status')).body as {
    components: { notReached: { why: string }[]; verdict: string }[]
  }
  assert.match(status.components[0]?.notReached[0]?.why ?? '', /there is no cluster in ".*nowhere" on this host/)
  assert.equal(status.components[0]?.verdict, 'not proven')
})

test('events of a task come in order, and go on behind the last that came', async (t) => {
  await using plane = await controlPlane(t, await strangeSystem(t))
  const { body } = await plane.ask('POST /backup-dr/backups/database', { body: {} })
  const path = `/backup-dr/tasks/${String(body['id'])}`
  const headers = { authorization: `Bearer ${plane.token}` }
  const stream = await fetch(`${plane.url}/api/v1${path}/events`, { headers })
  assert.equal(stream.headers.get('content-type'), 'text/event-stream; charset=utf-8')
  await plane.ask(`POST ${path}/cancel`)
  const text = await stream.text()
  assert.match(
    text,
    /^id: 1\nevent: state\ndata: \{.*"waiting".*\}\n\nid: 2\nevent: state\ndata: \{.*"cancelled".*\}\n\nevent: end\ndata: \{"state":"cancelled"\}\n\n$/,
  )
  const rest = await (await fetch(`${plane.url}/api/v1${path}/events`, { headers: { ...headers, 'last-event-id': '1' } })).text()
  assert.match(rest, /^id: 2\nevent: state/)
})

test('a changed configuration is taken without a restart, and a wrong one is refused with line and reason', async (t) => {
  const path = await strangeSystem(t)
  // Where no storage says what was accepted, a node without its state takes no change.
  const configuration = await loadConfiguration(path)
  await configuredStorage(configuration).prepare()
  await initRepository(await configuredAccess(configuration), { clock: systemClock, kdfCost: 1024 })
  await using plane = await controlPlane(t, path)
  const components = async () => {
    const { body } = await plane.ask('GET /backup-dr/backups/status')
    return (body as { components: { component: string }[] }).components.map(({ component }) => component)
  }
  assert.deepEqual(await components(), ['his-db'])
  await writeFile(path, configurationText('other-db', 'urgent'))
  await waitUntil('the change is refused', () => plane.reports.some((text) => /refused.*resus\.yaml:8:\d+.*urgent/s.test(text)))
  assert.deepEqual(await components(), ['his-db'])
  await writeFile(path, configurationText('other-db'))
  await waitUntil('the change is taken', async () => (await components()).includes('other-db'))
  assert.deepEqual(await components(), ['other-db'])
})

test('the store lost, the next start makes another one, with the same token', async (t) => {
  const path = await strangeSystem(t)
  const state = await mkdtemp(join(await openTemporaryDirectory(), 'resus-serve-'))
  t.after(async () => rm(state, { recursive: true, force: true }))
  let token = ''
  {
    await using plane = await controlPlane(t, path, { state })
    token = plane.token
    await plane.ask('POST /backup-dr/backups/database', { body: {} })
  }
  {
    await using plane = await controlPlane(t, path, { state })
    assert.equal(plane.token, token)
    assert.equal(((await plane.ask('GET /backup-dr/tasks')).body['items'] as unknown[]).length, 1)
  }
  await rm(join(state, 'store'), { recursive: true })
  await using plane = await controlPlane(t, path, { state })
  assert.equal((await readFile(join(state, 'administrator-token'), 'utf8')).trim(), token)
  assert.deepEqual((await plane.ask('GET /backup-dr/tasks')).body['items'], [])
})

async function rawAnswer(url: string, text: string): Promise<number> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  socket.end(text)
  let answer = ''
  for await (const piece of socket) answer += String(piece)
  return Number(answer.split(' ')[1])
}
