import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { msToMicros } from '../postgres/timestamp.ts'
import { parseTargetTime } from './target-time.ts'
import { VERBS } from './verbs.ts'

const MAIN = fileURLToPath(new URL('main.js', import.meta.url))

interface Outcome {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

/** The command line as a process of its own, as everybody has it. */
function resus(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { env: { ...process.env, ...env } }, (error, stdout, stderr) => {
      resolve({ status: typeof error?.code === 'number' ? error.code : 0, stdout, stderr })
    })
  })
}

async function configured(
  t: TestContext,
  replace: readonly [string, string] = ['', ''],
): Promise<{ config: string; home: string }> {
  const home = await mkdtemp(join(tmpdir(), 'resus-cli-'))
  t.after(() => rm(home, { recursive: true }))
  const config = join(home, 'resus.yaml')
  const text = `system: osun-his
state: state
repository:
  storages: [{ name: main, kind: directory, path: repository }]
  key: { passphrase: "file:passphrase" }
components:
  his-db:
    kind: postgres
    tier: critical
    connection: "postgres://resus@127.0.0.1:1/postgres"
    dataDirectory: data
`
  await writeFile(config, text.replace(...replace))
  await writeFile(join(home, 'passphrase'), 'correct horse battery staple\n', { mode: 0o600 })
  return { config, home }
}

function errorOf(outcome: Outcome): { code: string; message: string; hint: string | null } {
  return (JSON.parse(outcome.stdout) as { error: { code: string; message: string; hint: string | null } }).error
}

test('every verb loads and explains itself', async () => {
  const help = await resus(['--help'])
  assert.equal(help.status, 0)
  for (const { name, load } of VERBS) {
    assert.match(help.stdout, new RegExp(`^  ${name} `, 'm'))
    assert.equal(typeof (await load()).run, 'function', name)
  }
  const backup = await resus(['backup', '--help'])
  assert.match(backup.stdout, /--type <type>[^]*--config <path>[^]*--json/)
})

test('wrong arguments are exit status 2 with a hint, and one JSON document with --json', async () => {
  for (const args of [
    ['nonsense'],
    ['backup', '--nonsense'],
    ['init', 'too', 'many'],
    ['backup', '--type', 'weekly'],
    ['restore', 'his-db'],
  ]) {
    const plain = await resus(args)
    assert.equal(plain.status, 2, args.join(' '))
    assert.match(plain.stderr, /^resus: .+\n[^]*hint: /, args.join(' '))
    assert.equal(plain.stdout, '')
    const json = await resus([...args, '--json'])
    assert.equal(json.status, 2)
    assert.equal(errorOf(json).code, 'ARGUMENTS_INVALID')
  }
})

test('a configuration that is missing or wrong is exit status 2, without a stack', async (t) => {
  const missing = await resus(['status', '--config', '/nonexistent/resus.yaml'])
  assert.equal(missing.status, 2)
  assert.match(missing.stderr, /^resus: cannot read the configuration "\/nonexistent\/resus.yaml": ENOENT\nhint: /)
  assert.doesNotMatch(missing.stderr, /\n {4}at /)
  const { config } = await configured(t, ['tier: critical', 'tier: urgent'])
  const wrong = await resus(['config', '--json'], { RESUS_CONFIG: config })
  assert.equal(wrong.status, 2)
  assert.match(errorOf(wrong).message, /resus\.yaml:9:11: components\.his-db\.tier: found "urgent"/)
})

test('init makes the repository, and is harmless when it is there; another passphrase or system is refused', async (t) => {
  const { config, home } = await configured(t)
  const unmounted = await resus(['backups', '--config', config, '--json'])
  assert.deepEqual([unmounted.status, errorOf(unmounted).code], [1, 'STORAGE_UNREACHABLE'])
  await mkdir(join(home, 'repository'))
  const before = await resus(['backups', '--config', config, '--json'])
  assert.deepEqual([before.status, errorOf(before).code], [2, 'REPOSITORY_MISSING'])
  const first = await resus(['init', '--config', config, '--json'])
  assert.equal(first.status, 0, first.stderr)
  const made = JSON.parse(first.stdout) as { repository: string; created: boolean }
  assert.equal(made.created, true)
  const second = await resus(['init', '--config', config, '--json'])
  assert.deepEqual(JSON.parse(second.stdout), { ...made, created: false })
  const backups = await resus(['backups', '--config', config, '--json'])
  assert.deepEqual([backups.status, JSON.parse(backups.stdout)], [0, []])
  await writeFile(join(home, 'passphrase'), 'another')
  const wrongKey = await resus(['init', '--config', config, '--json'])
  assert.deepEqual([wrongKey.status, errorOf(wrongKey).code], [2, 'KEY_WRONG'])
})

