import assert from 'node:assert/strict'
import { lstat, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { appendDurably, syncAncestors, writeNew } from './durable-file.ts'

test('a link that somebody planted is replaced, and what it leads to stays as it was', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'resus-durable-'))
  t.after(() => rm(directory, { recursive: true }))
  const precious = join(directory, 'precious')
  await writeFile(precious, 'do not touch', { mode: 0o644 })
  const path = join(directory, 'pg_control')
  await symlink(precious, path)
  await writeNew(path, Buffer.from('control'), { mode: 0o640 })
  assert.equal(await readFile(precious, 'utf8'), 'do not touch')
  assert.equal((await lstat(precious)).mode & 0o777, 0o644)
  assert.equal(await readFile(path, 'utf8'), 'control')
  const made = await lstat(path)
  assert.ok(made.isFile())
  assert.equal(made.mode & 0o777, 0o640)

  const link = join(directory, 'postgresql.auto.conf')
  await symlink(precious, link)
  await assert.rejects(appendDurably(link, 'more'), { code: 'ELOOP' })
  assert.equal(await readFile(precious, 'utf8'), 'do not touch')
})

test('text is appended, a file that is there is replaced, and all directories above are made durable', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'resus-durable-'))
  t.after(() => rm(directory, { recursive: true }))
  const deep = join(directory, 'a/b/c')
  await mkdir(deep, { recursive: true })
  await writeNew(join(deep, 'file'), 'longer than what follows')
  await writeNew(join(deep, 'file'), 'one')
  await appendDurably(join(deep, 'file'), ' and two')
  assert.equal(await readFile(join(deep, 'file'), 'utf8'), 'one and two')
  await syncAncestors(join(deep, 'file'))
})
