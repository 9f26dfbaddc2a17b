import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { keepSettings, newestSettings } from '../authority/accepted-settings.ts'
import { systemClock } from '../clock.ts'
import type { Configuration } from '../config/configuration.ts'
import { Failure } from '../errors.ts'
import { listAuthority, putAuthority } from '../repository/authority-objects.ts'
import { initRepository, type Repository } from '../repository/repository.ts'
import { Secret } from '../secret.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { readAcceptedSettings, writeAcceptedSettings } from './accepted-settings-file.ts'
import type { OpenedRepositories } from './opened-repositories.ts'
import { settingsData, settingsInForce } from './settings-in-force.ts'
import { loadSettings } from './settings.ts'

const NOON = Date.UTC(2026, 10, 22, 12)
const PING = 'https://watch.example/ping/3f1f6d3a5a'

class Away extends MemoryStorage {
  isAway = false

  override list(...call: Parameters<MemoryStorage['list']>): ReturnType<MemoryStorage['list']> {
    if (this.isAway) throw new Failure('STORAGE_UNREACHABLE', 'away')
    return super.list(...call)
  }
}

async function place(t: TestContext) {
  const state = await mkdtemp(join(tmpdir(), 'resus-settings-'))
  t.after(async () => rm(state, { recursive: true, force: true }))
  const file = join(state, 'server.yaml')
  const load = async (text: object) => {
    await writeFile(file, JSON.stringify({ state, node: 'one', ...text }))
    return await loadSettings(file, { named: true })
  }
  const storages = [new Away(), new Away()]
  const repositories: Repository[] = []
  for (const storage of storages) {
    const access = { storage, passphrase: new Secret('x'), system: 'osun' }
    repositories.push((await initRepository(access, { clock: systemClock, kdfCost: 1024 })).repository)
  }
  const opened = new Map(repositories.map((each, at) => [{ system: String(at) } as Configuration, each]))
  const begin = async (text: object, known: Partial<OpenedRepositories> = {}) =>
    settingsInForce(file, await load(text), {
      repositories: { opened, missing: [], isWhole: true, ...known },
      clock: systemClock,
    })
  const keep = async (text: object, node = 'one', atMs = NOON, where: readonly Repository[] = repositories) =>
    keepSettings(
      where,
      { node, document: settingsData((await load(text)).document), approval: null },
      { ...systemClock, now: () => atMs },
    )
  return { state, storages, repositories, begin, keep, load }
}

test('what no repository knows is in force: there are no people', async (t) => {
  const { begin } = await place(t)
  const { settings, refused } = await begin({ restoreRoots: ['/a'] })
  assert.deepEqual([settings.restoreRoots, refused], [['/a'], null])
})

test('of repositories that differ the newest says what was accepted, and of other nodes what they know', async (t) => {
  const { begin, keep, repositories } = await place(t)
  await keep({ restoreRoots: ['/b'] }, 'one', NOON + 5000, [repositories[1]!])
  await keep({ restoreRoots: ['/a'] }, 'one', NOON, [repositories[0]!])
  await keep({ restoreRoots: ['/z'] }, 'two', NOON + 9000)
  assert.deepEqual((await begin({ restoreRoots: ['/b', '/z'] })).settings.restoreRoots, ['/b'])
  assert.deepEqual((await begin({ restoreRoots: ['/b', '/z'], node: 'two' })).settings.restoreRoots, ['/z'])
  assert.deepEqual((await begin({ restoreRoots: ['/b'], node: 'three' })).settings.restoreRoots, ['/z'])
})

test('a repository that was away gets what was accepted meanwhile, once', async (t) => {
  const { keep, repositories } = await place(t)
  await keep({ restoreRoots: ['/a'] }, 'one', NOON, [repositories[0]!])
  await keep({ restoreRoots: ['/a'] }, 'one', NOON + 60_000)
  const count = async () => Promise.all(repositories.map(async (repository) => (await listAuthority(repository, '')).length))
  const before = await count()
  const kept = await keep({ restoreRoots: ['/a'] }, 'one', NOON + 90_000)
  assert.deepEqual(await count(), before)
  assert.deepEqual(await newestSettings([repositories[1]!], 'one'), kept)
  assert.equal(kept.at, new Date(NOON).toISOString())
})

