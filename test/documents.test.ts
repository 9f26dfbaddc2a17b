import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { VERBS } from '../src/cli/verbs.ts'
import { FAILURES } from '../src/errors.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

async function read(path: string): Promise<string> {
  return await readFile(join(ROOT, path), 'utf8')
}

test('docs/errors.md explains every failure, and none that does not exist', async () => {
  const explained = [...(await read('docs/errors.md')).matchAll(/^\| ([A-Z_]+) \|/gm)].map((match) => match[1])
  assert.deepEqual(new Set(explained), new Set(Object.keys(FAILURES)))
})

test('docs/capabilities.md names files that are there', async () => {
  const named = [...(await read('docs/capabilities.md')).matchAll(/`((?:src|test|hospital)\/[\w./-]+\.ts)`/g)].map(
    (match) => match[1] ?? '',
  )
  assert(named.length > 10)
  assert.deepEqual(
    named.filter((path) => !existsSync(join(ROOT, path))),
    [],
  )
})

test('README.md is short, and the verbs that it calls exist', async () => {
  const text = await read('README.md')
  assert(text.split('\n').length <= 150)
  const called = new Set([...text.matchAll(/\.\/resus (\w[\w-]*)/g)].map((match) => match[1]))
  const names = new Set(VERBS.map(({ name }) => name))
  assert.deepEqual(
    [...called].filter((verb) => !names.has(verb ?? '')),
    [],
  )
})

test('links between documents lead somewhere', async () => {
  for (const document of [
    'README.md',
    'docs/design.md',
    'docs/errors.md',
    'docs/capabilities.md',
    'docs/guide.md',
    'docs/restore.md',
    'docs/setup.md',
    'docs/streaming.md',
    'docs/verify.md',
    'docs/wal.md',
    'docs/what-a-backup-holds.md',
  ]) {
    const links = [...(await read(document)).matchAll(/\]\((?!http)([^)#]+)\)/g)].map((match) => match[1] ?? '')
    for (const link of links) assert(existsSync(join(ROOT, document, '..', link)), `${document}: ${link}`)
  }
})
