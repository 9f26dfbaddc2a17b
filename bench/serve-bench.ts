import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { loadConfiguration } from '../src/config/configuration.ts'
import { openConfigured } from '../src/config/open.ts'
import { endCluster, freePort, initCluster, startCluster } from '../src/postgres/cluster-process.ts'
import { requireInstallation, type Installation } from '../src/postgres/installation.ts'
import { listBackups, putManifest } from '../src/repository/backups.ts'
import { backupId } from '../src/repository/layout.ts'
import type { Repository } from '../src/repository/repository.ts'
import { forEachConcurrent } from '../src/stream/for-each-concurrent.ts'
import { BENCH_MAJOR } from './cluster.ts'
import { spreadOf, type Figures, type Ratio } from './report.ts'
import { BENCH_PASSPHRASE, BENCH_SYSTEM, runResus } from './resus.ts'

// `npm run bench -- --only serve`: the control plane of twenty components that are received, and of hundreds with many backups: how soon it answers, how fast, and what it costs.

const execute = promisify(execFile)
const SERVER = fileURLToPath(new URL('../src/server/main.ts', import.meta.url))
const RECEIVERS = 20
const REQUESTS_PER_SECOND = 200
const SOCKETS = 16
const PAGES = 20
const SETTLED_MS = 30_000
const WAIT_MS = 900_000
/** Nobody listens there. */
const NOBODY = 'postgres://postgres@127.0.0.1:9/postgres'
const NEVER = { backup: 'never', verify: 'never', prove: 'never', expire: 'never', check: 'never' }
const STATUS = ['/backup-dr/status', '/backup-dr/health', '/backup-dr/recovery-objectives', '/backup-dr/backups/status'] as const
const LISTS = [
  '/backup-dr/backups',
  '/backup-dr/tasks',
  '/backup-dr/schedules',
  '/backup-dr/backups?component=component-1',
] as const

export interface ServeBenchOptions {
  readonly home: string
  readonly components: number
  /** Of all components together. */
  readonly backups: number
  /** Of requests. */
  readonly seconds: number
  readonly onStep: (text: string) => void
}

export interface ServeSamples {
  readonly figures: Figures
  readonly loads: readonly number[]
}

export async function benchServe(options: ServeBenchOptions): Promise<ServeSamples> {
  const { home, components, backups, seconds, onStep } = options
  const installation = await requireInstallation(BENCH_MAJOR)
  const figures: Record<string, number[]> = {}
  const loads: number[] = []
  await using cluster = await makeCluster(home, installation)
  onStep(`a control plane of ${RECEIVERS} receivers`)
  await measureReceivers({ home: join(home, 'received'), cluster, seconds, figures, loads })
  onStep(`a control plane of ${components} components with ${backups} backups: making them`)
  await measureMany({ home: join(home, 'many'), cluster, components, backups, seconds, figures, loads, onStep })
  return { figures, loads }
}

export function serveRatios({ figures }: ServeSamples): Ratio[] {
  const of = (name: string) => spreadOf(figures[name]!).max
  const within = (name: string, most: number) => ({
    name: `${name}: of what is allowed, ${most}`,
    value: of(name) / most,
    target: '<= 1',
  })
  return [
    within(`${RECEIVERS} receivers: start to healthy seconds`, 5),
    within(`${RECEIVERS} receivers, idle: memory of all processes but the store's, MiB`, 400),
    ...STATUS.map((path) => within(`${RECEIVERS} receivers: p99 of ${path} milliseconds`, 50)),
    ...STATUS.map((path) => within(`many components: p99 of ${path} milliseconds`, 50)),
    ...LISTS.map((path) => within(`many components: slowest first page of ${path} milliseconds`, 100)),
  ]
}

interface Measured {
  readonly home: string
  readonly cluster: Cluster
  readonly seconds: number
  readonly figures: Record<string, number[]>
  readonly loads: number[]
}

async function measureReceivers({ home, cluster, seconds, figures, loads }: Measured): Promise<void> {
  const names = Array.from({ length: RECEIVERS }, (_, number) => `component-${number}`)
  await writeConfiguration(home, names, (number) => ({ ...cluster.component, stream: { slot: `resus_${number}` } }))
  await execute(...runResus(home, ['init']))
  loads.push(loadavg()[0]!)
  // The first start makes the store.
  await (await Serving.start(home)).stop()
  await using serving = await Serving.start(home)
  figures[`${RECEIVERS} receivers: start to first answer seconds`] = [serving.answeredSeconds]
  figures[`${RECEIVERS} receivers: start to healthy seconds`] = [await serving.healthy()]
  await serving.untilReceiving(RECEIVERS)
  await delay(SETTLED_MS)
  const memory = await memoryOf(serving.pid)
  figures[`${RECEIVERS} receivers, idle: memory of all processes but the store's, MiB`] = [memory.own]
  figures[`${RECEIVERS} receivers, idle: memory of the store's processes, MiB`] = [memory.store]
  await measureStatus(serving, `${RECEIVERS} receivers`, { seconds, figures })
}

