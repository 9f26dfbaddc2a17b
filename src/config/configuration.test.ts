import assert from 'node:assert/strict'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { inspect } from 'node:util'
import { Failure, type FailureCode } from '../errors.ts'
import { describeConfiguration, loadConfiguration } from './configuration.ts'
import { configuredComponent, resolveComponent } from './open.ts'
import { configurationJsonSchema } from './schema.ts'
import { resolveSecret } from './secret-reference.ts'

const GOOD = `system: osun-his
repository:
  storages:
    - { name: main, kind: directory, path: repository }
  key: { passphrase: "file:secrets/passphrase" }
components:
  his-db:
    kind: postgres
    tier: critical
    connection: "postgres://resus@127.0.0.1:5432/postgres"
    dataDirectory: /var/lib/postgresql/18/main
    stream: { synchronous: true, slot: resus, partialEverySeconds: 5 }
`

async function directoryOf(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'resus-config-'))
  t.after(() => rm(directory, { recursive: true }))
  return directory
}

async function load(t: TestContext, text: string) {
  const directory = await directoryOf(t)
  const path = join(directory, 'resus.yaml')
  await writeFile(path, text)
  return { directory, path, configuration: await loadConfiguration(path) }
}

async function mistakesOf(t: TestContext, text: string): Promise<Failure> {
  const error: unknown = await load(t, text).then(
    () => assert.fail('it was accepted'),
    (failure: unknown) => failure,
  )
  assert(error instanceof Failure, inspect(error))
  assert.equal(error.code, 'CONFIG_INVALID')
  assert.equal(error.exitStatus, 2)
  return error
}

function replaced(from: string, to: string): string {
  assert(GOOD.includes(from), `the example has ${from}`)
  return GOOD.replace(from, to)
}

test('names that a component uses have to be in the file', async (t) => {
  const facilities = GOOD.replace('system: osun-his', 'system: osun-his\nfacilities: { FAC001: { name: Osogbo } }')
  const with_ = (more: string) => facilities.replace('    tier: critical\n', `    tier: critical\n    ${more}\n`)
  const { configuration } = await load(t, with_('facilities: [FAC001]'))
  assert.deepEqual(configuration.facilities, { FAC001: { name: 'Osogbo' } })
  assert.match(
    (await mistakesOf(t, with_('facilities: [FAC001, FAC002]'))).message,
    /:11:26: components\.his-db\.facilities: found "FAC002"/,
  )
  assert.match((await mistakesOf(t, with_('dependsOn: [cache]'))).message, /:11:17: components\.his-db\.dependsOn: found "cache"/)
  assert.match((await mistakesOf(t, with_('timeZone: Nigeria'))).message, /timeZone: found "Nigeria"/)
  assert.match(
    (await mistakesOf(t, with_('schedules: { backup: { cron: "0 0 30 2 *" } }'))).message,
    /schedules\.backup.*never comes/,
  )
})

test('a configuration is loaded with its defaults, its paths relative to its own directory', async (t) => {
  const { configuration, directory, path } = await load(t, GOOD)
  assert.deepEqual(configuration, {
    path,
    system: 'osun-his',
    state: '/var/lib/resus/state',
    repository: {
      storages: [{ name: 'main', kind: 'directory', path: join(directory, 'repository') }],
      key: { passphrase: { kind: 'file', path: join(directory, 'secrets/passphrase') } },
    },
    components: [
      {
        name: 'his-db',
        kind: 'postgres',
        tier: 'critical',
        connection: { kind: 'text', text: 'postgres://resus@127.0.0.1:5432/postgres' },
        dataDirectory: '/var/lib/postgresql/18/main',
        stream: {
          synchronous: true,
          slot: 'resus',
          partialEverySeconds: 5,
          acknowledge: 'spool',
          hosts: [],
          spoolMegabytesMax: 8192,
        },
        keep: { daily: 7, weekly: 4, monthly: 12, pitrDays: 30 },
        checks: { baseline: { tables: 'all', except: [], drift: 0.2, minutes: 30 }, sql: [], commands: [] },
        drills: { afterBackup: false, validDays: 7, minutes: 240 },
        compressionLevel: 1,
      },
    ],
  })
})

test('what is left out of stream, and stream itself, has defaults', async (t) => {
  const { configuration } = await load(
    t,
    replaced('    stream: { synchronous: true, slot: resus, partialEverySeconds: 5 }\n', ''),
  )
  assert.deepEqual(configuration.components[0]?.stream, {
    synchronous: false,
    slot: 'resus',
    partialEverySeconds: 5,
    acknowledge: 'spool',
    hosts: [],
    spoolMegabytesMax: 8192,
  })
})

