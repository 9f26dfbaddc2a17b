import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { endCluster, freePort, initCluster, startCluster } from '../src/postgres/cluster-process.ts'
import { requireInstallation, toolPath, type Installation } from '../src/postgres/installation.ts'
import { parseLsn } from '../src/postgres/lsn.ts'
import { parseSegmentName, segmentStart } from '../src/postgres/wal-segment.ts'
import { BENCH_MAJOR } from './cluster.ts'
import { spreadOf, type Figures, type Ratio } from './report.ts'
import { writeBenchConfiguration } from './resus.ts'

// `npm run bench -- --only stream`: commits that wait for a receiver, by turns for ours and for pg_receivewal of the same major; how far
// the repository is behind at a given rate of WAL; what the receiver costs.

const execute = promisify(execFile)
const RESUS = fileURLToPath(new URL('../resus', import.meta.url))
const CLIENTS = [1, 4, 8]
const WARM_UP_SECONDS = 1
const CLOCK_TICKS_PER_SECOND = 100
const WAL_MESSAGE_BYTES = 1024 * 1024
const SEGMENT_BYTES = 16 * 1024 * 1024

export interface StreamBenchOptions {
  readonly home: string
  readonly rounds: number
  /** Of each run of pgbench, and of the stream of WAL. */
  readonly seconds: number
  /** WAL to write each second, in megabytes. */
  readonly walMbPerSecond: number
  readonly onStep: (text: string) => void
}

export interface StreamSamples {
  readonly figures: Figures
  readonly loads: readonly number[]
}

/** A receiver that can be started and stopped, each with its real command. */
interface Receiver {
  readonly name: string
  start(): ChildProcess
}

export async function benchStream(options: StreamBenchOptions): Promise<StreamSamples> {
  const { home, rounds, onStep } = options
  const installation = await requireInstallation(BENCH_MAJOR)
  onStep('making a cluster')
  await using cluster = await makeCluster(home, installation)
  const run = new Run(options, cluster)
  const receivers = [
    await resusReceiver(join(home, 'spool'), cluster, 'spool'),
    await receivewal(join(home, 'receivewal'), cluster),
    await resusReceiver(join(home, 'repository'), cluster, 'repository'),
  ]
  for (let round = 0; round < rounds; round += 1) {
    run.loads.push(loadavg()[0]!)
    // Whoever goes first in one round goes last in the next.
    const turns = round % 2 === 0 ? receivers : receivers.toReversed()
    for (const receiver of turns) {
      onStep(`round ${round + 1} of ${rounds}: commits with ${receiver.name}`)
      await run.commits(receiver)
    }
    onStep(`round ${round + 1} of ${rounds}: ${options.walMbPerSecond} MB/s of WAL`)
    await run.walRate(receivers[0]!, join(home, 'spool', 'repository', 'wal'))
  }
  return { figures: run.figures, loads: run.loads }
}

export function streamRatios({ figures }: StreamSamples): Ratio[] {
  const of = (name: string) => spreadOf(figures[name]!).median
  const behind = figures['Resus WAL seconds behind']!
  const commits = CLIENTS.map((clients) => ({
    name: `commits per second, ${clients} clients: of pg_receivewal --synchronous`,
    value: of(`Resus commits/s, ${clients} clients`) / of(`pg_receivewal commits/s, ${clients} clients`),
    target: '>= 1',
  }))
  const costly = CLIENTS.map((clients) => ({
    name: `acknowledge: repository, ${clients} clients: of acknowledge: spool`,
    value: of(`Resus acknowledge: repository commits/s, ${clients} clients`) / of(`Resus commits/s, ${clients} clients`),
    target: '-',
  }))
  return [
    ...commits,
    ...costly,
    { name: 'WAL: MB/s that the server reached', value: of('Resus WAL MB/s written'), target: '(50)' },
    { name: 'WAL: seconds that the repository is behind', value: spreadOf(behind).median, target: '<= 1' },
  ]
}

interface Cluster extends AsyncDisposable {
  readonly port: number
  readonly connectionString: string
  readonly directory: string
  readonly installation: Installation
}

class Run {
  readonly figures: Record<string, number[]> = {}
  readonly loads: number[] = []
  readonly #options: StreamBenchOptions
  readonly #cluster: Cluster

  constructor(options: StreamBenchOptions, cluster: Cluster) {
    this.#options = options
    this.#cluster = cluster
  }

