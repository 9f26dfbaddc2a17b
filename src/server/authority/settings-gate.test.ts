import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { after, type TestContext } from 'node:test'
import { keepSettings, newestSettings } from '../../authority/accepted-settings.ts'
import { Approvals } from '../../authority/approvals.ts'
import type { Principal } from '../../authority/principal.ts'
import { listApprovals } from '../../catalog/approvals.ts'
import type { Configuration } from '../../config/configuration.ts'
import { openTemporaryDirectory } from '../../postgres/staged-runtime.ts'
import { listAuthority } from '../../repository/authority-objects.ts'
import { initRepository, type Repository } from '../../repository/repository.ts'
import { Secret } from '../../secret.ts'
import { MemoryStorage } from '../../storage/memory-storage.ts'
import { handClock } from '../../../test/services/accounts.ts'
import { skipUnlessInstalled } from '../../../test/services/postgres.ts'
import { stopTestStore, testStore } from '../../../test/services/store.ts'
import { readAcceptedSettings } from '../accepted-settings-file.ts'
import { settingsData, settingsInForce } from '../settings-in-force.ts'
import { loadSettings } from '../settings.ts'
import { FileApprovals } from './file-approvals.ts'
import { SettingsGate } from './settings-gate.ts'

after(stopTestStore)
const skip = await skipUnlessInstalled(18)

async function place(t: TestContext) {
  const clock = handClock()
  const state = await mkdtemp(join(await openTemporaryDirectory(), 'resus-gate-'))
  t.after(async () => rm(state, { recursive: true, force: true }))
  const repositories: Repository[] = []
  for (const system of ['osun', 'ogun']) {
    const access = { storage: new MemoryStorage(), passphrase: new Secret('x'), system }
    repositories.push((await initRepository(access, { clock, kdfCost: 1024 })).repository)
  }
  const store = await testStore(t)
  const world = { isGuarded: true, here: [0, 1] }
  const reached = () => world.here.map((at) => repositories[at]!)
  const approvals = new Approvals({
    store,
    clock,
    repositoriesOf: async () => reached(),
    facilitiesOf: () => [],
    sealOf: (digest) => Buffer.from(`seal of ${digest}`),
    freshFactor: async () => 'totp',
    wasInHandOf: async () => false,
    execute: async () => ({}),
    note: async () => undefined,
  })
  const path = join(state, 'server.yaml')
  const load = async (text: object) => {
    await writeFile(path, JSON.stringify({ state, node: 'one', ...text }))
    return await loadSettings(path, { named: true })
  }
  /** A server starts with this file. */
  const start = async (text: object) => {
    const opened = new Map(reached().map((repository) => [{ system: repository.system } as Configuration, repository]))
    const known = { opened, missing: [], isWhole: world.here.length === 2 }
    const inForce = await settingsInForce(path, await load(text), { repositories: known, clock })
    const reports: string[] = []
    const file = new FileApprovals({
      store,
      node: inForce.settings.node,
      clock,
      approvals: () => approvals,
      repositoriesOf: async () => reached(),
    })
    const gate = new SettingsGate({
      inForce,
      path,
      clock,
      isGuarded: () => world.isGuarded,
      approvals: file,
      repositories: async () => ({ repositories: reached(), isWhole: world.here.length === 2 }),
      report: (line) => reports.push(line),
    })
    return { gate, reports, roots: inForce.settings.restoreRoots }
  }
  const id = randomUUID()
  const grants = [{ role: 'approver' as const, facilities: null }]
  const approver: Principal = { kind: 'person', id, person: id, name: 'approver', grants, factor: 'totp' }
  const asked = async () => listApprovals(store.sql, { states: ['pending'] }, { limit: 10 })
  const decide = async (decision: 'approve' | 'refuse') => {
    const [only, ...others] = await asked()
    assert.equal(others.length, 0)
    return await approvals.decide(only!.id, approver, { decision, factor: 'right', reason: null })
  }
  const keptIn = async (at: number, node = 'one') => (await newestSettings([repositories[at]!], node))?.document['restoreRoots']
  const keep = async (text: object) =>
    keepSettings(repositories, { node: 'one', document: settingsData((await load(text)).document), approval: null }, clock)
  /** Storages that lie empty. */
  const forget = async () => {
    for (const repository of repositories) {
      for (const name of await listAuthority(repository, 'servers/')) await repository.storage.delete(`authority/${name}`)
    }
  }
  return { clock, state, world, start, asked, decide, keptIn, keep, forget }
}

