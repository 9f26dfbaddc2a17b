import assert from 'node:assert/strict'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { heartbeatSetup } from '../../src/protect/postgres/heartbeat-setup.ts'
import { readDetails } from '../../src/recovery/evidence/details.ts'
import { newestRecord } from '../../src/recovery/evidence/chain.ts'
import { publicKeys, repositoryRecords } from '../../src/recovery/evidence/collect.ts'
import { currentKey } from '../../src/recovery/evidence/keys.ts'
import { verifyEvidence } from '../../src/recovery/evidence/verify-evidence.ts'
import { listVerdicts } from '../../src/repository/verdicts.ts'
import { rehearse, type ChecksInput } from '../services/drilling.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { scratchRootOf, startResus } from '../services/proving.ts'
import { protectedCluster } from '../services/protected-cluster.ts'

const SCHEMA = `
  create table patients (id bigint generated always as identity primary key, facility text not null, name text not null, updated_at timestamptz not null default clock_timestamp());
  insert into patients (facility, name) select (array['ila', 'ede'])[1 + i % 2], 'patient ' || i from generate_series(1, 2000) i`
const PATIENTS: ChecksInput = { sql: [{ name: 'patients', query: 'select count(*) from patients', expect: { least: 2000 } }] }
const BEAT = 'update resus.heartbeat set sequence = sequence + 1, at = clock_timestamp()'

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(`PostgreSQL ${major}: a drill restores, judges, measures, takes away and signs`, { skip }, async (t) => {
    await using cluster = await protectedCluster(t, { major })
    await cluster.query(SCHEMA)
    await cluster.query(heartbeatSetup('postgres'))
    const { id: backup } = await cluster.backup()
    await cluster.query(`insert into patients (facility, name) select 'ila', 'late ' || i from generate_series(1, 100) i`)
    await cluster.query(BEAT)
    await cluster.backup()

    const { record, predicate, found } = await rehearse(cluster, {
      sql: [
        { name: 'patients', query: 'select count(*) from patients', expect: { equals: 2100 } },
        { name: 'newest', query: 'select max(updated_at) from patients', expect: { within: { minutes: 60 } } },
        { name: 'no orphans', query: 'select id from patients where facility is null', expect: { rows: 'none' } },
      ],
      commands: [
        { name: 'psql-less', run: ['/bin/sh', '-c', 'test -S "$PGHOST/.s.PGSQL.$PGPORT" && test -z "$RESUS_PASSPHRASE"'] },
      ],
    })
    t.diagnostic(JSON.stringify(predicate, null, 1))
    assert.deepEqual([predicate.verdict, record.sequence], ['verified', 1], predicate.why)
    for (const name of [
      'heartbeat',
      'sequences',
      'sql: patients',
      'sql: newest',
      'sql: no orphans',
      'command: psql-less',
      'first transaction',
    ])
      assert.equal(found(name).verdict, 'verified', name)

    const { timeline, measured, leftovers } = predicate
    const instants = [
      timeline.fault,
      timeline.dataReady,
      timeline.dataVerified,
      timeline.firstVerifiedTransaction,
      timeline.tornDown,
    ]
    assert.ok(instants.every((each) => each !== null))
    assert.deepEqual(
      instants.toSorted((left, right) => (left < right ? -1 : 1)),
      instants,
    )
    const parts = Object.values(measured.rtoParts).reduce((sum, each) => sum + each, 0)
    assert.ok(measured.rtoSeconds !== null && Math.abs(parts - measured.rtoSeconds) < 0.01)
    assert.ok(measured.rpoSeconds !== null && measured.rpoSeconds >= 0)
    assert.equal(measured.acknowledgedLost, null)
    assert.ok(leftovers.removed)
    assert.deepEqual(await readdir(scratchRootOf(cluster)), [])

    // It is evidence, and the backup is proven by it.
    const fingerprint = (await currentKey(cluster.repository))?.fingerprint
    const keys = [...(await publicKeys(cluster.repository)).values()]
    const chain = await verifyEvidence({ records: repositoryRecords(cluster.repository), keys, fingerprint, heads: [] })
    assert.equal(chain.verdict, 'verified')
    const verdicts = await listVerdicts(cluster.repository, 'his-db', predicate.recoveryPoint.backup)
    assert.equal(verdicts[0]?.verdict?.verdict, 'verified')

    // In turn: the last was the latest.
    const random = await rehearse(cluster, PATIENTS, { target: undefined })
    assert.equal(random.predicate.recoveryPoint.turn, 'random', JSON.stringify(random.predicate.recoveryPoint))
    assert.equal(random.predicate.verdict, 'verified', random.predicate.why)
    const oldest = await rehearse(cluster, PATIENTS, { target: undefined })
    assert.deepEqual([oldest.predicate.recoveryPoint.turn, oldest.predicate.recoveryPoint.backup], ['oldest', backup])
    assert.match(oldest.predicate.measured.why.rpoSeconds ?? '', /no moment/)
  })
}

