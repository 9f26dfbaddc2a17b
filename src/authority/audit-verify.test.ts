import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after, type TestContext } from 'node:test'
import pg from 'pg'
import { stopTestStore, testStore } from '../../test/services/store.ts'
import { entriesBehind } from '../catalog/audit-entries.ts'
import type { Store } from '../catalog/store.ts'
import { systemClock } from '../clock.ts'
import { tidyControlRecords } from '../repository/control-days.ts'
import { listControlObjects, putBatch, recordLine } from '../repository/control-records.ts'
import { initRepository, type Repository } from '../repository/repository.ts'
import { Secret } from '../secret.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { readObject } from '../storage/storage.ts'
import { copyTarget, fillBackwards, newestCopied, writeCopy } from './audit-copy.ts'
import { chainEntry, chainHash, NO_HASH, parseBody, wholeEntry, type ChainedText } from './audit-entry.ts'
import { headsIn, isSigned, keepKey, publicKeyOf, readKey, signHead, type AuditHead } from './audit-head.ts'
import { AuditTrail } from './audit-trail.ts'
import { verifyTrail } from './audit-verify.ts'

after(stopTestStore)

const { signal } = new AbortController()
const DAY_MS = 24 * 3_600_000
const NOW = Date.UTC(2026, 10, 21, 12)

async function repositoryOf(system: string) {
  const storage = new MemoryStorage()
  const access = { storage, passphrase: new Secret('x'), system }
  return { storage, repository: (await initRepository(access, { clock: systemClock, kdfCost: 1024 })).repository }
}

async function trailOf(t: TestContext, store: Store): Promise<AuditTrail> {
  const state = await mkdtemp(join(tmpdir(), 'resus-audit-'))
  t.after(() => rm(state, { recursive: true, force: true }))
  return new AuditTrail({ store, node: 'one', clock: { ...systemClock, now: () => NOW }, state })
}

async function append(trail: AuditTrail, store: Store, count: number): Promise<void> {
  const actor = { kind: 'person', id: '7', name: 'ada' } as const
  for (let at = 0; at < count; at += 1) await trail.append(store.sql, { actor, action: 'backup.start', outcome: 'done' })
}

async function copy(store: Store, repository: Repository, nowMs = NOW) {
  return await writeCopy({ store, repository, node: 'one', now: () => nowMs, hold: async () => undefined, signal })
}

/** A store with ten entries, and two repositories with copies of them, in several objects. */
async function place(t: TestContext) {
  const store = await testStore(t)
  const [osun, oyo] = [await repositoryOf('osun'), await repositoryOf('oyo')]
  const trail = await trailOf(t, store)
  await trail.begin(undefined)
  for (let round = 0; round < 3; round += 1) {
    await append(trail, store, 3)
    for (const { repository } of [osun, oyo]) await copy(store, repository)
  }
  const key = await keepKey(osun.repository, undefined, { node: 'one', nowMs: NOW, signal })
  const rows = await entriesBehind(store.sql, 0, 100)
  const headOf = (seq: number): AuditHead =>
    signHead(key, { seq, hash: rows[seq - 1]!.hash, at: new Date(NOW).toISOString(), system: 'osun' })
  return { store, trail, osun, oyo, key, rows, headOf, repositories: [osun.repository, oyo.repository] }
}

async function found(options: Partial<Parameters<typeof verifyTrail>[0]>): Promise<string[]> {
  const { problems } = await verifyTrail({
    repositories: [],
    store: undefined,
    heads: [],
    publicKey: undefined,
    nowMs: NOW,
    signal,
    ...options,
  })
  return problems.map(({ kind, where, seq, to }) => `${where}: ${kind} ${seq}${to === null || to === seq ? '' : `-${to}`}`)
}

