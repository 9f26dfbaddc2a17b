import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import test, { after, type TestContext } from 'node:test'
import { sql } from 'kysely'
import type { Approval } from '../catalog/approvals.ts'
import { Failure } from '../errors.ts'
import { Secret } from '../secret.ts'
import { initRepository } from '../repository/repository.ts'
import { putAuthority } from '../repository/authority-objects.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { skipUnlessInstalled } from '../../test/services/postgres.ts'
import { stopTestStore, testStore } from '../../test/services/store.ts'
import { readDecision, takeUse } from './anchors.ts'
import { Approvals, askedOf, type ApprovalsOptions, type Decision } from './approvals.ts'
import { digestOf } from './operation.ts'
import type { Grant, Principal } from './principal.ts'

after(stopTestStore)
const skip = await skipUnlessInstalled(18)

const NOON = Date.UTC(2026, 10, 22, 12)
const RESTORE = { system: 'osun', component: 'his-db' }
const APPROVE: Decision = { decision: 'approve', factor: 'right', reason: null }

function person(name: string, ...grants: readonly Grant[]): Principal {
  const id = randomUUID()
  return { kind: 'person', id, person: id, name, grants, factor: 'totp' }
}

async function place(t: TestContext, more: Partial<ApprovalsOptions> = {}) {
  const clock = { nowMs: NOON, now: () => clock.nowMs, sleep: async () => undefined }
  const storage = new MemoryStorage()
  const access = { storage, passphrase: new Secret('x'), system: 'osun' }
  const { repository } = await initRepository(access, { clock, kdfCost: 1024 })
  const store = await testStore(t)
  const notes: string[] = []
  const executed: string[] = []
  const options: ApprovalsOptions = {
    store,
    clock,
    repositoriesOf: async () => [repository],
    freshFactor: async (_, given) => {
      if (given === 'right') return 'totp'
      throw new Failure('FACTOR_WRONG', 'that was wrong')
    },
    facilitiesOf: ({ component }) => (component === 'his-db' ? ['ila', 'ede'] : component === 'ila-db' ? ['ila'] : []),
    sealOf: (digest) => Buffer.from(`seal of ${digest}`),
    wasInHandOf: async () => false,
    execute: async ({ id }) => {
      executed.push(id)
      return { task: id }
    },
    note: async (event) => void notes.push(event),
    ...more,
  }
  const operator = person('operator', { role: 'operator', facilities: null })
  const approver = person('approver', { role: 'approver', facilities: null })
  const approvals = new Approvals(options)
  const ask = async () =>
    approvals.ask(operator, { operation: 'restore', parameters: { to: '/restored', target: { time: 'noon' } } }, RESTORE)
  return { approvals, options, repository, storage, store, clock, notes, executed, operator, approver, ask }
}

const refusedWith = (code: string) => (error: unknown) => error instanceof Failure && error.code === code

test('what one asks for and another approves is anchored in the repository before it is done, once', { skip }, async (t) => {
  const seen: unknown[] = []
  const here = await place(t, {
    execute: async ({ id }) => {
      seen.push(await readDecision(here.repository, id))
      return {}
    },
  })
  const { id, state, digest } = await here.ask()
  assert.equal(state, 'pending')
  assert.equal((await here.approvals.decide(id, here.approver, APPROVE)).state, 'used')
  const [decided] = seen as [{ digest: string; decidedBy: { name: string } }]
  assert.deepEqual([decided.digest, decided.decidedBy.name], [digest, 'approver'])
  assert.deepEqual(here.notes, ['asked', 'approved', 'used'])
  await assert.rejects(here.approvals.decide(id, here.approver, APPROVE), refusedWith('APPROVAL_INVALID'))
  assert.equal(seen.length, 1)
})