const skip = await skipUnlessInstalled(18)

test('a copy that is sound, and of which nobody looked at the content, is not proven', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(SCHEMA)
  await cluster.backup()
  const { predicate, found } = await rehearse(cluster)
  assert.equal(found('sequences').verdict, 'verified')
  assert.equal(predicate.verdict, 'not proven')
  assert.match(predicate.why, /hospital's own content/)
  assert.ok(predicate.notTested.some((each) => each.startsWith('heartbeat')))
})

test('a drill fails for what is wrong in the content, and says nothing of a patient in its record', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(SCHEMA)
  await cluster.query(`alter table patients alter column id restart with 5`)
  await cluster.backup()
  const { record, predicate, found } = await rehearse(cluster, {
    sql: [
      { name: 'name', query: `select name from patients where id = 7`, expect: { equals: 'somebody else' } },
      { name: 'two', query: `select name from patients`, expect: { equals: 'x' } },
      { name: 'cast', query: `select name::int from patients`, expect: { equals: 1 } },
      { name: 'rows', query: `select name from patients where id < 9`, expect: { rows: 'none' } },
      { name: 'write', query: `select 1 from pg_catalog.lo_create(0)`, expect: { equals: 1 } },
    ],
    commands: [
      { name: 'fails', run: ['/bin/sh', '-c', 'echo "patient 7 is gone" >&2; exit 3'] },
      { name: 'absent', run: ['/no/such/program'] },
      {
        name: 'documents',
        run: [
          '/bin/echo',
          '{"checks":[{"name":"counts","verdict":"passed","found":"all"},{"name":"files","verdict":"not proven"}]}',
        ],
      },
      { name: 'stalls', run: ['/bin/sh', '-c', 'sleep 600 & sleep 600'], minutes: 0.01 },
    ],
  })
  assert.equal(predicate.verdict, 'failed')
  assert.match(found('sequences').found, /public\.patients_id_seq|patients_id_seq/)
  const verdicts = ['name', 'two', 'cast', 'rows', 'write'].map((each) => found(`sql: ${each}`).verdict)
  assert.deepEqual(verdicts, ['failed', 'failed', 'failed', 'failed', 'failed'])
  assert.match(found('sql: name').found, /^hmac-sha256:[0-9a-f]{32}$/)
  assert.deepEqual(
    ['fails', 'absent', 'documents', 'stalls'].map((each) => found(`command: ${each}`).verdict),
    ['failed', 'not proven', 'verified', 'not proven'],
  )
  assert.equal(found('command: documents: files').verdict, 'not proven')
  assert.deepEqual([predicate.timeline.dataVerified, predicate.measured.rtoSeconds], [null, null])
  const payload = Buffer.from(record.envelope.payload, 'base64').toString('utf8')
  assert.ok(!payload.includes('patient 7'), payload)
  assert.ok(predicate.details !== null)
  const details = await readDetails(cluster.repository, predicate.details)
  assert.ok(JSON.stringify(details).includes('patient 7'))
  // It takes the green away.
  const verdicts2 = await listVerdicts(cluster.repository, 'his-db', predicate.recoveryPoint.backup)
  assert.equal(verdicts2[0]?.verdict?.verdict, 'failed')
})

