import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { findInstallation, toolPath } from '../../src/postgres/installation.ts'

const BENCH = fileURLToPath(new URL('../../bench/bench.ts', import.meta.url))
const installation = await findInstallation(15)
const missing = ['pgbench', 'pg_receivewal'].find(
  (tool) => installation === undefined || toolPath(installation, tool) === undefined,
)
const skip = missing === undefined ? false : `PostgreSQL 15 with ${missing} is not installed`

interface BenchResult {
  readonly figures: Readonly<Record<string, readonly number[]>>
  readonly ratios: readonly { name: string; value: number }[]
}

test('the bench of the receiver ends, with both receivers measured', { skip }, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'n-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  const results = join(directory, 'results')
  const length = ['--only', 'stream', '--rounds', '1', '--seconds', '1', '--wal-mb', '5']
  const { stdout } = await promisify(execFile)(process.execPath, [
    BENCH,
    ...length,
    '--directory',
    directory,
    '--results',
    results,
  ])
  const [name, ...more] = await readdir(results)
  assert.deepEqual(more, [])
  assert.match(name!, /-stream\.json$/)
  const { figures, ratios } = JSON.parse(await readFile(join(results, name!), 'utf8')) as BenchResult
  for (const who of ['Resus', 'pg_receivewal', 'Resus acknowledge: repository']) {
    for (const clients of [1, 4, 8]) assert.ok(figures[`${who} commits/s, ${clients} clients`]![0]! > 0, `${who}, ${clients}`)
    assert.ok(figures[`${who} peak bytes`]![0]! > 1_000_000)
  }
  assert.ok(figures['Resus WAL seconds behind']![0]! >= 0)
  for (const { name: what, value } of ratios) assert.ok(Number.isFinite(value) && stdout.includes(what), `${what}: ${value}`)
  assert.deepEqual(await readdir(directory), ['results'], 'the bench leaves nothing behind')
})
