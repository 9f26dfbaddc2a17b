import assert from 'node:assert/strict'
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import pg from 'pg'
import { checksSchema } from '../../src/protect/postgres/content/checks-schema.ts'
import { putBaseline, type Baseline } from '../../src/protect/postgres/content/baseline.ts'
import { takeBaseline } from '../../src/protect/postgres/content/take-baseline.ts'
import { Secret } from '../../src/secret.ts'
import { rehearse, type ChecksInput } from '../services/drilling.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { startResus } from '../services/proving.ts'
import { waitUntil } from '../services/wait-until.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'

const SCHEMA = `
  create table patients (id int primary key, facility text not null, name text not null);
  insert into patients select i, (array['ila', 'ede'])[1 + i % 2], 'patient number ' || i from generate_series(1, 2000) i;
  create table visits (id int, day date) partition by range (day);
  create table visits_2026 partition of visits for values from ('2026-01-01') to ('2027-01-01');
  insert into visits select i, date '2026-01-01' + i % 300 from generate_series(1, 500) i;
  create table documents (id int primary key, body text);
  insert into documents select i, repeat(md5(i::text), 300) from generate_series(1, 50) i;
  create table "Nothing Yet" (id int);
  create unlogged table scribbles (id int)`

async function take(cluster: ProtectedCluster, checks: ChecksInput = {}, connection?: string): Promise<Baseline> {
  const component = {
    ...cluster.component,
    checks: checksSchema.parse(checks),
    ...(connection === undefined ? {} : { connection: new Secret(connection) }),
  }
  const baseline = await takeBaseline({ component, signal: new AbortController().signal })
  await putBaseline(cluster.repository, baseline)
  return baseline
}

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(`PostgreSQL ${major}: a copy at the baseline's LSN has exactly its rows, elsewhere it drifts`, { skip }, async (t) => {
    await using cluster = await protectedCluster(t, { major })
    await cluster.query(SCHEMA)
    await cluster.backup()
    const baseline = await take(cluster)
    assert.deepEqual(
      baseline.tables.map(({ name, rows }) => [name, rows]),
      [
        ['public."Nothing Yet"', 0],
        ['public.documents', 50],
        ['public.patients', 2000],
        ['public.visits_2026', 500],
      ],
    )
    assert.deepEqual(baseline.unread, [])
    const quiet = await rehearse(cluster, {}, { target: 'latest' })
    // No transaction but our mark came behind it.
    assert.match(quiet.found('rows').found, /4 of 4 tables with the same rows and hash, 2550 rows \(exactly/)

    await cluster.query(`insert into patients select i, 'ila', 'late ' || i from generate_series(2001, 2400) i`)
    await cluster.backup()
    const exact = await rehearse(cluster, {}, { target: 'baseline' })
    assert.equal(exact.found('rows').verdict, 'verified', exact.found('rows').found)
    assert.match(exact.found('rows').found, /4 of 4 tables .* \(exactly what the baseline/)
    assert.deepEqual([exact.predicate.verdict, exact.predicate.recoveryPoint.turn], ['verified', 'baseline'])

    const later = await rehearse(cluster, {}, { target: 'latest' })
    assert.equal(later.found('rows').verdict, 'verified')
    assert.match(later.found('rows').found, /3 of 4 tables .* \(drift since/)
    const next = await rehearse(cluster, {}, { target: undefined })
    assert.equal(next.predicate.recoveryPoint.turn, 'random')
  })
}

const skip = await skipUnlessInstalled(18)

test(
  'a table that was emptied, dropped, or has lost too much since the baseline fails the drill; a renamed one does not',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await cluster.query(SCHEMA)
    await take(cluster)
    await cluster.query(`
    alter table documents rename to papers;
    alter table papers add column note text default 'none';
    delete from patients where id > 1900`)
    await cluster.backup()
    const good = await rehearse(cluster)
    assert.equal(good.found('rows').verdict, 'verified', good.found('rows').found)

    await cluster.query('truncate visits; drop table papers; delete from patients where id > 1000')
    await cluster.backup()
    const { predicate, found } = await rehearse(cluster)
    assert.equal(predicate.verdict, 'failed')
    assert.match(
      found('rows').found,
      /^3 of 4 tables: .*documents is gone; .*patients has 1000 rows of 2000.*visits_2026 is empty, and had 500 rows/,
    )
  },
)

test('what was changed below the server is found by the hash, though each row is there', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18, dataChecksums: false })
  await cluster.query(SCHEMA)
  const baseline = await take(cluster)
  const [{ path } = { path: '' }] = await cluster.query<{ path: string }>(`select pg_relation_filepath('patients') as path`)
  await cluster.query('checkpoint')
  await cluster.cluster.stop()
  const file = join(cluster.cluster.directory, path)
  const bytes = await readFile(file)
  const at = bytes.indexOf('patient number 1234')
  assert.ok(at > 0)
  bytes.write('encrypted by xyzzyx', at)
  await writeFile(file, bytes)
  await cluster.cluster.start()
  await cluster.backup()
  const { record, found, predicate } = await rehearse(cluster, {
    sql: [{ name: 'patients', query: 'select count(*) from patients', expect: { equals: 2000 } }],
  })
  assert.equal(found('sql: patients').verdict, 'verified')
  assert.equal(found('tables (amcheck)').verdict, 'verified')
  assert.equal(found('rows').verdict, 'failed')
  assert.match(found('rows').found, /1 of 4 tables: public\.patients has its 2000 rows, and another hash/)
  assert.match(predicate.why, /^rows: /)
  const payload = Buffer.from(record.envelope.payload, 'base64').toString('utf8')
  assert.ok(!payload.includes('xyzzyx') && !payload.includes(baseline.tables[2]!.hash))
})

