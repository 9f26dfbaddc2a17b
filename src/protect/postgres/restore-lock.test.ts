import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { FileLock } from './restore-lock.ts'

const MODULE = new URL('./restore-lock.ts', import.meta.url)

async function lockPath(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'resus-lock-'))
  t.after(() => rm(directory, { recursive: true }))
  return join(directory, 'lock')
}

function take(path: string): Promise<FileLock | undefined> {
  return FileLock.take(path, (why) => assert.fail(why))
}

test('a lock is held by one at a time, and free again when it was ended', async (t) => {
  const path = await lockPath(t)
  const both = await Promise.all([take(path), take(path)])
  const held = both.filter((lock) => lock !== undefined)
  assert.equal(held.length, 1)
  assert.equal(await take(path), undefined)
  await held[0]![Symbol.asyncDispose]()
  const again = await take(path)
  assert.ok(again !== undefined)
  await again[Symbol.asyncDispose]()
})

test('a lock whose file was removed by its holder is no lock for who opened the file before', async (t) => {
  const path = await lockPath(t)
  const first = await take(path)
  await first!.remove()
  const second = await take(path)
  assert.ok(second !== undefined)
  assert.equal(await take(path), undefined)
  await first![Symbol.asyncDispose]()
  assert.equal(await take(path), undefined)
  await second[Symbol.asyncDispose]()
})

test('the lock of a process that was killed blocks nobody', async (t) => {
  const path = await lockPath(t)
  const script = `
    import { FileLock } from ${JSON.stringify(fileURLToPath(MODULE))}
    const lock = await FileLock.take(${JSON.stringify(path)}, () => undefined)
    process.stdout.write(lock === undefined ? 'refused' : 'held')
    setInterval(() => undefined, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  t.after(() => child.kill('SIGKILL'))
  const [said] = (await once(child.stdout, 'data')) as [Buffer]
  assert.equal(said.toString(), 'held')
  assert.equal(await take(path), undefined)
  child.kill('SIGKILL')
  await exited
  const lock = await take(path)
  assert.ok(lock !== undefined)
  await lock[Symbol.asyncDispose]()
})
