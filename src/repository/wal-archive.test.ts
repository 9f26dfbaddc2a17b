import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import test from 'node:test'
import type { Clock } from '../clock.ts'
import { segmentAt, segmentName, segmentStart } from '../postgres/wal-segment.ts'
import { Secret } from '../secret.ts'
import { FaultyStorage, type Fault } from '../storage/faulty-storage.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import type { Storage } from '../storage/storage.ts'
import { branchPrefix } from './layout.ts'
import { initRepository, type Repository } from './repository.ts'
import {
  coverage,
  coverageOf,
  listGaps,
  listWal,
  putWal,
  readNote,
  readWalBytes,
  recordGap,
  type WalObject,
} from './wal-archive.ts'
import { findNewestBranch, findOrMakeBranch, listBranches, type Branch } from './wal-branch.ts'
import { joinContents, NO_CONTENTS, type WalNote } from './wal-note.ts'
import { readSegmentBytes } from './wal-segment-bytes.ts'

const SEGMENT = 1024 * 1024
const clock: Clock = { now: () => Date.UTC(2026, 10, 21), sleep: async () => undefined }
const identity = { component: 'db', systemIdentifier: '7345', major: 18, timeline: 1, history: '' }

async function makeRepository(storage: Storage = new MemoryStorage()): Promise<Repository> {
  const access = { storage, passphrase: new Secret('x'), system: 'test' }
  return (await initRepository(access, { clock, kdfCost: 1024 })).repository
}

async function makeBranch(repository: Repository): Promise<Branch> {
  return await findOrMakeBranch(repository, { ...identity, ordinal: 0, segmentSize: SEGMENT, firstLsn: BigInt(SEGMENT) }, clock)
}

/** The same byte at the same LSN, as WAL is. */
function walBytes(from: bigint, to: bigint): Buffer {
  return Buffer.from(Array.from({ length: Number(to - from) }, (_, index) => Number((from + BigInt(index)) % 251n)))
}

function noteOf(range: { number: bigint; from: number; to: number }, bytes: Uint8Array): WalNote {
  const segment = { timeline: 1, number: range.number, sizeBytes: SEGMENT }
  const start = segmentStart(segment)
  return {
    ...NO_CONTENTS,
    timeline: 1,
    segment: segmentName(segment),
    from: range.from,
    to: range.to,
    startLsn: start + BigInt(range.from),
    endLsn: start + BigInt(range.to),
    sha256: createHash('sha256').update(bytes).digest('hex'),
    acknowledged: start,
    source: 'stream',
    synchronous: true,
    leastCommit: 5n,
    restorePoints: [{ name: 'named', lsn: start + 8n, timeMicros: 7n }],
  }
}

async function store(repository: Repository, branch: Branch, number: bigint, [from, to] = [0, SEGMENT]): Promise<string> {
  const start = number * BigInt(SEGMENT)
  const bytes = walBytes(start + BigInt(from), start + BigInt(to))
  return await putWal(repository, branch, { note: noteOf({ number, from, to }, bytes), body: [bytes] })
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = []
  for await (const item of items) list.push(item)
  return list
}

test('a branch is found again by what it is, and of two that make it one wins', async () => {
  const repository = await makeRepository()
  const wanted = { ...identity, ordinal: 0, segmentSize: SEGMENT, firstLsn: 0x10_0000n }
  const [left, right] = await Promise.all([
    findOrMakeBranch(repository, wanted, clock),
    findOrMakeBranch(repository, { ...wanted, firstLsn: 0x20_0000n }, clock),
  ])
  assert.deepEqual(left, right)
  const later = await findOrMakeBranch(repository, { ...wanted, ordinal: 1 }, clock)
  const forked = await findOrMakeBranch(repository, { ...wanted, timeline: 2, history: '1\t0/200000\tno reason\n' }, clock)
  assert.deepEqual(await listBranches(repository, 'db'), [left, later, forked])
  assert.deepEqual(await findNewestBranch(repository, identity), later)
  assert.equal(await findNewestBranch(repository, { ...identity, component: 'other' }), undefined)
})

test('WAL is stored once: the same bytes are there, other bytes are refused', async () => {
  const repository = await makeRepository()
  const branch = await makeBranch(repository)
  assert.equal(await store(repository, branch, 1n), 'stored')
  assert.equal(await store(repository, branch, 1n), 'there')
  const other = Buffer.alloc(SEGMENT, 7)
  const wal = { note: noteOf({ number: 1n, from: 0, to: SEGMENT }, other), body: [other] }
  await assert.rejects(putWal(repository, branch, wal), { code: 'WAL_CONFLICT' })
})

