import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test, { after, type TestContext } from 'node:test'
import { sql } from 'kysely'
import type { Principal } from '../../authority/principal.ts'
import { Failure } from '../../errors.ts'
import { openTemporaryDirectory } from '../../postgres/staged-runtime.ts'
import { listAuthority, putAuthority } from '../../repository/authority-objects.ts'
import { initRepository, type Repository } from '../../repository/repository.ts'
import { Secret } from '../../secret.ts'
import { MemoryStorage } from '../../storage/memory-storage.ts'
import { enrolled, handClock, testAccounts } from '../../../test/services/accounts.ts'
import { skipUnlessInstalled } from '../../../test/services/postgres.ts'
import { stopTestStore, testStore } from '../../../test/services/store.ts'
import { askFromHost } from '../../authority/clearance.ts'
import { askedName } from '../../authority/operation.ts'
import { askRepositories } from './asked-repositories.ts'
import { FirstAdministrator } from './first-administrator.ts'
import { importAsked } from './host-requests.ts'
import { KnownPeople } from './known-people.ts'
import { PeopleKeeper } from './people-keeper.ts'
import { Reviews } from './reviews.ts'
import { beginSeals } from './sealing-begin.ts'
import { sealingKey } from './sealing-key.ts'

after(stopTestStore)
const skip = await skipUnlessInstalled(18)
const HOUR_MS = 3_600_000

const away = () => Promise.reject(new Failure('STORAGE_UNREACHABLE', 'the storage is away'))
const refusedWith = (code: string) => (error: unknown) => error instanceof Failure && error.code === code

async function repositoryOf(system = 'osun'): Promise<{ repository: Repository; storage: MemoryStorage; away: Repository }> {
  const storage = new MemoryStorage()
  const access = { storage, passphrase: new Secret('x'), system }
  const { repository } = await initRepository(access, { clock: handClock(), kdfCost: 1024 })
  // The same, whose storage answers nothing.
  const deadList = async function* () {
    yield await away()
  }
  const dead = new Proxy(storage, { get: (_, name) => (name === 'list' || name === 'get' ? deadList : away) })
  return { repository, storage, away: { ...repository, storage: dead } }
}

async function damage(storage: MemoryStorage, folder: string): Promise<void> {
  for await (const { key } of storage.list(`authority/${folder}`)) {
    await storage.delete(key)
    await storage.put(key, Buffer.from('this is no object of ours'))
  }
}

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(await openTemporaryDirectory(), 'resus-authority-'))
  t.after(async () => rm(path, { recursive: true, force: true }))
  return path
}

test(
  'people go where a storage takes them, and come back from it by the newest, though a clock is behind',
  { skip },
  async (t) => {
    const all = await testAccounts(t)
    const { accounts, store, clock } = all
    const { person } = await enrolled(all, 'ada')
    const [one, two] = [await repositoryOf(), await repositoryOf()]
    await assert.rejects(new PeopleKeeper(store, clock, all.accounts).keep(one.away), refusedWith('STORAGE_UNREACHABLE'))
    await new PeopleKeeper(store, clock, all.accounts).keep(two.repository)
    assert.equal((await listAuthority(two.repository, 'people/')).length, 1)
    // Another node, an hour behind.
    clock.move(-HOUR_MS)
    const grants = [{ role: 'viewer' as const, facilities: ['ila'] }]
    await accounts.people.setGrants(person.id, grants, { id: 'bootstrap' })
    await new PeopleKeeper(store, clock, all.accounts).keep(two.repository)
    await new PeopleKeeper(store, clock, all.accounts).keep(two.repository)
    assert.equal((await listAuthority(two.repository, 'people/')).length, 2, 'what has not changed is not kept again')
    const lost = await testStore(t)
    const outcomes = await Promise.all(
      [lost, lost].map(async () => new PeopleKeeper(lost, clock, all.another({ store: lost })).restore(two.repository)),
    )
    assert.deepEqual([Math.min(...outcomes), Math.max(...outcomes)], [0, 1], 'of two nodes one brings them back')
    const row = await lost.sql.selectFrom('people').selectAll().executeTakeFirstOrThrow()
    assert.deepEqual([row.name, row.grants], ['ada', grants])
    assert.equal((await lost.sql.selectFrom('factors').selectAll().execute()).length, 1)
  },
)