test(
  'nobody decides on their own request, nor for a facility that they are no approver of, nor as a token',
  { skip },
  async (t) => {
    const here = await place(t)
    const { id } = await here.ask()
    const both = { ...here.operator, grants: [...here.operator.grants, ...here.approver.grants] }
    const refused = [
      both,
      here.operator,
      person('of one facility', { role: 'approver', facilities: ['ila'] }),
      person('administrator', { role: 'administrator', facilities: null }),
      { ...here.approver, kind: 'token' as const },
      { ...here.approver, kind: 'bootstrap' as const, person: null },
    ]
    for (const by of refused) {
      await assert.rejects(here.approvals.decide(id, by, APPROVE), refusedWith('FORBIDDEN'), by.name)
      assert.equal((await here.approvals.read(id)).state, 'pending')
    }
    const ofBoth = person('of both', { role: 'approver', facilities: ['ede', 'ila'] })
    assert.equal((await here.approvals.decide(id, ofBoth, APPROVE)).state, 'used')
  },
)

test('an account that the asker made or reset within a day does not decide', { skip }, async (t) => {
  const asked: unknown[] = []
  const here = await place(t, {
    wasInHandOf: async (...given) => {
      asked.push(given)
      return true
    },
  })
  const { id } = await here.ask()
  await assert.rejects(here.approvals.decide(id, here.approver, APPROVE), refusedWith('FORBIDDEN'))
  assert.deepEqual(asked, [[here.approver.id, here.operator.id, new Date(NOON - 24 * 3_600_000)]])
})

test(
  'what a file or a host asks for nobody decides on whose account anybody else has made or reset within a day',
  { skip },
  async (t) => {
    const asked: unknown[] = []
    const here = await place(t, {
      wasInHandOf: async (...given) => {
        asked.push(given[1])
        return given[1] === null
      },
    })
    for (const by of ['file:/etc/resus/his.yaml', 'host:root@his']) {
      const asker: Principal = { kind: 'bootstrap', id: by, person: null, name: by, grants: [], factor: 'file' }
      const { id } = await here.approvals.ask(asker, { operation: 'restore', parameters: {} }, RESTORE)
      await assert.rejects(here.approvals.decide(id, here.approver, APPROVE), /somebody else made this account/)
    }
    assert.deepEqual(asked, [null, null])
    assert.equal((await here.approvals.decide((await here.ask()).id, here.approver, APPROVE)).state, 'used')
  },
)

test('a wrong factor decides nothing, and a decision is a decision', { skip }, async (t) => {
  const here = await place(t)
  const { id } = await here.ask()
  await assert.rejects(here.approvals.decide(id, here.approver, { ...APPROVE, factor: 'wrong' }), refusedWith('FACTOR_WRONG'))
  assert.equal(await readDecision(here.repository, id), undefined)
  const refused = await here.approvals.decide(id, here.approver, { ...APPROVE, decision: 'refuse', reason: 'not now' })
  assert.deepEqual([refused.state, refused.reason, here.executed.length], ['refused', 'not now', 0])
  await assert.rejects(here.approvals.decide(id, here.approver, APPROVE), refusedWith('APPROVAL_INVALID'))
})

test(
  'what somebody changes in the store is not approved, and a row that says approved runs nothing else',
  { skip },
  async (t) => {
    const here = await place(t)
    const { id } = await here.ask()
    const change = sql`update resus_control.approvals set parameters = '{"to": "/elsewhere"}' where id = ${id}`
    await change.execute(here.store.sql)
    await assert.rejects(here.approvals.decide(id, here.approver, APPROVE), /its digest or its seal is another/)
    assert.equal(await readDecision(here.repository, id), undefined)
  },
)

test('a request that somebody has written into the store, under another’s name, is decided on by nobody', { skip }, async (t) => {
  const here = await place(t)
  const { id } = await here.ask()
  const forged = { ...askedOf(await here.approvals.read(id)), askedBy: { id: here.approver.id, name: 'approver' } }
  const digest = digestOf(forged)
  const { store, operator } = here
  await sql`update resus_control.approvals set asked_by = ${here.approver.id}, asked_name = 'approver', digest = ${digest} where id = ${id}`.execute(
    store.sql,
  )
  const alsoApprover = { ...operator, grants: here.approver.grants }
  await assert.rejects(here.approvals.decide(id, alsoApprover, APPROVE), /its digest or its seal is another/)
  assert.equal(await readDecision(here.repository, id), undefined)
})