test('bytes that are not those of the note are never stored', async () => {
  const repository = await makeRepository()
  const branch = await makeBranch(repository)
  const note = noteOf({ number: 1n, from: 0, to: 10 }, walBytes(0n, 10n))
  await assert.rejects(putWal(repository, branch, { note, body: [Buffer.alloc(10)] }), /SHA-256/)
  await assert.rejects(putWal(repository, branch, { note, body: [Buffer.alloc(9)] }), /9 bytes/)
  assert.deepEqual(await all(listWal(repository, branch)), [])
})

test('WAL is listed in the order of LSNs, and other names are passed over', async () => {
  const repository = await makeRepository()
  const branch = await makeBranch(repository)
  await store(repository, branch, 3n, [0, 100])
  await store(repository, branch, 2n)
  await store(repository, branch, 2n, [500, 600])
  await store(repository, branch, 0x1000n)
  await repository.storage.put(`${branchPrefix(branch.path)}000000020000000000000001`, Buffer.from('of another timeline'))
  await repository.storage.put(`${branchPrefix(branch.path)}000000010000000000000001.tmp`, Buffer.from('something'))
  const listed = await all(listWal(repository, branch))
  assert.deepEqual(
    listed.map(({ startLsn, endLsn }) => [startLsn, endLsn]),
    [
      [0x20_0000n, 0x30_0000n],
      [0x20_0000n + 500n, 0x20_0000n + 600n],
      [0x30_0000n, 0x30_0000n + 100n],
      [0x1_0000_0000n, 0x1_0010_0000n],
    ],
  )
  const note = await readNote(repository, branch, listed[0]!)
  assert.deepEqual(note, noteOf({ number: 2n, from: 0, to: SEGMENT }, walBytes(0x20_0000n, 0x30_0000n)))
})

test('every kind of damage to stored WAL is found when it is read', async () => {
  let fault: Fault | undefined
  const repository = await makeRepository(new FaultyStorage(new MemoryStorage(), () => fault))
  const branch = await makeBranch(repository)
  await store(repository, branch, 1n)
  const [object] = await all(listWal(repository, branch))
  const bytes = Buffer.concat(await all(readWalBytes(repository, branch, object!)))
  assert.ok(bytes.equals(walBytes(0x10_0000n, 0x20_0000n)))
  for (fault of ['flip', 'short'] as const) {
    await assert.rejects(all(readWalBytes(repository, branch, object!)), { code: 'OBJECT_DAMAGED' })
  }
  fault = undefined
  const lying: WalObject = { ...object!, startLsn: 0n }
  await assert.rejects(readNote(repository, branch, lying), { code: 'OBJECT_DAMAGED' })
})

test('a segment is put together from pieces that overlap, and padded with zeros', async () => {
  const repository = await makeRepository()
  const branch = await makeBranch(repository)
  const segment = segmentAt(0x10_0000n, 1, SEGMENT)
  assert.equal(await readSegmentBytes(repository, branch, segment), undefined)
  await store(repository, branch, 1n, [5000, 6000])
  assert.equal(await readSegmentBytes(repository, branch, segment), undefined)
  for (const [from, to] of [
    [0, 1000],
    [0, 400],
    [1000, 3000],
    [900, 5000],
    [7000, 8000],
  ] as const) {
    await store(repository, branch, 1n, [from, to])
  }
  const read = await readSegmentBytes(repository, branch, segment)
  assert.equal(read?.realBytes, 6000)
  assert.equal(read.objects.length, 5)
  const bytes = Buffer.concat(await all(read.bytes))
  assert.equal(bytes.length, SEGMENT)
  assert.ok(bytes.subarray(0, 6000).equals(walBytes(0x10_0000n, 0x10_0000n + 6000n)))
  assert.ok(bytes.subarray(6000).every((byte) => byte === 0))
  await store(repository, branch, 1n)
  const whole = await readSegmentBytes(repository, branch, segment)
  assert.deepEqual([whole?.realBytes, whole?.objects.length], [SEGMENT, 1])
})

test('pieces that disagree where they overlap are damage', async () => {
  const repository = await makeRepository()
  const branch = await makeBranch(repository)
  await store(repository, branch, 1n, [0, 1000])
  const other = Buffer.alloc(1000, 1)
  await putWal(repository, branch, { note: noteOf({ number: 1n, from: 500, to: 1500 }, other), body: [other] })
  const read = await readSegmentBytes(repository, branch, segmentAt(0x10_0000n, 1, SEGMENT))
  await assert.rejects(all(read!.bytes), { code: 'OBJECT_DAMAGED', message: /differ/ })
})

