import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { open, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { endCluster, freePort, startCluster } from '../../src/postgres/cluster-process.ts'
import { skipUnlessInstalled, testCluster, type TestCluster } from '../services/postgres.ts'
import { waitUntil } from '../services/wait-until.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))

interface Outcome {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

/** The command line on a cluster of its own, with its configuration and repository. */
class CommandLine {
  readonly cluster: TestCluster
  readonly config: string

  private constructor(cluster: TestCluster) {
    this.cluster = cluster
    this.config = join(cluster.home, 'resus.yaml')
  }

  static async open(t: TestContext, major: number): Promise<CommandLine> {
    const cluster = await testCluster(t, { major, walSegmentMegabytes: 1 })
    const text = `system: osun-his
state: state
repository:
  storages: [{ name: main, kind: directory, path: repository }]
  key: { passphrase: "file:passphrase" }
components:
  his-db:
    kind: postgres
    tier: critical
    connection: "${cluster.connectionString}"
    dataDirectory: data
    stream: { synchronous: false, slot: resus, partialEverySeconds: 1 }
`
    const line = new CommandLine(cluster)
    await writeFile(line.config, text)
    await writeFile(join(cluster.home, 'passphrase'), 'a passphrase\n', { mode: 0o600 })
    return line
  }

  run(...args: string[]): Promise<Outcome> {
    return new Promise((resolve) => {
      execFile(process.execPath, [MAIN, ...args, '--json', '--config', this.config], (error, stdout, stderr) => {
        resolve({ status: typeof error?.code === 'number' ? error.code : 0, stdout, stderr })
      })
    })
  }

  /** Runs what has to succeed, and gives its JSON document. */
  async answer<T>(...args: string[]): Promise<T> {
    const outcome = await this.run(...args)
    assert.equal(outcome.status, 0, `${args.join(' ')}: ${outcome.stderr}${outcome.stdout}`)
    return JSON.parse(outcome.stdout) as T
  }

  /** Runs what has to fail, and gives its exit status and code. */
  async failure(...args: string[]): Promise<readonly [number, string]> {
    const outcome = await this.run(...args)
    return [outcome.status, (JSON.parse(outcome.stdout) as { error: { code: string } }).error.code]
  }

  /** `resus stream`, until the test ends or it is stopped. Resolves when the server streams to it. */
  async stream(t: TestContext): Promise<() => Promise<number>> {
    const child = spawn(process.execPath, [MAIN, 'stream', '--config', this.config], { stdio: 'ignore' })
    const ended = new Promise<number>((resolve) => child.once('close', (status) => resolve(status ?? -1)))
    t.after(async () => {
      child.kill('SIGKILL')
      await ended
    })
    await waitUntil('the receiver connects', async () => {
      assert.equal(child.exitCode, null, 'the receiver has ended')
      return await this.ask<boolean>("select count(*) = 1 from pg_stat_replication where state = 'streaming'")
    })
    return async () => {
      child.kill('SIGTERM')
      return await ended
    }
  }

  async ask<T>(sql: string, port = this.cluster.port): Promise<T> {
    const client = new pg.Client({ connectionString: `postgres://postgres@127.0.0.1:${port}/postgres` })
    await client.connect()
    try {
      const { rows } = await client.query<Record<string, T>>(sql)
      return Object.values(rows[0] ?? {})[0] as T
    } finally {
      await client.end()
    }
  }

  /** Starts what was restored and gives the notes that are in it, when its recovery has ended. */
  async notesIn(t: TestContext, directory: string): Promise<string> {
    const port = await freePort()
    t.after(() => endCluster(directory))
    const { installation, home } = this.cluster
    const places = { socketDirectory: join(home, `socket-${port}`), logFile: join(home, `${port}.log`) }
    const settings = { listen_addresses: '127.0.0.1', dynamic_shared_memory_type: 'mmap', fsync: 'off', shared_buffers: '32MB' }
    await startCluster({ installation, directory, port, ...places, settings })
    await waitUntil('recovery ends', async () => !(await this.ask<boolean>('select pg_is_in_recovery()', port)))
    const notes = await this.ask<string>("select string_agg(note, ' ' order by at) from notes", port)
    await this.ask("insert into notes values ('written after the recovery')", port)
    await endCluster(directory)
    return notes
  }
}

for (const major of [15, 18]) {
  const skip = await skipUnlessInstalled(major)

  test(`PostgreSQL ${major}: the command line protects a cluster and brings it back to any target`, { skip }, async (t) => {
    const line = await CommandLine.open(t, major)
    const home = line.cluster.home
    const note = (text: string) => line.ask(`insert into notes values ('${text}')`)
    await line.ask('create table notes (note text, at timestamptz default clock_timestamp())')
    await line.answer('init')
    const check = await line.answer<{ verdict: string }>('check')
    assert.equal(check.verdict, 'passed')
    const stop = await line.stream(t)
    await note('one')
    const full = await line.answer<{ id: string; type: string; corruptPages: unknown[] }>('backup', 'his-db')
    assert.deepEqual([full.type, full.corruptPages], ['full', []])
    await note('two')
    await delay(50)
    const time = new Date().toISOString()
    const lsn = await line.ask<string>('select pg_current_wal_insert_lsn()::text')
    await delay(50)
    await note('three')
    const incremental = await line.answer<{ id: string; type: string }>('backup')
    assert.equal(incremental.type, 'incremental')
    const listed = await line.answer<{ id: string }[]>('backups')
    assert.deepEqual(
      listed.map(({ id }) => id),
      [incremental.id, full.id],
    )
    await note('four')

    await line.cluster.kill()
    assert.equal(await stop(), 0)
    const restore = async (name: string, ...target: string[]) => {
      const report = await line.answer<{ directory: string }>('restore', '--to', join(home, name), ...target)
      return await line.notesIn(t, report.directory)
    }
    assert.equal(await restore('latest'), 'one two three four')
    assert.equal(await restore('time', '--target-time', time), 'one two')
    assert.equal(await restore('lsn', '--target-lsn', lsn), 'one two')
    assert.equal(await restore('full', '--backup', full.id), 'one')

    assert.deepEqual(await line.failure('restore', '--to', join(home, 'latest')), [2, 'DIRECTORY_NOT_EMPTY'])
    const outside = ['--to', join(home, 'never'), '--target-time', '2020-01-01T00:00:00Z']
    assert.deepEqual(await line.failure('restore', ...outside), [2, 'TARGET_OUTSIDE_WINDOW'])
    const later = ['--to', join(home, 'never'), '--target-time', '2099-01-01T00:00:00Z']
    assert.deepEqual(await line.failure('restore', ...later), [2, 'TARGET_OUTSIDE_WINDOW'])
    const unknown = ['--to', join(home, 'never'), '--backup', '20200101T000000Z-abcdef']
    assert.deepEqual(await line.failure('restore', ...unknown), [2, 'BACKUP_UNKNOWN'])
  })
}

const skip = await skipUnlessInstalled(15)

test('verify says which object is damaged, with exit status 1, and a backup that is whole is verified', { skip }, async (t) => {
  const line = await CommandLine.open(t, 15)
  await line.ask('create table notes as select md5(i::text) as note from generate_series(1, 20000) i')
  await line.answer('init')
  await line.answer('backup')
  const good = await line.answer<{ verdict: string; blobsChecked: number }>('verify')
  assert.equal(good.verdict, 'verified')
  assert(good.blobsChecked > 0)
  const packs = join(line.cluster.home, 'repository', 'packs')
  const [folder = ''] = await readdir(packs)
  const [pack = ''] = await readdir(join(packs, folder))
  const file = await open(join(packs, folder, pack), 'r+')
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, 4000)
  await file.write(Buffer.from([buffer[0]! ^ 1]), 0, 1, 4000)
  await file.close()
  for (const args of [['verify'], ['verify', '--all']]) {
    const outcome = await line.run(...args)
    assert.equal(outcome.status, 1)
    const report = JSON.parse(outcome.stdout) as { verdict: string; problems: { object: string }[] }
    assert.equal(report.verdict, 'failed')
    assert(
      report.problems.some(({ object }) => object.includes(pack)),
      outcome.stdout,
    )
  }
})

test(
  'a receiver is seen in the status, ends with exit status 0 when told to, and a server that is away is a failure with a code',
  { skip },
  async (t) => {
    const line = await CommandLine.open(t, 15)
    await line.answer('init')
    const stop = await line.stream(t)
    const status = await line.answer<{ components: { receiver: { active: boolean } }[] }>('status')
    assert.equal(status.components[0]?.receiver.active, true)
    assert.equal(await stop(), 0)
    await line.cluster.stop()
    assert.deepEqual(await line.failure('backup'), [1, 'POSTGRES_UNREACHABLE'])
    const check = await line.run('check')
    assert.equal(check.status, 1)
  },
)
