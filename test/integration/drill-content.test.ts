import assert from 'node:assert/strict'
import test from 'node:test'
import { CanaryRound } from '../../src/protect/postgres/canary-round.ts'
import { checksSchema } from '../../src/protect/postgres/content/checks-schema.ts'
import { putBaseline, type Baseline } from '../../src/protect/postgres/content/baseline.ts'
import { takeBaseline } from '../../src/protect/postgres/content/take-baseline.ts'
import { heartbeatSetup } from '../../src/protect/postgres/heartbeat-setup.ts'
import { HeartbeatSession, type Beat } from '../../src/protect/postgres/heartbeat-session.ts'
import { systemClock } from '../../src/clock.ts'
import { rehearse, type ChecksInput } from '../services/drilling.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'

// Copies that are bad, each in a way that amcheck and checksums do not see; and good ones that have changed much.

const skip = await skipUnlessInstalled(18)

const SCHEMA = `
  create table patients (id bigint generated always as identity primary key, facility text not null, name text not null);
  insert into patients (facility, name) select (array['ila', 'ede'])[1 + i % 2], 'patient number ' || i from generate_series(1, 2000) i;
  create role clinician login; create role reader; grant reader to clinician;
  grant select, update on patients to reader;
  grant update (name) on patients to clinician;
  alter table patients enable row level security; alter table patients force row level security;
  create policy own on patients to reader using (facility = current_setting('hospital.facility', true));
  create policy everything on patients to current_user using (true);
  create extension pg_trgm;
  alter database postgres set timezone = 'Africa/Lagos';
  alter role clinician set statement_timeout = '5s'`

async function take(cluster: ProtectedCluster, checks: ChecksInput = {}): Promise<Baseline> {
  const component = { ...cluster.component, checks: checksSchema.parse(checks) }
  const baseline = await takeBaseline({ component, signal: new AbortController().signal })
  await putBaseline(cluster.repository, baseline)
  return baseline
}

test('a role, right, policy, extension or setting that is missing fails the drill, by name', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(SCHEMA)
  await take(cluster)
  await cluster.backup()
  const good = await rehearse(cluster)
  assert.equal(good.found('catalog').verdict, 'verified', good.found('catalog').found)
  assert.match(good.found('catalog').found, /^all of \d+ facts of the baseline$/)

  await cluster.query(`
    drop policy own on patients; alter table patients no force row level security;
    revoke update on patients from reader; revoke reader from clinician;
    alter role clinician superuser; drop extension pg_trgm; alter database postgres reset timezone; alter role clinician set statement_timeout = '6s'`)
  await cluster.backup()
  const { predicate, found } = await rehearse(cluster)
  assert.equal(predicate.verdict, 'failed')
  assert.match(predicate.why, /^catalog: /)
  assert.match(
    found('catalog').found,
    /lost extension pg_trgm; changed role clinician; lost membership clinician in reader; .*, and \d more/,
  )
  // Nothing of what a setting or a policy says.
  assert.ok(!JSON.stringify(predicate.checks).includes('Lagos'))
})

test('what came anew since the baseline is no loss, and what was renamed is not lost', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(SCHEMA)
  await take(cluster)
  await cluster.query(`
    create role auditor; grant select on patients to auditor; create policy audit on patients to auditor using (true);
    alter table patients rename to persons; alter table persons add column born date; create table wards (id int)`)
  await cluster.backup()
  const { found, predicate } = await rehearse(cluster)
  assert.equal(found('catalog').verdict, 'verified', found('catalog').found)
  assert.match(found('catalog').found, /others are new or newer/)
  assert.equal(predicate.verdict, 'verified', predicate.why)
})

test('indexes built by another version of a library are not judged here', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(`${SCHEMA}; create index by_name on patients (name collate "und-x-icu")`)
  await cluster.backup()
  const good = await rehearse(cluster)
  assert.equal(good.found('collations').verdict, 'verified', good.found('collations').found)
  await cluster.query(`update pg_collation set collversion = '1.0' where collname = 'und-x-icu'`)
  await cluster.backup()
  const { found } = await rehearse(cluster)
  assert.equal(found('collations').verdict, 'not proven')
  assert.match(
    found('collations').found,
    /another library \(und-x-icu was 1\.0, and is .* here\): 1 indexes cannot be judged here: .*by_name/,
  )
})

/** One beat, and canaries of the moment of it, or of `hoursAgo`. */
async function beat(cluster: ProtectedCluster, hoursAgo = 0): Promise<Beat> {
  const { repository, cluster: server } = cluster
  const { signal } = new AbortController()
  await using session = await HeartbeatSession.connect({ component: 'his-db', connectionString: server.connectionString, signal })
  const round = new CanaryRound({ component: 'his-db', facilities: ['ila', 'ede'], ring: async () => repository.ring })
  const made = await session.beat(systemClock)
  const then = { ...made, at: new Date(made.at.getTime() - hoursAgo * 3_600_000) }
  // The first time the key is fetched.
  await session.renewCanaries(round, then)
  await systemClock.sleep(50)
  await session.renewCanaries(round, then)
  return made
}

test('canaries are renewed beside the heartbeat, and a copy that has them otherwise fails', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(heartbeatSetup('postgres'))
  await beat(cluster)
  await beat(cluster)
  const numbers = await cluster.query<{ facility: string; number: string }>(
    'select facility, number from resus.canary order by 1',
  )
  // Not twice within the hour.
  assert.deepEqual(numbers, [
    { facility: '', number: '1' },
    { facility: 'ede', number: '1' },
    { facility: 'ila', number: '1' },
  ])
  const found = async () => {
    await cluster.backup()
    const { found: of } = await rehearse(cluster)
    return of('canaries')
  }
  assert.deepEqual((await found()).verdict, 'verified')

  await cluster.query(
    `update resus.canary set value = (select value from resus.canary where facility = 'ede') where facility = 'ila'`,
  )
  const swapped = await found()
  assert.equal(swapped.verdict, 'failed')
  assert.match(swapped.found, /^that of "ila" is not what its number and time make it$/)

  await cluster.query(`delete from resus.canary where facility = 'ila'`)
  assert.match((await found()).found, /^that of "ila" is missing$/)

  await cluster.query('truncate resus.canary')
  assert.equal((await found()).verdict, 'not proven')

  await beat(cluster, 5)
  const stale = await found()
  assert.deepEqual([stale.verdict, /too old, beside a heartbeat/.test(stale.found)], ['failed', true])
  await cluster.query('update resus.heartbeat set sequence = 0')
  assert.equal((await found()).verdict, 'not proven')
})

test('a server without the table of canaries has its heartbeat all the same', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(heartbeatSetup('postgres'))
  await cluster.query('drop table resus.canary')
  assert.equal((await beat(cluster)).sequence, 1)
  await cluster.backup()
  const { found } = await rehearse(cluster)
  assert.equal(found('heartbeat').verdict, 'verified')
  assert.equal(found('canaries').verdict, 'not proven')
  assert.match(found('canaries').found, /resus config --heartbeat/)
  // Once more, as an installation that has the heartbeat does.
  await cluster.query(heartbeatSetup('postgres'))
  assert.equal((await beat(cluster)).sequence, 2)
  const rows = await cluster.query('select 1 from resus.canary')
  assert.equal(rows.length, 3)
})
