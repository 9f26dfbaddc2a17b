import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { promisify } from 'node:util'
import pg from 'pg'
import { auditBody, bodyText } from '../../src/authority/audit-entry.ts'
import { embeddedConnection } from '../../src/catalog/embedded-store.ts'
import { systemClock } from '../../src/clock.ts'
import { loadConfiguration } from '../../src/config/configuration.ts'
import { configuredAccess, configuredStorage } from '../../src/config/open.ts'
import { openTemporaryDirectory } from '../../src/postgres/staged-runtime.ts'
import { initRepository } from '../../src/repository/repository.ts'
import { controlPlane, type ControlPlane } from '../services/control-plane.ts'
import { strangeSystem } from '../services/strange-system.ts'
import { waitUntil } from '../services/wait-until.ts'

async function place(t: TestContext) {
  const configPath = await strangeSystem(t)
  const configuration = await loadConfiguration(configPath)
  const access = await configuredAccess(configuration)
  await configuredStorage(configuration).prepare()
  await initRepository(access, { clock: systemClock, kdfCost: 1024 })
  const state = await mkdtemp(join(await openTemporaryDirectory(), 'resus-serve-'))
  t.after(async () => rm(state, { recursive: true, force: true }))
  const resus = async (...args: string[]) => {
    const env = { ...process.env, RESUS_DATABASE_URL: '' }
    const command = ['src/cli/main.js', 'audit', ...args, '--config', configPath]
    const ended = await promisify(execFile)(process.execPath, command, { env }).then(
      ({ stdout, stderr }) => ({ status: 0, stdout, stderr }),
      (error: { code: number; stdout: string; stderr: string }) => ({ ...error, status: error.code }),
    )
    t.diagnostic(ended.stderr)
    return ended
  }
  return { configPath, state, resus, records: join(dirname(configPath), 'repository/control/audit') }
}

/** As what happens while the store is away comes: another process may have written it. */
async function spool(state: string, action: string): Promise<void> {
  const made = { id: randomUUID(), atMs: Date.now(), node: 'one' }
  const actor = { kind: 'person', id: '7', name: 'ada' } as const
  await mkdir(join(state, 'audit-spool'), { recursive: true })
  const name = `${String(made.atMs).padStart(15, '0')}-000001-${made.id}.ndjson`
  await writeFile(join(state, 'audit-spool', name), `${bodyText(auditBody({ actor, action, outcome: 'done' }, made))}\n`)
}

async function trailOf(plane: ControlPlane, query = ''): Promise<{ seq: number; action: string }[]> {
  const { status, body } = await plane.ask(`GET /audit${query}`)
  assert.equal(status, 200, JSON.stringify(body))
  return body['items'] as { seq: number; action: string }[]
}

test('what is done is in the store, in the repository and by the API; the store is lost, and the chain goes on', async (t) => {
  const { configPath, state, resus, records } = await place(t)
  await spool(state, 'session.begin')
  let head = ''
  {
    await using plane = await controlPlane(t, configPath, { state })
    await waitUntil('the spooled entry is in the trail', async () => (await trailOf(plane)).length === 2)
    assert.deepEqual(
      (await trailOf(plane)).map(({ seq, action }) => [seq, action]),
      [
        [2, 'session.begin'],
        [1, 'audit.begun'],
      ],
    )
    const first = await plane.ask('GET /audit?limit=1')
    assert.deepEqual(
      (await trailOf(plane, `?limit=1&cursor=${String(first.body['next'])}`)).map(({ seq }) => seq),
      [1],
    )
    assert.deepEqual(
      (await trailOf(plane, '?actor=ada')).map(({ seq }) => seq),
      [2],
    )
    assert.equal((await plane.ask('GET /audit?cursor=nonsense')).status, 400)
    assert.equal((await plane.ask('GET /audit?outcome=other')).status, 400)
    await waitUntil('it is in the repository', async () => {
      const { body } = await plane.ask('GET /audit/head')
      const [newest] = body['heads'] as { seq: number }[]
      return newest !== undefined
    })
    const { body } = await plane.ask('GET /audit/head')
    assert.equal(body['protection'], 'role')
    const [{ publicKey, ...bare }] = body['heads'] as [{ publicKey: string }]
    head = JSON.stringify(bare)
    assert.equal((await resus('key')).stdout.includes(publicKey.trim()), true)
  }
  await rm(join(state, 'store'), { recursive: true })
  await spool(state, 'session.end')
  {
    await using plane = await controlPlane(t, configPath, { state })
    await waitUntil('the trail is whole again', async () => (await trailOf(plane)).length === 4)
    assert.deepEqual(
      (await trailOf(plane)).map(({ seq, action }) => [seq, action]),
      [
        [4, 'session.end'],
        [3, 'audit.begun'],
        [2, 'session.begin'],
        [1, 'audit.begun'],
      ],
    )
    const headFile = join(state, 'head')
    await writeFile(headFile, head)
    const good = await resus('verify', '--state', state, '--head', headFile, '--json')
    assert.equal(good.status, 0, good.stdout)
    assert.match(good.stdout, /"whole": true/)
    assert.match(good.stdout, /"storeAway": null/)
    const superuser = new pg.Client({ connectionString: (await embeddedConnection(state))! })
    await superuser.connect()
    await superuser.query('alter table resus_audit.audit_entries disable trigger all')
    await superuser.query("update resus_audit.audit_entries set entry = replace(entry, 'ada', 'obi') where seq = 2")
    await superuser.end()
    const bad = await resus('verify', '--state', state)
    assert.equal(bad.status, 1)
    assert.match(bad.stdout, /^the audit trail is NOT whole: 1 problems$/m)
    assert.match(bad.stdout, /^CHANGED: entry 2 of the store: it does not have its hash$/m)
  }
  const away = await resus('verify', '--state', state, '--head', join(state, 'head'))
  assert.equal(away.status, 0, away.stdout)
  assert.match(away.stdout, /^the store: +not read: /m)
  const lines = (await resus('export')).stdout.trimEnd().split('\n')
  assert.deepEqual(
    lines.map((line) => (JSON.parse(line) as { seq: number }).seq),
    [1, 2, 3, 4],
  )
  assert.equal((await resus('export', '--until', '2020-01-01T00:00:00Z')).stdout, '')
  assert.equal((await resus('export', '--since', 'yesterday')).status, 2)
  assert.equal((await resus('look')).status, 2)
  assert.equal((await resus('verify', '--head', configPath)).status, 2)
  // Cut in both: only what was told outside knows.
  for (const name of await readdir(records)) await rm(join(records, name))
  const nowhere = join(state, 'nowhere')
  assert.equal((await resus('verify', '--state', nowhere)).status, 0)
  const cut = await resus('verify', '--state', nowhere, '--head', join(state, 'head'))
  assert.equal(cut.status, 1)
  const everything = await Promise.all(['store.log', 'head'].map(async (name) => readFile(join(state, name), 'utf8')))
  assert(!everything.join('').includes('PRIVATE'))
})
