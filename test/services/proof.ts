import { execFile } from 'node:child_process'
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { promisify } from 'node:util'
import { toolPath } from '../../src/postgres/installation.ts'
import type { RestoreReport } from '../../src/protect/postgres/restore.ts'
import type { RestoredCluster } from './protected-cluster.ts'

const run = promisify(execFile)

/**
 * The chain that proves a restored cluster, as far as this machine has the tools: amcheck of every table and index, a clean stop,
 * then page checksums. A tool that is not there makes its check "not proven", which is said.
 */
export async function proveRestored(t: TestContext, proof: { restored: RestoredCluster; report: RestoreReport }): Promise<void> {
  const { restored } = proof
  await restored.query('create extension if not exists amcheck')
  const corrupt = await restored.query(
    `select c.relname, v.msg from pg_class c, lateral verify_heapam(c.oid) v where c.relkind in ('r', 't', 'm') and c.relpersistence = 'p'`,
  )
  assert.deepEqual(corrupt, [])
  await restored.query(
    `select bt_index_parent_check(c.oid, true, true) from pg_class c join pg_am a on a.oid = c.relam
       join pg_index i on i.indexrelid = c.oid where a.amname = 'btree' and c.relpersistence = 'p' and i.indisvalid`,
  )
  const [setting] = await restored.query<{ sums: string }>("select current_setting('data_checksums') as sums")
  await restored.stop()
  const checksums = toolPath(restored.installation, 'pg_checksums')
  if (setting?.sums !== 'on') t.diagnostic('pg_checksums: not proven, the cluster has no data checksums')
  else if (checksums === undefined)
    t.diagnostic(`pg_checksums: not proven, PostgreSQL ${restored.installation.major} here has no such tool`)
  else await run(checksums, ['--check', '-D', restored.directory])
}

/** Lets PostgreSQL's own tool judge a restored directory that was not started yet. */
export async function proveManifest(
  t: TestContext,
  proof: { directory: string; installation: RestoredCluster['installation'] },
): Promise<void> {
  const tool = toolPath(proof.installation, 'pg_verifybackup')
  if (tool === undefined)
    t.diagnostic(`pg_verifybackup: not proven, PostgreSQL ${proof.installation.major} here has no such tool`)
  else await run(tool, ['-n', proof.directory])
}