test('a damaged copy of a person is passed over, and the one before counts', { skip }, async (t) => {
  const all = await testAccounts(t)
  const { store, clock } = all
  const { person } = await enrolled(all, 'ada')
  const { repository, storage } = await repositoryOf()
  await new PeopleKeeper(store, clock, all.accounts).keep(repository)
  const newest = `authority/people/${person.id}/29991231T000000Z-zzzz`
  await storage.put(newest, Buffer.from('this is no object of ours'))
  await putAuthority(repository, `people/${randomUUID()}/29991231T000000Z-zzzz`, { format: 1, person: { name: 'of another' } })
  const lost = await testStore(t)
  assert.equal(await new PeopleKeeper(lost, clock, all.another({ store: lost })).restore(repository), 1)
})

test(
  'what somebody changes of a person in the store takes no good copy’s place; an old row that is put back goes again',
  { skip },
  async (t) => {
    const all = await testAccounts(t)
    const { accounts, store, clock } = all
    const { person } = await enrolled(all, 'ada')
    const { repository } = await repositoryOf()
    const keeper = new PeopleKeeper(store, clock, accounts)
    const copies = async () => (await listAuthority(repository, 'people/')).length
    assert.deepEqual((await keeper.keep(repository)).found, [])
    const old = await store.sql.selectFrom('people').selectAll().executeTakeFirstOrThrow()
    const boss = JSON.stringify([{ role: 'administrator', facilities: null }])
    await sql`update resus_control.people set grants = ${boss}::jsonb, version = 99`.execute(store.sql)
    assert.deepEqual((await keeper.keep(repository)).found, [{ id: person.id, name: 'ada', isReplaced: false }])
    assert.equal(await copies(), 1)
    await sql`update resus_control.people set grants = ${JSON.stringify(old.grants)}::jsonb, version = ${old.version}`.execute(
      store.sql,
    )
    await accounts.people.disable(person.id, { id: 'bootstrap' })
    assert.deepEqual((await keeper.keep(repository)).found, [])
    assert.equal(await copies(), 2)
    // Who was disabled is put back as they were, with the seal of then.
    await store.sql.updateTable('people').set({ state: 'active', version: old.version, seal: old.seal }).execute()
    assert.equal((await accounts.people.read(person.id)).state, 'active', 'the seal is a good one')
    assert.deepEqual((await keeper.keep(repository)).found, [{ id: person.id, name: 'ada', isReplaced: true }])
    assert.equal((await accounts.people.read(person.id)).state, 'disabled')
    assert.equal((await accounts.factors.list(person.id)).length, 1)
    assert.deepEqual([(await keeper.keep(repository)).found, await copies()], [[], 2])
  },
)

test('rows of before there were seals are sealed once; seals that are taken away later make nobody', { skip }, async (t) => {
  const all = await testAccounts(t)
  const { accounts, store, clock } = all
  const { person } = await enrolled(all, 'ada')
  const { repository, away: dead } = await repositoryOf()
  const [one, two, three] = [await directory(t), await directory(t), await directory(t)]
  const begin = async (node: string, repositories = [repository], areAll = true) =>
    beginSeals({ directory: node, asked: { opened: repositories, away: areAll ? [] : ['ila'] }, accounts, clock })
  const unseal = async () => sql`update resus_control.people set seal = null`.execute(store.sql)
  await unseal()
  await assert.rejects(accounts.people.read(person.id), refusedWith('PEOPLE_CHANGED_OUTSIDE'))
  assert.equal(await begin(one, [], false), undefined, 'a repository that does not answer may know')
  await assert.rejects(begin(one, [dead]), refusedWith('STORAGE_UNREACHABLE'))
  await assert.rejects(accounts.people.read(person.id), refusedWith('PEOPLE_CHANGED_OUTSIDE'))
  assert.equal(await begin(one), 1)
  assert.equal((await accounts.people.read(person.id)).name, 'ada')
  await unseal()
  assert.deepEqual([await begin(one), await begin(two), await begin(three, [repository], false)], [0, 0, 0])
  await assert.rejects(accounts.people.read(person.id), refusedWith('PEOPLE_CHANGED_OUTSIDE'))
})

