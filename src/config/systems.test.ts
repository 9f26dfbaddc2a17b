import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { loadSystems, systemNamed } from './systems.ts'

function system(name: string, changes: { state?: string; repository?: string; directory?: string; tier?: string } = {}): string {
  const { state = `state-${name}`, repository = `repository-${name}`, directory = `/data/${name}`, tier = 'high' } = changes
  return `system: ${name}
state: ${state}
repository:
  storages:
    - { name: main, kind: directory, path: ${repository} }
  key: { passphrase: "file:passphrase" }
components:
  db: { kind: postgres, tier: ${tier}, connection: "postgres://resus@127.0.0.1/postgres", dataDirectory: ${directory} }
`
}

async function directoryWith(t: TestContext, files: Readonly<Record<string, string>>): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'resus-systems-'))
  t.after(() => rm(directory, { recursive: true }))
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text)
  return directory
}

test('a directory holds several systems, and the settings of the server are no system', async (t) => {
  const directory = await directoryWith(t, {
    'his.yaml': system('his'),
    'lab.yml': system('lab'),
    'server.yaml': 'listen: 127.0.0.1:0',
    '.his.yaml.swp': 'nonsense',
    'README.md': 'not one either',
  })
  const { systems, serverFile } = await loadSystems(directory)
  assert.deepEqual(
    systems.map((each) => each.system),
    ['his', 'lab'],
  )
  assert.equal(serverFile, join(directory, 'server.yaml'))
  assert.equal(systemNamed(systems, 'lab').path, join(directory, 'lab.yml'))
  assert.throws(() => systemNamed(systems, 'pharmacy'), { code: 'COMPONENT_UNKNOWN', message: /there is "his", "lab"/ })
})

test('one file is one system, with the settings of the server beside it', async (t) => {
  const directory = await directoryWith(t, { 'resus.yaml': system('his') })
  const { systems, serverFile } = await loadSystems(join(directory, 'resus.yaml'))
  assert.equal(systems.length, 1)
  assert.equal(serverFile, join(directory, 'server.yaml'))
  await assert.rejects(loadSystems(join(directory, 'other.yaml')), { code: 'CONFIG_UNREADABLE' })
})

test('a mistake in one file refuses all, and the mistakes of all files are told at once', async (t) => {
  const directory = await directoryWith(t, {
    'a.yaml': system('a'),
    'b.yaml': system('b', { tier: 'urgent' }),
    'c.yaml': 'system: [',
  })
  await assert.rejects(loadSystems(directory), { code: 'CONFIG_INVALID', message: /b\.yaml:8:\d+.*urgent[^]*c\.yaml:1/ })
  await assert.rejects(loadSystems(await directoryWith(t, {})), {
    code: 'CONFIG_INVALID',
    message: /no configuration of a system/,
  })
})

for (const [what, changes] of [
  ['state', { state: 'state-a' }],
  ['repository.storages', { repository: 'repository-a' }],
  ['dataDirectory', { directory: '/data/a' }],
] as const) {
  test(`two systems never share their ${what}`, async (t) => {
    const directory = await directoryWith(t, { 'a.yaml': system('a'), 'b.yaml': system('b', changes) })
    await assert.rejects(loadSystems(directory), { code: 'CONFIG_INVALID', message: new RegExp(`same ${what}`) })
  })
}

test('two files never describe one system', async (t) => {
  const directory = await directoryWith(t, { 'a.yaml': system('a'), 'b.yaml': system('a', { state: 'other' }) })
  await assert.rejects(loadSystems(directory), { message: /same system, "a"/ })
})