test('a drill that cannot be made leaves a record that proves nothing', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const { predicate } = await rehearse(cluster, PATIENTS)
  assert.deepEqual([predicate.verdict, predicate.recoveryPoint.backup], ['not proven', 'none'])
  assert.match(predicate.why, /BACKUP_ABSENT/)
  await cluster.query(SCHEMA)
  await cluster.backup()
  const late = await rehearse(cluster, PATIENTS, { limitMinutes: 0.001 })
  assert.equal(late.predicate.verdict, 'not proven')
  assert.match(late.predicate.why, /longer than 0.001 minutes/)
  const large = await rehearse(cluster, PATIENTS, { diskMegabytes: 1 })
  assert.equal(large.predicate.verdict, 'not proven')
  assert.match(large.predicate.why, /DISK_FULL: the restored copy has grown to \d+ MiB/)
  const small = await rehearse(cluster, PATIENTS, { memoryMegabytes: 100 })
  assert.equal(small.predicate.verdict, 'not proven')
  assert.match(small.predicate.why, /MEMORY_SHORT/)
  assert.deepEqual(await readdir(scratchRootOf(cluster)).catch(() => []), [])
})

test('by the command line: drill, list, show, verify, certify, bundle', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(SCHEMA)
  await cluster.backup()
  const document = JSON.parse(await readFile(cluster.configPath, 'utf8')) as { components: Record<string, object> }
  document.components['his-db'] = { ...document.components['his-db'], checks: PATIENTS }
  await writeFile(cluster.configPath, JSON.stringify(document))
  const resus = async (...args: string[]) => {
    const { status, stdout, stderr } = await startResus(cluster, ...args).ended
    assert.ok(stdout !== '', stderr)
    return { status, answer: JSON.parse(stdout) as Record<string, unknown> }
  }

  const drilled = await resus('drill')
  assert.deepEqual([drilled.status, drilled.answer.verdict, drilled.answer.sequence], [0, 'verified', 1])
  const { answer: key } = await resus('evidence', 'key')
  const fingerprint = String(key.fingerprint)
  assert.deepEqual(await resus('evidence', 'verify').then(({ status, answer }) => [status, answer.verdict]), [1, 'not proven'])
  assert.equal((await resus('evidence', 'verify', '--fingerprint', fingerprint)).status, 0)
  const certified = await resus('evidence', 'certify', '1', '--by', 'the director', '--decision', 'accepted', '--text', 'seen')
  assert.deepEqual([certified.status, certified.answer.kind], [0, 'certification'])
  const acted = await resus(
    'evidence',
    'act',
    '1',
    '--by',
    'the director',
    '--owner',
    'operations',
    '--due',
    '2026-12-31',
    '--text',
    'a heartbeat',
  )
  const done = await resus('evidence', 'act', '--action', String(acted.answer.action), '--by', 'operations', '--state', 'done')
  assert.deepEqual([done.answer.state, done.answer.owner], ['done', 'operations'])
  const wrong = await startResus(cluster, 'evidence', 'certify', '2', '--by', 'x', '--decision', 'accepted', '--text', 'y').ended
  assert.equal(wrong.status, 2)
  const bundle = join(cluster.stateDirectory, 'bundle')
  assert.equal((await resus('evidence', 'bundle', '--to', bundle)).answer.records, 4)
  assert.equal((await resus('evidence', 'verify', bundle, '--fingerprint', fingerprint)).status, 0)
  await writeFile(join(bundle, 'records/0000000001.html'), 'another page')
  assert.equal((await resus('evidence', 'verify', bundle, '--fingerprint', fingerprint)).status, 1)
  assert.equal((await newestRecord(cluster.repository))?.sequence, 4)
})
