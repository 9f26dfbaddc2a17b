import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import test, { after, type TestContext } from 'node:test'
import { keepConfiguration, newestConfiguration } from '../../authority/configurations.ts'
import { Approvals, type ApprovalsOptions, type Decision } from '../../authority/approvals.ts'
import type { Principal } from '../../authority/principal.ts'
import { listApprovals } from '../../catalog/approvals.ts'
import { parseConfiguration, type Configuration } from '../../config/configuration.ts'
import { Failure } from '../../errors.ts'
import { initRepository, type Repository } from '../../repository/repository.ts'
import { Secret } from '../../secret.ts'
import { MemoryStorage } from '../../storage/memory-storage.ts'
import { handClock } from '../../../test/services/accounts.ts'
import { skipUnlessInstalled } from '../../../test/services/postgres.ts'
import { stopTestStore, testStore } from '../../../test/services/store.ts'
import { ConfigurationGate, documentOf, heldAtStart, type ConfigurationGateOptions } from './configuration-gate.ts'
import { FileApprovals } from './file-approvals.ts'

after(stopTestStore)
const skip = await skipUnlessInstalled(18)

const HOUR_MS = 3_600_000
const APPROVE: Decision = { decision: 'approve', factor: 'right', reason: null }
const REFUSE: Decision = { ...APPROVE, decision: 'refuse' }

/** A file that keeps so many days. */
function keeping(daily: number, more: object = {}): Configuration {
  const document = {
    system: 'osun',
    state: '/state',
    repository: { storages: [{ name: 'main', kind: 'directory', path: '/vault' }], key: { passphrase: 'file:/key' } },
    components: {
      'his-db': {
        kind: 'postgres',
        tier: 'low',
        connection: 'postgres://x@/x',
        dataDirectory: '/data',
        keep: { daily, weekly: 4, monthly: 12 },
      },
    },
    ...more,
  }
  return parseConfiguration(document, '/etc/resus/resus.yaml')
}

function daysOf(systems: readonly Configuration[]): number[] {
  return systems.flatMap(({ components }) => components.map(({ keep }) => keep?.daily ?? 0))
}

async function place(t: TestContext, more: Partial<ApprovalsOptions> = {}) {
  const clock = handClock()
  const storage = new MemoryStorage()
  const access = { storage, passphrase: new Secret('x'), system: 'osun' }
  const { repository } = await initRepository(access, { clock, kdfCost: 1024 })
  const store = await testStore(t)
  const other = await initRepository({ ...access, storage: new MemoryStorage(), system: 'ogun' }, { clock, kdfCost: 1024 })
  const world = { isAway: false, isGuarded: true }
  const repositoryOf = async (): Promise<Repository> => {
    if (world.isAway) throw new Failure('STORAGE_UNREACHABLE', 'the storage is away')
    return repository
  }
  const repositoriesOf = async (system: string | null) => {
    if (system !== null) return [await repositoryOf()]
    return world.isAway ? [other.repository] : [repository, other.repository]
  }
  const approvals = new Approvals({
    store,
    clock,
    repositoriesOf,
    facilitiesOf: () => [],
    sealOf: (digest) => Buffer.from(`seal of ${digest}`),
    freshFactor: async () => 'totp',
    wasInHandOf: async () => false,
    execute: async () => ({}),
    note: async () => undefined,
    ...more,
  })
  const gate = (node = 'one', options: Partial<ConfigurationGateOptions> = {}) =>
    new ConfigurationGate({
      isGuarded: () => world.isGuarded,
      approvals: new FileApprovals({
        store,
        node,
        clock,
        approvals: () => approvals,
        repositoriesOf,
      }),
      repositoryOf,
      clock,
      open: repositoryOf,
      unproven: new Set(),
      ...options,
    })
  const id = randomUUID()
  const approver: Principal = {
    kind: 'person',
    id,
    person: id,
    name: 'approver',
    grants: [{ role: 'approver', facilities: null }],
    factor: 'totp',
  }
  const asked = async () => listApprovals(store.sql, { states: ['pending'] }, { limit: 10 })
  const only = async () => {
    const all = await asked()
    assert.equal(all.length, 1, JSON.stringify(all))
    return all[0]!.id
  }
  const decide = async (which: string, decision = APPROVE) => approvals.decide(which, approver, decision)
  const kept = async () => (await newestConfiguration(repository)) ?? null
  return { clock, store, world, repository, approvals, gate, asked, only, decide, kept }
}

test('before there are people a file is in force as it is', { skip }, async (t) => {
  const { gate, world, asked } = await place(t)
  world.isGuarded = false
  assert.deepEqual(daysOf((await gate().admit([keeping(7)], [keeping(1)])).systems), [1])
  assert.deepEqual(await asked(), [])
})

