import { execFile } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, tmpdir, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { requireInstallation } from '../src/postgres/installation.ts'
import { ordinaryUser } from '../src/postgres/ordinary-user.ts'
import { assertReachable, makeDirectoryOf, openTemporaryDirectory, reexecAsOrdinaryUser } from '../src/postgres/staged-runtime.ts'
import { BENCH_MAJOR } from './cluster.ts'
import { findPgBackRest } from './pgbackrest.ts'
import { formatReport, ratiosOf } from './report.ts'
import { benchStream, formatStreamReport, streamRatios } from './stream-bench.ts'
import { compareSideBySide, type Samples } from './side-by-side.ts'

// `npm run bench [-- --size-mb 2048 --rounds 3 --keep --directory <path>]`: Resus beside pgBackRest and the machine's own limits.
// `npm run bench -- --only stream [--rounds 3 --seconds 10 --wal-mb 50]`: the receiver beside pg_receivewal.

const CHECKOUT = fileURLToPath(new URL('..', import.meta.url))
const RESULTS = join(CHECKOUT, 'bench/results')

interface Options {
  readonly sizeMb: number
  readonly rounds: number
  /** The receiver instead of backup and restore. */
  readonly only: 'stream' | undefined
  /** Of each run of the receiver's bench. */
  readonly seconds: number
  /** Megabytes of WAL a second in the receiver's bench. */
  readonly walMb: number
  /** Leave the cluster and the repositories. */
  readonly keep: boolean
  /** Where to work: about three times the size is needed. */
  readonly directory: string | undefined
  readonly results: string
}

const options = readOptions()
process.exitCode = process.getuid?.() === 0 ? await benchAsOrdinaryUser() : await bench()

/** PostgreSQL refuses root. The ordinary user works in a directory of its own; what it found comes back into our checkout. */
async function benchAsOrdinaryUser(): Promise<number> {
  const above = options.directory ?? (await openTemporaryDirectory())
  await mkdir(above, { recursive: true })
  await assertReachable(above)
  const directory = join(above, `resus-bench-${process.pid}`)
  const results = join(directory, 'results')
  await makeDirectoryOf(ordinaryUser()!, directory)
  try {
    const sizes = ['--size-mb', String(options.sizeMb), '--rounds', String(options.rounds)]
    const stream = ['--seconds', String(options.seconds), '--wal-mb', String(options.walMb)]
    const only = options.only === undefined ? [] : ['--only', options.only, ...stream]
    const args = [...sizes, ...only, '--directory', directory, '--results', results, ...(options.keep ? ['--keep'] : [])]
    const status = await reexecAsOrdinaryUser({ checkout: CHECKOUT, entry: import.meta.filename, args })
    if (status !== 0) return status ?? 1
    await mkdir(options.results, { recursive: true })
    for (const name of await readdir(results)) await copyFile(join(results, name), join(options.results, name))
    return 0
  } finally {
    if (!options.keep) await rm(directory, { recursive: true, force: true })
  }
}

async function bench(): Promise<number> {
  return options.only === 'stream' ? await inHome(benchReceiver) : await benchEngine()
}

async function benchReceiver(home: string): Promise<void> {
  const { rounds, seconds, walMb: walMbPerSecond } = options
  const date = new Date().toISOString()
  const samples = await benchStream({ home, rounds, seconds, walMbPerSecond, onStep: (text) => console.error(text) })
  console.log(`\n${formatStreamReport(samples)}`)
  const versions = { node: process.version, postgres: (await requireInstallation(BENCH_MAJOR)).version }
  const result = { seconds, walMbPerSecond, versions, ...samples, ratios: streamRatios(samples) }
  await writeResult(date, '-stream', result)
}

async function benchEngine(): Promise<number> {
  const pgBackRest = findPgBackRest()
  if (pgBackRest === undefined) {
    console.error('pgBackRest is not installed: install the package "pgbackrest"')
    return 2
  }
  return await inHome(async (home) => {
    const { sizeMb, rounds } = options
    const date = new Date().toISOString()
    const samples = await compareSideBySide({ home, sizeMb, rounds, pgBackRest, onStep: (text) => console.error(text) })
    console.log(`\n${formatReport(samples)}`)
    await writeResults(samples, { date, pgBackRest })
  })
}

/** Works in a directory of its own. */
async function inHome(work: (home: string) => Promise<void>): Promise<number> {
  await requireInstallation(BENCH_MAJOR)
  const above = options.directory ?? tmpdir()
  await mkdir(above, { recursive: true })
  // A path of a socket has at most 107 bytes.
  const home = await mkdtemp(join(above, 'b-'))
  try {
    await work(home)
    return 0
  } finally {
    if (options.keep) console.error(`kept in ${home}`)
    else await rm(home, { recursive: true, force: true })
  }
}

async function writeResults(samples: Samples, run: { date: string; pgBackRest: string }): Promise<void> {
  const { stdout } = await promisify(execFile)(run.pgBackRest, ['version'])
  const versions = {
    node: process.version,
    postgres: (await requireInstallation(BENCH_MAJOR)).version,
    pgBackRest: stdout.trim(),
  }
  await writeResult(run.date, '', { sizeMb: options.sizeMb, versions, ...samples, ratios: ratiosOf(samples) })
}

async function writeResult(date: string, what: string, result: object): Promise<void> {
  const machine = { cores: availableParallelism(), processor: cpus()[0]?.model, memoryGiB: Math.round(totalmem() / 1024 ** 3) }
  await mkdir(options.results, { recursive: true })
  const path = join(options.results, `${date.replaceAll(':', '-').slice(0, 19)}${what}.json`)
  await writeFile(path, `${JSON.stringify({ date, rounds: options.rounds, machine, ...result }, null, 2)}\n`)
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      'size-mb': { type: 'string', default: '2048' },
      rounds: { type: 'string', default: '3' },
      only: { type: 'string' },
      seconds: { type: 'string', default: '10' },
      'wal-mb': { type: 'string', default: '50' },
      keep: { type: 'boolean', default: false },
      directory: { type: 'string' },
      results: { type: 'string', default: RESULTS },
    },
  })
  return {
    sizeMb: positive('--size-mb', values['size-mb']),
    rounds: positive('--rounds', values.rounds),
    only: onlyOf(values.only),
    seconds: positive('--seconds', values.seconds),
    walMb: positive('--wal-mb', values['wal-mb']),
    keep: values.keep,
    directory: values.directory === undefined ? undefined : resolve(values.directory),
    results: resolve(values.results),
  }
}

function onlyOf(text: string | undefined): 'stream' | undefined {
  if (text === undefined || text === 'stream') return text
  throw new Error(`--only is "${text}", wanted "stream"`)
}

function positive(name: string, text: string): number {
  const value = Number(text)
  if (Number.isInteger(value) && value > 0) return value
  throw new Error(`${name} is "${text}", wanted a whole number above 0`)
}
