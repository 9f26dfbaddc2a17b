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
import { compareSideBySide, type Samples } from './side-by-side.ts'

// `npm run bench [-- --size-mb 2048 --rounds 3 --keep --directory <path>]`: Resus beside pgBackRest and the machine's own limits.

const CHECKOUT = fileURLToPath(new URL('..', import.meta.url))
const RESULTS = join(CHECKOUT, 'bench/results')

interface Options {
  readonly sizeMb: number
  readonly rounds: number
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
    const args = [...sizes, '--directory', directory, '--results', results, ...(options.keep ? ['--keep'] : [])]
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
  const pgBackRest = findPgBackRest()
  if (pgBackRest === undefined) {
    console.error('pgBackRest is not installed: install the package "pgbackrest"')
    return 2
  }
  await requireInstallation(BENCH_MAJOR)
  const above = options.directory ?? tmpdir()
  await mkdir(above, { recursive: true })
  // A path of a socket has at most 107 bytes.
  const home = await mkdtemp(join(above, 'b-'))
  try {
    const { sizeMb, rounds } = options
    const date = new Date().toISOString()
    const samples = await compareSideBySide({ home, sizeMb, rounds, pgBackRest, onStep: (text) => console.error(text) })
    console.log(`\n${formatReport(samples)}`)
    await writeResults(samples, { date, pgBackRest })
    return 0
  } finally {
    if (options.keep) console.error(`kept in ${home}`)
    else await rm(home, { recursive: true, force: true })
  }
}

async function writeResults(samples: Samples, run: { date: string; pgBackRest: string }): Promise<void> {
  const { stdout } = await promisify(execFile)(run.pgBackRest, ['version'])
  const machine = { cores: availableParallelism(), processor: cpus()[0]?.model, memoryGiB: Math.round(totalmem() / 1024 ** 3) }
  const versions = {
    node: process.version,
    postgres: (await requireInstallation(BENCH_MAJOR)).version,
    pgBackRest: stdout.trim(),
  }
  const { sizeMb, rounds } = options
  const result = { date: run.date, sizeMb, rounds, machine, versions, ...samples, ratios: ratiosOf(samples) }
  await mkdir(options.results, { recursive: true })
  const path = join(options.results, `${run.date.replaceAll(':', '-').slice(0, 19)}.json`)
  await writeFile(path, `${JSON.stringify(result, null, 2)}\n`)
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      'size-mb': { type: 'string', default: '2048' },
      rounds: { type: 'string', default: '3' },
      keep: { type: 'boolean', default: false },
      directory: { type: 'string' },
      results: { type: 'string', default: RESULTS },
    },
  })
  return {
    sizeMb: positive('--size-mb', values['size-mb']),
    rounds: positive('--rounds', values.rounds),
    keep: values.keep,
    directory: values.directory === undefined ? undefined : resolve(values.directory),
    results: resolve(values.results),
  }
}

function positive(name: string, text: string): number {
  const value = Number(text)
  if (Number.isInteger(value) && value > 0) return value
  throw new Error(`${name} is "${text}", wanted a whole number above 0`)
}
