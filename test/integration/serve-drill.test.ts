import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import test from 'node:test'
import { controlPlane, withoutSchedules, type ControlPlane } from '../services/control-plane.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'

const skip = await skipUnlessInstalled(18)
const SCHEMA = `
  create table patients (id bigint generated always as identity primary key, name text not null);
  insert into patients (name) select 'patient ' || i from generate_series(1, 500) i`

async function configure(path: string, own: object): Promise<void> {
  const document = JSON.parse(await readFile(path, 'utf8')) as { components: Record<string, object> }
  document.components['his-db'] = { ...document.components['his-db'], ...own }
  await writeFile(path, JSON.stringify(document))
}

async function drilled(plane: ControlPlane, body: object = {}): Promise<Record<string, unknown>> {
  const asked = await plane.ask('POST /backup-dr/test', { body })
  assert.equal(asked.status, 202, JSON.stringify(asked.body))
  return await plane.ended(String(asked.body['id']))
}

interface Run {
  readonly sequence: number
  readonly verdict: string
  readonly rtoSeconds: number | null
  readonly certified: string | null
}

async function runs(plane: ControlPlane): Promise<Run[]> {
  const { status, body } = await plane.ask('GET /evidence')
  assert.equal(status, 200, JSON.stringify(body))
  return body['items'] as Run[]
}

test(
  'a drill that was asked for over HTTP leaves evidence that is read, checked and certified there, and is the RTO',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await cluster.query(SCHEMA)
    await cluster.backup()
    await withoutSchedules(cluster.configPath)
    const sql = [
      { name: 'patients', query: 'select count(*) from patients', expect: { equals: 500 } },
      { name: 'one', query: `select name from patients where id = 7`, expect: { equals: 'patient 7' } },
    ]
    await configure(cluster.configPath, { checks: { sql } })
    await using plane = await controlPlane(t, cluster.configPath)

    const task = await drilled(plane, { target: 'latest' })
    assert.equal(task['state'], 'done', JSON.stringify(task))
    await waitUntil('the drill is known', async () => (await runs(plane)).length === 1)
    const [run] = await runs(plane)
    assert.deepEqual([run?.sequence, run?.verdict, run?.certified], [1, 'verified', null])
    const { body: record } = await plane.ask('GET /evidence/1')
    assert.equal((record['predicate'] as { startedBy: string }).startedBy, 'administrator')
    const page = await plane.ask('GET /evidence/1/page')
    assert.match(page.headers.get('content-type') ?? '', /text\/html/)
    assert.match(String(page.body['text']), /RTO/)

    // What is measured by a drill is the actual RTO.
    await waitUntil('the RTO is that of the drill', async () => {
      const { body } = await plane.ask('GET /backup-dr/recovery-objectives')
      const [component] = body['components'] as { judgements: { rtoMinutes: { actual: number | null } } }[]
      return Math.abs((component?.judgements.rtoMinutes.actual ?? 0) * 60 - (run?.rtoSeconds ?? -1)) < 1e-6
    })

    // Immutability is proven by nobody, and there is no heartbeat.
    const { body: ready } = await plane.ask('GET /backup-dr/readiness')
    const [component] = ready['components'] as {
      score: number
      gates: { name: string; holds: boolean | null }[]
      terms: { name: string; weight: number; value: number | null }[]
      action: { what: string } | null
    }[]
    assert.deepEqual(
      component?.gates.map(({ name, holds }) => [name, holds]),
      [
        ['verified', true],
        ['key', true],
        ['immutable', null],
        ['rpo', null],
      ],
    )
    const sum = component?.terms.reduce((all, { weight, value }) => all + weight * (value ?? 0), 0) ?? 0
    assert.ok(Math.abs((component?.score ?? 0) - sum / 2) < 0.01, JSON.stringify(component))
    assert.notEqual(component?.action, null)
    const { body: status } = await plane.ask('GET /backup-dr/status')
    assert.equal((status['readiness'] as { least: string }).least, 'test-his/his-db')
    await waitUntil('the hour is written down', async () => {
      const { body } = await plane.ask('GET /backup-dr/readiness/history?from=2020-01-01T00:00:00Z')
      return (body['points'] as unknown[]).length === 1
    })

    const { body: unsure } = await plane.ask('GET /evidence/verification')
    assert.equal(unsure['verdict'], 'not proven')
    const { body: sure } = await plane.ask(`GET /evidence/verification?fingerprint=${String(record['signer'])}`)
    assert.equal(sure['verdict'], 'verified')

    const certified = await plane.ask('POST /evidence/1/certifications', {
      body: { decision: 'accepted', text: 'seen and good' },
    })
    assert.equal(certified.status, 201, JSON.stringify(certified.body))
    const acted = await plane.ask('POST /evidence/1/actions', {
      body: { owner: 'operations', due: '2020-01-01', text: 'a heartbeat' },
    })
    assert.equal(acted.status, 201)
    assert.equal((await plane.ask('POST /evidence/2/certifications', { body: { decision: 'accepted', text: 'x' } })).status, 400)
    assert.equal((await plane.ask('GET /evidence/99')).status, 404)
    await waitUntil('the words are known', async () => {
      const { body } = await plane.ask('GET /evidence')
      return (body['systems'] as { count: number }[])[0]?.count === 3
    })
    assert.equal((await runs(plane))[0]?.certified, 'accepted')
    const { body: list } = await plane.ask('GET /evidence')
    const [system] = list['systems'] as { count: number; openActions: { action: string; overdue: boolean }[] }[]
    assert.deepEqual([system?.count, system?.openActions[0]?.overdue], [3, true])
    const done = await plane.ask(`POST /evidence/actions/${system?.openActions[0]?.action ?? ''}`, { body: { state: 'done' } })
    assert.equal(done.status, 201, JSON.stringify(done.body))

    // The patient goes another way, and a drill says so: not whom.
    await cluster.query(`update patients set name = 'ciphertext' where id = 7`)
    const failed = await drilled(plane, { target: 'latest' })
    assert.equal(failed['state'], 'failed')
    assert.match(JSON.stringify(failed['error']), /sql: one/)
    await waitUntil('the failed drill is known', async () => (await runs(plane))[0]?.verdict === 'failed')
    const number = (await runs(plane))[0]?.sequence
    assert.ok(!JSON.stringify((await plane.ask(`GET /evidence/${number}`)).body).includes('ciphertext'))
    const details = await plane.ask(`POST /evidence/${number}/details`)
    assert.match(JSON.stringify(details.body), /ciphertext/)
    await waitUntil('the reading is in the trail', async () =>
      JSON.stringify((await plane.ask('GET /audit?action=evidence.details')).body).includes(`"sequence":${number}`),
    )
    await waitUntil('the alarm is open', async () =>
      JSON.stringify((await plane.ask('GET /backup-dr/alarms')).body).includes('NOT_VERIFIED'),
    )
  },
)

test('behind each backup comes a drill, where that is wanted', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(SCHEMA)
  await withoutSchedules(cluster.configPath)
  await configure(cluster.configPath, { drills: { afterBackup: true } })
  await using plane = await controlPlane(t, cluster.configPath)
  for (const count of [1, 2]) {
    const { body } = await plane.ask('POST /backup-dr/backups/database', { body: {} })
    await plane.ended(String(body['id']))
    await waitUntil(`drill ${count} is known`, async () => (await runs(plane)).length === count)
  }
  // No check of its own is configured.
  assert.deepEqual(
    (await runs(plane)).map(({ verdict }) => verdict),
    ['not proven', 'not proven'],
  )
})