  async commits(receiver: Receiver): Promise<void> {
    await this.#withReceiver(receiver, true, async (pid) => {
      for (const clients of CLIENTS) {
        await pgbench(this.#cluster, clients, WARM_UP_SECONDS)
        const before = await cpuSeconds(pid)
        const perSecond = await pgbench(this.#cluster, clients, this.#options.seconds)
        const cpu = (await cpuSeconds(pid)) - before
        this.#note(`${receiver.name} commits/s, ${clients} clients`, perSecond)
        this.#note(
          `${receiver.name} CPU ms per 1000 commits, ${clients} clients`,
          (1e6 * cpu) / (perSecond * this.#options.seconds),
        )
      }
      this.#note(`${receiver.name} peak bytes`, await peakBytes(pid))
    })
  }

  async walRate(receiver: Receiver, walDirectory: string): Promise<void> {
    await this.#withReceiver(receiver, false, async (pid) => {
      const before = await cpuSeconds(pid)
      const behind = await writeWalAndWatch(this.#cluster, { ...this.#options, walDirectory })
      this.#note('Resus WAL seconds behind', spreadOf(behind.seconds).median)
      this.#note('Resus WAL seconds behind, greatest', Math.max(...behind.seconds))
      this.#note('Resus WAL MB/s written', behind.megabytesPerSecond)
      this.#note('Resus WAL CPU seconds per second', ((await cpuSeconds(pid)) - before) / this.#options.seconds)
      this.#note('Resus WAL peak bytes', await peakBytes(pid))
    })
  }

  async #withReceiver(receiver: Receiver, synchronous: boolean, use: (pid: number) => Promise<void>): Promise<void> {
    const child = receiver.start()
    const exited = once(child, 'exit')
    try {
      await withClient(this.#cluster, async (client) => {
        await untilStreaming(client)
        await client.query(`alter system set synchronous_standby_names = '${synchronous ? 'FIRST 1 (*)' : ''}'`)
        await client.query('select pg_reload_conf()')
        if (synchronous) await untilStreaming(client, `and sync_state = 'sync'`)
      })
      await use(child.pid!)
    } finally {
      await withClient(this.#cluster, async (client) => {
        await client.query(`alter system set synchronous_standby_names = ''`)
        await client.query('select pg_reload_conf()')
      })
      child.kill('SIGTERM')
      await exited
    }
  }

  #note(what: string, value: number): void {
    ;(this.figures[what] ??= []).push(value)
  }
}

async function makeCluster(home: string, installation: Installation): Promise<Cluster> {
  const directory = join(home, 'cluster')
  await initCluster({ installation, directory, dataChecksums: true, sync: true })
  const port = await freePort()
  const settings = {
    listen_addresses: '127.0.0.1',
    shared_buffers: '256MB',
    dynamic_shared_memory_type: 'mmap',
    max_wal_size: '4GB',
  }
  await startCluster({
    installation,
    directory,
    port,
    socketDirectory: join(home, 's'),
    logFile: join(home, 'server.log'),
    settings,
  })
  const cluster = {
    port,
    directory,
    installation,
    connectionString: `postgres://postgres@127.0.0.1:${port}/postgres`,
    [Symbol.asyncDispose]: () => endCluster(directory),
  }
  try {
    await execute(requireTool(installation, 'pgbench'), [...connectionArguments(cluster), '-i', '-q', '-s', '5', 'postgres'])
  } catch (error) {
    await endCluster(directory)
    throw error
  }
  return cluster
}

/** Commits per second of `pgbench -N` (update, select, insert) over TCP. */
async function pgbench(cluster: Cluster, clients: number, seconds: number): Promise<number> {
  const threads = String(Math.min(2, clients))
  const args = [...connectionArguments(cluster), '-n', '-N', '-M', 'prepared', '-c', String(clients), '-j', threads]
  const { stdout } = await execute(requireTool(cluster.installation, 'pgbench'), [...args, '-T', String(seconds), 'postgres'])
  const [, perSecond] = /^tps = ([0-9.]+)/m.exec(stdout) ?? []
  if (perSecond === undefined) throw new Error(`pgbench said no rate: ${stdout}`)
  return Number(perSecond)
}