/** Whatever somebody may do who has the store's superuser. */
async function tamper(store: Store, ...statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: store.connectionString })
  await client.connect()
  try {
    for (const statement of [
      'alter table resus_audit.audit_entries disable trigger all',
      ...statements,
      'alter table resus_audit.audit_entries enable always trigger refuse_change',
      'alter table resus_audit.audit_entries enable always trigger continue_chain',
    ]) {
      await client.query(statement)
    }
  } finally {
    await client.end()
  }
}

/** Whatever somebody may do who has the repository's key. */
async function rewriteCopy(
  { storage, repository }: Awaited<ReturnType<typeof repositoryOf>>,
  rows: readonly ChainedText[],
): Promise<void> {
  for (const { key } of await listControlObjects(repository, 'audit')) await storage.delete(key)
  const lines = rows.map((row) =>
    recordLine({ id: String(row.seq), at: wholeEntry(row).at, kind: 'entry', body: wholeEntry(row) }),
  )
  if (lines.length > 0) await putBatch(repository, { stream: 'audit', node: 'x', nowMs: NOW, lines })
}

test('a trail that nobody has touched is found whole, also after its days were folded and written twice', async (t) => {
  const { store, repositories, headOf, osun } = await place(t)
  const heads = [headOf(1), headOf(10)]
  assert.deepEqual(await found({ repositories, store: store.sql, heads }), [])
  const before = await Promise.all(
    (await listControlObjects(osun.repository, 'audit')).map(
      async ({ key }) => [key, await readObject(osun.storage, key)] as const,
    ),
  )
  const tidied = await tidyControlRecords(osun.repository, { stream: 'audit', node: 'one', nowMs: NOW + 2 * DAY_MS })
  assert.equal(tidied.folded, 4)
  assert.deepEqual(await found({ repositories, store: store.sql, heads }), [])
  // Killed before it could take the batches away.
  for (const [key, bytes] of before) await osun.storage.put(key, bytes)
  assert.deepEqual(await found({ repositories, store: store.sql, heads }), [])
  assert.deepEqual(await found({ repositories, heads }), [])
})

test('in the store a changed, a removed, a reordered and a cut entry are found, and named', async (t) => {
  const { store, repositories, rows } = await place(t)
  const check = async () => found({ repositories, store: store.sql })
  const table = 'resus_audit.audit_entries'
  const swap = async () =>
    tamper(
      store,
      ...[
        [6, 1000],
        [7, 6],
        [1000, 7],
      ].map(([from, to]) => `update ${table} set seq = ${to} where seq = ${from}`),
    )
  await tamper(store, `update ${table} set entry = replace(entry, 'ada', 'obi') where seq = 4`)
  assert.deepEqual(await check(), ['the store: changed 4'])
  // With a hash that fits it, the next one does not.
  const changed = rows[3]!.entry.replace('ada', 'obi')
  const hash = chainHash(rows[3]!.previous, changed)
  await tamper(store, `update ${table} set entry = '${changed}', hash = '${hash}' where seq = 4`)
  assert.deepEqual(await check(), ['the store: changed 5', 'the store: changed 4'])
  await tamper(store, `update ${table} set entry = '${rows[3]!.entry}', hash = '${rows[3]!.hash}' where seq = 4`)
  assert.deepEqual(await check(), [])
  await swap()
  assert.deepEqual(await check(), ['the store: reordered 6', 'the store: reordered 7', 'the store: reordered 6'])
  await swap()
  await tamper(store, `delete from ${table} where seq in (3, 4)`)
  assert.deepEqual(await check(), ['the store: missing 3-4'])
  await tamper(store, `delete from ${table} where seq > 8`)
  assert.deepEqual(await check(), ['the store: missing 3-4', 'the store: cut 9-10'])
  await tamper(store, `delete from ${table} where seq < 5`)
  assert.deepEqual(await check(), ['the store: cut 1-4', 'the store: cut 9-10'])
})

