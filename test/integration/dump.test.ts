import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { promisify } from 'node:util'
import { gunzipSync } from 'node:zlib'
import { toolPath } from '../../src/postgres/installation.ts'
import { Failure } from '../../src/errors.ts'
import { parseLsn } from '../../src/postgres/lsn.ts'
import { dumpPostgres, type DumpOptions } from '../../src/protect/postgres/dump.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { scratchContext, scratchRootOf, startResus } from '../services/proving.ts'
import { waitUntil } from '../services/wait-until.ts'
import { msToMicros } from '../../src/postgres/timestamp.ts'

const execute = promisify(execFile)
const skip = await skipUnlessInstalled(15)

const SCHEMA = `
  create table patients (id bigint primary key, name text not null, noise bytea);
  create index patients_by_name on patients (name);
  insert into patients select i, 'patient ' || i, decode(repeat(md5(i::text), 8), 'hex') from generate_series(1, 20000) i;
  create table visits (id bigint primary key, patient bigint references patients);
  insert into visits select i, i from generate_series(1, 1000) i`
const ALL = 'select count(*)::int as rows, md5(string_agg(p::text, chr(10) order by id)) as hash from patients p'

function options(cluster: ProtectedCluster, to: string, more: Partial<DumpOptions> = {}): DumpOptions {
  const subject = { kind: 'database', schemas: [], tables: [] } as const
  return { ...scratchContext(cluster), subject, format: 'custom', level: 1, to, ...more }
}

/** Nothing of a dump is left: no file in its directory but these, no scratch directory. */
async function assertOnly(cluster: ProtectedCluster, directory: string, names: readonly string[]): Promise<void> {
  assert.deepEqual((await readdir(directory)).toSorted(), names.toSorted())
  assert.deepEqual(await readdir(scratchRootOf(cluster)), [])
}

test('PostgreSQL 15: one table as it was before the mistake, in a file that another cluster takes', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 15 })
  await cluster.query(SCHEMA)
  const backup = await cluster.backup()
  await cluster.query(`update patients set name = name || ', discharged' where id <= 5000`)
  const [before] = await cluster.query(ALL)
  const [{ lsn }] = (await cluster.query('select pg_current_wal_insert_lsn()::text as lsn')) as [{ lsn: string }]
  await cluster.query('delete from patients where id > 10 and id not in (select patient from visits)')
  await cluster.query('drop table visits')
  // Its WAL is what a later backup streams.
  await cluster.backup()
  const directory = join(cluster.cluster.home, 'dumps')
  await mkdir(directory)
  const file = join(directory, 'patients.dump')
  const target = { kind: 'lsn', lsn: parseLsn(lsn), exclusive: true } as const
  const subject = { kind: 'database', schemas: [], tables: ['patients'] } as const
  const report = await dumpPostgres(options(cluster, file, { target, subject, from: backup.id }))
  assert.equal(report.database, 'postgres')
  assert.equal(report.backup, backup.id)
  assert.ok(parseLsn(report.reached.lsn) <= parseLsn(lsn), `${report.reached.lsn} is not behind ${lsn}`)
  assert.notEqual(report.reached.time, null)
  const bytes = await readFile(file)
  assert.equal(bytes.length, report.bytes)
  assert.equal(createHash('sha256').update(bytes).digest('hex'), report.sha256)
  assert.equal((await stat(file)).mode & 0o777, 0o600)
  await assertOnly(cluster, directory, ['patients.dump'])

  await cluster.query('create database mended')
  const restore = toolPath(cluster.cluster.installation, 'pg_restore')!
  const mended = cluster.cluster.connectionString.replace(/\/postgres$/, '/mended')
  await execute(restore, ['--exit-on-error', `--dbname=${mended}`, file])
  const psql = toolPath(cluster.cluster.installation, 'psql')!
  const { stdout } = await execute(psql, ['--no-psqlrc', '--tuples-only', '--no-align', `--dbname=${mended}`, '--command', ALL])
  assert.deepEqual(stdout.trim().split('|'), [String(before!.rows), before!.hash])
  const { stdout: tables } = await execute(psql, [
    '-Xtc',
    "select string_agg(relname, ',') from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace",
    `--dbname=${mended}`,
  ])
  assert.equal(tables.trim(), 'patients')
})

