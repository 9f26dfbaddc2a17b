import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { systemClock } from '../../src/clock.ts'
import { listBackups } from '../../src/repository/backups.ts'
import { expireRepository, type ExpireReport } from '../../src/repository/expire.ts'
import type { Keep } from '../../src/repository/retention.ts'
import { verifyRepository } from '../../src/repository/verify.ts'
import { protectedCluster, type ProtectedCluster } from './protected-cluster.ts'
import { startStream, type RunningStream, type StreamHome } from './stream.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
const DAY_MS = 24 * 3600 * 1000
const signal = new AbortController().signal

/** A cluster whose days pass as the test says. */
export class Days {
  readonly cluster: ProtectedCluster
  offsetMs = 0
  readonly clock = {
    now: () => Date.now() + this.offsetMs,
    sleep: (ms: number, until?: AbortSignal) => systemClock.sleep(ms, until),
  }

  constructor(cluster: ProtectedCluster) {
    this.cluster = cluster
  }

  stream(t: TestContext): RunningStream {
    const { repository, repositoryDirectory, cluster, stateDirectory, component } = this.cluster
    const home: StreamHome = {
      repository,
      repositoryDirectory,
      spoolDirectory: `${stateDirectory}/spool/his-db/stream`,
      faults: () => undefined,
    }
    return startStream(t, home, { connectionString: cluster.connectionString, component, clock: this.clock })
  }

  /** A day with changes, a backup, and changes after it. Gives the backup and the rows that it has. */
  async pass(day: number): Promise<{ id: string; rows: number }> {
    const { cluster } = this
    await cluster.query(
      `insert into patients select i, 'day ${day}' from generate_series(${day * 1000 + 1}, ${day * 1000 + 500}) i`,
    )
    const { id } = await cluster.backup({ clock: this.clock })
    const rows = await this.count()
    await cluster.query(`insert into patients values (${day * 1000 + 999}, 'after the backup of day ${day}')`)
    await cluster.query('select pg_switch_wal()')
    this.offsetMs += DAY_MS
    return { id, rows }
  }

  async count(): Promise<number> {
    const [row] = await this.cluster.query<{ count: number }>('select count(*)::int as count from patients')
    return row!.count
  }

  expire(keep: Keep): Promise<ExpireReport> {
    const { repository, stateDirectory } = this.cluster
    return expireRepository({ repository, stateDirectory, keep: new Map([['his-db', keep]]), clock: this.clock, signal })
  }

  /** Everything that is left can be read, by a host that knows nothing yet. */
  async verify(stateDirectory: string): Promise<string[]> {
    const { repository } = this.cluster
    const report = await verifyRepository({ repository, stateDirectory, scope: { kind: 'all' }, signal })
    assert.deepEqual(report.problems, [])
    return (await listBackups(repository, 'his-db')).map(({ id }) => id).toReversed()
  }

  async restoredRows(backup?: string): Promise<number> {
    const report = await this.cluster.restore(backup === undefined ? { kind: 'latest' } : { kind: 'backup', backup })
    await using restored = await this.cluster.startRestored(report)
    const [row] = await restored.query<{ count: number }>('select count(*)::int as count from patients')
    return row!.count
  }

  /** The command line, in a process of its own whose clock is that of the test. */
  run(...args: string[]): Promise<{ status: number; json: unknown; stderr: string }> {
    const shift = `const now = Date.now; Date.now = () => now() + ${this.offsetMs}`
    const clock = `data:text/javascript,${encodeURIComponent(shift)}`
    return new Promise((resolve) => {
      const all = ['--import', clock, MAIN, ...args, '--json', '--config', this.cluster.configPath]
      execFile(process.execPath, all, (error, stdout, stderr) => {
        resolve({ status: typeof error?.code === 'number' ? error.code : 0, json: JSON.parse(stdout) as unknown, stderr })
      })
    })
  }
}

/** A cluster with a table of patients, and its days. */
export async function beginDays(t: TestContext, major: number): Promise<Days> {
  const cluster = await protectedCluster(t, { major, walSegmentMegabytes: 1, settings: { autovacuum: 'off' } })
  await cluster.query('create table patients (id bigint primary key, name text not null)')
  return new Days(cluster)
}
