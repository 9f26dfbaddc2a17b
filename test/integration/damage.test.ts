import assert from 'node:assert/strict'
import { access, copyFile, mkdir, readFile, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { Failure } from '../../src/errors.ts'
import { parseLsn } from '../../src/postgres/lsn.ts'
import { planRecovery } from '../../src/protect/postgres/recovery-plan.ts'
import type { RecoveryTarget } from '../../src/protect/postgres/recovery-target.ts'
import { backupKey, verdictPrefix } from '../../src/repository/layout.ts'
import { openRepository } from '../../src/repository/repository.ts'
import { putObject } from '../../src/repository/sealed-object.ts'
import { coverage, recordGap, type WalObject } from '../../src/repository/wal-archive.ts'
import { componentFolder } from '../../src/repository/wal-branch.ts'
import { Secret } from '../../src/secret.ts'
import { MemoryStorage } from '../../src/storage/memory-storage.ts'
import { damagedRepository, type DamagedRepository } from '../faults/damaged-repository.ts'
import { Random, testSeed } from '../faults/random.ts'
import { assertRecoveryStops, emptyAhead } from '../faults/stopped-recovery.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { TEST_PASSPHRASE } from '../services/protected-cluster.ts'

// One repository of a real cluster; what is damaged in it is undone before the next damage.

test('damage to any object is found by verify and by restore', { skip: await skipUnlessInstalled(18) }, async (t) => {
  const random = new Random(testSeed(t))
  const stored = await damagedRepository(t)
  await putUnusedObjects(stored)
  assert.deepEqual(await stored.problems(), [])

  await t.test('a flipped bit in the descriptor, the key slot or the system ends the opening', () =>
    assertOpening(stored, random),
  )
  await t.test('a flipped bit in a record is found', (sub) => assertRecords(sub, stored, random))
  await t.test('a flipped bit in any part of a pack is found', (sub) => assertPacks(sub, stored, random))
  await t.test('a flipped bit in WAL stops PostgreSQL', (sub) => assertWal(sub, stored, random))
  await t.test('a pack that is gone, cut off or another is found', () => assertReplacedPacks(stored))
  await t.test('the index is made again from the packs', (sub) => assertWithoutIndex(sub, stored, random))
  await t.test('missing WAL is a gap, before anything is written', () => assertMissingWal(stored))
  await t.test('a manifest under the name of another component is refused', () => assertForeignManifest(stored))

  assert.deepEqual(await stored.problems(), [])
  await stored.assertRestores()
})

/** Kinds that a backup alone does not make. */
async function putUnusedObjects({ cluster, branch, full }: DamagedRepository): Promise<void> {
  const { storage, ring } = cluster.repository
  const at = new Date().toISOString()
  const far = 1n << 40n
  await recordGap(cluster.repository, branch, { from: far, to: far + 1_048_576n, why: 'for the test', at })
  const folder = componentFolder(ring, cluster.component.name)
  const verdict = { backup: full.id, component: cluster.component.name, verdict: 'verified', by: 'read', at, checks: [] }
  const name = `${verdictPrefix(folder, full.id)}20260101T000000Z-${'0'.repeat(32)}`
  await putObject(storage, ring, { kind: 'verdict', name, head: verdict })
  const mark = { packs: [], backups: [], at }
  await putObject(storage, ring, { kind: 'mark', name: `marks/20260101T000000Z-${'0'.repeat(32)}`, head: mark })
}

/**
 * One bit of every byte. What opens in spite of it must be the very same repository: only a time that nobody reads and the padding of base64
 * are outside of what is authenticated.
 */
async function assertOpening(stored: DamagedRepository, random: Random): Promise<void> {
  const { ring, system } = stored.cluster.repository
  const copies = new Map<string, Buffer>()
  for (const key of ['resus.json', 'system', ...(await stored.keys('keys/'))]) copies.set(key, await readFile(stored.path(key)))
  const storage = new MemoryStorage()
  for (const [key, bytes] of copies) await storage.put(key, bytes)
  let refused = 0
  for (const [key, bytes] of copies) {
    for (const offset of bytes.keys()) {
      const damaged = Buffer.from(bytes)
      const bit = random.below(8)
      damaged[offset] = damaged[offset]! ^ (1 << bit)
      await storage.delete(key)
      await storage.put(key, damaged)
      const where = `bit ${bit} of byte ${offset} of "${key}"`
      try {
        assert.deepEqual((await openRepository({ storage, passphrase: new Secret(TEST_PASSPHRASE), system })).ring, ring, where)
        assert.notEqual(key, 'system', where)
      } catch (error) {
        assert.ok(error instanceof Failure, `${where}: ${String(error)}`)
        assert.match(error.code, /^(OBJECT_DAMAGED|KEY_WRONG|REPOSITORY_TOO_NEW)$/, `${where}: ${error.message}`)
        refused++
      }
    }
    await storage.delete(key)
    await storage.put(key, bytes)
  }
  const total = [...copies.values()].reduce((sum, { length }) => sum + length, 0)
  assert.ok(refused > 0.8 * total, `${refused} of ${total} flips were refused`)
}

/** Objects that are sealed whole, and whether a restore on a new machine reads them. */
const RECORDS = [
  { prefix: 'system', restore: 'not read' },
  { prefix: 'index/', restore: 'works without it' },
  { prefix: 'backups/', restore: 'goes by another' },
  { prefix: 'leases/', restore: 'not read' },
  { prefix: 'marks/', restore: 'not read' },
  { prefix: 'gaps/', restore: 'not read' },
  { prefix: 'verdicts/', restore: 'not read' },
] as const

async function assertRecords(t: TestContext, stored: DamagedRepository, random: Random): Promise<void> {
  const branch = (await stored.keys('wal/')).find((key) => key.endsWith('/branch'))!
  const wanted = await Promise.all(
    RECORDS.map(async ({ prefix, restore }) => ({ key: random.pick(await stored.keys(prefix)), restore })),
  )
  for (const { key, restore } of [...wanted, { key: branch, restore: 'fails' }]) {
    await stored.whileFlipped({ key, random, t }, async () => {
      assertNamed(await stored.problems(), key)
      if (restore === 'fails') await stored.assertRestoreFails(key)
      if (restore === 'works without it') await stored.assertRestores()
      if (restore === 'goes by another') {
        await stored.assertRestoreFails(key, { kind: 'backup', backup: key.split('/').at(-1)! })
        await stored.assertRestores()
      }
    })
  }
}

async function assertPacks(t: TestContext, stored: DamagedRepository, random: Random): Promise<void> {
  for (const [backup, packs] of stored.packs) {
    const target = { kind: 'backup', backup } as const
    const key = random.pick(packs)
    const parts = await stored.packParts(key)
    // Two threads may have stored the same content: a restore goes by the other copy. Here there is none.
    const places = { ...parts, blobs: random.pick(await stored.uniqueBlobs(key)) }
    for (const part of ['header', 'blobs', 'directory', 'trailer'] as const) {
      await stored.whileFlipped({ key, within: places[part], random, t }, async (offset) => {
        assertNamed(await stored.problems(), key)
        // The directory and the trailer are read only where the index is gone, and two bytes of the header are always zero.
        const read = part === 'blobs' || (part === 'header' && offset !== 6 && offset !== 7)
        if (read) await stored.assertRestoreFails(key, target)
      })
    }
  }
}

/**
 * Damaged WAL is found when it is read: by verify; by the restore, which reads notes and the first segments; and by PostgreSQL, which must stop and not
 * open with data missing.
 */
async function assertWal(t: TestContext, stored: DamagedRepository, random: Random): Promise<void> {
  const { objects } = await walBehindBackup(stored)
  const whole = objects.filter(({ from, to, segment }) => from === 0 && to === segment.sizeBytes)
  const pieces = objects.filter((object) => !whole.includes(object))
  assert.ok(whole.length > 10 && pieces.length > 0, `${whole.length} whole segments, ${pieces.length} pieces`)
  const { home, installation } = stored.cluster.cluster
  for (const { key } of [random.pick(whole.slice(1)), random.pick(pieces)]) {
    const isPiece = pieces.some((piece) => piece.key === key)
    const headEnd = await stored.headEndOf(key)
    await stored.whileFlipped({ key, random, t }, async (offset) => {
      assertNamed(await stored.problems(), key)
      // Notes are read for what they say of tablespaces, and pieces as a whole: then it is found before anything is written.
      if (isPiece || offset < headEnd) return await stored.assertRestoreFails(key)
      const report = await stored.restore()
      await assertRecoveryStops({ directory: report.directory, home, installation }, new RegExp(`object "${key}" is damaged`))
      await rm(dirname(report.directory), { recursive: true })
    })
  }
  // Where the note is damaged on which the plan rests, or the WAL that recovery begins with, the restore says so.
  for (const { key } of [objects.at(-1)!, await walAt(stored, stored.incremental.startLsn)]) {
    await stored.whileFlipped({ key, within: [0, 36], random, t }, () => stored.assertRestoreFails(key))
  }
}

async function assertReplacedPacks(stored: DamagedRepository): Promise<void> {
  const [packs, others] = [...stored.packs.values()]
  const [key, other] = [packs![0]!, others![0]!]
  const target = { kind: 'backup', backup: stored.full.id } as const
  await stored.whileGone([key], async () => {
    assertNamed(await stored.problems(), key)
    await stored.assertRestoreFails('which no pack of the repository has', target)
  })
  await stored.whileReplaced(key, await readFile(stored.path(other)), async () => {
    assertNamed(await stored.problems(), key)
    await stored.assertRestoreFails(key, target)
  })
  const bytes = await readFile(stored.path(key))
  const { blobs } = await stored.packParts(key)
  const [last] = (await stored.uniqueBlobs(key)).toReversed()
  for (const length of [bytes.length - 1, last![1] - 1, 20, 0]) {
    await stored.whileReplaced(key, bytes.subarray(0, length), async () => {
      assertNamed(await stored.problems(), key)
      // What is cut off last is the trailer, which only a lost index makes one read.
      if (length < blobs[1]) await stored.assertRestoreFails(key, target)
    })
  }
}

/** All that the index holds is in the packs, too; and where it is read from them, they have to be whole. */
async function assertWithoutIndex(t: TestContext, stored: DamagedRepository, random: Random): Promise<void> {
  await stored.whileGone(await stored.keys('index/'), async () => {
    assert.deepEqual(await stored.problems(), [])
    await stored.assertRestores()
    // One that the newest backup needs: what is damaged elsewhere does not keep it from coming back.
    const key = random.pick(stored.packs.get(stored.incremental.id)!)
    const { directory, trailer } = await stored.packParts(key)
    for (const within of [directory, trailer]) {
      await stored.whileFlipped({ key, within, random, t }, () => stored.assertRestoreFails(key))
    }
  })
}

async function assertMissingWal(stored: DamagedRepository): Promise<void> {
  const { repository, component, cluster } = stored.cluster
  const { objects } = await walBehindBackup(stored)
  const plan = (target: RecoveryTarget) => planRecovery({ repository, component: component.name, target, clock: systemClock })
  const to = join(cluster.home, 'never-made')
  // Further away than what a restore fetches for the beginning.
  const middle = objects[10]!
  const report = await stored.restore()
  await stored.whileGone(await keysOfSegment(stored, middle), async () => {
    await assert.rejects(plan({ kind: 'latest' }), { code: 'WAL_GAP', message: /there is a gap in the WAL behind backup/ })
    await assert.rejects(stored.cluster.restore({ kind: 'latest' }, to), { code: 'WAL_GAP' })
    await assert.rejects(access(to), { code: 'ENOENT' })
    // What had been planned before counts on it.
    const restored = { directory: report.directory, home: cluster.home, installation: cluster.installation }
    await emptyAhead(report)
    await assertRecoveryStops(restored, /the plan of this recovery counts on/)
    // Up to the gap everything is as it was.
    await plan({ kind: 'lsn', lsn: middle.startLsn })
  })
  await plan({ kind: 'latest' })
  await rm(dirname(report.directory), { recursive: true })

  // Of the WAL that the backup itself needs nothing may be missing, whatever is asked for.
  await stored.whileGone(await keysOfSegment(stored, await walAt(stored, stored.incremental.startLsn)), async () => {
    assertNamed(await stored.problems(), `backup ${stored.incremental.id}`)
    await assert.rejects(stored.cluster.restore({ kind: 'backup', backup: stored.incremental.id }, to), { code: 'WAL_GAP' })
    await assert.rejects(access(to), { code: 'ENOENT' })
  })
}

async function assertForeignManifest(stored: DamagedRepository): Promise<void> {
  const { repository, component } = stored.cluster
  const [own, other] = [component.name, 'another-db'].map((name) => componentFolder(repository.ring, name))
  const copy = backupKey(other!, stored.full.id)
  await mkdir(dirname(stored.path(copy)))
  await copyFile(stored.path(backupKey(own!, stored.full.id)), stored.path(copy))
  assertNamed(await stored.problems(), copy)
  const plan = planRecovery({ repository, component: 'another-db', target: { kind: 'latest' }, clock: systemClock })
  await assert.rejects(
    plan,
    (error) => error instanceof Failure && error.code === 'OBJECT_DAMAGED' && error.message.includes(copy),
  )
  await rm(dirname(stored.path(copy)), { recursive: true })
}

function assertNamed(problems: readonly { object: string; problem: string }[], object: string): void {
  assert.ok(
    problems.some((each) => each.object === object),
    `a problem of "${object}", found ${JSON.stringify(problems)}`,
  )
}

/** The WAL that recovery reads behind the newest backup. */
async function walBehindBackup({ cluster, branch, incremental }: DamagedRepository) {
  return await coverage(cluster.repository, branch, parseLsn(incremental.stopLsn))
}

async function walAt({ cluster, branch }: DamagedRepository, lsn: string): Promise<WalObject> {
  return (await coverage(cluster.repository, branch, parseLsn(lsn))).objects[0]!
}

/** The segment that an object is of: whole, and the pieces that would fill its place. */
async function keysOfSegment(stored: DamagedRepository, object: WalObject): Promise<string[]> {
  return await stored.keys(object.key.replace(/\.[^/]*$/, ''))
}