test('rows are sealed while another storage was never made, and not while one is not mounted or is away', { skip }, async (t) => {
  const { accounts, store, clock, ...all } = await testAccounts(t)
  await enrolled({ accounts, store, clock, ...all }, 'ada')
  await sql`update resus_control.people set seal = null`.execute(store.sql)
  const [osun, ila] = [(await repositoryOf()).repository, (await repositoryOf('ila')).repository]
  const missing = new Failure('REPOSITORY_MISSING', 'there is none')
  const begin = async (node: string, answer: () => Promise<Repository>) => {
    const repositoryNamed = async (system: string) => (system === 'osun' ? osun : answer())
    return beginSeals({ directory: node, asked: await askRepositories(node, ['osun', 'ila'], repositoryNamed), accounts, clock })
  }
  const one = await directory(t)
  assert.equal(await begin(one, away), undefined)
  await askRepositories(one, ['ila'], async () => ila)
  assert.equal(await begin(one, () => Promise.reject(missing)), undefined, 'it was there once')
  assert.equal(await begin(await directory(t), () => Promise.reject(missing)), 1)
})

test('of two nodes that make the key at once both have the same; a storage that is away says nothing', { skip }, async (t) => {
  const { repository, away: dead, storage } = await repositoryOf()
  const [one, two, three] = [await directory(t), await directory(t), await directory(t)]
  const keys = await Promise.all([one, two].map(async (each) => sealingKey(each, [repository], { mayMake: true })))
  assert.deepEqual(keys[0]!.reveal(), keys[1]!.reveal())
  assert.deepEqual(
    (await sealingKey(three, [repository], { mayMake: false }))!.reveal(),
    keys[0]!.reveal(),
    'a new node has it from there',
  )
  const [fourth, fifth] = [await directory(t), await directory(t)]
  assert.equal(await sealingKey(fourth, [], { mayMake: false }), undefined)
  await assert.rejects(sealingKey(fourth, [dead], { mayMake: true }), refusedWith('STORAGE_UNREACHABLE'))
  await damage(storage, 'key')
  await assert.rejects(
    sealingKey(fifth, [repository], { mayMake: true }),
    refusedWith('OBJECT_DAMAGED'),
    'rather than another key',
  )
  assert.deepEqual((await sealingKey(one, [repository], { mayMake: false }))!.reveal(), keys[0]!.reveal(), 'who has it goes on')
})

test('a repository that cannot be asked may know people; who is known once is known for good', { skip }, async (t) => {
  const store = await testStore(t)
  const { repository, away: dead } = await repositoryOf()
  const state = await directory(t)
  let now = dead
  const known = () => new KnownPeople({ directory: state, store, systems: () => ['osun'], repositoryOf: async () => now })
  assert.equal(await known().look(), 'unknown')
  now = repository
  const seen = known()
  assert.equal(await seen.look(), 'none')
  await putAuthority(repository, `people/${randomUUID()}/1`, { format: 1 })
  assert.equal(await seen.look(), 'some', 'another node has made the first')
  now = dead
  assert.equal(await known().look(), 'some')
})

test('the link of the first administrator is good once, for a quarter of an hour, and for nobody when people may be known', async (t) => {
  const clock = handClock()
  const first = new FirstAdministrator({ directory: await directory(t), clock, url: () => 'https://resus.test' })
  const code = async () => (await readFile(first.path, 'utf8')).trim().split('#')[1]!
  assert.throws(() => first.take('x'.repeat(43)), refusedWith('LOG_ON_REFUSED'))
  await first.look(true)
  const before = await code()
  clock.move(15 * 60_000)
  assert.throws(() => first.take(before), refusedWith('LOG_ON_REFUSED'))
  await first.look(true)
  const good = await code()
  assert.notEqual(good, before)
  first.take(good)
  assert.throws(() => first.take(good), refusedWith('LOG_ON_REFUSED'))
  await first.look(true)
  const last = await code()
  await first.look(false)
  assert.throws(() => first.take(last), refusedWith('LOG_ON_REFUSED'))
})

test('an emergency is known where one of several repositories is away, and damage hides no other', async () => {
  const clock = handClock()
  const [one, two] = [await repositoryOf(), await repositoryOf()]
  const by = (kind: 'person' | 'token', name: string): Principal => ({
    kind,
    id: name,
    person: name,
    name,
    grants: [],
    factor: 'totp',
  })
  const reviews = new Reviews(clock)
  await assert.rejects(reviews.declare([one.repository], by('token', 'a token'), 'no power'), refusedWith('FORBIDDEN'))
  const declared = await reviews.declare([one.away, two.repository], by('person', 'ada'), 'no power')
  const another = new Reviews(clock)
  await assert.rejects(another.look(one.away), refusedWith('STORAGE_UNREACHABLE'))
  await another.look(two.repository)
  assert.equal(another.emergency?.id, declared.id)
  await assert.rejects(another.look(two.away), refusedWith('STORAGE_UNREACHABLE'))
  assert.equal(another.emergency?.id, declared.id, 'what was known stays known')
  await assert.rejects(another.review([two.repository], declared.id, by('person', 'ada'), 'all well'), refusedWith('FORBIDDEN'))
  await another.review([two.repository], declared.id, by('person', 'ben'), 'all well')
  await assert.rejects(another.review([two.repository], declared.id, by('person', 'eve'), 'no'), refusedWith('APPROVAL_INVALID'))
  clock.move(4 * HOUR_MS)
  assert.equal(another.emergency, undefined)
  await reviews.declare([two.repository], by('person', 'ada'), 'again')
  await damage(two.storage, `emergencies/${declared.id}`)
  const third = new Reviews(clock)
  await third.look(two.repository)
  assert.deepEqual(
    third.all.map(({ reason }) => reason),
    ['again'],
  )
})

