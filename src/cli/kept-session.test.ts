import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { SessionCredential } from './credential.ts'
import { forgetSession, keepSession, readSession } from './kept-session.ts'

const URL = 'http://127.0.0.1:7400'
const SESSION = { url: URL, cookie: 'resus-session=a.1.b.c', csrf: 'token' }

async function runtime(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'resus-session-'))
  const before = process.env.XDG_RUNTIME_DIR
  process.env.XDG_RUNTIME_DIR = directory
  t.after(async () => {
    if (before === undefined) delete process.env.XDG_RUNTIME_DIR
    else process.env.XDG_RUNTIME_DIR = before
    await rm(directory, { recursive: true })
  })
  return join(directory, 'resus')
}

test('a session is kept for its address, for this account alone, until it is forgotten', async (t) => {
  const directory = await runtime(t)
  assert.equal(await readSession(URL), undefined)
  await keepSession(SESSION)
  await keepSession({ ...SESSION, cookie: 'resus-session=a.2.b.c' })
  assert.equal((await readSession(URL))?.cookie, 'resus-session=a.2.b.c')
  assert.equal(await readSession('http://127.0.0.1:7401'), undefined)
  const [name, ...others] = await readdir(directory)
  assert.deepEqual(others, [])
  assert.equal((await stat(join(directory, name!))).mode & 0o777, 0o600)
  assert.equal((await stat(directory)).mode & 0o777, 0o700)
  await forgetSession(URL)
  assert.equal(await readSession(URL), undefined)
})

test('what others can read, or have put there, is not used', async (t) => {
  const directory = await runtime(t)
  await keepSession(SESSION)
  const [name = ''] = await readdir(directory)
  const path = join(directory, name)
  const refused = async () => assert.rejects(readSession(URL), { code: 'SECRET_UNREADABLE' })
  await chmod(path, 0o604)
  await refused()
  await chmod(path, 0o600)
  await chmod(directory, 0o750)
  await refused()
  await assert.rejects(keepSession(SESSION), { code: 'SECRET_UNREADABLE' })
  await chmod(directory, 0o700)
  await writeFile(path, '{"url":')
  await refused()
  await rm(path)
  await mkdir(path)
  await refused()
  await rm(path, { recursive: true })
  const elsewhere = join(directory, 'elsewhere')
  await writeFile(elsewhere, JSON.stringify(SESSION), { mode: 0o600 })
  await symlink(elsewhere, path)
  await refused()
  // Keeping one takes the link's place, and leaves what it leads to.
  await keepSession({ ...SESSION, csrf: 'another' })
  assert.equal((await readSession(URL))?.csrf, 'another')
  assert.deepEqual(JSON.parse(await readFile(elsewhere, 'utf8')), SESSION)
})

test('a secret that comes late does not take the place of what another command has got meanwhile', async (t) => {
  await runtime(t)
  await keepSession(SESSION)
  const slow = new SessionCredential(URL)
  const answer = (cookie: string) => new Headers([['set-cookie', `${cookie}; Path=/; HttpOnly; SameSite=Strict`]])
  assert.deepEqual(await slow.headers(), { cookie: SESSION.cookie, 'x-resus-csrf': SESSION.csrf })
  const quick = new SessionCredential(URL)
  await quick.headers()
  await quick.keep(answer('resus-session=z.1.b.c'), { session: { csrf: 'another' } })
  await slow.keep(answer('resus-session=a.2.b.c'), {})
  assert.deepEqual(await slow.headers(), { cookie: 'resus-session=z.1.b.c', 'x-resus-csrf': 'another' })
  await slow.keep(answer('resus-session=z.2.b.c'), undefined)
  assert.deepEqual(await quick.headers(), { cookie: 'resus-session=z.2.b.c', 'x-resus-csrf': 'another' })
  await slow.headers()
  await assert.rejects(slow.keep(answer('resus-session=a b'), undefined), { code: 'CONTROL_PLANE_UNREACHABLE' })
  await slow.keep(answer('resus-session='), undefined)
  assert.deepEqual(await quick.headers(), {})
})
