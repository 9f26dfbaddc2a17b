import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test, { after, type TestContext } from 'node:test'
import type { Grant } from '../../authority/principal.ts'
import { Failure } from '../../errors.ts'
import { openTemporaryDirectory } from '../../postgres/staged-runtime.ts'
import { initRepository } from '../../repository/repository.ts'
import { Secret } from '../../secret.ts'
import { MemoryStorage } from '../../storage/memory-storage.ts'
import { ALL, handClock, testAccounts } from '../../../test/services/accounts.ts'
import { skipUnlessInstalled } from '../../../test/services/postgres.ts'
import { stopTestStore } from '../../../test/services/store.ts'
import { askRepositories } from './asked-repositories.ts'
import { areMadeByOne } from './first-day.ts'
import { PeopleKeeper } from './people-keeper.ts'

after(stopTestStore)
const skip = await skipUnlessInstalled(18)
const DAY_MS = 24 * 3_600_000
const APPROVER: readonly Grant[] = [{ role: 'approver', facilities: null }]

const away = new Failure('STORAGE_UNREACHABLE', 'the storage is away')
const missing = new Failure('REPOSITORY_MISSING', 'there is no repository')
const unreachable = (error: unknown) => error instanceof Failure && error.code === 'STORAGE_UNREACHABLE'

async function stateDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(await openTemporaryDirectory(), 'resus-first-day-'))
  t.after(async () => rm(directory, { recursive: true, force: true }))
  return directory
}

async function newRepository(system: string) {
  const storage = new MemoryStorage()
  const access = { storage, passphrase: new Secret('x'), system }
  return { storage, ...(await initRepository(access, { clock: handClock(), kdfCost: 1024 })) }
}

/** An administrator on an installation of two systems, and a store that somebody else writes, too. */
async function installation(t: TestContext) {
  const all = await testAccounts(t)
  const { accounts, store, clock } = all
  const directory = await stateDirectory(t)
  const { repository: osun, storage } = await newRepository('osun')
  const { repository: ila } = await newRepository('ila')
  const fails = new Map<string, Failure>()
  const repositories = async () =>
    askRepositories(directory, ['osun', 'ila'], async (system) => {
      const failure = fails.get(system)
      if (failure !== undefined) throw failure
      return system === 'osun' ? osun : ila
    })
  const keep = async () => {
    for (const repository of [osun, ila]) await new PeopleKeeper(store, clock, accounts).keep(repository)
  }
  const make = async (name: string, grants: readonly Grant[]) =>
    (await accounts.people.insertPerson({ name, displayName: name, email: null, grants }, { id: 'bootstrap' })).id
  const ada = await make('ada', ALL)
  await keep()
  const isByOne = async () => areMadeByOne(ada, { accounts, clock, repositories })
  return { ...all, ada, make, keep, isByOne, fails, storage }
}

test('people are made by one on the first day, and later until there is an approver', { skip }, async (t) => {
  const { make, keep, isByOne, clock } = await installation(t)
  await make('ben', APPROVER)
  await keep()
  assert.equal(await isByOne(), true)
  clock.move(DAY_MS)
  assert.equal(await isByOne(), false)
})

test(
  'who deletes the rows of approvers, or all old rows, or puts old ones back, gets no first day by it',
  { skip },
  async (t) => {
    const { make, keep, isByOne, clock, store, accounts } = await installation(t)
    const ben = await make('ben', ALL)
    await keep()
    clock.move(DAY_MS)
    assert.equal(await isByOne(), true, 'there is no approver yet')
    const before = await store.sql.selectFrom('people').selectAll().where('id', '=', ben).executeTakeFirstOrThrow()
    await accounts.people.setGrants(ben, APPROVER, { id: 'bootstrap' })
    await keep()
    const { grants, version, seal } = before
    await store.sql
      .updateTable('people')
      .set({ grants: JSON.stringify(grants), version, seal })
      .where('id', '=', ben)
      .execute()
    assert.equal((await accounts.people.read(ben)).grants[0]?.role, 'administrator', 'the old row is a good one')
    assert.equal(await isByOne(), false)
    await store.sql.deleteFrom('people').where('id', '=', ben).execute()
    assert.equal(await isByOne(), false)
    await make('eve', ALL)
    await store.sql.deleteFrom('people').where('name', '=', 'ada').execute()
    assert.equal(await isByOne(), false)
  },
)

test(
  'a repository that cannot be asked, or lies empty, says nothing; one that was never made knows nobody',
  { skip },
  async (t) => {
    const { isByOne, fails, storage } = await installation(t)
    fails.set('ila', missing)
    assert.equal(await isByOne(), true)
    fails.set('ila', away)
    await assert.rejects(isByOne(), unreachable)
    fails.clear()
    assert.equal(await isByOne(), true)
    fails.set('ila', missing)
    await assert.rejects(isByOne(), unreachable, 'it was there once')
    fails.clear()
    for await (const { key } of storage.list('authority/people/')) await storage.delete(key)
    await assert.rejects(isByOne(), unreachable)
  },
)
