import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { systemClock } from '../../src/clock.ts'
import { endCluster, freePort, startCluster } from '../../src/postgres/cluster-process.ts'
import type { Installation } from '../../src/postgres/installation.ts'
import { initRepository, type Repository } from '../../src/repository/repository.ts'
import { verifyRepository } from '../../src/repository/verify.ts'
import { Secret } from '../../src/secret.ts'
import { DirectoryStorage } from '../../src/storage/directory-storage.ts'
import type { TestCluster } from '../services/postgres.ts'
import { HANGS_AFTER_MS, waitUntil } from '../services/wait-until.ts'

const PASSPHRASE = 'correct horse battery staple'
const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
/** The dead run's session may still be at work in the server, in a checkpoint for instance. */
const RETRY_MS = 200
const WRITE_PAUSE_MS = 2

/** A repository with a configuration for the CLI. */
export interface ResusHome {
  readonly directory: string
  readonly configPath: string
  readonly repository: Repository
}

/** A new repository for a cluster, in a new directory below the cluster's home, which goes with it. */
export async function resusHome(cluster: TestCluster, stream: Record<string, unknown> = {}): Promise<ResusHome> {
  const directory = await mkdtemp(join(cluster.home, 'resus-'))
  const storage = new DirectoryStorage(join(directory, 'repository'))
  await storage.prepare()
  const access = { storage, passphrase: new Secret(PASSPHRASE), system: 'test-his' }
  const { repository } = await initRepository(access, { clock: systemClock, kdfCost: 1024 })
  await writeFile(join(directory, 'passphrase'), PASSPHRASE, { mode: 0o600 })
  const configuration = {
    system: 'test-his',
    state: join(directory, 'state'),
    repository: {
      storages: [{ name: 'main', kind: 'directory', path: join(directory, 'repository') }],
      key: { passphrase: `file:${join(directory, 'passphrase')}` },
    },
    components: {
      'his-db': {
        kind: 'postgres',
        tier: 'critical',
        connection: cluster.connectionString,
        dataDirectory: cluster.directory,
        binaries: cluster.installation.binDirectory,
        stream,
      },
    },
  }
  const configPath = join(directory, 'resus.yaml')
  await writeFile(configPath, JSON.stringify(configuration, null, 2))
  return { directory, configPath, repository }
}

export interface ResusExit {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** A command of the CLI in a process of its own. */
export class ResusProcess {
  readonly exited: Promise<ResusExit>
  readonly #child: ReturnType<typeof spawn>
  #stdout = ''
  #stderr = ''

  constructor(t: TestContext, home: ResusHome, args: readonly string[]) {
    this.#child = spawn(process.execPath, [MAIN, ...args, '--config', home.configPath, '--json'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child.stdout!.on('data', (data: Buffer) => (this.#stdout += data.toString()))
    this.#child.stderr!.on('data', (data: Buffer) => (this.#stderr += data.toString()))
    this.exited = new Promise((resolve, reject) => {
      this.#child.once('error', reject)
      this.#child.once('close', (status) => resolve({ status, stdout: this.#stdout, stderr: this.#stderr }))
    })
    t.after(() => this.kill())
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name)
  }

  /** SIGKILL; resolves when it is gone. */
  async kill(): Promise<ResusExit> {
    this.#child.kill('SIGKILL')
    return await this.exited
  }

  /** Resolves when it has printed this on standard error. */
  async printed(text: string): Promise<void> {
    let ended = false
    void this.exited.then(() => (ended = true))
    while (!this.#stderr.includes(text)) {
      assert.ok(!ended, `it ended before it printed "${text}": ${this.#stderr}`)
      await delay(10)
    }
  }
}

/** Runs a command to its end, which has to be a good one; gives its JSON. */
export async function runResus<Report>(t: TestContext, home: ResusHome, args: readonly string[]): Promise<Report> {
  const { status, stdout, stderr } = await new ResusProcess(t, home, args).exited
  assert.equal(status, 0, `resus ${args.join(' ')}: ${stdout}${stderr}`)
  return JSON.parse(stdout) as Report
}

/** A backup as soon as the server has noticed that the one before it is dead. */
export async function backUpAgain<Report>(t: TestContext, home: ResusHome): Promise<Report> {
  for (const begun = performance.now(); ;) {
    const { status, stdout, stderr } = await new ResusProcess(t, home, ['backup', 'his-db']).exited
    if (status === 0) return JSON.parse(stdout) as Report
    assert.match(stdout, /BACKUP_RUNNING/, stderr)
    assert.ok(performance.now() - begun < HANGS_AFTER_MS, stderr)
    await delay(RETRY_MS)
  }
}

/** Names and sizes of what is visible below a prefix. */
export async function visibleObjects(home: ResusHome, prefix: string): Promise<{ key: string; sizeBytes: number }[]> {
  const objects: { key: string; sizeBytes: number }[] = []
  for await (const object of home.repository.storage.list(prefix)) objects.push(object)
  return objects
}

