import { spawn } from 'node:child_process'
import { chmod, glob, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { reexecAsOrdinaryUser } from '../src/postgres/staged-runtime.ts'

// `npm test [-- --unit] [-- part of a file's name ...]`: finds the tests and runs them with node --test.

const CHECKOUT = fileURLToPath(new URL('..', import.meta.url))
const CONCURRENCY = 2
/** Longest that one file, or one test in it, may take. */
const FILE_TIMEOUT_MS = 240_000

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
  const temporary = await mkdtemp(join(tmpdir(), 'resus-test-'))
  try {
    await chmod(temporary, 0o755)
    const status = await runNode(files, temporary)
    const left = await readdir(temporary)
    if (left.length === 0) return status
    console.error(`✖ tests left temporary files behind: ${left.join(', ')}`)
    return status === 0 ? 1 : status
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

/** A test that needs a server is no unit test: it says so in its name, or takes the server from test/services. */
async function findTests(unitOnly: boolean): Promise<string[]> {
  const found: string[] = []
  const patterns = unitOnly ? ['src/**/*.test.ts'] : ['src/**/*.test.ts', 'test/**/*.test.ts']
  for await (const file of glob(patterns, { cwd: CHECKOUT })) {
    if (unitOnly && (file.endsWith('.integration.test.ts') || (await needsServer(join(CHECKOUT, file))))) continue
    found.push(file)
  }
  return found.toSorted()
}

async function needsServer(path: string): Promise<boolean> {
  return (await readFile(path, 'utf8')).includes('/test/services/')
}

function runNode(files: readonly string[], temporary: string): Promise<number> {
  const options = ['--test', '--test-reporter=spec', `--test-concurrency=${CONCURRENCY}`, `--test-timeout=${FILE_TIMEOUT_MS}`]
  const child = spawn(process.execPath, [...options, ...files], {
    cwd: CHECKOUT,
    env: { ...process.env, TMPDIR: temporary },
    stdio: 'inherit',
  })
  const interrupt = () => void child.kill('SIGINT')
  process.once('SIGINT', interrupt)
  process.once('SIGTERM', interrupt)
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (status) => resolve(status ?? 1))
  })
}