async function measureMany(
  options: Measured & { readonly components: number; readonly backups: number; readonly onStep: (text: string) => void },
): Promise<void> {
  const { home, cluster, components, backups, seconds, figures, loads, onStep } = options
  const names = Array.from({ length: components }, (_, number) => `component-${number}`)
  await writeConfiguration(home, names, (number) =>
    number === 0 ? cluster.component : { ...cluster.component, connection: NOBODY, dataDirectory: `/nowhere/${number}` },
  )
  await execute(...runResus(home, ['init']))
  await execute(...runResus(home, ['backup', 'component-0']))
  const repository = await openConfigured(await loadConfiguration(join(home, 'resus.yaml')))
  await copyManifest(repository, names, Math.floor(backups / components))
  loads.push(loadavg()[0]!)
  onStep('reading them for the first time')
  {
    await using first = await Serving.start(home)
    const wanted = names.length * Math.floor(backups / components)
    figures['many components: start with an empty store, to all backups known seconds'] = [await first.untilKnown(wanted)]
  }
  await using serving = await Serving.start(home)
  figures['many components: start to first answer seconds'] = [serving.answeredSeconds]
  await delay(SETTLED_MS)
  onStep('asking')
  await measureStatus(serving, 'many components', { seconds, figures })
  for (const path of LISTS) {
    const times: number[] = []
    for (let page = 0; page < PAGES; page += 1) times.push(await serving.time(path))
    figures[`many components: slowest first page of ${path} milliseconds`] = [Math.max(...times)]
  }
  figures["many components: memory of all processes but the store's, MiB"] = [(await memoryOf(serving.pid)).own]
}

async function measureStatus(
  serving: Serving,
  name: string,
  { seconds, figures }: { readonly seconds: number; readonly figures: Record<string, number[]> },
): Promise<void> {
  await serving.onOneCore()
  for (const path of STATUS) {
    const times = await serving.load(path, seconds)
    figures[`${name}: p50 of ${path} milliseconds`] = [percentile(times, 0.5)]
    figures[`${name}: p99 of ${path} milliseconds`] = [percentile(times, 0.99)]
  }
}

function percentile(times: readonly number[], share: number): number {
  const sorted = times.toSorted((left, right) => left - right)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!
}

/** A `resus serve`. */
class Serving implements AsyncDisposable {
  readonly pid: number
  readonly answeredSeconds: number
  readonly #child: ChildProcess
  readonly #at: { readonly url: string; readonly token: string }
  readonly #begun: number
  readonly #agent = new Agent({ keepAlive: true, maxSockets: SOCKETS })

