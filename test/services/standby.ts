import { execFile } from 'node:child_process'
import { appendFile, chmod, chown, mkdir, readdir, stat, writeFile } from 'node:fs/promises'
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import pg from 'pg'
import { endCluster, freePort, killCluster, startCluster, stopCluster } from '../../src/postgres/cluster-process.ts'
import type { TestCluster } from './postgres.ts'
import { HANGS_AFTER_MS } from './wait-until.ts'

const run = promisify(execFile)

/** A member of a cluster beside the first: a standby until it is promoted. */
export interface TestStandby {
  readonly directory: string
  readonly port: number
  readonly host: string
  readonly connectionString: string
  promote(): Promise<void>
  stop(): Promise<void>
  kill(): Promise<void>
}

/**
 * A standby of a running cluster that streams from it, on a copy taken as a backup (`pg_backup_start`, copy, `pg_backup_stop`): PostgreSQL's
 * pg_basebackup is not there for every major. Killed when the test ends.
 */
export async function testStandby(
  t: TestContext,
  primary: TestCluster,
  settings: Record<string, string> = {},
): Promise<TestStandby> {
  const home = join(primary.home, `standby-${await freePort()}`)
  const directory = join(home, 'data')
  await mkdir(home, { mode: 0o755 })
  await copyRunning(primary, directory)
  await writeFile(join(directory, 'standby.signal'), '')
  await appendFile(
    join(directory, 'postgresql.auto.conf'),
    `primary_conninfo = 'host=127.0.0.1 port=${primary.port} user=postgres application_name=replica'\n`,
  )
  await chownLike(primary.directory, directory)
  await chmod(home, 0o755)
  t.after(() => endCluster(directory))
  const port = await freePort()
  await startCluster({
    installation: primary.installation,
    directory,
    port,
    socketDirectory: join(home, 's'),
    logFile: join(home, 'server.log'),
    timeoutSeconds: HANGS_AFTER_MS / 1000,
    settings: {
      listen_addresses: '127.0.0.1',
      fsync: 'off',
      dynamic_shared_memory_type: 'mmap',
      shared_buffers: '32MB',
      ...settings,
    },
  })
  const connectionString = `postgres://postgres@127.0.0.1:${port}/postgres`
  return {
    directory,
    port,
    host: `127.0.0.1:${port}`,
    connectionString,
    promote: () => withClient(connectionString, async (client) => void (await client.query('select pg_promote(true)'))),
    stop: () => stopCluster({ directory, mode: 'fast' }),
    kill: () => killCluster(directory),
  }
}

/** Until the standby has replayed what the primary has flushed now. */
export async function waitForReplay(primary: pg.Client, standby: TestStandby): Promise<void> {
  const { rows } = await primary.query<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn')
  await withClient(standby.connectionString, async (client) => {
    for (;;) {
      const answer = await client.query<{ there: boolean }>('select pg_last_wal_replay_lsn() >= $1::pg_lsn as there', [
        rows[0]!.lsn,
      ])
      if (answer.rows[0]?.there === true) return
      await delay(20)
    }
  })
}

async function copyRunning(primary: TestCluster, directory: string): Promise<void> {
  await withClient(primary.connectionString, async (client) => {
    await client.query(`select pg_backup_start('standby', true)`)
    const leave = ['postmaster.pid', 'postmaster.opts', 'pg_replslot', 'recovery.signal', 'standby.signal']
    // cp of a file that the server is just removing fails: rsync-like tools ignore it, and so does tar.
    await mkdir(directory, { mode: 0o700 })
    const excludes = leave.map((name) => `--exclude=./${name}`)
    const script = 'tar -C "$1" -cf - --ignore-failed-read "${@:3}" . | tar -C "$2" -xf -'
    await run('bash', ['-c', script, 'copy', primary.directory, directory, ...excludes])
    await mkdir(join(directory, 'pg_replslot'), { mode: 0o700 })
    const { rows } = await client.query<{ labelfile: string }>('select labelfile from pg_backup_stop(false)')
    await writeFile(join(directory, 'backup_label'), rows[0]!.labelfile)
    // The WAL of the backup: what was written after pg_wal was copied.
    await cp(join(primary.directory, 'pg_wal'), join(directory, 'pg_wal'), { recursive: true, force: true })
  })
}

/** A copy made by root belongs to root: the server needs it to be its own. */
async function chownLike(source: string, target: string): Promise<void> {
  const { uid, gid } = await stat(source)
  for (const entry of ['', ...(await readdir(target, { recursive: true }))]) await chown(join(target, entry), uid, gid)
}

async function withClient<T>(connectionString: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString })
  client.on('error', () => undefined)
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end().catch(() => undefined)
  }
}