test(
  'a host asks for what a host does, once, for four hours; damaged or forged requests ask for nothing',
  { skip },
  async (t) => {
    const store = await testStore(t)
    const { repository, storage } = await repositoryOf()
    const at = Date.UTC(2026, 10, 22, 12)
    const asked = (more: object = {}) => ({
      format: 1,
      id: randomUUID(),
      operation: 'restore',
      system: repository.system,
      component: 'his-db',
      parameters: { verb: 'restore', component: 'his-db' },
      askedBy: { id: 'host:root@his', name: 'root@his' },
      askedAt: new Date(at).toISOString(),
      expiresAt: new Date(at + 4 * HOUR_MS).toISOString(),
      ...more,
    })
    const put = async (document: { readonly id: string; readonly askedAt: string }, id = document.id) =>
      putAuthority(repository, askedName({ ...document, id }), document)
    await put(asked())
    await damage(storage, 'asked/')
    for (const more of [
      { operation: 'configuration' },
      { operation: 'people' },
      // About what another approver may decide on.
      { component: 'ila-db' },
      { component: null },
      { system: 'another' },
      { operation: 'break-glass' },
      { askedBy: { id: randomUUID(), name: 'ada' } },
      { expiresAt: new Date(at + 5 * HOUR_MS).toISOString() },
    ])
      await put(asked(more))
    await put(asked(), randomUUID())
    // Of another day than it says.
    const moved = asked()
    await putAuthority(repository, askedName({ ...moved, askedAt: new Date(at - 24 * HOUR_MS).toISOString() }), moved)
    const good = asked()
    await put(good)
    const found: string[] = []
    const look = async () =>
      importAsked({ store, repository, sealOf: () => Buffer.from('seal'), nowMs: at }, async ({ id }) => void found.push(id))
    await Promise.all([look(), look()])
    await look()
    const rows = await sql<{ id: string }>`select id from resus_control.approvals`.execute(store.sql)
    assert.deepEqual([...new Set(found)], [good.id])
    assert.deepEqual(
      rows.rows.map(({ id }) => id),
      [good.id],
    )
  },
)

test('what hosts ask for is found across midnight, and of all that was ever asked two days are listed', { skip }, async (t) => {
  const { store } = await testAccounts(t)
  const { repository, storage } = await repositoryOf()
  const midnight = Date.UTC(2026, 10, 23)
  const parameters = { verb: 'restore', component: 'his-db' }
  const ask = async (atMs: number) => {
    const clock = { ...handClock(), now: () => atMs }
    const deed = { operation: 'restore' as const, parameters }
    return (await askFromHost(repository, deed, { account: 'root', host: 'his', reason: 'gone' }, clock)).id
  }
  for (let days = 2; days < 30; days += 1) await ask(midnight - days * 24 * HOUR_MS)
  const wanted = [await ask(midnight - 600_000), await ask(midnight + 300_000)]
  const listed: string[] = []
  const watched = new Proxy(storage, {
    get: (of, name) =>
      name === 'list'
        ? (prefix: string) => {
            listed.push(prefix)
            return of.list(prefix)
          }
        : (Reflect.get(of, name) as () => unknown).bind(of),
  })
  const found: string[] = []
  for (const nowMs of [midnight + 600_000, midnight + 601_000]) {
    const importing = { store, repository: { ...repository, storage: watched }, sealOf: () => Buffer.from('seal'), nowMs }
    await importAsked(importing, async ({ id }) => void found.push(id))
  }
  assert.deepEqual(found.toSorted(), wanted.toSorted())
  assert.deepEqual([...new Set(listed)], ['authority/asked/20261122/', 'authority/asked/20261123/'])
})
