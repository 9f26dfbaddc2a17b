import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import pg from 'pg'
import { Amcheck, type CheckedServer } from '../../src/protect/postgres/amcheck.ts'
import type { Finding } from '../../src/protect/postgres/check-list.ts'
import { checkFiles } from '../../src/protect/postgres/file-check.ts'
import { checkPages } from '../../src/protect/postgres/page-check.ts'
import { runPostgresTool } from '../../src/protect/postgres/postgres-tool.ts'
import type { RestoreReport } from '../../src/protect/postgres/restore.ts'
import type { RestoredCluster } from './protected-cluster.ts'

/**
 * The chain that proves a restored cluster, by the code of `resus verify --by-restore`: amcheck of every table and index, a clean stop,
 * then page checksums. A tool that is not there makes its check "not proven", which is said.
 */
export async function proveRestored(t: TestContext, proof: { restored: RestoredCluster; report: RestoreReport }): Promise<void> {
  const { restored } = proof
  const { directory, installation } = restored
  const { signal } = new AbortController()
  const amcheck = new Amcheck(checkedServer(restored))
  assertSound(t, 'tables', await amcheck.checkTables())
  assertSound(t, 'indexes', await amcheck.checkIndexes())
  const [setting] = await restored.query<{ sums: string }>("select current_setting('data_checksums') as sums")
  await restored.stop()
  if (setting?.sums !== 'on') return t.diagnostic('page checksums: not proven, the cluster has none')
  assertSound(t, 'pages', await checkPages({ directory, signal }))
  const args = ['--check', '-D', directory]
  assertSound(t, 'pg_checksums', await runPostgresTool({ installation, tool: 'pg_checksums', args, signal }))
}

/** Judges a restored directory that was not started yet, by our own code and by PostgreSQL's tool. */
export async function proveManifest(
  t: TestContext,
  proof: { directory: string; installation: RestoredCluster['installation'] },
): Promise<void> {
  const { directory, installation } = proof
  const { signal } = new AbortController()
  assertSound(t, 'files', await checkFiles({ directory, signal }))
  const args = ['-n', '-q', directory]
  assertSound(t, 'pg_verifybackup', await runPostgresTool({ installation, tool: 'pg_verifybackup', args, signal }))
}

function assertSound(t: TestContext, name: string, { verdict, found }: Finding): void {
  if (verdict === 'not proven') t.diagnostic(`${name}: not proven, ${found}`)
  else assert.equal(verdict, 'verified', `${name}: ${found}`)
}

function checkedServer({ port, installation }: RestoredCluster): CheckedServer {
  const session = async <T>(database: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
    const client = new pg.Client({ host: '127.0.0.1', port, user: 'postgres', database, options: '-c search_path=pg_catalog' })
    await client.connect()
    try {
      return await work(client)
    } finally {
      await client.end()
    }
  }
  return { major: installation.major, session, anySession: (work) => session('postgres', work) }
}