test('what weakens waits, and what does not is in force at once', { skip }, async (t) => {
  const { gate, asked } = await place(t)
  const [mine, other] = [keeping(7), keeping(7, { system: 'other', state: '/other' })]
  const admitted = await gate().admit([mine, other], [keeping(1), keeping(8, { system: 'other', state: '/other' })])
  assert.deepEqual(daysOf(admitted.systems), [7, 8])
  assert.match(admitted.waiting.join(), /"osun" \(components.his-db.keep.daily\) weakens/)
  assert.equal((await asked()).length, 1)
  // A system that is gone has lost all.
  assert.deepEqual((await gate().admit([mine, other], [mine])).systems.length, 2)
})

test(
  'two nodes see one change at the same time: it is asked for once, and what one lets through the other takes',
  { skip },
  async (t) => {
    const { gate, decide, only, clock } = await place(t)
    const [one, two] = [gate('one'), gate('two')]
    const both = async () => Promise.all([one, two].map(async (each) => each.admit([keeping(7)], [keeping(1)])))
    await both()
    for (const { systems } of await both()) assert.deepEqual(daysOf(systems), [7])
    await decide(await only())
    assert.deepEqual(daysOf((await one.admit([keeping(7)], [keeping(1)])).systems), [1])
    // Long after the decision counts for a new change the repository still says what was accepted.
    clock.move(5 * HOUR_MS)
    assert.deepEqual(await two.admit([keeping(7)], [keeping(1)]), { systems: [keeping(1)], waiting: [] })
  },
)

test('the file is edited again while the first edit waits: a decision on one lets no other through', { skip }, async (t) => {
  const { gate, decide, asked, only } = await place(t)
  await gate().admit([keeping(7)], [keeping(3)])
  const first = await only()
  await gate().admit([keeping(7)], [keeping(1)])
  assert.equal((await asked()).length, 2)
  await decide(first)
  const admitted = await gate().admit([keeping(7)], [keeping(1)])
  assert.deepEqual(daysOf(admitted.systems), [7])
  assert.match(admitted.waiting.join(), new RegExp(await only()))
  // Back to what was decided on.
  assert.deepEqual(daysOf((await gate().admit([keeping(7)], [keeping(3)])).systems), [3])
})

test(
  'killed behind the decision, and before the change is in force: the next start goes on, and the repository has it',
  { skip },
  async (t) => {
    let isDead = true
    const { gate, decide, only, kept, clock, store } = await place(t, {
      execute: async () => {
        if (isDead) throw new Error('killed')
        return {}
      },
    })
    await gate().admit([keeping(7)], [keeping(1)])
    const id = await only()
    await assert.rejects(decide(id), /killed/)
    assert.equal(await kept(), null)
    // Not even the store was told of it.
    await store.sql.updateTable('approvals').set({ state: 'pending' }).where('id', '=', id).execute()
    isDead = false
    const admitted = await gate().admit([keeping(7)], [keeping(1)])
    assert.deepEqual(daysOf(admitted.systems), [1])
    const anchor = await kept()
    assert.deepEqual([anchor?.approval, anchor?.document], [id, documentOf(keeping(1))])
    // Killed again before this host had a copy of it, and away until the decision is over.
    clock.move(5 * HOUR_MS)
    assert.deepEqual(daysOf((await gate().admit([keeping(7)], [keeping(1)])).systems), [1])
  },
)

test('a row of the store that says approved, and a decision that was taken back, let nothing through', { skip }, async (t) => {
  const { gate, decide, only, store, approvals } = await place(t)
  await gate().admit([keeping(7)], [keeping(1)])
  const id = await only()
  const write = async () => store.sql.updateTable('approvals').set({ state: 'used' }).where('id', '=', id).execute()
  await write()
  assert.deepEqual(daysOf((await gate().admit([keeping(7)], [keeping(1)])).systems), [7])
  await store.sql.updateTable('approvals').set({ state: 'pending' }).where('id', '=', id).execute()
  await decide(id)
  await store.sql.updateTable('approvals').set({ state: 'approved' }).where('id', '=', id).execute()
  const asker: Principal = {
    kind: 'bootstrap',
    id: 'file:/etc/resus/resus.yaml',
    person: null,
    name: '',
    grants: [],
    factor: 'file',
  }
  await approvals.revoke(id, asker)
  await write()
  assert.deepEqual(daysOf((await gate().admit([keeping(7)], [keeping(1)])).systems), [7])
})

