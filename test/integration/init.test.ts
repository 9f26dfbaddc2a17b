import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { findLocalServers } from '../../src/postgres/local-servers.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { FreshServer, MAIN, type Outcome } from '../services/set-up.ts'

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url))
const execute = promisify(execFile)

interface SetUpAnswer {
  readonly recoverySheet: string
  readonly proofs: readonly { readonly verdict: string; readonly expires: string }[]
  readonly steps: readonly { readonly step: string }[]
}

for (const major of [15, 18]) {
  const skip = await skipUnlessInstalled(major)

  test(
    `PostgreSQL ${major}: one command leads from a server to a proven backup, and a second changes nothing`,
    { skip },
    async (t) => {
      const server = await FreshServer.start(t, major)
      await server.query("alter system set log_statement = 'all'")
      await server.query('select pg_reload_conf()')
      const first = await server.run('init', '--yes', ...server.flags, '--json')
      assert.equal(first.status, 0, first.stderr + first.stdout)
      const answer = JSON.parse(first.stdout) as SetUpAnswer
      assert.equal(answer.proofs[0]?.verdict, 'verified')

      const home = dirname(server.config)
      for (const name of ['resus.yaml', 'connection', 'passphrase', 'recovery-sheet.txt', 'server.yaml']) {
        assert.equal((await stat(join(home, name))).mode & 0o777, 0o600, name)
      }
      for (const path of [home, join(home, 'state'), join(server.cluster.home, 'repository')]) {
        assert.equal((await stat(path)).mode & 0o777, 0o700, path)
      }
      const connection = await readFile(join(home, 'connection'), 'utf8')
      const password = new URL(connection.trim()).password
      const passphrase = (await readFile(join(home, 'passphrase'), 'utf8')).trim()
      const log = await readFile(server.cluster.logFile, 'utf8')
      assert.match(log, /create role "resus" login replication password 'SCRAM-SHA-256\$/)
      for (const [what, text] of Object.entries({ log, sheet: await readFile(answer.recoverySheet, 'utf8'), ...first })) {
        for (const secret of [password, passphrase]) assert(!String(text).includes(secret), `a secret is in ${what}`)
      }
      const [limits] = await server.query<{ keep: string; slot: string }>(
        `select current_setting('max_slot_wal_keep_size') as keep, (select string_agg(slot_name, ' ') from pg_replication_slots) as slot`,
      )
      assert.match(limits!.keep, /^\d+GB$/)
      assert.equal(limits!.slot, 'resus')

      const before = await server.query('select rolpassword from pg_authid where rolname = $$resus$$')
      const second = await server.run('init', '--comprehensive', '--yes', '--json')
      assert.equal(second.status, 0, second.stderr)
      const { steps } = JSON.parse(second.stdout) as SetUpAnswer
      for (const { step } of steps) assert.match(step, /there already|nothing that a backup needs is missing/)
      assert.deepEqual(await server.query('select rolpassword from pg_authid where rolname = $$resus$$'), before)

      const valid = await server.run('init', '--validate-only')
      assert.equal(valid.status, 0, valid.stdout)
      const beats = await server.query('select sequence from resus.heartbeat')
      assert.equal(beats.length, 1)
    },
  )
}

const skip = await skipUnlessInstalled(15)

function errorOf({ stdout }: Outcome): { code: string; message: string; hint: string } {
  return (JSON.parse(stdout) as { error: { code: string; message: string; hint: string } }).error
}

/** Every path with its mode and its time of change. */
async function everything(home: string): Promise<string[]> {
  const entries = await readdir(home, { recursive: true, withFileTypes: true })
  const paths = entries.map((entry) => join(entry.parentPath, entry.name)).filter((path) => !path.includes('/data'))
  return await Promise.all(
    paths.toSorted().map(async (path) => {
      const found = await stat(path)
      // A probe comes and goes in the repository's own directory.
      return `${path} ${found.mode.toString(8)} ${found.isDirectory() || path.endsWith('.log') ? '' : found.mtimeMs}`
    }),
  )
}

test('what was not said is asked by the name of its flag, and nothing is changed', { skip }, async (t) => {
  const server = await FreshServer.start(t, 15)
  const { directory, home } = server.cluster
  const cluster = ['--cluster', directory]
  const cases: readonly (readonly [string[], RegExp, RegExp])[] = [
    [cluster, /Name of the system/, /--system/],
    [[...cluster, '--system', 'x'], /Tier/, /--tier/],
    [[...cluster, '--system', 'x', '--tier', 'urgent'], /"urgent" will not do: one of critical/, /--tier/],
    [[...cluster, '--yes', '--storage', join(home, 'repository')], /on the disk of the data directory/, /--storage/],
    [['--cluster', home, '--yes'], /no server that this account can see/, /--cluster/],
    [[...server.flags, '--tier', 'low', '--no-synchronous'], /Run this SQL now/, /--yes/],
    [['--yes', '--backup-only', '--dr-only'], /--backup-only and --dr-only were given/, /choose one/],
    [
      ['--superuser-connection', 'postgres://a:secret@h/x', ...server.flags, '--yes'],
      /found a password in it/,
      /file:\/path or env:NAME/,
    ],
  ]
  for (const [args, message, hint] of cases) {
    const outcome = await server.run('init', ...args, '--json')
    assert.equal(outcome.status, 2, outcome.stderr)
    const error = errorOf(outcome)
    assert.equal(error.code, 'ARGUMENTS_INVALID')
    assert.match(error.message, message)
    assert.match(error.hint, hint)
    assert(!outcome.stdout.includes('secret'))
  }
  const absent = await server.run('init', '--dr-only', '--yes', '--json')
  assert.equal(errorOf(absent).code, 'CONFIG_UNREADABLE')
  assert(!existsSync(dirname(server.config)))
  assert.deepEqual(await server.query("select 1 from pg_roles where rolname = 'resus'"), [])
})

test('of two clusters none is chosen: both are listed', { skip }, async (t) => {
  const one = await FreshServer.start(t, 15)
  const other = await FreshServer.start(t, 15)
  const outcome = await one.run('init', '--yes', '--json')
  assert.equal(outcome.status, 2)
  const { message, hint } = errorOf(outcome)
  for (const { cluster } of [one, other])
    assert(message.includes(`${cluster.directory} (PostgreSQL 15, port ${cluster.port})`), message)
  assert.match(hint, /--cluster/)
  const found = (await findLocalServers()).find(({ dataDirectory }) => dataDirectory === one.cluster.directory)
  assert.deepEqual([found?.port, found?.major, found?.address], [one.cluster.port, 15, '127.0.0.1'])
})

test(
  '--sql-only prints what the server lacks and changes nothing; what a superuser has run by hand is used as it is',
  { skip },
  async (t) => {
    const server = await FreshServer.start(t, 15)
    const { directory, home, port } = server.cluster
    const shown = await server.run('init', '--sql-only', '--cluster', directory, '--json')
    assert.equal(shown.status, 0, shown.stderr)
    const { sql } = JSON.parse(shown.stdout) as { sql: string[] }
    assert(!existsSync(dirname(server.config)))
    assert.deepEqual(await server.query("select 1 from pg_roles where rolname = 'resus'"), [])
    for (const statement of sql) await server.query(statement.replace("'…'", "'chosen by hand'"))
    const [before] = await server.query('select rolpassword from pg_authid where rolname = $$resus$$')

    const refused = await server.run('init', '--yes', ...server.flags, '--json')
    assert.deepEqual([refused.status, errorOf(refused).code], [2, 'ARGUMENTS_INVALID'])
    assert.match(errorOf(refused).hint, /--new-password/)
    await writeFile(join(home, 'resus.conn'), `postgres://resus:chosen%20by%20hand@127.0.0.1:${port}/postgres\n`, { mode: 0o600 })
    const nothing = ['--superuser-connection', 'postgres://nobody@127.0.0.1:1/postgres']
    const files = ['--connection-file', join(home, 'resus.conn'), ...nothing]
    const done = await server.run('init', '--backup-only', '--yes', ...server.flags, ...files, '--json')
    assert.equal(done.status, 0, done.stderr)
    assert.doesNotMatch(done.stderr, /made on the server/)
    assert.deepEqual(await server.query('select rolpassword from pg_authid where rolname = $$resus$$'), [before])
  },
)

test('a role whose password is not known gets a new one only when that is said', { skip }, async (t) => {
  const server = await FreshServer.start(t, 15)
  await server.query("create role resus login replication password 'of another life'")
  const [before] = await server.query('select rolpassword from pg_authid where rolname = $$resus$$')
  const refused = await server.run('init', '--yes', ...server.flags, '--json')
  assert.deepEqual([refused.status, errorOf(refused).code], [2, 'ARGUMENTS_INVALID'])
  assert.deepEqual(await server.query('select rolpassword from pg_authid where rolname = $$resus$$'), [before])
  const done = await server.run('init', '--backup-only', '--yes', '--new-password', ...server.flags)
  assert.equal(done.status, 0, done.stderr)
  assert.match(done.stderr, /made on the server: password of "resus"/)
  assert.notDeepEqual(await server.query('select rolpassword from pg_authid where rolname = $$resus$$'), [before])
})

test(
  'a heartbeat that another role has made beforehand is refused, with its owner, and nothing is changed',
  { skip },
  async (t) => {
    const server = await FreshServer.start(t, 15)
    await server.query('create role hospital; create schema resus authorization hospital')
    await server.query('create table resus.heartbeat (id int); alter table resus.heartbeat owner to hospital')
    const refused = await server.run('init', '--yes', ...server.flags, '--json')
    assert.deepEqual([refused.status, errorOf(refused).code], [2, 'SERVER_SETTING'])
    assert.match(
      errorOf(refused).message,
      /the table "resus\.heartbeat" in database "postgres" belongs to the role "hospital".*drop schema/,
    )
    assert(!existsSync(server.config))
    assert.deepEqual(await server.query("select 1 from pg_roles where rolname = 'resus'"), [])
  },
)

test('a connection string whose role cannot be made from it is refused, and is no mistake of Resus', { skip }, async (t) => {
  const server = await FreshServer.start(t, 15)
  const { home, port } = server.cluster
  const path = join(home, 'resus.conn')
  const place = `127.0.0.1:${port}/postgres`
  const cases: readonly (readonly [string, string, RegExp])[] = [
    [`postgres://resus@${place}`, 'ARGUMENTS_INVALID', /the connection string has none/],
    [`postgres://resus:p%C3%A4ssword@${place}`, 'ARGUMENTS_INVALID', /other characters than printable ASCII/],
    [`postgres://resus:x@${place}?sslmode=verify-full&sslrootcert=${home}/none.crt`, 'CONFIG_INVALID', /ENOENT.*none\.crt/],
  ]
  for (const [connection, code, message] of cases) {
    await writeFile(path, `${connection}\n`, { mode: 0o600 })
    const refused = await server.run('init', '--yes', ...server.flags, '--connection-file', path, '--json')
    assert.deepEqual([refused.status, errorOf(refused).code], [2, code], refused.stdout)
    assert.match(errorOf(refused).message, message)
  }
  assert(!existsSync(server.config))
  assert.deepEqual(await server.query("select 1 from pg_roles where rolname = 'resus'"), [])
})

test('a minimal wal_level and a closed pg_hba.conf are said with what to do', { skip }, async (t) => {
  const server = await FreshServer.start(t, 15)
  await server.cluster.stop()
  await server.cluster.start({ wal_level: 'minimal', max_wal_senders: '0' })
  const minimal = await server.run('init', '--yes', ...server.flags, '--json')
  assert.equal(errorOf(minimal).code, 'SERVER_SETTING')
  assert.match(errorOf(minimal).message, /wal_level is minimal.*max_wal_senders is 0/)
  assert(!existsSync(dirname(server.config)))
  await server.cluster.stop()
  const rules = 'local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n'
  await writeFile(join(server.cluster.directory, 'pg_hba.conf'), rules)
  await server.cluster.start()
  const closed = await server.run('init', '--yes', ...server.flags, '--json')
  assert.equal(errorOf(closed).code, 'LOGIN_REFUSED')
  assert.match(errorOf(closed).hint, /host replication resus 127\.0\.0\.1\/32 scram-sha-256/)
  await writeFile(join(server.cluster.directory, 'pg_hba.conf'), `${rules}host replication resus 127.0.0.1/32 scram-sha-256\n`)
  await server.query('select pg_reload_conf()')
  // The flags are not needed any more: it goes on.
  const done = await server.run('init', '--yes', '--backup-only')
  assert.equal(done.status, 0, done.stderr)
})

test('--validate-only changes nothing, and names the right that is missing', { skip }, async (t) => {
  const server = await FreshServer.start(t, 15)
  const none = await server.run('init', '--validate-only', '--json')
  assert.equal(none.status, 1)
  assert.match(none.stdout, /"configuration"/)
  await server.run('init', '--yes', '--backup-only', ...server.flags)
  const { home } = server.cluster
  const repository = join(home, 'repository')
  await rm(join(dirname(server.config), 'state'), { recursive: true })
  const before = await everything(home)
  const good = await server.run('init', '--validate-only', '--json')
  assert.equal(good.status, 0, good.stdout)
  assert.deepEqual(await everything(home), before)

  await chmod(repository, 0o500)
  const closed = await server.run('init', '--validate-only', '--json')
  await chmod(repository, 0o700)
  assert.equal(closed.status, 1)
  const { checks } = JSON.parse(closed.stdout) as { checks: { name: string; verdict: string; found: string; hint: string }[] }
  const put = checks.find(({ name }) => name === 'storage: put')
  assert.equal(put?.verdict, 'failed')
  assert.match(put.found, /EACCES/)
  assert.match(put.hint, /write and search \(-wx\)/)
  assert.equal(checks.find(({ name }) => name === 'storage: list')?.verdict, 'passed')

  await chmod(join(dirname(server.config), 'passphrase'), 0o644)
  await server.query('drop table resus.heartbeat')
  const worse = await server.run('init', '--validate-only')
  assert.equal(worse.status, 1)
  assert.match(worse.stdout, /failed +passphrase can be read +by this account alone .*everybody may/)
  assert.match(worse.stdout, /not proven +heartbeat/)
  assert.match(worse.stdout, /1 of \d+ checks failed/)
})

test('the commands of the recovery sheet bring the cluster back from repository and passphrase alone', { skip }, async (t) => {
  const server = await FreshServer.start(t, 15)
  const { home, directory } = server.cluster
  await server.query("create table notes as select 'kept' as note")
  const made = await server.run('init', '--yes', '--sheet-with-passphrase', ...server.flags)
  assert.equal(made.status, 0, made.stderr)
  const sheet = await readFile(join(dirname(server.config), 'recovery-sheet.txt'), 'utf8')
  const passphrase = /^Passphrase +(\S+)$/m.exec(sheet)?.[1] ?? ''
  assert(passphrase.length > 40 && !made.stdout.includes(passphrase))

  // The disaster: all is gone but the repository.
  await server.cluster.kill()
  await rm(dirname(server.config), { recursive: true })
  await rename(directory, join(home, 'gone'))
  await mkdir(join(dirname(server.config), 'state'), { recursive: true, mode: 0o700 })
  const commands = /^As ".*", in the directory of Resus:\n([^]*?)^The last command/m.exec(sheet)?.[1]
  assert(commands !== undefined, sheet)
  const running = spawn('bash', ['-e', '-c', commands.replaceAll(/^ {4}/gm, '')], {
    cwd: CHECKOUT,
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  running.stdin.end(`${passphrase}\n`)
  let output = ''
  for (const stream of [running.stdout, running.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()))
  const status = await new Promise((resolve) => running.once('close', resolve))
  assert.equal(status, 0, output)
  await rename(`${directory}-restored`, directory)
  await server.cluster.start()
  await server.waitFor('recovery ends', 'select not pg_is_in_recovery()')
  assert.deepEqual(await server.query('select note from notes'), [{ note: 'kept' }])
})

test(
  'on a terminal each question has a proposal that Enter takes',
  { skip: skip || (!existsSync('/usr/bin/script') && 'there is no script(1)') },
  async (t) => {
    const server = await FreshServer.start(t, 15)
    const { directory, home } = server.cluster
    const output = await onTerminal(
      t,
      [process.execPath, MAIN, 'init', '--backup-only', '--config', server.config, '--cluster', directory],
      [
        ['Name of the system [', 'St. Mary "North"'],
        ['[critical]: ', 'urgent'],
        ['[critical]: ', ''],
        ['Directory of the repository', join(home, 'repository')],
        ['all the same? [no]: ', 'yes'],
        ['commits wait for Resus', ''],
        ['Run this SQL now? [yes]: ', ''],
      ],
    )
    assert.match(output, /one of critical, high, medium, low/)
    assert.match(output, /WHAT IS LEFT FOR YOU/)
    const shown = await execute(process.execPath, [MAIN, 'config', '--config', server.config])
    assert.match(shown.stdout, /system: St\. Mary "North"/)
    assert.match(shown.stdout, /tier: critical/)
  },
)

test(
  'Ctrl-C at a question ends it, and nothing is changed',
  { skip: skip || (!existsSync('/usr/bin/script') && 'there is no script(1)') },
  async (t) => {
    const server = await FreshServer.start(t, 15)
    const asked = [process.execPath, MAIN, 'init', '--config', server.config, '--cluster', server.cluster.directory]
    const output = await onTerminal(t, asked, [['Name of the system [', '\u0003']])
    assert.match(output, /interrupted by SIGINT/)
    assert(!existsSync(dirname(server.config)))
  },
)

/** Answers each question when it is asked; gives all that was shown. */
async function onTerminal(
  t: TestContext,
  command: readonly string[],
  answers: readonly (readonly [string, string])[],
): Promise<string> {
  const line = command.map((each) => `'${each}'`).join(' ')
  const child = spawn('script', ['-qec', line, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  let [output, from, answered] = ['', 0, 0]
  child.stdout.on('data', (data: Buffer) => {
    output += data.toString()
    const next = answers[answered]
    if (next === undefined || !output.slice(from).includes(next[0])) return
    from = output.length
    answered += 1
    child.stdin.write(next[1] === '\u0003' ? next[1] : `${next[1]}\n`)
  })
  await new Promise((resolve) => child.once('close', resolve))
  assert.equal(answered, answers.length, output)
  return output
}
