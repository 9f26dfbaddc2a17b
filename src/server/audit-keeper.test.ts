import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after, type TestContext } from 'node:test'
import { stopTestStore, testStore } from '../../test/services/store.ts'
import { isSigned } from '../authority/audit-head.ts'
import { verifyTrail } from '../authority/audit-verify.ts'
import type { Store } from '../catalog/store.ts'
import { systemClock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { initRepository, type Repository } from '../repository/repository.ts'
import { Secret } from '../secret.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { AuditKeeper } from './audit-keeper.ts'

after(stopTestStore)

const { signal } = new AbortController()
const MINUTE_MS = 60_000
const hold = async () => undefined

async function repositoryOf(system: string): Promise<Repository> {
  const access = { storage: new MemoryStorage(), passphrase: new Secret('x'), system }
  return (await initRepository(access, { clock: systemClock, kdfCost: 1024 })).repository
}

class Place {
  readonly repositories: Map<string, Repository>
  /** Cannot be asked now. */
  readonly away = new Set<string>()
  readonly reports: string[] = []
  now = Date.UTC(2026, 10, 21, 12)
  readonly #t: TestContext

  constructor(t: TestContext, repositories: readonly Repository[]) {
    this.#t = t
    this.repositories = new Map(repositories.map((each) => [each.system, each]))
  }

  async keeper(store: Store, node = 'one'): Promise<AuditKeeper> {
    const state = await mkdtemp(join(tmpdir(), 'resus-audit-'))
    this.#t.after(() => rm(state, { recursive: true, force: true }))
    this.state = state
    return new AuditKeeper({
      store,
      node,
      state,
      clock: { ...systemClock, now: () => this.now },
      syslog: undefined,
      systems: () => [...this.repositories.keys()],
      repositoryOf: async (system) => {
        if (this.away.has(system)) throw new Failure('STORAGE_UNREACHABLE', `${system} is away`)
        return this.repositories.get(system)!
      },
      report: (text) => this.reports.push(text),
    })
  }

  state = ''

  async problems(store: Store): Promise<unknown[]> {
    const repositories = [...this.repositories.values()]
    const asked = { repositories, store: store.sql, heads: [], publicKey: undefined, nowMs: this.now, signal }
    return [...(await verifyTrail(asked)).problems]
  }
}

async function append(keeper: AuditKeeper, store: Store, count: number): Promise<void> {
  const actor = { kind: 'person', id: '7', name: 'ada' } as const
  for (let at = 0; at < count; at += 1) await keeper.trail.append(store.sql, { actor, action: 'backup.start', outcome: 'done' })
}

test('each repository gets all entries, and each one a head that its key has signed', async (t) => {
  const [osun, oyo] = [await repositoryOf('osun'), await repositoryOf('oyo')]
  const place = new Place(t, [osun, oyo])
  const store = await testStore(t)
  const keeper = await place.keeper(store)
  await keeper.look(signal)
  await append(keeper, store, 3)
  for (const each of [osun, oyo]) await keeper.write(each, { hold, signal })
  await append(keeper, store, 1)
  await keeper.write(oyo, { hold, signal })
  const heads = await keeper.heads()
  assert.deepEqual(
    heads.map(({ system, seq }) => [system, seq]),
    [
      ['osun', 4],
      ['oyo', 5],
    ],
  )
  for (const { publicKey, ...head } of heads) assert(isSigned(head, publicKey))
  assert.notEqual(heads[0]!.publicKey, heads[1]!.publicKey)
  await keeper.look(signal)
  const lines = (await readFile(join(place.state, 'audit-head.json'), 'utf8')).trimEnd().split('\n')
  assert.deepEqual(
    lines.map((line) => (JSON.parse(line) as { seq: number }).seq),
    [4, 5],
  )
  // Another node, which never wrote, signs with the same keys.
  const other = await place.keeper(store, 'two')
  assert.deepEqual(
    (await other.heads()).map(({ publicKey }) => publicKey),
    heads.map(({ publicKey }) => publicKey),
  )
  assert.deepEqual(await place.problems(store), [])
})

test('a lost store waits for a repository that is away, for two minutes, and goes on behind the newest of all', async (t) => {
  const [osun, oyo] = [await repositoryOf('osun'), await repositoryOf('oyo')]
  const place = new Place(t, [osun, oyo])
  const before = await testStore(t)
  const first = await place.keeper(before)
  await first.look(signal)
  await append(first, before, 4)
  for (const each of [osun, oyo]) await first.write(each, { hold, signal })
  await append(first, before, 2)
  await first.write(oyo, { hold, signal })
  const store = await testStore(t)
  const keeper = await place.keeper(store)
  place.away.add('oyo')
  await keeper.look(signal)
  await append(keeper, store, 1)
  assert.equal(await keeper.trail.hasBegun(), false)
  place.away.delete('oyo')
  await keeper.look(signal)
  assert.equal((await keeper.trail.newest())!.seq, 9)
  // The one that is behind gets nothing before the store has what it lacks.
  await keeper.write(osun, { hold, signal })
  assert.deepEqual(await keeper.heads(), [])
  await keeper.write(oyo, { hold, signal })
  await keeper.write(osun, { hold, signal })
  assert.deepEqual(await place.problems(store), [])
  // Away for longer: it goes on, and says so in the trail itself.
  const later = await testStore(t)
  const alone = await place.keeper(later)
  place.away.add('oyo').add('osun')
  await alone.look(signal)
  place.now += 2 * MINUTE_MS
  await alone.look(signal)
  const { items } = await alone.trail.page({ limit: 5 })
  assert.deepEqual(
    items.map(({ seq, object }) => [seq, object]),
    [[1, { behind: 0, unread: ['osun', 'oyo'] }]],
  )
  place.away.clear()
  await alone.write(osun, { hold, signal })
  assert.match(alone.broken('osun').forked!, /from entry 1 on its repository has others/)
})

test('of two nodes that begin at once with one store one begins the chain', async (t) => {
  const place = new Place(t, [await repositoryOf('osun')])
  const store = await testStore(t)
  const keepers = [await place.keeper(store), await place.keeper(store, 'two')]
  await Promise.all(keepers.map(async (keeper) => keeper.look(signal)))
  assert.equal((await keepers[0]!.trail.newest())!.seq, 1)
})

test('a copy that has come no further for five minutes is late, and not any more when it is up to date', async (t) => {
  const osun = await repositoryOf('osun')
  const place = new Place(t, [osun])
  const store = await testStore(t)
  const keeper = await place.keeper(store)
  await keeper.look(signal)
  place.now += 4 * MINUTE_MS
  await keeper.look(signal)
  assert.equal(keeper.late('osun'), null)
  place.now += MINUTE_MS
  assert.match(keeper.late('osun')!, /wait for 5 min/)
  await keeper.write(osun, { hold, signal })
  await keeper.look(signal)
  assert.equal(keeper.late('osun'), null)
  assert.deepEqual(keeper.broken('osun'), { forked: undefined, damaged: null })
})
