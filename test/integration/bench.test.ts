import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { findPgBackRest } from '../../bench/pgbackrest.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'

const BENCH = fileURLToPath(new URL('../../bench/bench.ts', import.meta.url))
const skip = findPgBackRest() === undefined ? 'pgBackRest is not installed' : await skipUnlessInstalled(15)

interface BenchResult {
  readonly clusterBytes: number
  readonly figures: Readonly<Record<string, readonly number[]>>
  readonly compared: readonly string[]
  readonly ratios: readonly { name: string; value: number }[]
}

test('the bench ends, with every restored cluster compared and every figure measured', { skip }, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'n-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  const results = join(directory, 'results')
  const sizes = ['--only', 'backup', '--size-mb', '60', '--rounds', '1']
  const { stdout } = await promisify(execFile)(process.execPath, [
    BENCH,
    ...sizes,
    '--directory',
    directory,
    '--results',
    results,
  ])
  const names = await readdir(results)
  assert.equal(names.length, 1)
  const result = JSON.parse(await readFile(join(results, names[0]!), 'utf8')) as BenchResult
  assert.deepEqual(result.compared.toSorted(), ['Resus', 'pgBackRest zst 1'])
  assert.ok(result.clusterBytes > 30_000_000, `${result.clusterBytes} bytes`)
  assert.ok(Object.keys(result.figures).length > 20)
  for (const [name, values] of Object.entries(result.figures)) {
    for (const value of values) assert.ok(value > 0, `${name}: ${value}`)
  }
  for (const { name, value } of result.ratios) assert.ok(value > 0 && stdout.includes(name), `${name}: ${value}`)
  assert.deepEqual(await readdir(directory), ['results'], 'the bench leaves nothing behind')
})

test('the rows of many files, of incrementals and of recovery end, each with its figures and ratios', { skip }, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'n-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  const results = join(directory, 'results')
  const rows = ['--only', 'relations,incrementals,recovery', '--rounds', '1']
  const sizes = ['--relations', '40', '--incrementals', '2', '--incrementals-mb', '60', '--recovery-mb', '20']
  const places = ['--directory', directory, '--results', results]
  const { stdout } = await promisify(execFile)(process.execPath, [BENCH, ...rows, ...sizes, ...places])
  const names = (await readdir(results)).toSorted()
  assert.deepEqual(
    names.map((name) => name.slice('2026-11-21T00-00-00-'.length)),
    ['incrementals.json', 'recovery.json', 'relations.json'],
  )
  for (const name of names) {
    const { figures, ratios } = JSON.parse(await readFile(join(results, name), 'utf8')) as BenchResult
    for (const [what, values] of Object.entries(figures)) for (const value of values) assert.ok(value > 0, `${what}: ${value}`)
    assert.equal(ratios.length, 2)
    for (const { name: what, value } of ratios) assert.ok(value > 0 && stdout.includes(what), `${what}: ${value}`)
  }
  assert.deepEqual(await readdir(directory), ['results'], 'the bench leaves nothing behind')
})
