import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import test from 'node:test'
import { toolPath } from '../../src/postgres/installation.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { outcomes, prove, scratchRootOf } from '../services/proving.ts'
import { protectedCluster } from '../services/protected-cluster.ts'

const SCHEMA = `
  create table patients (id bigint primary key, facility int not null, name text not null, noise bytea);
  create index patients_by_name on patients (facility, name);
  insert into patients select i, i % 5, 'patient ' || i, decode(repeat(md5(i::text), 8), 'hex') from generate_series(1, 30000) i`

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(`PostgreSQL ${major}: a good backup is verified, to its end and to the end of the WAL`, { skip }, async (t) => {
    await using cluster = await protectedCluster(t, { major, settings: { autovacuum: 'off' } })
    await cluster.query(SCHEMA)
    const backup = await cluster.backup()
    const tool = (name: string) => (toolPath(cluster.cluster.installation, name) === undefined ? 'not proven' : 'verified')
    for (const target of [{ kind: 'backup', backup: backup.id }, { kind: 'latest' }] as const) {
      const verdict = await prove(cluster, { target })
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
      assert.equal(verdict.verdict, 'verified')
      assert.deepEqual(await readdir(scratchRootOf(cluster)), [])
    }
  })
}
