import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { cp, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after, type TestContext } from 'node:test'
import { sql } from 'kysely'
import pg from 'pg'
import { stopTestStore, testDatabase, testStore } from '../../test/services/store.ts'
import { auditProtection, entriesBehind } from '../catalog/audit-entries.ts'
import { Store } from '../catalog/store.ts'
import { systemClock, type Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { chainHash, hashedText, NO_HASH, wholeEntry, type NewAuditEntry } from './audit-entry.ts'
import { AuditTrail } from './audit-trail.ts'

after(stopTestStore)

const ada = { kind: 'person', id: '7', name: 'ada' } as const

function entry(more: Partial<NewAuditEntry> = {}): NewAuditEntry {
  return {
    actor: ada,
    factor: 'totp',
    address: '10.0.0.9',
    action: 'restore.ask',
    object: { system: 'osun' },
    outcome: 'done',
    ...more,
  }
}

async function trailOf(t: TestContext, store: Store, more: { begun?: boolean; clock?: Clock } = {}): Promise<AuditTrail> {
  const state = await mkdtemp(join(tmpdir(), 'resus-audit-'))
  t.after(() => rm(state, { recursive: true, force: true }))
  const trail = new AuditTrail({ store, node: 'one', clock: more.clock ?? systemClock, state })
  if (more.begun !== false) await trail.begin(undefined)
  return trail
}

async function chainOf(store: Store) {
  return await entriesBehind(store.sql, 0, 10_000)
}

async function assertWhole(store: Store): Promise<number> {
  let [seq, hash] = [0, NO_HASH]
  for (const row of await chainOf(store)) {
    assert.deepEqual([row.seq, row.previous], [seq + 1, hash])
    assert.equal(row.hash, chainHash(hash, row.entry))
    assert.equal(hashedText(wholeEntry(row)), row.entry)
    ;[seq, hash] = [row.seq, row.hash]
  }
  return seq
}

test('an entry comes with its transaction, or not at all, and no number is left out', async (t) => {
  const store = await testStore(t)
  const trail = await trailOf(t, store)
  await store.sql.transaction().execute(async (transaction) => trail.append(transaction, entry()))
  await assert.rejects(
    store.sql.transaction().execute(async (transaction) => {
      await trail.append(transaction, entry())
      throw new Error('the caller fails')
    }),
    /the caller fails/,
  )
  await trail.append(store.sql, entry({ outcome: 'refused', reason: 'no fresh factor' }))
  assert.equal(await assertWhole(store), 3)
  const { items } = await trail.page({ limit: 10 })
  assert.deepEqual(
    items.map(({ seq, action, outcome, reason }) => [seq, action, outcome, reason]),
    [
      [3, 'restore.ask', 'refused', 'no fresh factor'],
      [2, 'restore.ask', 'done', null],
      [1, 'audit.begun', 'done', null],
    ],
  )
})

test('many nodes that add at once make one chain', async (t) => {
  const connectionString = await testDatabase()
  const stores = await Promise.all([0, 1, 2].map(async () => Store.open(connectionString)))
  await using stack = new AsyncDisposableStack()
  for (const store of stores) stack.use(store)
  const trails = await Promise.all(stores.map(async (store) => trailOf(t, store, { begun: false })))
  await Promise.all(trails.map(async (trail) => trail.begin(undefined)))
  await Promise.all(Array.from({ length: 60 }, async (_, at) => trails[at % 3]!.append(stores[at % 3]!.sql, entry())))
  assert.equal(await assertWhole(stores[0]!), 61)
})

test('who works with the store has no right to change an entry, and who has every right is refused', async (t) => {
  const store = await testStore(t)
  const trail = await trailOf(t, store)
  await trail.append(store.sql, entry())
  const before = await chainOf(store)
  assert.equal(await auditProtection(store.sql), 'role')
  const superuser = new pg.Client({ connectionString: store.connectionString })
  await superuser.connect()
  t.after(async () => superuser.end())
  const table = 'resus_audit.audit_entries'
  for (const change of [
    `update ${table} set entry = '{}'`,
    `update ${table} set outcome = 'done' where false`,
    `delete from ${table}`,
    `truncate ${table}`,
    `insert into ${table} select seq, entry, previous, hash from ${table} on conflict (seq) do update set entry = excluded.entry`,
    `merge into ${table} as t using (select 1 as one) s on t.seq = s.one when matched then delete`,
  ]) {
    await assert.rejects(sql.raw(change).execute(store.sql), { code: '42501' }, change)
    await assert.rejects(superuser.query(change), { code: '42501', message: /is not changed/ }, change)
    await assert.rejects(superuser.query(`set session_replication_role = replica; ${change}`), { code: '42501' }, change)
  }
  for (const change of [
    `alter table ${table} disable trigger all`,
    `drop trigger refuse_change on ${table}`,
    `drop table ${table}`,
    'drop schema resus_audit cascade',
    'create or replace function resus_audit.refuse() returns trigger language plpgsql as $$ begin return null; end $$',
    'set role resus_audit',
    'set role postgres',
    'set session_replication_role = replica',
    'grant resus_audit to resus_store',
    'alter role resus_store superuser',
  ]) {
    await assert.rejects(sql.raw(change).execute(store.sql), { code: '42501' }, change)
  }
  assert.deepEqual(await chainOf(store), before)
})

test('what does not continue the chain is refused by the store itself', async (t) => {
  const store = await testStore(t)
  const trail = await trailOf(t, store)
  await trail.append(store.sql, entry())
  const [first, second] = await chainOf(store)
  const add = async (row: { seq: number; entry: string; previous: string; hash: string }) =>
    sql`insert into resus_audit.audit_entries (seq, entry, previous, hash) values (${row.seq}, ${row.entry}, ${row.previous}, ${row.hash})`.execute(
      store.sql,
    )
  const id = randomUUID()
  const body = (seq: number) => second!.entry.replace('"seq":2', `"seq":${seq}`).replace(/"id":"[0-9a-f-]{36}"/, `"id":"${id}"`)
  const next = { seq: 3, entry: body(3), previous: second!.hash, hash: chainHash(second!.hash, body(3)) }
  const refused = { code: '23000' }
  await assert.rejects(add({ ...next, hash: first!.hash }), refused)
  await assert.rejects(add({ ...next, entry: body(4), hash: chainHash(second!.hash, body(4)) }), refused)
  await assert.rejects(add({ ...next, seq: 4, entry: body(4), hash: chainHash(second!.hash, body(4)) }), refused)
  await assert.rejects(add({ ...next, previous: first!.hash, hash: chainHash(first!.hash, body(3)) }), refused)
  await assert.rejects(add({ ...next, seq: 0, entry: body(0), previous: NO_HASH, hash: chainHash(NO_HASH, body(0)) }), {
    code: /^23/,
  })
  await add(next)
  assert.equal(await assertWhole(store), 3)
})

test('before it is known where the chain goes on entries wait, and then come behind its end', async (t) => {
  const store = await testStore(t)
  const other = await testStore(t)
  const earlier = await trailOf(t, other)
  for (let count = 0; count < 3; count += 1) await earlier.append(other.sql, entry())
  const known = await chainOf(other)
  const trail = await trailOf(t, store, { begun: false })
  await trail.append(store.sql, entry({ action: 'session.begin' }))
  await trail.appendSoon(entry({ action: 'session.end' }))
  assert.equal(await trail.hasBegun(), false)
  assert.deepEqual(await chainOf(store), [])
  await Promise.all([trail.begin(known.at(-1), ['oyo']), trail.begin(known.at(-1), ['oyo'])])
  const { items } = await trail.page({ limit: 10 })
  assert.deepEqual(
    items.map(({ seq, action }) => [seq, action]),
    [
      [7, 'session.end'],
      [6, 'session.begin'],
      [5, 'audit.begun'],
      [4, 'restore.ask'],
    ],
  )
  assert.deepEqual(items[2]!.object, { behind: 4, unread: ['oyo'] })
  // Older ones may come before the oldest, and nothing else may.
  const insert = async (rows: typeof known) =>
    store.sql
      .withSchema('resus_audit')
      .insertInto('audit_entries')
      .values(rows.map(({ seq, entry: text, previous, hash }) => ({ seq, entry: text, previous, hash })))
      .execute()
  await assert.rejects(insert([known[1]!]), { code: '23000' })
  await insert(known.slice(0, 3).toReversed())
  assert.equal(await assertWhole(store), 7)
})

test('while the store is away entries go to the spool, and from there into the chain once, whenever the process ends', async (t) => {
  let isAway = false
  const connectionString = await testDatabase()
  const store = await Store.open(connectionString)
  t.after(async () => store[Symbol.asyncDispose]())
  const later = Store.later(async () => {
    if (isAway) throw new Failure('STORE_UNREACHABLE', 'it is away')
    return connectionString
  })
  t.after(async () => later[Symbol.asyncDispose]())
  await trailOf(t, store)
  const trail = await trailOf(t, later, { begun: false })
  isAway = true
  for (const reason of ['a', 'b', 'c']) assert.equal(await trail.appendSoon(entry({ reason })), 'spooled')
  await assert.rejects(trail.append(later.sql, entry()), { code: 'STORE_UNREACHABLE' })
  await assert.rejects(trail.drain(), { code: 'STORE_UNREACHABLE' })
  const copy = `${trail.spool.directory}.copy`
  await cp(trail.spool.directory, copy, { recursive: true })
  isAway = false
  await later.begin()
  assert.equal(await trail.drain(), 3)
  // Killed between the chain and the spool, it finds them there again.
  await cp(copy, trail.spool.directory, { recursive: true })
  await writeFile(join(trail.spool.directory, `000000000000001-000001-${randomUUID()}.ndjson`), '{"torn":')
  assert.equal(await trail.drain(), 3)
  assert.equal(await trail.drain(), 0)
  assert.equal(await trail.appendSoon(entry({ reason: 'd' })), 'kept')
  assert.equal(await assertWhole(store), 6)
  const { items } = await trail.page({ limit: 10 })
  assert.deepEqual(
    items.map(({ reason, action }) => reason ?? action),
    ['d', 'audit.damaged', 'c', 'b', 'a', 'audit.begun'],
  )
  assert.deepEqual(
    (await readdir(trail.spool.directory)).filter((name) => !name.endsWith('.damaged')),
    [],
  )
})

test('what is too long is cut and says so; text that no database takes is made fit; what was hashed reads back', async (t) => {
  const store = await testStore(t)
  const trail = await trailOf(t, store)
  await trail.append(
    store.sql,
    entry({
      actor: { kind: 'unknown', id: null, name: `\u0000\ud800${'x'.repeat(5000)}` },
      reason: 'Ọ̀ṣun\n"quoted" \u0000 \udc00',
      before: { long: 'y'.repeat(70_000) },
      after: { nothing: undefined, '\u0000': ['\ud800'] } as unknown as NonNullable<NewAuditEntry['after']>,
    }),
  )
  await assertWhole(store)
  const { items } = await trail.page({ limit: 1 })
  const [{ actor, before, after: since, reason }] = items as [NonNullable<(typeof items)[0]>]
  assert.equal(actor.name.length, 300)
  assert.match(reason!, /^Ọ̀ṣun\n"quoted" \ufffd \ufffd$/)
  assert.deepEqual([(before as { cut: boolean }).cut, (before as { bytes: number }).bytes], [true, 70_011])
  assert.deepEqual(since, { '\ufffd': ['\ufffd'] })
  await assert.rejects(trail.append(store.sql, entry({ action: 'No Name' })))
})

test('pages are newest first, and filtered by who, what, how it ended, and when', async (t) => {
  const store = await testStore(t)
  let now = Date.UTC(2026, 10, 21)
  const trail = await trailOf(t, store, { clock: { ...systemClock, now: () => now } })
  const obi = { kind: 'person', id: '8', name: 'obi' } as const
  for (let count = 0; count < 5; count += 1) {
    now += 1000
    await trail.append(
      store.sql,
      entry({ actor: count % 2 === 0 ? ada : obi, action: count < 3 ? 'backup.start' : 'restore.ask' }),
    )
  }
  const seqs = async (filter: Omit<Parameters<AuditTrail['page']>[0], 'limit'>) =>
    (await trail.page({ limit: 10, ...filter })).items.map(({ seq }) => seq)
  assert.deepEqual(await seqs({ actor: 'obi' }), [5, 3])
  assert.deepEqual(await seqs({ actor: '7' }), [6, 4, 2])
  assert.deepEqual(await seqs({ action: 'restore.ask', outcome: 'done' }), [6, 5])
  assert.deepEqual(await seqs({ outcome: 'refused' }), [])
  assert.deepEqual(await seqs({ from: new Date(now - 2000), to: new Date(now) }), [5, 4])
  const first = await trail.page({ limit: 4 })
  assert.deepEqual([first.items.map(({ seq }) => seq), first.next], [[6, 5, 4, 3], 3])
  const second = await trail.page({ limit: 4, before: first.next! })
  assert.deepEqual([second.items.map(({ seq }) => seq), second.next], [[2, 1], null])
})

test('in a store where Resus may make roles the trail is not its own; where it may not, triggers hold, and it says so', async (t) => {
  const admin = await testDatabase()
  const client = new pg.Client({ connectionString: admin })
  await client.connect()
  t.after(async () => client.end())
  const name = /\/([^/?]+)\?/.exec(admin)![1]!
  for (const [role, rights] of [
    ['maker', 'createrole'],
    ['plain', 'nocreaterole'],
  ] as const) {
    await client.query(`create role ${role} login ${rights}`)
    await client.query(`create database ${name}_${role} owner ${role}`)
    const connectionString = admin.replace('://postgres@', `://${role}@`).replace(name, `${name}_${role}`)
    // Twice: the second finds everything there.
    for (let count = 0; count < 2; count += 1) {
      const store = await Store.open(connectionString)
      await using _ = store
      const trail = await trailOf(t, store)
      await trail.append(store.sql, entry())
      assert.equal(await auditProtection(store.sql), 'triggers')
      await assert.rejects(sql`delete from resus_audit.audit_entries`.execute(store.sql), { code: '42501' })
      await assertWhole(store)
      const owner = sql<{ owner: string }>`select tableowner as owner from pg_tables where tablename = 'audit_entries'`
      assert.equal((await owner.execute(store.sql)).rows[0]!.owner, role === 'maker' ? 'resus_audit_maker' : role)
    }
  }
})