test('coverage ends at the first hole, and tells the others', async () => {
  const repository = await makeRepository()
  const branch = await makeBranch(repository)
  await store(repository, branch, 1n)
  await store(repository, branch, 2n, [0, 1000])
  await store(repository, branch, 2n, [800, 2000])
  await store(repository, branch, 2n, [3000, 4000])
  await store(repository, branch, 4n)
  const covered = await coverage(repository, branch, 0x10_0000n)
  assert.equal(covered.endLsn, 0x20_0000n + 2000n)
  assert.equal(covered.objects.length, 3)
  assert.deepEqual(covered.holes, [
    { from: 0x20_0000n + 2000n, to: 0x20_0000n + 3000n },
    { from: 0x20_0000n + 4000n, to: 0x40_0000n },
  ])
  const nowhere = await coverage(repository, branch, 0x30_0000n)
  assert.deepEqual([nowhere.endLsn, nowhere.objects], [0x30_0000n, []])
})

test('the coverage of a range lists its segments alone', async () => {
  const listed: string[] = []
  const storage = new MemoryStorage()
  const repository = await makeRepository(storage)
  const branch = await makeBranch(repository)
  const whole = [0x10n, 0x11n, 0x27n]
  for (let number = 1n; number < 40n; number++) {
    await store(repository, branch, number, whole.includes(number) ? undefined : [0, 1000])
  }
  const recording = Object.create(storage) as MemoryStorage
  recording.list = async function* (prefix: string) {
    for await (const entry of storage.list(prefix)) {
      listed.push(entry.key)
      yield entry
    }
  }
  const covered = await coverageOf({ ...repository, storage: recording }, branch, { from: 0x100_0000n + 5n, to: 0x120_0000n })
  assert.equal(covered.objects[0]?.startLsn, 0x100_0000n)
  assert.ok(covered.endLsn >= 0x120_0000n, 'it reaches the end of the range')
  assert.equal(covered.holes[0]?.from, 0x120_0000n + 1000n)
  assert.ok(listed.length <= 16, `${listed.length} names were listed, of 39`)
  const one = await coverageOf(repository, branch, { from: 0x270_0000n, to: 0x280_0000n })
  assert.equal(one.endLsn, 0x280_0000n)
  assert.equal((await coverageOf(repository, branch, { from: 0x280_0000n, to: 0x290_0000n })).endLsn, 0x280_0000n)
})

test('a gap is recorded once', async () => {
  const repository = await makeRepository()
  const branch = await makeBranch(repository)
  const gap = { from: 0x10_0000n, to: 0x30_0000n, why: 'a test', at: '2026-11-21T00:00:00.000Z' }
  await recordGap(repository, branch, gap)
  await recordGap(repository, branch, { ...gap, at: '2026-11-22T00:00:00.000Z' })
  assert.deepEqual(await listGaps(repository, branch), [gap])
})

test('the contents of two stretches are joined, with ids in their circle', () => {
  const earlier = { ...NO_CONTENTS, leastCommit: 9n, greatestCommit: 12n, leastXid: 4_294_967_290, greatestXid: 4_294_967_295 }
  const later = { ...NO_CONTENTS, lastRecordEnd: 5n, leastCommit: 8n, greatestCommit: 10n, leastXid: 3, greatestXid: 7 }
  const joined = joinContents(earlier, later)
  assert.deepEqual([joined.leastCommit, joined.greatestCommit], [8n, 12n])
  assert.deepEqual([joined.leastXid, joined.greatestXid], [4_294_967_290, 7])
  assert.equal(joined.lastRecordEnd, 5n)
})

test('the note of a segment in which an application wrote restore points without end can be stored', async () => {
  const repository = await makeRepository()
  const branch = await makeBranch(repository)
  const bytes = walBytes(BigInt(SEGMENT), 2n * BigInt(SEGMENT))
  const point = { name: 'p'.repeat(63), lsn: BigInt(SEGMENT) + 8n, timeMicros: 7n }
  const piece = { ...NO_CONTENTS, restorePoints: Array.from({ length: 1000 }, () => point) }
  let contents = NO_CONTENTS
  for (let pieces = 0; pieces < 40; pieces++) contents = joinContents(contents, piece)
  const note = { ...noteOf({ number: 1n, from: 0, to: SEGMENT }, bytes), ...contents }
  assert.equal(await putWal(repository, branch, { note, body: [bytes] }), 'stored')
  assert.equal(contents.restorePoints.length, 1000)
})