const MISTAKES: readonly { what: string; text: string; says: RegExp }[] = [
  {
    what: 'a wrong value',
    text: replaced('tier: critical', 'tier: urgent'),
    says: /resus\.yaml:9:11: components\.his-db\.tier: found "urgent", wanted one of "critical", "high", "medium", "low"/,
  },
  {
    what: 'a misspelt name',
    text: replaced('connection:', 'conection:'),
    says: /resus\.yaml:10:5: components\.his-db\.conection: found an unknown name, did you mean "connection"\?/,
  },
  {
    what: 'a name that resembles none',
    text: replaced('system: osun-his', 'system: osun-his\nwhatever: 1'),
    says: /resus\.yaml:2:1: whatever: found an unknown name, wanted one of "system", "state", "repository", "timeZone"/,
  },
  {
    what: 'a missing name',
    text: replaced('    dataDirectory: /var/lib/postgresql/18/main\n', ''),
    says: /resus\.yaml:7:3: components\.his-db\.dataDirectory: found nothing, wanted text/,
  },
  {
    what: 'a wrong type in a flow block',
    text: replaced('partialEverySeconds: 5', 'partialEverySeconds: often'),
    says: /resus\.yaml:12:\d+: components\.his-db\.stream\.partialEverySeconds: found "often", wanted a number/,
  },
  {
    what: 'a number out of range',
    text: replaced('partialEverySeconds: 5', 'partialEverySeconds: 0'),
    says: /found 0, wanted at least 1/,
  },
  {
    what: 'an unknown kind of component',
    text: replaced('kind: postgres', 'kind: mongodb'),
    says: /resus\.yaml:8:11: components\.his-db\.kind: found "mongodb", wanted "postgres"/,
  },
  {
    what: 'a bad name',
    text: replaced('his-db:', 'His DB:'),
    says: /resus\.yaml:7:3: .*found the name "His DB", wanted a name of/,
  },
  { what: 'an unknown kind of storage', text: replaced('kind: directory', 'kind: tape'), says: /:4:27: .*wanted "directory"/ },
  { what: 'YAML that is none', text: `${GOOD}  : : [`, says: /resus\.yaml:13:\d+: found no valid YAML/ },
  {
    what: 'the same name twice',
    text: `${GOOD}system: again\n`,
    says: /resus\.yaml:13:1: found no valid YAML: Map keys must be unique/,
  },
  { what: 'an empty file', text: '', says: /resus\.yaml:1:1: the whole file: found nothing, wanted a block/ },
  { what: 'an alias without an anchor', text: replaced('osun-his', '*nowhere'), says: /found no valid YAML/ },
]

for (const { what, text, says } of MISTAKES) {
  test(`a configuration with ${what} is refused with its line, what was found and what was wanted`, async (t) => {
    assert.match((await mistakesOf(t, text)).message, says)
  })
}

test('all mistakes are reported at once, in the order of the file', async (t) => {
  const error = await mistakesOf(t, replaced('tier: critical', 'tier: urgent').replace('slot: resus', 'slot: Resus!'))
  assert.match(error.message, /:9:11: .*urgent[^]*:12:\d+: .*slot: found "Resus!"/)
})

test('a passphrase given as a value is refused with a hint, and not shown', async (t) => {
  const error = await mistakesOf(t, replaced('"file:secrets/passphrase"', 'correct-horse-battery'))
  assert.match(error.message, /:5:\d+: repository\.key\.passphrase: found a value \(not shown\), wanted a reference/)
  assert.match(error.hint ?? '', /put the passphrase into a file/)
  assert.doesNotMatch(inspect(error), /correct-horse/)
})

test('a password in a connection string is refused, and not shown', async (t) => {
  for (const text of [
    'postgres://resus:hunter2@127.0.0.1/postgres',
    'postgres://resus@h/db?password=hunter2',
    'host=h password=hunter2',
  ]) {
    const error = await mistakesOf(t, replaced('postgres://resus@127.0.0.1:5432/postgres', text))
    assert.match(error.message, /:10:17: components\.his-db\.connection: found a (password|value)/)
    assert.doesNotMatch(inspect(error), /hunter2/)
  }
})

test('a missing configuration is CONFIG_UNREADABLE', async () => {
  await assert.rejects(loadConfiguration('/nonexistent/resus.yaml'), { code: 'CONFIG_UNREADABLE', hint: /--config/ })
})

