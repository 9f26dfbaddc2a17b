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
import { benchDrill, drillRatios } from './drill-bench.ts'
import { benchIncrementals, incrementalsRatios } from './incrementals-bench.ts'
import { findPgBackRest } from './pgbackrest.ts'
import { benchRecovery, recoveryRatios } from './recovery-bench.ts'
import { benchRelations, relationsRatios } from './relations-bench.ts'
import { formatFigures, formatLoads, formatReport, ratiosOf, type Figures, type Ratio } from './report.ts'
import { benchServe, serveRatios } from './serve-bench.ts'
import { benchStream, streamRatios } from './stream-bench.ts'
import { compareSideBySide } from './side-by-side.ts'

// `npm run bench [-- --only <row>[,<row>] --rounds 3 --keep --directory <path>]`: Resus beside other tools and the machine's own limits. The rows:
//   backup        full, incremental and restore beside pgBackRest (--size-mb 2048)
//   relations     a cluster of many small files beside pgBackRest (--relations 10000)
//   incrementals  the restore of the 50th incremental beside that of a full (--incrementals 50 --incrementals-mb 500)
//   stream        the receiver beside pg_receivewal, and WAL at a rate (--seconds 10 --wal-mb 50)
//   serve         the control plane: its answers, its start, its memory (--components 500 --backups 100000 --seconds 10)
//   drill         a drill with full amcheck beside the restore alone (--size-mb 2048)
//   recovery      recovery with our restore_command beside cp (--recovery-mb 512)
// Each writes bench/results/<date>-<row>.json; `backup` is <date>.json.

const CHECKOUT = fileURLToPath(new URL('..', import.meta.url))
const RESULTS = join(CHECKOUT, 'bench/results')

const ROWS = { backup, relations, incrementals, stream, recovery, serve, drill } as const
type RowName = keyof typeof ROWS

/** A row that was measured. */
interface Row {
  readonly report: string
  readonly result: Readonly<Record<string, unknown>>
}

const SIZES = {
  'size-mb': '2048',
  rounds: '3',
  relations: '10000',
  incrementals: '50',
  'incrementals-mb': '500',
  seconds: '10',
  'wal-mb': '50',
  'recovery-mb': '512',
  components: '500',
  backups: '100000',
} as const
type SizeName = keyof typeof SIZES

interface Options {
  readonly sizes: Readonly<Record<SizeName, number>>
  readonly only: readonly RowName[]
  /** Leave the clusters and the repositories. */
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
    const sizes = Object.entries(options.sizes).flatMap(([name, value]) => [`--${name}`, String(value)])
    const places = ['--only', options.only.join(','), '--directory', directory, '--results', results]
    const args = [...sizes, ...places, ...(options.keep ? ['--keep'] : [])]
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
  const date = new Date().toISOString()
  const beside = (['backup', 'relations'] as const).some((row) => options.only.includes(row))
  if (beside && findPgBackRest() === undefined) {
    console.error('pgBackRest is not installed: install the package "pgbackrest"')
    return 2
  }
  for (const name of options.only) {
    const { report, result } = await inHome(ROWS[name])
    console.log(`\n${report}`)
    await writeResult(date, name, result)
  }
  return 0
}

async function backup(home: string): Promise<Row> {
  const { rounds, 'size-mb': sizeMb } = options.sizes
  const samples = await compareSideBySide({ home, sizeMb, rounds, pgBackRest: findPgBackRest()!, onStep })
  const result = { sizeMb, versions: await besideVersions(), ...samples, ratios: ratiosOf(samples) }
  return { report: formatReport(samples), result }
}

async function relations(home: string): Promise<Row> {
  const samples = await benchRelations({ home, ...options.sizes, pgBackRest: findPgBackRest()!, onStep })
  const what = `Cluster of ${samples.files} files, ${megabytes(samples.clusterBytes)}.`
  return rowOf({ what, samples, ratios: relationsRatios(samples), versions: await besideVersions() })
}

async function incrementals(home: string): Promise<Row> {
  const samples = await benchIncrementals({ home, ...options.sizes, sizeMb: options.sizes['incrementals-mb'], onStep })
  const what = `${samples.incrementals} incremental backups of a cluster of ${megabytes(samples.clusterBytes)}.`
  return rowOf({ what, samples, ratios: incrementalsRatios(samples), versions: await versions() })
}

async function stream(home: string): Promise<Row> {
  const { rounds, seconds, 'wal-mb': walMbPerSecond } = options.sizes
  const samples = await benchStream({ home, rounds, seconds, walMbPerSecond, onStep })
  const what = `Receivers, ${seconds} s each.`
  const row = rowOf({ what, samples, ratios: streamRatios(samples), versions: await versions() })
  return { ...row, result: { seconds, walMbPerSecond, ...row.result } }
}

