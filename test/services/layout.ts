import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { verifyRepository } from '../../src/repository/verify.ts'
import { skipUnlessInstalled, type TestClusterOptions } from './postgres.ts'
import { proveManifest, proveRestored } from './proof.ts'
import { protectedCluster, type ProtectedCluster, type RestoredCluster } from './protected-cluster.ts'

// Tests of clusters that are laid out unusually: each ends in a restore that is started and compared.

const SCHEMA = `
  create table patients (id bigint primary key, name text not null);
  insert into patients select i, 'patient ' || i || repeat('x', i % 200) from generate_series(1, 20000) i;`
export const FINGERPRINT = `select count(*)::int as count, md5(string_agg(md5(p::text), '' order by id)) as md5 from patients p`

type Compare = (restored: RestoredCluster) => Promise<void>

/** Restores the newest state, lets PostgreSQL's tools judge it, starts it, compares, and proves it. */
export async function restoreAndCompare(t: TestContext, cluster: ProtectedCluster, expected: unknown, compare?: Compare) {
  const report = await cluster.restore()
  await proveManifest(t, { directory: report.directory, installation: cluster.cluster.installation })
  await using restored = await cluster.startRestored(report)
  assert.deepEqual(await restored.query(FINGERPRINT), expected)
  await compare?.(restored)
  await proveRestored(t, { restored, report })
}

async function assertVerified({ repository, stateDirectory }: ProtectedCluster): Promise<void> {
  const report = await verifyRepository({
    repository,
    stateDirectory,
    scope: { kind: 'all' },
    signal: new AbortController().signal,
  })
  assert.deepEqual(report.problems, [])
}

/** Every layout is tested on the oldest and the newest major. */
export function testLayout(name: string, options: Omit<TestClusterOptions, 'major'>, body: LayoutTest): void {
  for (const major of [15, 18]) {
    test(`PostgreSQL ${major}: ${name}`, async (t) => {
      const missing = await skipUnlessInstalled(major)
      if (missing !== false) return t.skip(missing)
      const settings = { autovacuum: 'off', ...options.settings }
      await using cluster = await protectedCluster(t, { ...options, major, settings })
      await cluster.query(SCHEMA)
      await body(t, cluster)
      await assertVerified(cluster)
    })
  }
}
type LayoutTest = (t: TestContext, cluster: ProtectedCluster) => Promise<void>

/** A full, changes, and an incremental. */
export async function backupTwice(cluster: ProtectedCluster): Promise<void> {
  await cluster.backup()
  await cluster.query(`update patients set name = name || ' changed' where id % 500 = 0`)
  assert.equal((await cluster.backup()).type, 'incremental')
  await cluster.query(`insert into patients values (-1, 'after the last backup')`)
}