const A = { restoreRoots: ['/a'] }
const B = { restoreRoots: ['/b'] }

test(
  'where no repository knows any more what was accepted, the copy of this node is held against the file',
  { skip },
  async (t) => {
    const { start, asked, forget, keptIn, state } = await place(t)
    await (await start(A)).gate.look()
    await writeFile(join(state, 'people-are-known'), '')
    await forget()
    const { gate, roots } = await start(B)
    assert.deepEqual(roots, ['/a'])
    await gate.look()
    assert.equal((await asked()).length, 1)
    assert.deepEqual([await keptIn(0), await keptIn(1)], [['/a'], ['/a']])
  },
)

test('with the first people what is in force is accepted; before, nothing is', { skip }, async (t) => {
  const { world, start, keptIn, state } = await place(t)
  world.isGuarded = false
  const { gate } = await start(A)
  await gate.look()
  assert.equal(await keptIn(0), undefined)
  world.isGuarded = true
  await gate.look()
  assert.deepEqual([await keptIn(0), await keptIn(1)], [['/a'], ['/a']])
  assert.deepEqual((await readAcceptedSettings(state))?.document['restoreRoots'], ['/a'])
  assert.equal(gate.refused, null)
})

test(
  'what weakens is asked for once, and in force at the start after the decision, wherever it is known',
  { skip },
  async (t) => {
    const { start, asked, decide, keep, keptIn } = await place(t)
    await keep(A)
    const { gate, roots, reports } = await start({ ...B, digest: { at: '09:00' } })
    assert.deepEqual(roots, ['/a'])
    await Promise.all([gate.look(), gate.look()])
    await gate.look()
    assert.equal((await asked()).length, 1)
    assert.equal(reports.length, 1, reports.join('\n'))
    await decide('approve')
    await gate.look()
    await gate.look()
    assert.match(gate.refused ?? '', /in force at the next start/)
    assert.deepEqual([await keptIn(0), await keptIn(1)], [['/b'], ['/b']])
    assert.deepEqual((await start({ ...B, digest: { at: '09:00' } })).roots, ['/b'])
  },
)

test('killed behind the decision: the next start still asks, and finds it', { skip }, async (t) => {
  const { start, decide, keep, asked } = await place(t)
  await keep(A)
  await (await start(B)).gate.look()
  await decide('approve')
  const { gate, roots } = await start(B)
  assert.deepEqual(roots, ['/a'])
  await gate.look()
  assert.deepEqual(await asked(), [])
  assert.deepEqual((await start(B)).roots, ['/b'])
})

test('a decision for one node, or on another change, is for that alone', { skip }, async (t) => {
  const { start, decide, keep, keptIn } = await place(t)
  await keep(A)
  await (await start(B)).gate.look()
  await decide('approve')
  for (const other of [{ ...B, node: 'two' }, { restoreRoots: ['/b', '/c'] }]) {
    const { gate, roots } = await start(other)
    await gate.look()
    assert.deepEqual(roots, ['/a'])
    assert.match(gate.refused ?? '', /waits for a second person/)
  }
  assert.deepEqual(await keptIn(0), ['/a'])
})

test('what was refused stays out of force, and is not asked for again for a while', { skip }, async (t) => {
  const { start, decide, keep, asked, clock } = await place(t)
  await keep(A)
  const { gate } = await start(B)
  await gate.look()
  await decide('refuse')
  await gate.look()
  assert.match(gate.refused ?? '', /was refused/)
  assert.deepEqual(await asked(), [])
  clock.move(5 * 3_600_000)
  await gate.look()
  assert.equal((await asked()).length, 1)
})

test('while one storage is away nothing is taken for accepted that it may know better', { skip }, async (t) => {
  const { start, world, keep, keptIn, asked } = await place(t)
  world.here = []
  const { gate, roots } = await start(B)
  assert.deepEqual(roots, [])
  world.here = [0]
  await gate.look()
  assert.equal(await keptIn(0), undefined)
  await keep(A)
  world.here = [0, 1]
  await gate.look()
  assert.match(gate.refused ?? '', /waits for a second person/)
  assert.equal((await asked()).length, 1)
  assert.deepEqual(await keptIn(0), ['/a'])
})
