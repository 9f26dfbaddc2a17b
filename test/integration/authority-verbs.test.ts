import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { access, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { keepConfiguration } from '../../src/authority/configurations.ts'
import { VERBS } from '../../src/cli/verbs.ts'
import { systemClock } from '../../src/clock.ts'
import { configurationDocument, loadConfiguration } from '../../src/config/configuration.ts'
import { putAuthority } from '../../src/repository/authority-objects.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'

const skip = await skipUnlessInstalled(18)
const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))

/**
 * Which verbs take a second person once there are people, and with which arguments. `none`: what it does adds (a backup, WAL, a proof), reads, or needs a control plane that asks by itself. A
 * verb that is in no line keeps the test from passing.
 */
const CLEARED: Readonly<Record<string, 'none' | ((place: Place) => readonly (readonly string[])[])>> = {
  demo: 'none',
  init: 'none',
  check: 'none',
  backup: 'none',
  backups: 'none',
  windows: 'none',
  stream: 'none',
  restore: ({ to, cluster }) => [
    ['restore', '--to', to],
    ['restore', '--to', to, '--latest'],
    ['restore', '--to', cluster, '--delta'],
    ['restore', '--to', cluster, '--delta', '--without-safety-copy'],
  ],
  dump: ({ to }) => [
    ['dump', '--to', to],
    ['dump', '--to', to, '--globals'],
  ],
  'wal-get': 'none',
  'wal-ahead': 'none',
  'wal-push': 'none',
  verify: 'none',
  expire: () => [['expire'], ['expire', 'his-db']],
  status: 'none',
  serve: 'none',
  tasks: 'none',
  schedules: 'none',
  drill: 'none',
  baseline: 'none',
  evidence: 'none',
  audit: 'none',
  'log-on': 'none',
  'log-off': 'none',
  user: 'none',
  approve: 'none',
  emergency: 'none',
  'break-glass': 'none',
  token: 'none',
  config: 'none',
}
const HARMLESS: readonly (readonly string[])[] = [
  ['check'],
  ['backups'],
  ['windows'],
  ['verify'],
  ['status'],
  ['config'],
  ['expire', '--dry-run'],
  ['backup'],
]

interface Place {
  readonly to: string
  readonly cluster: string
}

interface Ended {
  readonly status: number | null
  readonly code: string | undefined
}

async function resus(configPath: string, args: readonly string[], input = ''): Promise<Ended> {
  return await new Promise((resolve) => {
    const command = [MAIN, ...args, '--json', '--config', configPath]
    const child = execFile(process.execPath, command, { timeout: 60_000 }, (_, stdout) => {
      const last = stdout.trim()
      const { error } = last.startsWith('{') ? (JSON.parse(last) as { error?: { code: string } }) : {}
      resolve({ status: child.exitCode, code: error?.code })
    })
    child.stdin?.end(input)
  })
}

/** All that a verb could have changed: what the repository holds, the configuration, the cluster's own directory. */
async function stateOf({ repositoryDirectory, configPath, cluster }: ProtectedCluster): Promise<unknown> {
  const objects = (await readdir(repositoryDirectory, { recursive: true })).toSorted()
  return { objects, configuration: await readFile(configPath, 'utf8'), cluster: await readdir(cluster.directory) }
}

test('every verb says whether it takes a second person, by its options as by this table', () => {
  assert.deepEqual(VERBS.map(({ name }) => name).toSorted(), Object.keys(CLEARED).toSorted())
  for (const { name, options = [] } of VERBS) {
    const asks = options.some(([flags]) => flags.startsWith('--ask'))
    assert.equal(asks, CLEARED[name] !== 'none', name)
  }
})

test(
  'once there are people, what copies or ends the way back is refused to one alone, and nothing has changed',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await cluster.backup()
    const { configPath, repository, component } = cluster
    const place = { to: join(cluster.stateDirectory, '..', 'restored'), cluster: cluster.cluster.directory }
    const document = JSON.parse(JSON.stringify(configurationDocument(await loadConfiguration(configPath)))) as Record<
      string,
      never
    >
    await keepConfiguration(repository, document, null, systemClock)
    await putAuthority(repository, `people/${randomUUID()}/1`, { format: 1 })
    assert.equal((await resus(configPath, ['expire'])).status, 0, 'by the retention that the repository knows')

    // Somebody edits the file.
    const edited = JSON.parse(await readFile(configPath, 'utf8')) as { components: Record<string, object> }
    edited.components[component.name] = { ...edited.components[component.name], keep: { daily: 1 } }
    await writeFile(configPath, JSON.stringify(edited))
    const before = await stateOf(cluster)
    const [someone, emergency] = [randomUUID(), randomUUID()]
    for (const commands of Object.values(CLEARED)) {
      for (const args of commands === 'none' ? [] : commands(place)) {
        const what = args.join(' ')
        assert.deepEqual(await resus(configPath, args), { status: 2, code: 'APPROVAL_NEEDED' }, what)
        const byNone = await resus(configPath, [...args, '--approval', someone])
        assert.deepEqual(byNone, { status: 2, code: 'APPROVAL_NEEDED' }, `${what} by an approval that nobody gave`)
        if (args[0] === 'expire') continue
        const code = args.includes('--delta') ? 'APPROVAL_NEEDED' : 'APPROVAL_INVALID'
        assert.deepEqual(
          await resus(configPath, [...args, '--emergency', emergency]),
          { status: 2, code },
          `${what} in no emergency`,
        )
        assert.deepEqual(
          await resus(configPath, [...args, '--break-glass'], 'AAAAA-BBBBB\n'),
          { status: 2, code },
          `${what} by no code`,
        )
        const both = await resus(configPath, [...args, '--break-glass', '--emergency', emergency])
        assert.deepEqual(both, { status: 2, code: 'ARGUMENTS_INVALID' }, `${what} by two`)
      }
    }
    assert.deepEqual(await stateOf(cluster), before)
    await assert.rejects(access(place.to))
    for (const args of HARMLESS) assert.notEqual((await resus(configPath, args)).code, 'APPROVAL_NEEDED', args.join(' '))
  },
)