test('while no repository answers this node goes by its copy; a secret is not in it', async (t) => {
  const { begin, keep, state, storages } = await place(t)
  await writeAcceptedSettings(state, await keep({ restoreRoots: ['/a'], deadMan: { url: PING } }))
  await writeFile(join(state, 'people-are-known'), '')
  assert(!JSON.stringify(await readAcceptedSettings(state)).includes(PING))
  for (const storage of storages) storage.isAway = true
  const { settings, refused } = await begin({ restoreRoots: ['/b'], listen: '127.0.0.1:9' })
  assert.deepEqual([settings.restoreRoots, settings.listen.port], [['/a'], 9])
  assert.match(refused ?? '', /restoreRoots: weakens/)
})

test('a storage that is not mounted, or lies empty, is not one that never knew anybody: the copy counts', async (t) => {
  const { begin, keep, state, repositories } = await place(t)
  const kept = await keep({ restoreRoots: ['/a'] })
  const missing = { opened: new Map(), missing: [{ system: 'osun' } as Configuration], isWhole: true }
  const roots = async (known: Partial<OpenedRepositories> = missing) =>
    (await begin({ restoreRoots: ['/b'] }, known)).settings.restoreRoots
  assert.deepEqual(await roots(), ['/b'], 'nobody was ever known here')
  await writeFile(join(state, 'people-are-known'), '')
  assert.deepEqual(await roots(), [], 'and there is no copy')
  await writeAcceptedSettings(state, kept)
  assert.deepEqual(await roots(), ['/a'])
  for (const repository of repositories) {
    for (const name of await listAuthority(repository, 'servers/')) await repository.storage.delete(`authority/${name}`)
  }
  assert.deepEqual(await roots({}), ['/a'])
  await rm(join(state, 'accepted-server.json'))
  assert.deepEqual(await roots({}), ['/b'], 'of an older version, that kept none')
})

test('where nobody can say what was accepted, nobody restores and no provider lets anybody in, and the rest is at work', async (t) => {
  const { begin, state, storages } = await place(t)
  for (const storage of storages) storage.isAway = true
  const provider = { issuer: 'https://idp.example', clientId: 'x', clientSecret: 'file:x', redirect: 'https://a/b', groups: {} }
  const text = { restoreRoots: ['/b'], identityProvider: provider, auditSyslog: { host: 'logs' } }
  const { settings, refused } = await begin(text)
  assert.deepEqual([settings.restoreRoots, settings.identityProvider, settings.auditSyslog?.host], [[], undefined, 'logs'])
  assert.match(refused ?? '', /cannot be read from any storage/)
  assert.deepEqual((await begin(text, { opened: new Map(), isWhole: false })).settings.restoreRoots, [])
  // It has worked without people until now.
  await writeFile(join(state, 'administrator-token'), '')
  assert.deepEqual((await begin(text)).settings.restoreRoots, ['/b'])
})

test('what was accepted and is damaged now is not for one that was never there', async (t) => {
  const { begin, repositories } = await place(t)
  await putAuthority(repositories[0]!, 'servers/one/20261122T120000Z-1', { format: 1, document: 'none' })
  assert.deepEqual((await begin({ restoreRoots: ['/b'] })).settings.restoreRoots, [])
})

test('what a later version has accepted in another way lets nothing more in, and does not stop the start', async (t) => {
  const { begin, repositories } = await place(t)
  const kept = { node: 'one', document: { restoreRoots: { everywhere: true } }, approval: null }
  await keepSettings(repositories, kept, systemClock)
  assert.deepEqual((await begin({ restoreRoots: ['/b'] })).settings.restoreRoots, [])
})
