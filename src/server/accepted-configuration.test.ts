import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, readdir, rename, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { loadSystems } from '../config/systems.ts'
import { Failure } from '../errors.ts'
import { AcceptedConfiguration } from './accepted-configuration.ts'

function systemOf(name: string): string {
  return `system: ${name}
state: state-${name}
timeZone: Africa/Lagos
repository:
  storages: [{ name: main, kind: directory, path: ../repositories/${name} }]
  key: { passphrase: "file:secrets/${name}" }
facilities: { f-1: { name: "Ọ̀ṣun: \\"General\\" # 1" } }
components:
  his-db:
    kind: postgres
    tier: critical
    connection: env:HIS_DB
    dataDirectory: data-${name}
    schedules: { backup: { cron: "0 2 * * *" }, prove: never }
    objectives: { rpoMinutes: 1 }
  other-db: { kind: postgres, tier: low, connection: "postgres://resus@/x?host=/run/pg", dataDirectory: /other-${name} }
`
}

async function place(t: TestContext) {
  const home = await mkdtemp(join(tmpdir(), 'resus-accepted-'))
  t.after(async () => rm(home, { recursive: true, force: true }))
  const [configPath, state] = [join(home, 'systems'), join(home, 'state')]
  for (const directory of [configPath, state]) await mkdir(directory)
  const write = async (name: string, text = systemOf(name)) => writeFile(join(configPath, `${name}.yaml`), text)
  await write('osun')
  await write('oyo')
  return { configPath, state, write, accepted: new AcceptedConfiguration(state, configPath) }
}

test('what was accepted reads as it was, from wherever it lies, and a command may read each file of it', async (t) => {
  const { configPath, accepted } = await place(t)
  await chmod(join(configPath, 'oyo.yaml'), 0o640)
  await chmod(join(configPath, 'osun.yaml'), 0o600)
  const { systems } = await loadSystems(configPath)
  assert.equal(await accepted.load(), undefined)
  await accepted.keep(systems)
  assert.deepEqual(await accepted.load(), systems)
  for (const [index, mode] of [0o600, 0o640].entries()) {
    const file = accepted.pathOf(systems[index]!)
    assert.equal((await stat(file)).mode & 0o777, mode)
  }
  const read = await loadSystems(accepted.path)
  assert.deepEqual(
    read.systems.map(({ path: _path, ...rest }) => rest),
    systems.map(({ path: _path, ...rest }) => rest),
  )
})

test('it is replaced as a whole, one before it stays for who reads it, and the same is not written again', async (t) => {
  const { configPath, state, write, accepted } = await place(t)
  const generations = async () => (await readdir(state)).filter((name) => name.startsWith('accepted-')).length
  await accepted.keep((await loadSystems(configPath)).systems)
  await accepted.keep((await loadSystems(configPath)).systems)
  assert.equal(await generations(), 1)
  for (const zone of ['Europe/Paris', 'Asia/Tokyo', 'UTC']) {
    await write('oyo', systemOf('oyo').replace('Africa/Lagos', zone))
    const { systems } = await loadSystems(configPath)
    await accepted.keep(systems)
    assert.deepEqual(await accepted.load(), systems)
  }
  assert.equal(await generations(), 2)
  await rm(join(configPath, 'oyo.yaml'))
  await accepted.keep((await loadSystems(configPath)).systems)
  assert.deepEqual(
    (await accepted.load())?.map(({ system }) => system),
    ['osun'],
  )
})

test('a copy that is damaged, or of another configuration, is none', async (t) => {
  const { configPath, state, accepted } = await place(t)
  const { systems } = await loadSystems(configPath)
  await accepted.keep(systems)
  assert.equal(await new AcceptedConfiguration(state, join(configPath, 'osun.yaml')).load(), undefined)
  await truncate(accepted.pathOf(systems[0]!), 40)
  assert.equal(await accepted.load(), undefined)
  await accepted.keep(systems)
  assert.deepEqual(await accepted.load(), systems)
})

test('where it cannot be kept, what was kept is still there', { skip: process.getuid?.() === 0 }, async (t) => {
  const { configPath, state, write, accepted } = await place(t)
  const { systems } = await loadSystems(configPath)
  await accepted.keep(systems)
  await write('oyo', systemOf('oyo').replace('Africa/Lagos', 'UTC'))
  await chmod(state, 0o500)
  const keeping = accepted.keep((await loadSystems(configPath)).systems)
  const failed = await keeping.catch((error: unknown) => error)
  await chmod(state, 0o700)
  assert(failed instanceof Failure && failed.code === 'CONFIG_UNREADABLE', String(failed))
  assert.deepEqual(await accepted.load(), systems)
})

test('a file of any name is kept, and read back', async (t) => {
  const { configPath, state } = await place(t)
  for (const name of ['resus.conf', 'oyo', '.resus.yaml', 'server.yaml']) {
    const path = join(configPath, name)
    await rename(join(configPath, 'osun.yaml'), path)
    const accepted = new AcceptedConfiguration(state, path)
    const { systems } = await loadSystems(path)
    await accepted.keep(systems)
    assert.deepEqual(await accepted.load(), systems)
    assert.equal((await loadSystems(accepted.pathOf(systems[0]!))).systems[0]?.system, 'osun')
    await rename(path, join(configPath, 'osun.yaml'))
  }
})

test('a link that a crash left unplaced goes with the next change, and takes no room of what was before', async (t) => {
  const { configPath, state, write, accepted } = await place(t)
  await accepted.keep((await loadSystems(configPath)).systems)
  await symlink('accepted-gone', join(state, 'accepted-gone.new'))
  await write('oyo', systemOf('oyo').replace('Africa/Lagos', 'UTC'))
  const { systems } = await loadSystems(configPath)
  await accepted.keep(systems)
  assert.deepEqual(await accepted.load(), systems)
  const left = (await readdir(state)).filter((name) => name.startsWith('accepted-'))
  assert.equal(left.length, 2)
  assert(!left.includes('accepted-gone.new'))
})

test('what cannot be kept is read from its files until it can, and leaves nothing behind', async (t) => {
  const { configPath, state, accepted } = await place(t)
  const { systems } = await loadSystems(configPath)
  await mkdir(join(state, 'accepted/in-the-way'), { recursive: true })
  assert.match((await accepted.begin(systems)) ?? '', /cannot be kept in .*accepted": E/)
  assert.deepEqual([accepted.path, accepted.pathOf(systems[0]!)], [configPath, systems[0]!.path])
  assert.deepEqual(await readdir(state), ['accepted'])
  await rm(join(state, 'accepted'), { recursive: true })
  await accepted.keep(systems)
  assert.equal(accepted.path, join(state, 'accepted'))
})