test('a decision on another change, written into the store for this one, lets nothing through', { skip }, async (t) => {
  const { gate, decide, only, store } = await place(t)
  await gate().admit([keeping(7)], [keeping(3)])
  const small = await only()
  await decide(small)
  await gate().admit([keeping(7)], [keeping(1)])
  const { parameters } = await store.sql
    .selectFrom('approvals')
    .select('parameters')
    .where('state', '=', 'pending')
    .executeTakeFirstOrThrow()
  await store.sql
    .updateTable('approvals')
    .set({ parameters: JSON.stringify(parameters) })
    .where('id', '=', small)
    .execute()
  assert.deepEqual(daysOf((await gate().admit([keeping(7)], [keeping(1)])).systems), [7])
})

test('what was refused is not asked for again until the request is over', { skip }, async (t) => {
  const { gate, decide, only, asked, clock } = await place(t)
  await gate().admit([keeping(7)], [keeping(1)])
  await decide(await only(), REFUSE)
  const admitted = await gate().admit([keeping(7)], [keeping(1)])
  assert.deepEqual(daysOf(admitted.systems), [7])
  assert.match(admitted.waiting.join(), /was refused/)
  assert.deepEqual(await asked(), [])
  clock.move(5 * HOUR_MS)
  await gate().admit([keeping(7)], [keeping(1)])
  assert.equal((await asked()).length, 1)
})

test('while the storage is away nothing that weakens is in force, whatever the store says', { skip }, async (t) => {
  const { gate, decide, only, world } = await place(t)
  await gate().admit([keeping(7)], [keeping(1)])
  await decide(await only())
  world.isAway = true
  const admitted = await gate().admit([keeping(7)], [keeping(1)])
  assert.deepEqual(daysOf(admitted.systems), [7])
  assert.match(admitted.waiting.join(), /cannot be known now/)
})

test(
  'a node that began by its file goes back to what was accepted when the storage answers, also when that fails at first',
  { skip },
  async (t) => {
    const { gate, repository, world, clock, asked } = await place(t)
    await keepConfiguration(repository, documentOf(keeping(7)), null, clock)
    const unproven = gate('one', { unproven: new Set(['osun']) })
    const began = [keeping(1)]
    world.isAway = true
    // The people are in a storage that is away, too.
    world.isGuarded = false
    await assert.rejects(unproven.admit(began, [keeping(1)]), { code: 'STORAGE_UNREACHABLE' })
    world.isAway = false
    for (const _ of ['cannot be kept', 'can']) {
      const admitted = await unproven.admit(began, [keeping(1)])
      assert.deepEqual(daysOf(admitted.systems), [7])
    }
    assert.equal((await asked()).length, 1)
    assert.deepEqual(daysOf((await unproven.admit([keeping(7)], [keeping(8)])).systems), [8])
  },
)

test(
  'a storage that is gone for good is replaced by two people: the decision lies in the repositories of other systems',
  { skip },
  async (t) => {
    const { gate, decide, only, world, clock, approvals } = await place(t)
    const storages = [{ name: 'new', kind: 'directory', path: '/new' }]
    const wanted = keeping(7, { repository: { storages, key: { passphrase: 'file:/key' } } })
    const made = await initRepository(
      { storage: new MemoryStorage(), passphrase: new Secret('x'), system: 'osun' },
      { clock, kdfCost: 1024 },
    )
    world.isAway = true
    const one = gate('one', { open: async () => made.repository })
    const pathsOf = (systems: readonly Configuration[]) =>
      systems.map(({ repository }) => repository.storages.map(({ path }) => path).join())
    const waits = await one.admit([keeping(7)], [wanted])
    assert.deepEqual(pathsOf(waits.systems), ['/vault'])
    const { id, parameters } = await approvals.read(await only())
    assert.equal((parameters as { system: string }).system, 'osun')
    // What whoever made the new storage could write there says nothing.
    await keepConfiguration(made.repository, documentOf(wanted), id, clock)
    assert.deepEqual(pathsOf((await one.admit([keeping(7)], [wanted])).systems), ['/vault'])
    await decide(id)
    assert.deepEqual(await one.admit([keeping(7)], [wanted]), { systems: [wanted], waiting: [] })
    assert.equal((await newestConfiguration(made.repository))?.approval, id)
    // What else is changed with it takes a decision of its own.
    const more = { ...wanted, components: keeping(1).components }
    assert.deepEqual(daysOf((await one.admit([keeping(7)], [more])).systems), [7])
  },
)

test('at a start a system that weakens, or is gone, stays as it was', () => {
  const other = keeping(7, { system: 'other', state: '/other' })
  assert.deepEqual(daysOf(heldAtStart([keeping(7), other], [keeping(1), keeping(9, { system: 'new' })])), [9, 7, 7])
})