test('a passphrase that everybody may read is a warning on standard error, and standard output stays one document', async (t) => {
  const { config, home } = await configured(t)
  await chmod(join(home, 'passphrase'), 0o644)
  const outcome = await resus(['init', '--config', config, '--json'])
  assert.match(outcome.stderr, /warning: everybody on this host may read the passphrase/)
  assert.equal((JSON.parse(outcome.stdout) as { created: boolean }).created, true)
  assert.doesNotMatch(outcome.stdout + outcome.stderr, /correct horse/)
})

test('status answers without a server, and proves nothing', async (t) => {
  const { config } = await configured(t)
  await resus(['init', '--config', config])
  const outcome = await resus(['status', '--config', config, '--json'])
  assert.equal(outcome.status, 0, outcome.stderr)
  const { components } = JSON.parse(outcome.stdout) as { components: { verdict: string; receiver: { problem: string } }[] }
  assert.equal(components[0]?.verdict, 'not proven')
  assert.match(components[0]?.receiver.problem ?? '', /cannot connect/)
  const plain = await resus(['status', '--config', config])
  assert.match(plain.stdout, /proven by a restore: +not proven/)
})

test('config prints what was understood without the secret, and the JSON Schema', async (t) => {
  const { config } = await configured(t)
  const plain = await resus(['config', '--config', config])
  assert.match(plain.stdout, /passphrase: "?\[secret\] from file:\/.*passphrase/)
  const schema = await resus(['config', '--schema', '--json', '--config', '/nonexistent'])
  assert.equal((JSON.parse(schema.stdout) as { type: string }).type, 'object')
})

test('whatever goes wrong in wal-get is doubt: an exit status above 125', async (t) => {
  const { config } = await configured(t)
  const calls = [
    ['wal-get'],
    ['wal-get', '--nonsense'],
    ['wal-get', 'only-one'],
    ['wal-get', '000000010000000000000001', '/tmp/nowhere', '--config', '/nonexistent/resus.yaml', '--plan', '/nonexistent/plan'],
    ['wal-get', '000000010000000000000001', '/tmp/nowhere', '--config', config, '--plan', '/nonexistent/plan'],
    ['wal-get', '000000010000000000000001', '/tmp/nowhere', '--config', config],
  ]
  for (const call of calls) assert.equal((await resus(call)).status, 255, call.join(' '))
})

test('a target time needs its zone', () => {
  const wanted = msToMicros(Date.UTC(2026, 10, 21, 3, 0, 0))
  const accepted = ['2026-11-21T03:00:00Z', '2026-11-21 04:00:00+01:00', '2026-11-21 04:00+01', '2026-11-21T02:00:00.000-0100']
  for (const text of accepted) assert.equal(parseTargetTime(text), wanted, text)
  // As PostgreSQL prints it.
  assert.equal(parseTargetTime('2026-11-21 03:00:00.000012+00'), wanted + 12n)
  assert.equal(parseTargetTime('2026-11-21T02:59:59.5Z'), wanted - 500_000n)
  const zoneless = ['2026-11-21T03:00:00', '2026-11-21', 'yesterday']
  const malformed = [
    '2026-13-21T03:00:00Z',
    '21/11/2026 03:00Z',
    '2026-11-21T03:001Z',
    '2026-11-21T03:00:001Z',
    '2026-11-21T03:00:00.0000001Z',
  ]
  for (const text of [...zoneless, ...malformed]) {
    assert.throws(() => parseTargetTime(text), { code: 'ARGUMENTS_INVALID', hint: /2026-11-21T03:00:00Z/ }, text)
  }
})