/** Reads everything back, with local state of its own. */
export async function assertVerifies({ directory, repository }: ResusHome): Promise<void> {
  const stateDirectory = await mkdtemp(join(directory, 'verify-'))
  const { signal } = new AbortController()
  const { problems } = await verifyRepository({ repository, stateDirectory, scope: { kind: 'all' }, signal })
  assert.deepEqual(problems, [])
  await rm(stateDirectory, { recursive: true })
}

/** A table of so many megabytes that nothing can compress, and whose pages nobody changes any more: no hint bits, no autovacuum. */
export async function fillWithNoise(client: pg.Client, megabytes: number): Promise<void> {
  await client.query(
    'create table noise (id int primary key, data bytea) with (autovacuum_enabled = off, toast.autovacuum_enabled = off)',
  )
  await client.query('alter table noise alter column data set storage external')
  for (let id = 0; id < megabytes; id++) {
    await client.query('insert into noise values ($1, $2)', [id, randomBytes(1024 * 1024)])
  }
  await client.query('vacuum (freeze) noise')
}

/** What a restore of `noise` has to give. */
export const NOISE_FINGERPRINT = `select count(*)::int as count, md5(string_agg(md5(data), '' order by id)) as md5 from noise`

/** Clients that commit row after row. What each was told is committed is what must never be lost. */
export class Writers {
  readonly #acknowledged: number[]
  readonly #working: Promise<unknown>
  #ended = false

  private constructor(clients: readonly pg.Client[]) {
    this.#acknowledged = clients.map(() => 0)
    this.#working = Promise.all(clients.map((client, writer) => this.#write(client, writer)))
  }

  /** Resolves when each has written. */
  static async start(t: TestContext, cluster: TestCluster, count: number): Promise<Writers> {
    const clients: pg.Client[] = []
    for (let writer = 0; writer < count; writer++) {
      const client = new pg.Client({ connectionString: cluster.connectionString })
      client.on('error', () => undefined)
      await client.connect()
      clients.push(client)
    }
    const [first] = clients
    await first!.query('create table if not exists visits (writer int, n int, filler text, primary key (writer, n))')
    await first!.query('truncate visits')
    const writers = new Writers(clients)
    t.after(async () => {
      await writers.end()
      await Promise.allSettled(clients.map((client) => client.end()))
    })
    await waitUntil('each writer has written', () => writers.acknowledged().every((each) => each > 0))
    return writers
  }

  /** How many rows each writer was told are committed: 1 to this number. */
  acknowledged(): readonly number[] {
    return [...this.#acknowledged]
  }

  async end(): Promise<readonly number[]> {
    this.#ended = true
    await this.#working
    return this.acknowledged()
  }

  async #write(client: pg.Client, writer: number): Promise<void> {
    try {
      while (!this.#ended) {
        const n = this.#acknowledged[writer]! + 1
        await client.query(`insert into visits values ($1, $2, repeat('x', 300))`, [writer, n])
        this.#acknowledged[writer] = n
        await delay(WRITE_PAUSE_MS)
      }
    } catch {
      // The server is gone: what was not confirmed does not count.
    }
  }
}

/** A restored cluster has every acknowledged row, and of each writer nothing behind a hole. Gives how many were acknowledged. */
export async function assertNothingLost(client: pg.Client, acknowledged: readonly number[]): Promise<number> {
  const { rows } = await client.query<{ writer: number; count: number; max: number }>(
    'select writer, count(*)::int as count, max(n)::int as max from visits group by writer',
  )
  for (const [writer, wanted] of acknowledged.entries()) {
    const found = rows.find((row) => row.writer === writer) ?? { count: 0, max: 0 }
    assert.ok(found.max >= wanted, `writer ${writer} was told that ${wanted} rows are committed, ${found.max} are there`)
    assert.equal(found.count, found.max, `writer ${writer} has a hole in its rows`)
  }
  return acknowledged.reduce((sum, each) => sum + each, 0)
}

/** Starts a restored cluster, waits for the end of recovery, asks it, and removes it. */
export async function askRestored(
  restored: { directory: string; installation: Installation; home: string },
  ask: (client: pg.Client) => Promise<void>,
): Promise<void> {
  const { directory, installation, home } = restored
  const port = await freePort()
  const settings = { listen_addresses: '127.0.0.1', fsync: 'off', shared_buffers: '32MB', dynamic_shared_memory_type: 'mmap' }
  const places = { directory, socketDirectory: join(home, 's'), logFile: `${directory}.log` }
  await startCluster({ installation, ...places, port, settings, timeoutSeconds: HANGS_AFTER_MS / 1000 })
  const client = new pg.Client({ connectionString: `postgres://postgres@127.0.0.1:${port}/postgres` })
  client.on('error', () => undefined)
  try {
    await client.connect()
    const recovering = async () =>
      (await client.query<{ recovering: boolean }>('select pg_is_in_recovery() as recovering')).rows[0]!.recovering
    while (await recovering()) await delay(20)
    await ask(client)
  } finally {
    await client.end().catch(() => undefined)
    await endCluster(directory)
    await rm(directory, { recursive: true, force: true })
  }
}