test('in a repository a changed, a removed, a reordered and a cut entry are found, with the store and without it', async (t) => {
  const { store, osun, repositories, rows } = await place(t)
  const alone = async () => found({ repositories: [osun.repository] })
  const both = async () => found({ repositories, store: store.sql })
  const name = 'the repository of "osun"'
  const without = (...seqs: number[]) => rows.filter(({ seq }) => !seqs.includes(seq))
  await rewriteCopy(osun, without(4, 5))
  assert.deepEqual(await alone(), [`${name}: missing 4-5`])
  await rewriteCopy(osun, without(1, 2))
  assert.deepEqual(await alone(), [`${name}: cut 1-2`])
  await rewriteCopy(osun, [...rows.slice(0, 3), rows[4]!, rows[3]!, ...rows.slice(5)])
  assert.deepEqual(await alone(), [`${name}: reordered 4`])
  const changed = rows[3]!.entry.replace('ada', 'obi')
  await rewriteCopy(
    osun,
    rows.map((row) => (row.seq === 4 ? { ...row, entry: changed } : row)),
  )
  assert.deepEqual(await alone(), [`${name}: changed 4`])
  await rewriteCopy(osun, rows.slice(0, 7))
  assert.deepEqual(await alone(), [], 'a chain that was cut is a chain')
  assert.deepEqual(await both(), [`${name}: cut 8-10`])
  await rewriteCopy(osun, [])
  assert.deepEqual(await both(), [`${name}: cut 1-10`])
})

test('a trail that was cut or written anew in every copy is found by a head that was told outside', async (t) => {
  const { store, osun, oyo, repositories, rows, headOf, key } = await place(t)
  const publicKey = publicKeyOf(key)
  const heads = [headOf(10)]
  for (const each of [osun, oyo]) await rewriteCopy(each, rows.slice(0, 7))
  await tamper(store, 'delete from resus_audit.audit_entries where seq > 7', 'delete from resus_control.audit_marks')
  assert.deepEqual(await found({ repositories, store: store.sql }), [])
  const cut = ['the repository of "osun"', 'the repository of "oyo"', 'the store'].map((where) => `${where}: cut 8-10`)
  assert.deepEqual(await found({ repositories, store: store.sql, heads, publicKey }), cut)
  // The key is gone with the records; the head is then nobody's.
  assert.deepEqual(await found({ repositories, heads }), ['the head: signature 10'])
  const forged: ChainedText[] = []
  for (const { entry } of rows) {
    const { seq: _seq, ...body } = JSON.parse(entry.replace('ada', 'obi')) as { seq: number }
    forged.push(chainEntry(parseBody(JSON.stringify(body))!, forged.at(-1) ?? { seq: 0, hash: NO_HASH }))
  }
  for (const each of [osun, oyo]) await rewriteCopy(each, forged)
  assert.deepEqual(await found({ repositories }), [])
  assert.deepEqual(
    await found({ repositories, heads, publicKey }),
    ['the repository of "osun"', 'the repository of "oyo"'].map((where) => `${where}: changed 10`),
  )
})

test('a head of another key, or changed, proves nothing; one in a mail is found', async (t) => {
  const { repositories, headOf, key } = await place(t)
  const head = headOf(9)
  const other = { privateKey: generateKeyPairSync('ed25519').privateKey, putAtMs: 0 }
  const { signature: _signature, ...bare } = head
  assert.deepEqual(await found({ repositories, heads: [signHead(other, bare)] }), ['the head: signature 9'])
  assert.deepEqual(await found({ repositories, heads: [{ ...head, seq: 8 }] }), ['the head: signature 8'])
  assert.deepEqual(await found({ repositories, heads: [head], publicKey: publicKeyOf(other) }), ['the head: signature 9'])
  assert(isSigned(head, publicKeyOf(key)))
  const text = JSON.stringify(head)
  const mail = `Subject: digest\r\n\r\n> audit head: ${text.slice(0, 76)}\r\n${text.slice(76)} and {"more": "text"}`
  assert.deepEqual(headsIn(mail), [head])
  const quoted = text.replaceAll('=', '=3D').replaceAll(/.{60}/g, '$&=\r\n')
  assert.deepEqual(headsIn(quoted), [head])
  assert.deepEqual(headsIn(`${text}\n${text}`), [head, head])
  assert.deepEqual(headsIn('{"seq":1}'), [])
})