test('PostgreSQL 15: plain SQL of all of it, roles beside it, and what is refused', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 15 })
  await cluster.query('create role ward_3 login')
  await cluster.query(`create database "odd' name"`)
  await cluster.query(SCHEMA)
  await cluster.backup()
  const directory = join(cluster.cluster.home, 'dumps')
  await mkdir(directory)
  const plain = join(directory, 'all.sql.gz')
  const whole = { subject: { kind: 'database', database: 'postgres', schemas: [], tables: [] }, format: 'plain' } as const
  await dumpPostgres(options(cluster, plain, whole))
  const sql = gunzipSync(await readFile(plain)).toString('utf8')
  assert.match(sql, /^COPY public\.patients /m)
  assert.equal(sql.match(/patient \d+\t/g)?.length, 20_000)
  const globals = join(directory, 'roles.sql.gz')
  const ofCluster = await dumpPostgres(options(cluster, globals, { subject: { kind: 'globals' } }))
  assert.equal(ofCluster.database, null)
  assert.match(gunzipSync(await readFile(globals)).toString('utf8'), /CREATE ROLE ward_3;/)
  const odd = { kind: 'database', database: "odd' name", schemas: [], tables: [] } as const
  assert.equal((await dumpPostgres(options(cluster, join(directory, 'odd.dump'), { subject: odd }))).database, "odd' name")
  const names = ['all.sql.gz', 'roles.sql.gz', 'odd.dump']

  const refused = async (to: string, code: string, message: RegExp, more: Partial<DumpOptions> = {}) => {
    await assert.rejects(dumpPostgres(options(cluster, to, more)), (error) => {
      assert.ok(error instanceof Failure, String(error))
      assert.equal(error.code, code)
      assert.match(error.message, message)
      return true
    })
    await assertOnly(cluster, directory, names)
  }
  const other = join(directory, 'other.dump')
  await refused(plain, 'ARGUMENTS_INVALID', /all\.sql\.gz" exists/)
  await refused(join(directory, 'none/x.dump'), 'ARGUMENTS_INVALID', /directory ".*none" of --to does not exist/)
  await chmod(directory, 0o500)
  await refused(other, 'ARGUMENTS_INVALID', /cannot write the dump .*EACCES/)
  await chmod(directory, 0o700)
  const nowhere = { kind: 'database', database: 'his', schemas: [], tables: [] } as const
  await refused(other, 'ARGUMENTS_INVALID', /no database "his" at this target: there it has "odd' name", "postgres"/, {
    subject: nowhere,
  })
  const noTable = { kind: 'database', database: 'postgres', schemas: [], tables: ['no_such'] } as const
  await refused(other, 'POSTGRES_FAILED', /no matching tables/, { subject: noTable })
  await refused(other, 'TARGET_OUTSIDE_WINDOW', /./, { target: { kind: 'time', micros: msToMicros(0) } })
})

test('a dump whose program dies, or says that all is well too early, is none', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 15 })
  await cluster.query(SCHEMA)
  await cluster.backup()
  const directory = join(cluster.cluster.home, 'dumps')
  const binaries = join(cluster.cluster.home, 'bin')
  for (const made of [directory, binaries]) await mkdir(made)
  const real = cluster.cluster.installation.binDirectory
  for (const tool of ['postgres', 'pg_restore']) {
    await writeFile(join(binaries, tool), `#!/bin/sh\nexec ${real}/${tool} "$@"\n`)
    await chmod(join(binaries, tool), 0o755)
  }
  const dumpBy = async (script: string, more: Partial<DumpOptions> = {}) => {
    await writeFile(join(binaries, 'pg_dump'), `#!/bin/sh\n${script}\n`)
    await chmod(join(binaries, 'pg_dump'), 0o755)
    const component = { ...cluster.component, binaries }
    const file = join(directory, 'his.dump')
    await assert.rejects(dumpPostgres(options(cluster, file, { component, ...more })), { code: 'POSTGRES_FAILED' })
    await assertOnly(cluster, directory, [])
  }
  // A pipe into a compressor would call these a success.
  await dumpBy(`${real}/pg_dump "$@" | head -c 100000; kill -9 $$`)
  await dumpBy(`${real}/pg_dump "$@" | head -c 100000`)
  await dumpBy(`${real}/pg_dump "$@" | head -c 100000`, { format: 'plain' })
  await dumpBy('exit 0')
  await dumpBy('exit 0', { format: 'plain' })
  await dumpBy(`echo 'the disk is gone' >&2; exit 1`)
})

test('on the command line: a dump, its report, and one that is told to end', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 15 })
  await cluster.query(SCHEMA)
  await cluster.backup()
  const directory = join(cluster.cluster.home, 'dumps')
  await mkdir(directory)
  const file = join(directory, 'his.dump')
  const done = await startResus(cluster, 'dump', '--to', file).ended
  assert.equal(done.status, 0, done.stderr)
  assert.equal((JSON.parse(done.stdout) as { file: string }).file, file)
  const told = startResus(cluster, 'dump', '--to', join(directory, 'other.dump'))
  await waitUntil('the copy is being restored', async () => (await readdir(scratchRootOf(cluster))).length > 0)
  told.child.kill('SIGINT')
  const ended = await told.ended
  assert.equal(ended.status, 1)
  assert.match(ended.stdout, /INTERRUPTED/)
  await assertOnly(cluster, directory, ['his.dump'])
  const twice = await startResus(cluster, 'dump', '--globals', '--table', 'x', '--to', join(directory, 'x')).ended
  assert.equal(twice.status, 2)
  assert.match(twice.stdout, /--globals is of the whole cluster/)
})

const skip18 = await skipUnlessInstalled(18)

test('PostgreSQL 18: without its pg_dump it says so before anything is restored', { skip: skip18 }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  if (toolPath(cluster.cluster.installation, 'pg_dump') !== undefined) {
    t.skip('this installation has one')
    return
  }
  await cluster.backup()
  const file = join(cluster.cluster.home, 'his.dump')
  await assert.rejects(dumpPostgres(options(cluster, file)), { code: 'POSTGRES_MISSING', message: /has no pg_dump/ })
})