/** Writes WAL at a rate; gives how long ago the server had flushed what the repository has, each time it was looked at. */
async function writeWalAndWatch(
  cluster: Cluster,
  options: { seconds: number; walMbPerSecond: number; walDirectory: string },
): Promise<{ seconds: number[]; megabytesPerSecond: number }> {
  const { seconds, walMbPerSecond, walDirectory } = options
  const flushed: { atMs: number; lsn: bigint }[] = []
  const behind: number[] = []
  const body = randomBytes(WAL_MESSAGE_BYTES)
  let ended = false
  const watch = async () => {
    while (!ended) {
      const stored = await storedTo(walDirectory)
      const reached = flushed.findLast(({ lsn }) => lsn <= stored)
      const newest = flushed.at(-1)
      if (newest !== undefined) {
        // Flushed at the latest when the first message was not written yet.
        const reachedMs = reached?.atMs ?? begun
        behind.push(newest.lsn <= stored ? 0 : (performance.now() - reachedMs) / 1000)
      }
      await delay(50)
    }
  }
  const begun = performance.now()
  const watching = watch()
  let written = 0
  await withClient(cluster, async (client) => {
    while (performance.now() - begun < seconds * 1000) {
      const { rows } = await client.query<{ lsn: string }>(
        `select pg_logical_emit_message(true, 'bench', $1::bytea), pg_current_wal_flush_lsn()::text as lsn`,
        [body],
      )
      written += body.length
      flushed.push({ atMs: performance.now(), lsn: parseLsn(rows[0]!.lsn) })
      await delay(Math.max(0, (1000 * written) / (walMbPerSecond * 1e6) - (performance.now() - begun)))
    }
  })
  const megabytesPerSecond = written / 1e6 / ((performance.now() - begun) / 1000)
  ended = true
  await watching
  return { seconds: behind, megabytesPerSecond }
}

/** How far a repository in a directory reaches, from the names of its WAL. */
async function storedTo(walDirectory: string): Promise<bigint> {
  let reached = 0n
  for (const path of await readdir(walDirectory, { recursive: true })) {
    const [, name, to] = /([0-9A-F]{24})(?:\.[0-9a-f]{8}-([0-9a-f]{8}))?$/.exec(path) ?? []
    const segment = name === undefined ? undefined : parseSegmentName(name, SEGMENT_BYTES)
    if (segment === undefined) continue
    const end = segmentStart(segment) + BigInt(to === undefined ? SEGMENT_BYTES : Number.parseInt(to, 16))
    if (end > reached) reached = end
  }
  return reached
}

async function resusReceiver(home: string, cluster: Cluster, acknowledge: 'spool' | 'repository'): Promise<Receiver> {
  await mkdir(home, { recursive: true })
  await writeBenchConfiguration(home, cluster, { synchronous: true, slot: `resus_${acknowledge}`, acknowledge })
  await execute(RESUS, ['init', '--config', join(home, 'resus.yaml')])
  return {
    name: acknowledge === 'spool' ? 'Resus' : 'Resus acknowledge: repository',
    start: () => spawn(RESUS, ['stream', '--config', join(home, 'resus.yaml')], { stdio: ['ignore', 'ignore', 'inherit'] }),
  }
}

async function receivewal(home: string, cluster: Cluster): Promise<Receiver> {
  const tool = requireTool(cluster.installation, 'pg_receivewal')
  const directory = join(home, 'wal')
  await mkdir(directory, { recursive: true })
  const connection = `host=127.0.0.1 port=${cluster.port} user=postgres`
  await execute(tool, ['-d', connection, '--slot', 'receivewal', '--create-slot'])
  return {
    name: 'pg_receivewal',
    start: () =>
      spawn(tool, ['-d', connection, '-D', directory, '--slot', 'receivewal', '--synchronous', '--no-loop'], {
        stdio: ['ignore', 'ignore', 'inherit'],
      }),
  }
}

async function untilStreaming(client: pg.Client, more = ''): Promise<void> {
  for (;;) {
    const { rowCount } = await client.query(`select 1 from pg_stat_replication where state = 'streaming' ${more}`)
    if (rowCount === 1) return
    await delay(50)
  }
}

/** User and system time of a process, its threads included. */
async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND
}

async function peakBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return 1024 * Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0)
}

function connectionArguments({ port }: { port: number }): string[] {
  return ['-h', '127.0.0.1', '-p', String(port), '-U', 'postgres']
}

function requireTool(installation: Installation, name: Parameters<typeof toolPath>[1]): string {
  const path = toolPath(installation, name)
  if (path === undefined) throw new Error(`PostgreSQL ${installation.major} has no ${name} here`)
  return path
}

async function withClient<T>(cluster: Cluster, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: cluster.connectionString })
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}
