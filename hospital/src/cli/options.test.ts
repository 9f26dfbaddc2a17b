import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { runHospital } from '../../test/services/hospital-command.ts'
import { skip, testHospital } from '../../test/services/hospital-database.ts'
import { asOwner } from '../database/owner.ts'

/** Everything that works on a hospital which is there. */
const COMMANDS = [
  ['token', 'group'],
  ['topics', 'status'],
  ['topics', 'publish', '--until-caught-up'],
  ['topics', 'acknowledge', '--by', 'Bisi'],
  ['hold', '--by', 'Bisi', '--reason', 'a drill'],
  ['release', '--by', 'Bisi'],
  ['messages'],
  ['messages', 'requeue', '--by', 'Bisi'],
  ['rebuild'],
  ['check'],
  ['lost', 'acknowledged.log'],
]
/** They make a hospital, or ask one through HTTP. */
const OTHERS = ['serve', 'generate', 'activity', 'help']

async function emptyDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'hospital-options-'))
  t.after(async () => rm(directory, { recursive: true, force: true }))
  return directory
}

test('every command is one that makes a hospital or one that this file tries without', async () => {
  const { stdout } = await runHospital('--help')
  const names = [...stdout.slice(stdout.indexOf('Commands:')).matchAll(/^ {2}([a-z]+)/gm)].map((found) => found[1])
  assert.deepEqual(new Set(names), new Set([...COMMANDS.map(([name]) => name), ...OTHERS]))
})

test('a home that is mistyped is named, and no hospital is made there', { skip }, async (t) => {
  const parent = await emptyDirectory(t)
  const home = join(parent, 'mistyped')
  for (const words of COMMANDS) {
    const { status, stdout, stderr } = await runHospital('--home', home, ...words)
    assert.deepEqual([status, stdout], [2, ''], `${words.join(' ')}: ${stderr}`)
    assert.ok(stderr.includes(`there is no hospital in "${home}"`), stderr)
    assert.match(stderr, /--home.*--database.*hospital serve/)
  }
  assert.deepEqual(await readdir(parent), [])
})

test('a database that holds no hospital is left as it is', { skip }, async (t) => {
  const { connectionString, home, admin } = await testHospital(t)
  const before = await admin.query('select oid, datname from pg_database order by oid')
  await admin.query('create database no_hospital template template0')
  const database = connectionString.replace(/\/hospital_\d+$/, '/no_hospital')
  for (const words of COMMANDS) {
    const { status, stderr } = await runHospital('--home', home, '--database', database, ...words)
    assert.equal(status, 2, `${words.join(' ')}: ${stderr}`)
    assert.match(stderr, /this database holds no hospital\n {2}hint: /)
  }
  const made = await asOwner({ connectionString: database, name: 'test' }, async (client) =>
    client.query("select relname from pg_class where relnamespace >= 16384 or relnamespace = 'public'::regnamespace"),
  )
  assert.deepEqual(made.rows, [])
  const { status, stdout, stderr } = await runHospital('--home', home, '--database', database, 'generate', '--patients', '0')
  assert.equal(status, 0, stderr)
  assert.match(stdout, /5 facilities, 0 patients/)
  await admin.query('drop database no_hospital')
  assert.deepEqual((await admin.query('select oid, datname from pg_database order by oid')).rows, before.rows)
})