test('a secret is read from a file without its last newline, or from the environment', async (t) => {
  const path = join(await directoryOf(t), 'secret')
  for (const [text, value] of [
    ['a b\n', 'a b'],
    ['a b\r\n', 'a b'],
    ['a b\n\n', 'a b\n'],
    ['a b', 'a b'],
  ] as const) {
    await writeFile(path, text, { mode: 0o600 })
    const secret = await resolveSecret({ kind: 'file', path }, 'the passphrase', () => assert.fail('warned'))
    assert.equal(secret.reveal().toString(), value)
  }
  process.env.RESUS_TEST_SECRET = 'from here'
  t.after(() => delete process.env.RESUS_TEST_SECRET)
  const secret = await resolveSecret({ kind: 'env', variable: 'RESUS_TEST_SECRET' }, 'the passphrase')
  assert.equal(secret.reveal().toString(), 'from here')
})

test('a secret that is empty, missing or far too long is SECRET_UNREADABLE', async (t) => {
  const path = join(await directoryOf(t), 'secret')
  const unreadable = { code: 'SECRET_UNREADABLE' satisfies FailureCode }
  await assert.rejects(resolveSecret({ kind: 'file', path }, 'the passphrase'), unreadable)
  await writeFile(path, '\n')
  await assert.rejects(resolveSecret({ kind: 'file', path }, 'the passphrase'), unreadable)
  await writeFile(path, 'x'.repeat(100_000))
  await assert.rejects(resolveSecret({ kind: 'file', path }, 'the passphrase'), unreadable)
  await assert.rejects(resolveSecret({ kind: 'env', variable: 'RESUS_TEST_NOT_THERE' }, 'the passphrase'), unreadable)
})

test('a secret file that everybody may read is used with a warning', async (t) => {
  const path = join(await directoryOf(t), 'secret')
  await writeFile(path, 'x')
  await chmod(path, 0o644)
  const warnings: string[] = []
  await resolveSecret({ kind: 'file', path }, 'the passphrase', (text) => warnings.push(text))
  assert.match(warnings.join(), /everybody on this host may read the passphrase/)
})

test('a component is found by name, or without one when it is the only one', async (t) => {
  const { configuration } = await load(t, GOOD)
  assert.equal(configuredComponent(configuration, undefined).name, 'his-db')
  assert.throws(() => configuredComponent(configuration, 'his-bd'), { code: 'COMPONENT_UNKNOWN', hint: 'did you mean "his-db"?' })
  const two = { ...configuration, components: [configuration.components[0]!, { ...configuration.components[0]!, name: 'other' }] }
  assert.throws(() => configuredComponent(two, undefined), { code: 'ARGUMENTS_INVALID', message: /it has "his-db", "other"/ })
})

test('a connection by reference is resolved into a secret, and may hold a password', async (t) => {
  const { configuration, directory } = await load(t, replaced('postgres://resus@127.0.0.1:5432/postgres', 'file:connection'))
  const component = configuredComponent(configuration, 'his-db')
  await writeFile(join(directory, 'connection'), 'postgres://resus:hunter2@h/db\n', { mode: 0o600 })
  const resolved = await resolveComponent(component)
  assert.equal(resolved.connection.reveal().toString(), 'postgres://resus:hunter2@h/db')
  assert.doesNotMatch(inspect(resolved) + JSON.stringify(resolved), /hunter2/)
  await writeFile(join(directory, 'connection'), 'hunter2', { mode: 0o600 })
  await assert.rejects(resolveComponent(component), (error) => {
    assert(error instanceof Failure && error.code === 'CONFIG_INVALID')
    assert.doesNotMatch(inspect(error), /hunter2/)
    return true
  })
})

test('the configuration is described with secrets as [secret], and has a JSON Schema', async (t) => {
  const { configuration, directory } = await load(t, replaced('postgres://resus@127.0.0.1:5432/postgres', 'env:HIS'))
  assert.deepEqual(describeConfiguration(configuration).repository, {
    storages: [{ name: 'main', kind: 'directory', path: join(directory, 'repository') }],
    key: { passphrase: `[secret] from file:${directory}/secrets/passphrase` },
  })
  assert.match(JSON.stringify(describeConfiguration(configuration)), /"connection":"\[secret\] from env:HIS"/)
  assert.match(JSON.stringify(configurationJsonSchema()), /"partialEverySeconds"/)
})