test('what the role may not read is left out and said, also where a policy would hide rows', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(`${SCHEMA};
    alter table patients enable row level security;
    create policy own on patients for select using (facility = 'ila');
    create role resus login replication; grant select on patients, visits_2026 to resus;
    create schema closed; create table closed.things (id int)`)
  const { port } = cluster.cluster
  const connection = `postgres://resus@127.0.0.1:${port}/postgres`
  const baseline = await take(cluster, {}, connection)
  assert.deepEqual(
    baseline.tables.map(({ name }) => name),
    ['public.visits_2026'],
  )
  const why = new Map(baseline.unread.map((each) => [each.name, each.why]))
  assert.match(why.get('public.patients') ?? '', /row-level security/)
  assert.match(why.get('closed.things') ?? '', /grant it select/)
  await cluster.backup()
  const { found } = await rehearse(cluster)
  assert.equal(found('rows').verdict, 'verified')
  assert.match(found('rows').found, /1 of 1 tables.*; not in the baseline: closed\.things: .*, and 1 more|not in the baseline/)
  const none = await take(cluster, { baseline: { tables: ['patients', 'nowhere.at_all'] } }, connection)
  assert.deepEqual([none.tables.length, none.unread.length], [0, 2])
  const fewer = await take(cluster, { baseline: { except: ['visits_2026', 'closed.things'] } })
  assert.deepEqual(
    fewer.tables.map(({ name }) => name),
    ['public."Nothing Yet"', 'public.documents', 'public.patients'],
  )
  await take(cluster, { baseline: { tables: ['patients'] } }, connection)
  const nothing = await rehearse(cluster)
  assert.equal(nothing.found('rows').verdict, 'not proven')
})

