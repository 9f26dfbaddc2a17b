import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import test from 'node:test'
import { toolPath } from '../../src/postgres/installation.ts'
import { streamSpool } from '../../src/protect/postgres/component.ts'
import { readPostgresStatus } from '../../src/protect/postgres/status.ts'
import { putVerdict } from '../../src/repository/verdicts.ts'
import { swapIndexPages } from '../faults/swap-index-pages.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { checkNamed, outcomes, prove, scratchRootOf, startResus, TestClock } from '../services/proving.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'

const DAY_MS = 24 * 3600 * 1000
const SCHEMA = `
  create table patients (id bigint primary key, facility int not null, name text not null, noise bytea);
  create index patients_by_name on patients (facility, name);
  insert into patients select i, i % 5, 'patient ' || i, decode(repeat(md5(i::text), 8), 'hex') from generate_series(1, 30000) i`

async function statusOf(cluster: ProtectedCluster, clock: TestClock) {
  const spoolDirectory = streamSpool(cluster.stateDirectory, cluster.component.name)
  const { signal } = new AbortController()
  return await readPostgresStatus(cluster.repository, cluster.component, { spoolDirectory, clock, signal })
}

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(
    `PostgreSQL ${major}: a good backup is verified to its end and to the end of the WAL, and its green expires`,
    { skip },
    async (t) => {
      await using cluster = await protectedCluster(t, { major, settings: { autovacuum: 'off' } })
      await cluster.query(SCHEMA)
      // What the restored copy must not do: load or run what is the cluster's own, or follow production.
      await cluster.query(`alter database template1 set session_preload_libraries = 'no_such_library'`)
      await cluster.query(
        `create function meddle() returns event_trigger language plpgsql as $$ begin raise exception 'meddled'; end $$`,
      )
      await cluster.query('create event trigger meddler on ddl_command_start execute function meddle()')
      await cluster.query('alter event trigger meddler enable always')
      for (const [name, value] of [
        ['shared_preload_libraries', 'no_such_library'],
        ['recovery_end_command', 'exit 200'],
        ['primary_conninfo', 'host=nowhere.invalid'],
      ])
        await cluster.query(`alter system set ${name} = '${value}'`)
      const backup = await cluster.backup()
      const clock = new TestClock()
      assert.deepEqual([(await statusOf(cluster, clock)).verdict, (await statusOf(cluster, clock)).proven], ['not proven', null])

      const tool = (name: string) => (toolPath(cluster.cluster.installation, name) === undefined ? 'not proven' : 'verified')
      for (const target of [{ kind: 'backup', backup: backup.id }, { kind: 'latest' }] as const) {
        const verdict = await prove(cluster, { target, clock })
        t.diagnostic(JSON.stringify(verdict.checks, null, 1))
        assert.deepEqual(outcomes(verdict), [
          'restore: verified',
          'files: verified',
          `pg_verifybackup: ${tool('pg_verifybackup')}`,
          'recovery: verified',
          'tables (amcheck): verified',
          'indexes (amcheck): verified',
          'clean stop: verified',
          'page checksums: verified',
          `pg_checksums: ${tool('pg_checksums')}`,
        ])
        assert.deepEqual([verdict.verdict, verdict.backup, verdict.reached?.timeline], ['verified', backup.id, 1])
        assert.deepEqual(await readdir(scratchRootOf(cluster)), [])
        await putVerdict(cluster.repository, verdict)
      }
      const green = await statusOf(cluster, clock)
      assert.deepEqual([green.verdict, green.proven?.backup, green.proven?.current], ['verified', backup.id, true])
      clock.offsetMs = 6.9 * DAY_MS
      assert.equal((await statusOf(cluster, clock)).verdict, 'verified')
      clock.offsetMs = 7.1 * DAY_MS
      const expired = await statusOf(cluster, clock)
      assert.deepEqual([expired.verdict, expired.proven?.backup, expired.proven?.current], ['not proven', backup.id, false])
      assert.match(expired.verdictRemarks.join(), /the proof expired/)
    },
  )

  test(
    `PostgreSQL ${major}: an index with two pages in each other's place, with valid checksums, fails, and the command says so`,
    { skip },
    async (t) => {
      await using cluster = await protectedCluster(t, { major, settings: { autovacuum: 'off' } })
      await cluster.query(SCHEMA)
      await swapIndexPages(cluster, 'patients_by_name')
      const backup = await cluster.backup()
      assert.deepEqual(backup.corruptPages, [], 'by its checksums nothing is wrong')
      const { status, stdout, stderr } = await startResus(cluster, 'verify', '--by-restore').ended
      assert.equal(status, 1, stderr)
      const verdict = JSON.parse(stdout) as Parameters<typeof outcomes>[0]
      const indexes = checkNamed(verdict, 'indexes (amcheck)')
      assert.deepEqual([verdict.verdict, indexes.verdict], ['failed', 'failed'])
      assert.match(indexes.found, /^1 of \d+ B-trees corrupt: .*patients_by_name in "postgres"/)
      for (const name of ['restore', 'recovery', 'tables (amcheck)', 'clean stop', 'page checksums']) {
        assert.equal(checkNamed(verdict, name).verdict, 'verified', name)
      }
      const after = await statusOf(cluster, new TestClock())
      assert.deepEqual([after.verdict, after.proven], ['failed', null])
      const listed = JSON.parse(await startResus(cluster, 'backups').ended.then((ended) => ended.stdout)) as { verdict: object }[]
      assert.partialDeepStrictEqual(listed[0]?.verdict, { verdict: 'failed', by: 'restore' })
      assert.deepEqual(await readdir(scratchRootOf(cluster)), [])
    },
  )
}

const skip15 = await skipUnlessInstalled(15)

test('an index that needs a library which this machine does not have is not proven, and said', { skip: skip15 }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 15, settings: { autovacuum: 'off' } })
  await cluster.query('create extension citext')
  await cluster.query('create table names as select i::text::citext as name from generate_series(1, 1000) i')
  await cluster.query('create index names_by_name on names (name)')
  await cluster.query(`update pg_proc set probin = '$libdir/no_such_library' where proname = 'citext_cmp'`)
  const backup = await cluster.backup()
  const verdict = await prove(cluster, { target: { kind: 'backup', backup: backup.id } })
  const indexes = checkNamed(verdict, 'indexes (amcheck)')
  assert.deepEqual([verdict.verdict, indexes.verdict], ['verified', 'not proven'])
  assert.match(indexes.found, /not looked at: 1 for which "could not access file "\$libdir\/no_such_library"/)
})