test(
  'an approver of one facility decides for another neither by what the store says it is about, nor by what was decided',
  { skip },
  async (t) => {
    const here = await place(t)
    const { id } = await here.ask()
    const ofIla = person('of ila', { role: 'approver', facilities: ['ila'] })
    await sql`update resus_control.approvals set component = 'ila-db' where id = ${id}`.execute(here.store.sql)
    await assert.rejects(here.approvals.decide(id, ofIla, APPROVE), /its digest or its seal is another/)
    assert.equal(await readDecision(here.repository, id), undefined)
    const read = (await here.approvals.read(id)) as Approval
    const decided = { ...anchorOf({ ...read, component: 'his-db' }, here.approver), component: 'ila-db' }
    await putAuthority(here.repository, `approvals/${id}.decided`, decided)
    await assert.rejects(readDecision(here.repository, id), refusedWith('OBJECT_DAMAGED'))
    await sql`update resus_control.approvals set state = 'approved' where id = ${id}`.execute(here.store.sql)
    await here.approvals.look()
    assert.deepEqual([(await here.approvals.read(id)).state, here.executed], ['failed', []])
  },
)

test('nobody keeps others from asking', { skip }, async (t) => {
  const here = await place(t)
  for (let count = 0; count < 20; count += 1) await here.ask()
  await assert.rejects(here.ask(), refusedWith('BUSY'))
  const another = person('another operator', { role: 'operator', facilities: null })
  await here.approvals.ask(another, { operation: 'restore', parameters: {} }, RESTORE)
})

test('a request that is four hours old is over, and five minutes are enough to tell everybody', { skip }, async (t) => {
  const here = await place(t)
  const { id } = await here.ask()
  await here.approvals.look()
  here.clock.nowMs += 5 * 60_000
  await here.approvals.look()
  await here.approvals.look()
  here.clock.nowMs = NOON + 4 * 3_600_000
  await assert.rejects(here.approvals.decide(id, here.approver, APPROVE), /it is expired/)
  await here.approvals.look()
  assert.deepEqual(here.notes, ['asked', 'waits', 'expired'])
})

test('who asked may revoke it until it is used; then nobody can use it, on any node', { skip }, async (t) => {
  const here = await place(t)
  const { id } = await here.ask()
  await assert.rejects(here.approvals.revoke(id, here.approver), refusedWith('FORBIDDEN'))
  assert.equal((await here.approvals.revoke(id, here.operator)).state, 'revoked')
  await assert.rejects(here.approvals.decide(id, here.approver, APPROVE), refusedWith('APPROVAL_INVALID'))
  await assert.rejects(takeUse(here.repository, { id, run: 'any', nowMs: NOON }), /was revoked/)
})

test('of two who decide at the same time one has decided, whatever they say', { skip }, async (t) => {
  const here = await place(t)
  const others = new Approvals(here.options)
  for (let round = 0; round < 5; round += 1) {
    const { id } = await here.ask()
    const another = person(`another ${round}`, { role: 'approver', facilities: null })
    const outcomes = await Promise.allSettled([
      here.approvals.decide(id, here.approver, APPROVE),
      others.decide(id, another, { ...APPROVE, decision: 'refuse' }),
    ])
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1, JSON.stringify(outcomes))
    const approval = await here.approvals.read(id)
    const decided = await readDecision(here.repository, id)
    assert.equal(approval.decided_by, decided!.decidedBy.id)
    assert.equal(approval.state, decided!.decision === 'approve' ? 'used' : 'refused')
  }
})

