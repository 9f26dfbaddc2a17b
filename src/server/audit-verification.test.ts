import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after, type TestContext } from 'node:test'
import { stopTestStore, testStore } from '../../test/services/store.ts'
import type { Store } from '../catalog/store.ts'
import { systemClock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { initRepository } from '../repository/repository.ts'
import { Secret } from '../secret.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { AuditKeeper } from './audit-keeper.ts'

after(stopTestStore)

const { signal } = new AbortController()
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const ADA = { kind: 'person', id: '7', name: 'ada' } as const

async function place(t: TestContext) {
  const storage = new MemoryStorage()
  const access = { storage, passphrase: new Secret('x'), system: 'osun' }
  const { repository } = await initRepository(access, { clock: systemClock, kdfCost: 1024 })
  const here = { now: Date.UTC(2026, 10, 21, 12), isAway: false, asked: 0 }
  const store = await testStore(t)
  const node = async (name: string, on: Store = store) => {
    const state = await mkdtemp(join(tmpdir(), 'resus-audit-'))
    t.after(async () => rm(state, { recursive: true, force: true }))
    return new AuditKeeper({
      store: on,
      node: name,
      state,
      clock: { ...systemClock, now: () => here.now },
      syslog: undefined,
      systems: () => ['osun'],
      repositoryOf: async () => {
        here.asked += 1
        if (here.isAway) throw new Failure('STORAGE_UNREACHABLE', 'it is away')
        return repository
      },
      report: () => undefined,
    })
  }
  const keeper = await node('one')
  await keeper.look(signal)
  await keeper.trail.append(store.sql, { actor: ADA, action: 'backup.start', outcome: 'done' })
  const write = async () => keeper.write(repository, { hold: async () => undefined, signal })
  await write()
  const verified = async () => (await keeper.trail.page({ action: 'audit.verified', limit: 100 })).items
  const nextDay = async () => {
    here.now += DAY_MS
    await keeper.verification.look(true, signal)
  }
  return { here, store, storage, keeper, another: await node('two'), write, verified, nextDay }
}

test('the trail is verified once a day by whoever leads, and all nodes know what was found', async (t) => {
  const { here, keeper, another, verified, nextDay } = await place(t)
  const { verification } = keeper
  await verification.look(true, signal)
  assert.deepEqual([await verified(), verification.found('osun')], [[], undefined])
  here.now += DAY_MS
  await verification.look(false, signal)
  assert.deepEqual(await verified(), [])
  await verification.look(true, signal)
  await another.verification.look(true, signal)
  assert.deepEqual(
    (await verified()).map(({ outcome, node }) => [outcome, node]),
    [['done', 'one']],
  )
  assert.deepEqual([verification.found('osun'), another.verification.found('osun')], [null, null])
  assert.notEqual(another.verification.protection, null)
  await nextDay()
  assert.equal((await verified()).length, 2)
  here.now += DAY_MS
  here.isAway = true
  here.asked = 0
  for (let turn = 0; turn < 5; turn += 1) await verification.look(true, signal)
  assert.deepEqual([here.asked, (await verified()).length], [1, 2], 'a storage that is away is asked again after an hour')
  here.isAway = false
  here.now += HOUR_MS
  await verification.look(true, signal)
  assert.equal((await verified()).length, 3)
})

test('what was cut is found, and told until somebody says on record that they have looked at exactly that', async (t) => {
  const { keeper, another, storage, write, verified, nextDay } = await place(t)
  const { verification } = keeper
  await write()
  for await (const { key } of storage.list('control/audit/')) await storage.delete(key)
  await nextDay()
  assert.equal((await verified())[0]?.outcome, 'failed')
  const found = verification.found('osun')
  assert(typeof found === 'string' && found.includes('the repository of "osun"'), String(found))
  const alarm = { key: 'AUDIT_BROKEN | osun | - | verified', text: found }
  assert.equal(verification.isAcknowledged(alarm.key, alarm.text), false)
  await verification.acknowledge([alarm], { actor: ADA, factor: 'totp', address: null }, 'a disk was changed, here is the ticket')
  await another.verification.refresh()
  for (const each of [verification, another.verification]) {
    assert.equal(each.isAcknowledged(alarm.key, alarm.text), true)
    assert.equal(each.isAcknowledged(alarm.key, `${alarm.text} and more`), false)
    assert.equal(each.isAcknowledged('AUDIT_BROKEN | oyo | - | verified', alarm.text), false)
  }
  const [entry] = (await keeper.trail.page({ action: 'audit.acknowledged', limit: 10 })).items
  assert.deepEqual([entry?.actor.name, entry?.reason], ['ada', 'a disk was changed, here is the ticket'])
})
