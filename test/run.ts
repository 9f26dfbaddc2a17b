import { existsSync } from 'node:fs'
import { chmod, glob, mkdir, mkdtemp, readdir, readFile, readlink, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { run } from 'node:test'
import { spec } from 'node:test/reporters'
import { fileURLToPath } from 'node:url'
import { reexecAsOrdinaryUser } from '../src/postgres/staged-runtime.ts'

// `npm test [-- --unit] [-- --disk] [-- part of a file's name ...]`: finds the tests and runs them, with temporary files in memory unless --disk is
// given or memory is short.

const CHECKOUT = fileURLToPath(new URL('..', import.meta.url))
const CONCURRENCY = 2
/** Longest that one test may take, and one file: such a test hangs. A slow machine with much else to do is far below that. */
const TEST_TIMEOUT_MS = 600_000
const FILE_TIMEOUT_MS = 1_800_000
const MEMORY_DIRECTORY = '/dev/shm'
/** Several times what two files of tests ever hold at once. */
const MEMORY_BYTES_MIN = 8 * 1024 ** 3
/** TMPFS_MAGIC of linux/magic.h. */
const TMPFS = 0x01021994
const ROOT_NAME = /^resus-test-(\d+)-/
/** Files that took less are summed up in one line at the end. */
const LISTED_FROM_SECONDS = 2

const args = process.argv.slice(2)
process.exitCode =
  (await reexecAsOrdinaryUser({ checkout: CHECKOUT, entry: import.meta.filename, args })) ?? (await runTests(args))

async function runTests(given: readonly string[]): Promise<number> {
  const unitOnly = given.includes('--unit')
  const wanted = given.filter((each) => !each.startsWith('--'))
  const files = (await findTests(unitOnly)).filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
  if (files.length === 0) {
    console.error(`no test file has ${wanted.map((part) => `"${part}"`).join(' or ')} in its name`)
    return 2
  }
  const root = await makeRoot(given.includes('--disk'))
  const temporary = join(root, 'tmp')
  try {
    await mkdir(temporary)
    // What many tests need is kept beside: clusters to copy, and our code compiled for the hundreds of processes that they start.
    Object.assign(process.env, { TMPDIR: temporary, RESUS_TEST_TEMPLATES: root, NODE_COMPILE_CACHE: join(root, 'compiled') })
    const good = await runFiles(files)
    const left = await readdir(temporary)
    if (left.length > 0) console.error(`✖ tests left temporary files behind: ${left.join(', ')}`)
    return good && left.length === 0 ? 0 : 1
  } finally {
    await endProcessesIn(root)
    // What was killed may make a last file while its directory is removed.
    await rm(root, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** Servers outlive whoever started them: also a test that was interrupted or took too long. */
async function endProcessesIn(root: string): Promise<void> {
  const numbers = (await readdir('/proc').catch((): string[] => [])).filter((name) => /^\d+$/.test(name))
  for (const number of numbers) {
    const directory = await readlink(`/proc/${number}/cwd`).catch(() => '')
    if (!directory.startsWith(`${root}/`)) continue
    console.error(`process ${number}, which a test left in ${directory}, is ended`)
    try {
      process.kill(Number(number), 'SIGKILL')
    } catch {
      // It has ended by itself meanwhile, or with the one before it.
    }
  }
}

/**
 * Of this run. In memory where there is plenty of it: tests make, flush and remove many thousands of files, and none of them cuts the power of
 * the machine. What a run that was killed has left there goes.
 */
async function makeRoot(onDisk: boolean): Promise<string> {
  const base = !onDisk && (await hasMemory()) ? MEMORY_DIRECTORY : tmpdir()
  for (const name of await readdir(base)) {
    const pid = Number(ROOT_NAME.exec(name)?.[1] ?? 0)
    if (pid > 0 && !existsSync(`/proc/${pid}`))
      await rm(join(base, name), { recursive: true, force: true }).catch(() => undefined)
  }
  const root = await mkdtemp(join(base, `resus-test-${process.pid}-`))
  await chmod(root, 0o755)
  return root
}

async function hasMemory(): Promise<boolean> {
  if (process.platform !== 'linux' || process.availableMemory() < MEMORY_BYTES_MIN) return false
  const found = await statfs(MEMORY_DIRECTORY).catch(() => undefined)
  return found?.type === TMPFS && found.bavail * found.bsize >= MEMORY_BYTES_MIN
}

/** A test that needs a server is no unit test: it says so in its name, or takes the server from test/services. */
async function findTests(unitOnly: boolean): Promise<string[]> {
  const found: string[] = []
  const ours = ['src/**/*.test.ts', 'hospital/src/**/*.test.ts']
  const patterns = unitOnly ? ours : [...ours, 'test/**/*.test.ts']
  for await (const file of glob(patterns, { cwd: CHECKOUT })) {
    if (unitOnly && (file.endsWith('.integration.test.ts') || (await needsServer(join(CHECKOUT, file))))) continue
    found.push(file)
  }
  // The long ones first, so that none of them is alone at the end.
  return [
    ...found.filter((file) => file.startsWith('test/')).toSorted(),
    ...found.filter((file) => !file.startsWith('test/')).toSorted(),
  ]
}

async function needsServer(path: string): Promise<boolean> {
  return (await readFile(path, 'utf8')).includes('/test/services/')
}

/** Whether every test passed. Prints each as it ends, and at the end where the time went. */
async function runFiles(files: readonly string[]): Promise<boolean> {
  const interrupted = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => interrupted.abort())
  const seconds = new Map<string, number>()
  let good = false
  const events = run({
    files: files.map((file) => join(CHECKOUT, file)),
    concurrency: CONCURRENCY,
    timeout: FILE_TIMEOUT_MS,
    // For the process of each file: of what is in it, no more than one test is limited by this.
    execArgv: [`--test-timeout=${TEST_TIMEOUT_MS}`],
    signal: interrupted.signal,
  })
  events.on('test:summary', ({ file, duration_ms: ms, success }) => {
    if (file === undefined) good = success
    else seconds.set(relative(CHECKOUT, file), ms / 1000)
  })
  await pipeline(events, new spec(), process.stdout, { end: false })
  printSlowest(seconds)
  return good && !interrupted.signal.aborted
}

function printSlowest(seconds: ReadonlyMap<string, number>): void {
  const slowest = [...seconds].toSorted(([, one], [, other]) => other - one)
  const listed = slowest.filter(([, each]) => each >= LISTED_FROM_SECONDS)
  for (const [file, each] of listed) console.log(`${each.toFixed(1).padStart(7)} s  ${file}`)
  const rest = slowest.slice(listed.length)
  const sum = rest.reduce((total, [, each]) => total + each, 0)
  console.log(`${sum.toFixed(1).padStart(7)} s  ${rest.length} ${listed.length === 0 ? '' : 'other '}files`)
}