test(
  'killed between the decision and the doing, it is done by the next look, or by whoever decides again',
  { skip },
  async (t) => {
    let dies = true
    const here = await place(t, {
      execute: async ({ id }) => {
        if (dies) throw new Error('killed here')
        return { task: id }
      },
    })
    const { id } = await here.ask()
    await assert.rejects(here.approvals.decide(id, here.approver, APPROVE), /killed here/)
    assert.equal((await here.approvals.read(id)).state, 'approved')
    dies = false
    await here.approvals.look()
    assert.deepEqual([(await here.approvals.read(id)).state, (await here.approvals.read(id)).outcome], ['used', { task: id }])

    // And between the repository and the store.
    const second = await here.ask()
    const anchor = anchorOf(second, here.approver)
    await putAuthority(here.repository, `approvals/${second.id}.decided`, anchor)
    assert.equal((await here.approvals.decide(second.id, here.approver, APPROVE)).state, 'used')

    // Or taken back by then.
    const third = await here.ask()
    await putAuthority(here.repository, `approvals/${third.id}.decided`, anchorOf(third, here.approver))
    assert.equal((await here.approvals.decide(third.id, here.approver, { ...APPROVE, decision: 'refuse' })).state, 'refused')
    await assert.rejects(takeUse(here.repository, { id: third.id, run: 'any', nowMs: NOON }), /was revoked/)
  },
)

test('a decision that nobody can keep is none', { skip }, async (t) => {
  const here = await place(t, { repositoriesOf: async () => [] })
  const { id } = await here.ask()
  await assert.rejects(here.approvals.decide(id, here.approver, APPROVE), refusedWith('STORAGE_UNREACHABLE'))
  assert.deepEqual([(await here.approvals.read(id)).state, here.executed.length], ['pending', 0])
})

test('a decision in the repository that is another’s, or was changed, counts for nothing', { skip }, async (t) => {
  const here = await place(t)
  const [first, second] = [await here.ask(), await here.ask()]
  const foreign = anchorOf(first, here.approver)
  await putAuthority(here.repository, `approvals/${second.id}.decided`, foreign)
  await assert.rejects(readDecision(here.repository, second.id), refusedWith('OBJECT_DAMAGED'))
  const third = await here.ask()
  await putAuthority(here.repository, `approvals/${third.id}.decided`, {
    ...anchorOf(third, here.approver),
    parameters: { to: '/elsewhere' },
  })
  await assert.rejects(readDecision(here.repository, third.id), refusedWith('OBJECT_DAMAGED'))
})

test('one run uses an approval, and may come again; another may not', { skip }, async (t) => {
  const { repository } = await place(t)
  const id = randomUUID()
  const outcomes = await Promise.allSettled(['a', 'b', 'c'].map(async (run) => takeUse(repository, { id, run, nowMs: NOON })))
  const first = outcomes.findIndex(({ status }) => status === 'fulfilled')
  assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
  await takeUse(repository, { id, run: ['a', 'b', 'c'][first]!, nowMs: NOON + 1 })
})

test(
  'a row that somebody has set to approved runs nothing: nobody approved it, it was taken back, or its time is over',
  { skip },
  async (t) => {
    const here = await place(t)
    const approvedByHand = async (id: string) => {
      await sql`update resus_control.approvals set state = 'approved' where id = ${id}`.execute(here.store.sql)
      await here.approvals.look()
      return (await here.approvals.read(id)).state
    }
    const [never, changed, revoked, late] = [await here.ask(), await here.ask(), await here.ask(), await here.ask()]
    assert.equal(await approvedByHand(never.id), 'failed')
    for (const each of [changed, revoked, late]) {
      await putAuthority(here.repository, `approvals/${each.id}.decided`, anchorOf(each, here.approver))
    }
    await sql`update resus_control.approvals set parameters = '{"to": "/elsewhere"}' where id = ${changed.id}`.execute(
      here.store.sql,
    )
    assert.equal(await approvedByHand(changed.id), 'failed')
    await here.approvals.revoke(revoked.id, here.operator)
    assert.equal(await approvedByHand(revoked.id), 'failed')
    here.clock.nowMs += 4 * 3_600_000
    assert.notEqual(await approvedByHand(late.id), 'used')
    assert.deepEqual(here.executed, [])
    assert.deepEqual(here.notes.filter((event) => event === 'failed').length, 3)
  },
)

function anchorOf(approval: Approval, approver: Principal) {
  const asked = askedOf(approval)
  return {
    format: 1,
    ...asked,
    digest: digestOf(asked),
    decision: 'approve',
    decidedBy: { id: approver.id, name: approver.name },
    decidedAt: new Date(NOON).toISOString(),
    factor: 'totp',
    reason: null,
  }
}