  static async start(home: string): Promise<Serving> {
    const begun = performance.now()
    const child = spawn(process.execPath, [SERVER, '--config', join(home, 'resus.yaml')], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    let output = ''
    for await (const text of child.stdout!) {
      output += String(text)
      if (output.includes('administrator token')) break
    }
    const url = /resus serve: (http:\/\/[^/]+)/.exec(output)?.[1]
    if (url === undefined) throw new Error(`resus serve did not begin: ${output}`)
    const answeredSeconds = (performance.now() - begun) / 1000
    const token = (await readFile(join(home, 'server/administrator-token'), 'utf8')).trim()
    return new Serving(child, { url, token }, { begun, answeredSeconds })
  }

  private constructor(child: ChildProcess, at: { url: string; token: string }, when: { begun: number; answeredSeconds: number }) {
    this.#child = child
    this.pid = child.pid!
    this.#at = at
    this.#begun = when.begun
    this.answeredSeconds = when.answeredSeconds
  }

  /** Seconds from the start until databases, receivers and storages are up. Backups there are none yet. */
  async healthy(): Promise<number> {
    return await this.#until('/backup-dr/health', (body) => {
      const { watched } = JSON.parse(body) as { watched: { thing: string; state: string }[] }
      const working = watched.filter(({ thing }) => ['database', 'receiver', 'storage'].includes(thing))
      return working.length > 2 && working.every(({ state }) => state === 'up')
    })
  }

  async untilReceiving(count: number): Promise<void> {
    await this.#until('/backup-dr/backups/status', (body) => body.split('"state":"receiving"').length > count)
  }

  async untilKnown(backups: number): Promise<number> {
    return await this.#until('/backup-dr/backups?limit=1', (body) => body.includes(`"total":${backups}`))
  }

  /** Milliseconds of one answer. */
  async time(path: string): Promise<number> {
    const begun = performance.now()
    await this.#ask(path)
    return performance.now() - begun
  }

  /** Milliseconds of each of 200 requests a second, from when each should have begun. */
  async load(path: string, seconds: number): Promise<number[]> {
    const times: number[] = []
    const running: Promise<void>[] = []
    const begun = performance.now()
    for (let number = 0; number < seconds * REQUESTS_PER_SECOND; number += 1) {
      const due = begun + (1000 * number) / REQUESTS_PER_SECOND
      await delay(Math.max(0, due - performance.now()))
      running.push(this.#ask(path).then(() => void times.push(performance.now() - due)))
    }
    await Promise.all(running)
    return times
  }

  /** From here on all its threads are on one core; whoever asks has the others. */
  async onOneCore(): Promise<void> {
    for (const pid of await processesBelow(this.pid)) await execute('taskset', ['-a', '-p', '-c', '0', String(pid)])
  }

  async stop(): Promise<void> {
    this.#agent.destroy()
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    await ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  async #until(path: string, holds: (body: string) => boolean): Promise<number> {
    while (performance.now() - this.#begun < WAIT_MS) {
      if (holds(await this.#ask(path))) return (performance.now() - this.#begun) / 1000
      await delay(50)
    }
    throw new Error(`${path} does not say what was waited for`)
  }

  async #ask(path: string): Promise<string> {
    const headers = { authorization: `Bearer ${this.#at.token}` }
    return await new Promise((settle, reject) => {
      const asked = request(`${this.#at.url}/api/v1${path}`, { agent: this.#agent, headers }, (answer) => {
        let body = ''
        answer.setEncoding('utf8').on('data', (text: string) => (body += text))
        answer.once('end', () =>
          answer.statusCode === 200 ? settle(body) : reject(new Error(`${path}: ${answer.statusCode} ${body}`)),
        )
      })
      asked.once('error', reject)
      asked.end()
    })
  }
}

/** A process, and all that it and they have started. */
async function processesBelow(pid: number): Promise<number[]> {
  const pids = [pid]
  for (const above of pids) {
    for (const entry of await readdir('/proc')) {
      if (!/^\d+$/.test(entry)) continue
      const stat = await readFile(`/proc/${entry}/stat`, 'utf8').catch(() => '')
      if (Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === above) pids.push(Number(entry))
    }
  }
  return pids
}

/** The share of memory (PSS) of a process and all below it, in MiB; PostgreSQL's by itself. */
async function memoryOf(pid: number): Promise<{ own: number; store: number }> {
  const memory = { own: 0, store: 0 }
  for (const each of await processesBelow(pid)) {
    const name = await readFile(`/proc/${each}/comm`, 'utf8').catch(() => '')
    const rollup = await readFile(`/proc/${each}/smaps_rollup`, 'utf8').catch(() => '')
    memory[name.startsWith('postgres') ? 'store' : 'own'] += Number(/^Pss:\s+(\d+) kB/m.exec(rollup)?.[1] ?? 0) / 1024
  }
  return memory
}

/** The same backup under other names and at other times: what the control plane reads of one. */
async function copyManifest(repository: Repository, names: readonly string[], each: number): Promise<void> {
  const [manifest] = await listBackups(repository, 'component-0')
  if (manifest === undefined) throw new Error('there is no backup')
  const signal = new AbortController().signal
  const begun = Date.parse(manifest.startedAt)
  const copies = names.flatMap((component, number) =>
    Array.from({ length: number === 0 ? each - 1 : each }, (_, index) => {
      const startedMs = begun - (index + 1) * 3_600_000 - number * 1000
      return { component, id: backupId(startedMs), startedMs, sequence: index }
    }),
  )
  await forEachConcurrent(copies, { limit: 16, signal }, async ({ component, id, startedMs, sequence }) => {
    const startedAt = new Date(startedMs).toISOString()
    const finishedAt = new Date(startedMs + 60_000).toISOString()
    await putManifest(repository, { ...manifest, component, id, sequence, startedAt, finishedAt, stopTime: finishedAt }, signal)
  })
}

async function writeConfiguration(
  home: string,
  names: readonly string[],
  componentOf: (number: number) => object,
): Promise<void> {
  await mkdir(home, { recursive: true })
  await writeFile(join(home, 'passphrase'), BENCH_PASSPHRASE, { mode: 0o600 })
  const components = names.map((name, number) => [name, { ...componentOf(number), schedules: NEVER }] as const)
  const configuration = {
    system: BENCH_SYSTEM,
    state: join(home, 'state'),
    repository: {
      storages: [{ name: 'main', kind: 'directory', path: join(home, 'repository') }],
      key: { passphrase: `file:${join(home, 'passphrase')}` },
    },
    components: Object.fromEntries(components),
  }
  await writeFile(join(home, 'resus.yaml'), JSON.stringify(configuration))
  await writeFile(join(home, 'server.yaml'), JSON.stringify({ listen: '127.0.0.1:0', state: join(home, 'server') }))
}

interface Cluster extends AsyncDisposable {
  readonly component: object
}

async function makeCluster(home: string, installation: Installation): Promise<Cluster> {
  const directory = join(home, 'data')
  await initCluster({ installation, directory, dataChecksums: true, sync: false })
  const port = await freePort()
  await startCluster({
    installation,
    directory,
    port,
    socketDirectory: join(home, 's'),
    logFile: join(home, 'server.log'),
    settings: {
      listen_addresses: '127.0.0.1',
      max_wal_senders: String(2 * RECEIVERS),
      max_replication_slots: String(2 * RECEIVERS),
      max_connections: '200',
      wal_level: 'replica',
    },
  })
  const connection = `postgres://postgres@127.0.0.1:${port}/postgres`
  return {
    component: { kind: 'postgres', tier: 'critical', connection, dataDirectory: directory, binaries: installation.binDirectory },
    [Symbol.asyncDispose]: async () => endCluster(directory),
  }
}