test(
  'a baseline holds no writer up, and a definition that is being changed holds the baseline up for a table alone',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await cluster.query(SCHEMA)
    const other = new pg.Client({ connectionString: cluster.cluster.connectionString })
    other.on('error', () => undefined)
    await other.connect()
    await other.query('begin; alter table documents add column note text; update patients set name = name where id = 1')
    // It has begun later, and is over.
    await cluster.query('delete from visits where id = 1')
    const beganMs = Date.now()
    const baseline = await take(cluster)
    assert.ok(Date.now() - beganMs < 60_000)
    assert.deepEqual(baseline.unread, [{ name: 'public.documents', why: 'somebody is changing its definition' }])
    assert.match(baseline.snapshot, /^\d+:\d+:\d+$/)
    await other.query('commit')
    await other.end()
    await cluster.backup()
    // The transaction that was under way has committed since.
    const { found } = await rehearse(cluster)
    assert.match(found('rows').found, /drift since/)
    assert.equal(found('rows').verdict, 'verified')
  },
)

test('a baseline of another cluster, or of a timeline that was left, proves nothing', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(SCHEMA)
  const baseline = await take(cluster)
  await cluster.backup()
  const { repository } = cluster
  const later = (days: number) => new Date(Date.parse(baseline.at) + days * 86_400_000).toISOString()
  await putBaseline(repository, { ...baseline, at: later(1), systemIdentifier: '1', tables: [] })
  await putBaseline(repository, { ...baseline, at: later(2), timeline: 9, tables: [] })
  const { found } = await rehearse(cluster)
  assert.match(found('rows').found, /4 of 4 tables/)
  // Of later than the copy: what differs may be right.
  const beyond = await take(cluster)
  await cluster.query('drop table visits')
  const oldest = await rehearse(cluster, {}, { target: 'oldest' })
  assert.equal(oldest.found('rows').verdict, 'verified', oldest.found('rows').found)
  assert.ok(beyond.lsn > baseline.lsn)
})

test('a baseline that is told to end does so at once, and leaves nothing', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(SCHEMA)
  const other = new pg.Client({ connectionString: cluster.cluster.connectionString })
  other.on('error', () => undefined)
  await other.connect()
  // Two tables, and two sessions that wait for them.
  await other.query('begin; lock table patients, documents in access exclusive mode')
  const controller = new AbortController()
  const reason = new Error('told to end')
  setTimeout(() => controller.abort(reason), 500)
  const component = { ...cluster.component, checks: checksSchema.parse({}) }
  await assert.rejects(takeBaseline({ component, signal: controller.signal }), reason)
  // The lock is held still, and nobody waits for it.
  await waitUntil('the server reads for nobody any more', async () => {
    const text = `select count(*) from pg_stat_activity where application_name = 'resus baseline'`
    return (await cluster.query<{ count: string }>(text))[0]?.count === '0'
  })
  await other.query('commit')
  await other.end()
})

test('a baseline that is damaged in the repository says nothing against a copy', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(SCHEMA)
  await take(cluster)
  await cluster.backup()
  const folder = join(cluster.repositoryDirectory, 'evidence', 'baselines')
  const [name] = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((each) => each.isFile())
  assert.ok(name !== undefined)
  const file = join(name.parentPath, name.name)
  const bytes = await readFile(file)
  bytes[bytes.length - 20]! ^= 1
  await chmod(file, 0o600)
  await writeFile(file, bytes)
  const { found } = await rehearse(cluster)
  assert.deepEqual([found('rows').verdict, found('catalog').verdict], ['not proven', 'not proven'])
  assert.match(found('rows').found, /evidence\/baselines\/.* is damaged/)
})

test('by the command line: a baseline is taken and kept, and named where none is', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(SCHEMA)
  await cluster.backup()
  const none = await rehearse(cluster)
  assert.deepEqual([none.found('rows').verdict, none.predicate.verdict], ['not proven', 'not proven'])
  assert.match(none.found('rows').found, /"resus baseline his-db" takes one/)
  const { status, stdout, stderr } = await startResus(cluster, 'baseline').ended
  assert.equal(status, 0, stderr)
  const answer = JSON.parse(stdout) as Baseline & { name: string }
  assert.deepEqual([answer.tables.length, answer.name.split('/')[0]], [4, 'baselines'])
  const wrong = await startResus(cluster, 'baseline', 'nobody').ended
  assert.equal(wrong.status, 2)
})