test('the key is one for as long as the repository is there, sealed, and put again before it is old', async () => {
  const { storage, repository } = await repositoryOf('osun')
  const key = await keepKey(repository, undefined, { node: 'one', nowMs: NOW, signal })
  const again = await keepKey(repository, undefined, { node: 'two', nowMs: NOW + DAY_MS, signal })
  assert.equal(publicKeyOf(again), publicKeyOf(key))
  assert.equal((await listControlObjects(repository, 'audit')).length, 1)
  const later = await keepKey(repository, undefined, { node: 'two', nowMs: NOW + 31 * DAY_MS, signal })
  assert.equal(publicKeyOf(later), publicKeyOf(key))
  const objects = await listControlObjects(repository, 'audit')
  assert.equal(objects.length, 2)
  assert.equal(publicKeyOf((await readKey(repository))!), publicKeyOf(key))
  const secret = key.privateKey.export({ format: 'der', type: 'pkcs8' })
  for (const { key: name } of objects) {
    const bytes = Buffer.from(await readObject(storage, name))
    assert(!bytes.includes(secret.subarray(-32)) && !bytes.includes(secret.toString('base64').slice(-40)))
  }
})

test('an object that does not open is named, and what is in it is missing', async (t) => {
  const { osun, store } = await place(t)
  const { key } = (await listControlObjects(osun.repository, 'audit'))[1]!
  const bytes = Buffer.from(await readObject(osun.storage, key))
  bytes[bytes.length - 20]! ^= 1
  await osun.storage.delete(key)
  await osun.storage.put(key, bytes)
  const name = 'the repository of "osun"'
  assert.deepEqual(await found({ repositories: [osun.repository], store: store.sql }), [
    `${name}: damaged null`,
    `${name}: missing 5-7`,
  ])
})

test('a store that was lost goes on where the repository ends, has all of it again, and the copies stay one chain', async (t) => {
  const { osun, oyo, repositories, headOf } = await place(t)
  const store = await testStore(t)
  const trail = await trailOf(t, store)
  await append(trail, store, 1)
  await trail.begin(await newestCopied(osun.repository))
  await append(trail, store, 1)
  assert.equal(await fillBackwards(store, osun.repository), 9)
  assert.equal(await fillBackwards(store, osun.repository), 0)
  for (const { repository } of [osun, oyo]) assert.deepEqual(await copy(store, repository), { written: 3, forked: null })
  assert.equal((await trail.newest())!.seq, 13)
  assert.deepEqual(await found({ repositories, store: store.sql, heads: [headOf(10)] }), [])
})

test('ended between the object and its mark it writes again, which nobody sees; what is forked is said', async (t) => {
  const { store, trail, osun, oyo, repositories } = await place(t)
  await append(trail, store, 2)
  await assert.rejects(
    writeCopy({
      store,
      repository: osun.repository,
      node: 'one',
      now: () => {
        throw new Error('ended here')
      },
      hold: async () => undefined,
      signal,
    }),
    /ended here/,
  )
  await copy(store, osun.repository)
  await tamper(store, `update resus_control.audit_marks set seq = 8 where target = '${copyTarget('osun')}'`)
  assert.equal((await copy(store, osun.repository)).written, 4)
  await copy(store, oyo.repository)
  assert.deepEqual(await found({ repositories, store: store.sql }), [])
  // A store that went on without having asked the repository.
  const other = await testStore(t)
  const alone = await trailOf(t, other)
  await alone.begin(undefined, ['osun'])
  await append(alone, other, 2)
  assert.equal((await copy(other, osun.repository)).forked, 1)
  assert((await found({ repositories: [osun.repository], store: other.sql })).length > 0)
})