async function recovery(home: string): Promise<Row> {
  const samples = await benchRecovery({ home, rounds: options.sizes.rounds, walMb: options.sizes['recovery-mb'], onStep })
  const what = `Recovery of ${samples.walMb} MB of WAL.`
  return rowOf({ what, samples, ratios: recoveryRatios(samples), versions: await versions() })
}

async function drill(home: string): Promise<Row> {
  const { rounds, 'size-mb': sizeMb } = options.sizes
  const samples = await benchDrill({ home, sizeMb, rounds, onStep })
  const what = `Drills of a cluster of ${megabytes(samples.clusterBytes)}.`
  return rowOf({ what, samples, ratios: drillRatios(samples), versions: await versions() })
}

async function serve(home: string): Promise<Row> {
  const samples = await benchServe({ home, ...options.sizes, onStep })
  const what = `The control plane on one core, ${options.sizes.components} components with ${options.sizes.backups} backups, and 20 that are received.`
  const row = rowOf({ what, samples, ratios: serveRatios(samples), versions: await versions() })
  const { components, backups } = options.sizes
  return { ...row, result: { components, backups, ...row.result } }
}

function rowOf(row: {
  readonly what: string
  readonly samples: { readonly figures: Figures; readonly loads: readonly number[] }
  readonly ratios: readonly Ratio[]
  readonly versions: object
}): Row {
  const { what, samples, ratios } = row
  const load = `Load (processes that want a core) before each round: ${formatLoads(samples.loads)}.`
  const report = [what, load, formatFigures(samples.figures, ratios)].join('\n\n')
  return { report, result: { versions: row.versions, ...samples, ratios } }
}

function onStep(text: string): void {
  console.error(text)
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB`
}

/** Works in a directory of its own. */
async function inHome<T>(work: (home: string) => Promise<T>): Promise<T> {
  await requireInstallation(BENCH_MAJOR)
  const above = options.directory ?? tmpdir()
  await mkdir(above, { recursive: true })
  // A path of a socket has at most 107 bytes.
  const home = await mkdtemp(join(above, 'b-'))
  try {
    return await work(home)
  } finally {
    if (options.keep) console.error(`kept in ${home}`)
    else await rm(home, { recursive: true, force: true })
  }
}

async function versions(): Promise<{ node: string; postgres: string }> {
  return { node: process.version, postgres: (await requireInstallation(BENCH_MAJOR)).version }
}

async function besideVersions(): Promise<object> {
  const { stdout } = await promisify(execFile)(findPgBackRest()!, ['version'])
  return { ...(await versions()), pgBackRest: stdout.trim() }
}

async function writeResult(date: string, row: RowName, result: object): Promise<void> {
  const machine = { cores: availableParallelism(), processor: cpus()[0]?.model, memoryGiB: Math.round(totalmem() / 1024 ** 3) }
  await mkdir(options.results, { recursive: true })
  const name = `${date.replaceAll(':', '-').slice(0, 19)}${row === 'backup' ? '' : `-${row}`}.json`
  const text = JSON.stringify({ date, rounds: options.sizes.rounds, machine, ...result }, null, 2)
  await writeFile(join(options.results, name), `${text}\n`)
}

function readOptions(): Options {
  const sizes = Object.fromEntries(
    Object.entries(SIZES).map(([name, value]) => [name, { type: 'string' as const, default: value }]),
  )
  const { values } = parseArgs({
    options: {
      ...sizes,
      only: { type: 'string', default: Object.keys(ROWS).join(',') },
      keep: { type: 'boolean', default: false },
      directory: { type: 'string' },
      results: { type: 'string', default: RESULTS },
    },
  })
  const given: Readonly<Record<string, unknown>> = values
  const size = (name: SizeName) => positive(`--${name}`, String(given[name]))
  return {
    sizes: {
      'size-mb': size('size-mb'),
      rounds: size('rounds'),
      relations: size('relations'),
      incrementals: size('incrementals'),
      'incrementals-mb': size('incrementals-mb'),
      seconds: size('seconds'),
      'wal-mb': size('wal-mb'),
      'recovery-mb': size('recovery-mb'),
      components: size('components'),
      backups: size('backups'),
    },
    only: rowsOf(values.only),
    keep: values.keep,
    directory: values.directory === undefined ? undefined : resolve(values.directory),
    results: resolve(values.results),
  }
}

function rowsOf(text: string): RowName[] {
  const known = Object.keys(ROWS) as RowName[]
  const wanted = text.split(',')
  const unknown = wanted.find((each) => !known.some((row) => row === each))
  if (unknown !== undefined) throw new Error(`--only names "${unknown}", wanted ${known.join(', ')}`)
  return known.filter((row) => wanted.includes(row))
}

function positive(name: string, text: string): number {
  const value = Number(text)
  if (Number.isInteger(value) && value > 0) return value
  throw new Error(`${name} is "${text}", wanted a whole number above 0`)
}
