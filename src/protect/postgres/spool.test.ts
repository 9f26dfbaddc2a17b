import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, open as openFile, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { systemClock } from '../../clock.ts'
import type { Lsn } from '../../postgres/lsn.ts'
import { initRepository, type Repository } from '../../repository/repository.ts'
import { listWal, readNote } from '../../repository/wal-archive.ts'
import { findOrMakeBranch, type Branch } from '../../repository/wal-branch.ts'
import { Secret } from '../../secret.ts'
import { MemoryStorage } from '../../storage/memory-storage.ts'
import { drainSpool } from './drain.ts'
import { listSpoolBranches } from './spool-branch.ts'
import { damagedSpoolFiles } from './spool-supply.ts'
import { isDamagedTail } from './spool-tail.ts'
import { readSpool, Spool } from './spool.ts'

const execute = promisify(execFile)
const SEGMENT = 1024 * 1024
const START = BigInt(16 * SEGMENT)

interface Given {
  readonly directory: string
  readonly repository: Repository
  readonly branch: Branch
  /** What the WAL is, from START on. */
  readonly wal: Buffer
}

async function given(t: TestContext, parent = tmpdir()): Promise<Given> {
  const directory = join(await mkdtemp(join(parent, 'resus-spool-')), 'spool')
  t.after(() => rm(join(directory, '..'), { recursive: true, force: true }))
  const access = { storage: new MemoryStorage(), passphrase: new Secret('x'), system: 'test' }
  const { repository } = await initRepository(access, { clock: systemClock, kdfCost: 1024 })
  const identity = { component: 'db', systemIdentifier: '7345', major: 18, timeline: 1, history: '', ordinal: 0 }
  const branch = await findOrMakeBranch(repository, { ...identity, segmentSize: SEGMENT, firstLsn: START }, systemClock)
  return { directory, repository, branch, wal: randomBytes(3 * SEGMENT) }
}

async function openSpool({ directory, repository }: Given, bytesMax = 2 ** 30): Promise<Spool> {
  return await Spool.open({ directory, component: 'db', ring: repository.ring, bytesMax })
}

/** Writes [from, to) of the WAL in batches of random length, each synced. */
async function write(all: Given, spool: Spool, { from, to }: { from: number; to: number }): Promise<void> {
  const writer = await spool.startWriting(all.branch, START + BigInt(from))
  for (let at = from; at < to;) {
    const length = Math.min(to - at, 1 + (randomBytes(3).readUIntBE(0, 3) % 300_000))
    writer.append(START + BigInt(at), all.wal.subarray(at, at + length))
    await writer.sync()
    at += length
    assert.equal(writer.durableLsn, START + BigInt(at))
  }
  await writer.close()
}

async function bytesOf(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  for await (const piece of source) pieces.push(piece)
  return Buffer.concat(pieces)
}

function lsnRange(from: number, to: number): { from: Lsn; to: Lsn } {
  return { from: START + BigInt(from), to: START + BigInt(to) }
}

async function spoolFiles({ directory }: Given): Promise<string[]> {
  return (await readdir(directory)).filter((name) => name.endsWith('.spool')).map((name) => join(directory, name))
}

test('what is synced is read back by another process, from the directory alone', async (t) => {
  const all = await given(t)
  await write(all, await openSpool(all), { from: 0, to: 2_500_000 })
  assert.equal((await spoolFiles(all)).length, 3)
  const { ring } = all.repository
  assert.deepEqual((await listSpoolBranches(all.directory, ring)).branches, [{ component: 'db', branch: all.branch }])
  const contents = await readSpool(all.directory, ring, all.branch.path.branch)
  assert.deepEqual(contents.ranges, [lsnRange(0, 2_500_000)])
  for (const [from, to] of [
    [0, 2_500_000],
    [1_000_000, 1_100_000],
    [SEGMENT, SEGMENT + 1],
    [2_499_999, 2_500_000],
  ] as const) {
    assert.ok((await bytesOf(contents.read(lsnRange(from, to)))).equals(all.wal.subarray(from, to)))
  }
})

test('nothing of the WAL lies in clear on the disk', async (t) => {
  const all = await given(t)
  all.wal.fill('the name of a patient ')
  await write(all, await openSpool(all), { from: 0, to: 100_000 })
  for (const path of await spoolFiles(all)) assert.ok(!(await readFile(path)).includes('patient'))
})

test('a torn end ends the file at the last whole frame; a writer begins another file', async (t) => {
  const all = await given(t)
  await write(all, await openSpool(all), { from: 0, to: 500_000 })
  const [path] = await spoolFiles(all)
  const written = await readFile(path!)
  // Zeros may have been written ahead.
  const whole = written.subarray(0, written.findLastIndex((byte) => byte !== 0) + 1)
  for (const cut of [1, 16, 1000]) {
    await writeFile(path!, whole.subarray(0, whole.length - cut))
    const { ranges, damaged } = await readSpool(all.directory, all.repository.ring, all.branch.path.branch)
    assert.equal(ranges[0]?.from, START)
    assert.ok(ranges[0].to < START + 500_000n)
    assert.deepEqual(damaged, [])
  }
  // What a power cut leaves of a file whose blocks were given but not written.
  await writeFile(path!, Buffer.concat([whole, Buffer.alloc(4096)]))
  const spool = await openSpool(all)
  assert.deepEqual(spool.ranges(all.branch), [lsnRange(0, 500_000)])
  await write(all, spool, { from: 400_000, to: 600_000 })
  assert.deepEqual(spool.ranges(all.branch), [lsnRange(0, 600_000)])
  assert.ok((await bytesOf(spool.read(all.branch, lsnRange(0, 600_000)))).equals(all.wal.subarray(0, 600_000)))
  await truncate(path!, 10)
  assert.deepEqual((await openSpool(all)).ranges(all.branch), [lsnRange(400_000, 600_000)])
})

test('a flipped bit costs its frame alone, and is told', async (t) => {
  const all = await given(t)
  const spool = await openSpool(all)
  const writer = await spool.startWriting(all.branch, START)
  for (let at = 0; at < 300_000; at += 1000) {
    writer.append(START + BigInt(at), all.wal.subarray(at, at + 1000))
    await writer.sync()
  }
  await writer.close()
  const [path] = await spoolFiles(all)
  const bytes = await readFile(path!)
  const frame = 150
  const at = 32 + frame * 1028 + 12 + 500
  bytes[at] = bytes[at]! ^ 4
  await writeFile(path!, bytes)
  const contents = await readSpool(all.directory, all.repository.ring, all.branch.path.branch)
  assert.deepEqual(contents.ranges, [lsnRange(0, 150_000), lsnRange(151_000, 300_000)])
  assert.deepEqual(contents.damaged, [path])
  // Who wrote it still has it in memory; any other process has only the file.
  assert.ok((await bytesOf(spool.read(all.branch, lsnRange(0, 300_000)))).equals(all.wal.subarray(0, 300_000)))
  const another = await openSpool(all)
  await assert.rejects(bytesOf(another.read(all.branch, lsnRange(0, 300_000))), { code: 'SPOOL_DAMAGED' })
  const { damaged } = await drainSpool({ repository: all.repository, spoolDirectory: all.directory, component: 'db' })
  assert.deepEqual(damaged, [path])
  const stored = []
  for await (const { startLsn, endLsn } of listWal(all.repository, all.branch)) stored.push({ from: startLsn, to: endLsn })
  assert.deepEqual(stored, [lsnRange(0, 150_000), lsnRange(151_000, 300_000)])
})

/** A file of 50 frames of 1000 bytes. `closed`: without the zeros that are written ahead. */
async function fiftyFrames(t: TestContext, closed: boolean): Promise<{ all: Given; path: string; bytes: Buffer }> {
  const all = await given(t)
  const writer = await (await openSpool(all)).startWriting(all.branch, START)
  for (let at = 0; at < 50_000; at += 1000) {
    writer.append(START + BigInt(at), all.wal.subarray(at, at + 1000))
    await writer.sync()
  }
  const [path] = await spoolFiles(all)
  const open = await readFile(path!)
  await writer.close()
  const bytes = closed ? await readFile(path!) : open
  return { all, path: path!, bytes }
}

const FRAME = 1028
for (const closed of [true, false]) {
  const state = closed ? 'a closed file' : 'a file that was being written'
  for (const [what, offset, bit, held] of [
    ['the salt', 20, 0, 0],
    ['the length of a frame, that it seems longer', 32 + 15 * FRAME, 2, 15_000],
    ['the length of a frame, that it seems longer than the file', 32 + 15 * FRAME + 2, 3, 15_000],
    ['the length of a frame, that it seems impossible', 32 + 15 * FRAME + 3, 7, 15_000],
    ['the LSN of a frame', 32 + 15 * FRAME + 4, 0, 15_000],
    ['the last frame', 32 + 49 * FRAME + 500, 0, 49_000],
    ['the length of the last frame, that it seems longer', 32 + 49 * FRAME + 2, 3, 49_000],
    ['the length of the last frame, that it seems shorter', 32 + 49 * FRAME, 3, 49_000],
  ] as const) {
    test(`a flipped bit in ${what}, of ${state}, is damage: it is told, and no file is deleted for it`, async (t) => {
      const { all, path, bytes } = await fiftyFrames(t, closed)
      bytes[offset] = bytes[offset]! ^ (1 << bit)
      await writeFile(path, bytes)
      const contents = await readSpool(all.directory, all.repository.ring, all.branch.path.branch)
      assert.deepEqual(contents.damaged, [path])
      assert.deepEqual(contents.ranges[0] ?? lsnRange(0, 0), lsnRange(0, held))
      const { damaged } = await drainSpool({ repository: all.repository, spoolDirectory: all.directory, component: 'db' })
      assert.deepEqual(damaged, [path])
      const aside: string[] = []
      const ring = all.repository.ring
      assert.deepEqual(await damagedSpoolFiles({ directory: all.directory, component: 'db', ring }), [path])
      const onSetAside = (each: string) => aside.push(each)
      const spool = await Spool.open({ directory: all.directory, component: 'db', ring, bytesMax: 2 ** 30, onSetAside })
      await spool.startWriting(all.branch, START)
      await spool.deleteCovered(all.branch, lsnRange(0, 3 * SEGMENT))
      await spool.deleteStored(all.branch, [lsnRange(0, 3 * SEGMENT)])
      await spool.deleteEarlier([])
      assert.deepEqual(await spoolFiles(all), [path])
      // The repository has the whole segment: nothing is lost, but the file is evidence.
      await spool.deleteSegment(all.branch, START / BigInt(SEGMENT))
      assert.deepEqual(aside, [`${path}.damaged`])
      assert.ok((await readFile(aside[0]!)).equals(bytes))
      assert.equal(spool.sizeBytes, 0)
    })
  }
}

test('a frame that ends in zeros by chance is told from zeros that were written ahead', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'resus-tail-'))
  try {
    for (const [zeros, at] of [
      [0, 32],
      [1, 32],
      [3, 32],
      [2, 509],
      [0, 510],
      [1, 511],
    ] as const) {
      // A frame of 65 536 bytes, whose length has lost a bit: it says more than there is.
      const length = 65_536
      const frame = Buffer.alloc(length + 28, 0xa5)
      frame.writeUInt32LE(length + 2 ** 20)
      frame.fill(0, frame.length - zeros)
      const path = join(directory, `${zeros}-${at}`)
      await writeFile(path, Buffer.concat([Buffer.alloc(at, 1), frame, Buffer.alloc(10_000)]))
      const file = await openFile(path)
      const opens = (bytes: Buffer, size: number) => size === length && bytes.length === frame.length
      const tail = { file, offset: at, lsn: 0n, frameBytesMax: 2 ** 24, opens }
      assert.equal(await isDamagedTail(tail), true, `${zeros} zeros at ${at}`)
      await file.close()
    }
  } finally {
    await rm(directory, { recursive: true })
  }
})

test('what a power cut leaves of the last write is no damage', async (t) => {
  const { all, path, bytes } = await fiftyFrames(t, false)
  const end = 32 + 50 * FRAME
  const isDamaged = async (left: Buffer) => {
    await writeFile(path, left)
    return (await readSpool(all.directory, all.repository.ring, all.branch.path.branch)).damaged.length > 0
  }
  assert.ok(!(await isDamaged(bytes)))
  // Sectors that were never written, in zeros or at the end of the file.
  for (let sector = Math.ceil((end - FRAME) / 512) * 512; sector < end; sector += 512) {
    assert.ok(!(await isDamaged(Buffer.concat([bytes.subarray(0, sector), Buffer.alloc(512), bytes.subarray(sector + 512)]))))
    assert.ok(!(await isDamaged(bytes.subarray(0, sector))))
  }
  // The first write: not even the header is there.
  for (const length of [0, 10, 31, 32, 40, 500]) assert.ok(!(await isDamaged(bytes.subarray(0, length))), `${length}`)
  assert.ok(!(await isDamaged(Buffer.concat([Buffer.alloc(512), bytes.subarray(512, 32 + FRAME)]))))
})

test('WAL behind more than one write that does not open is damage, though sectors are missing', async (t) => {
  const all = await given(t)
  const branch = { ...all.branch, head: { ...all.branch.head, segmentSize: 16 * SEGMENT } }
  const writer = await (await openSpool(all)).startWriting(branch, START)
  for (let at = 0; at < 8 * SEGMENT; at += SEGMENT) {
    writer.append(START + BigInt(at), all.wal.subarray(0, SEGMENT))
    await writer.sync()
  }
  await writer.close()
  const [path] = await spoolFiles(all)
  const bytes = await readFile(path!)
  bytes.fill(0, 0, 4096)
  await writeFile(path!, bytes)
  assert.deepEqual((await readSpool(all.directory, all.repository.ring, all.branch.path.branch)).damaged, [path])
})

test('an empty spool file is not deleted for what others hold', async (t) => {
  const all = await given(t)
  await write(all, await openSpool(all), { from: 0, to: 1000 })
  const [path] = await spoolFiles(all)
  await writeFile(path!, '')
  const spool = await openSpool(all)
  await spool.startWriting(all.branch, START)
  await spool.deleteCovered(all.branch, lsnRange(0, SEGMENT))
  await spool.deleteEarlier([])
  assert.deepEqual(await spoolFiles(all), [path])
  await spool.deleteSegment(all.branch, START / BigInt(SEGMENT))
  assert.deepEqual(await spoolFiles(all), [])
})

test('a file under the name of another does not open', async (t) => {
  const all = await given(t)
  await write(all, await openSpool(all), { from: 0, to: 1000 })
  const [path] = await spoolFiles(all)
  await writeFile(path!.replace(/\.[0-9a-f]{16}\.spool$/, '.0123456789abcdef.spool'), await readFile(path!))
  const spool = await readSpool(all.directory, all.repository.ring, all.branch.path.branch)
  assert.equal(spool.files.filter((file) => file.runs.length > 0).length, 1)
})

test('draining publishes what the repository lacks, once: whole segments as such, the rest as pieces', async (t) => {
  const all = await given(t)
  await write(all, await openSpool(all), { from: 0, to: 2_500_000 })
  const drain = { repository: all.repository, spoolDirectory: all.directory, component: 'db' }
  assert.equal((await drainSpool({ ...drain, component: 'another' })).stored.length, 0)
  const first = await drainSpool(drain)
  assert.deepEqual(first.reached, [{ branch: all.branch, lsn: START + 2_500_000n }])
  assert.deepEqual(
    first.stored.map(({ from, to }) => ({ from, to })),
    [lsnRange(0, SEGMENT), lsnRange(SEGMENT, 2 * SEGMENT), lsnRange(2 * SEGMENT, 2_500_000)],
  )
  assert.deepEqual((await drainSpool(drain)).stored, [])
  await write(all, await openSpool(all), { from: 2 * SEGMENT, to: 2_600_000 })
  const second = await drainSpool(drain)
  assert.deepEqual(
    second.stored.map(({ from, to }) => ({ from, to })),
    [lsnRange(2_500_000, 2_600_000)],
  )
  for await (const object of listWal(all.repository, all.branch)) {
    assert.equal((await readNote(all.repository, all.branch, object)).source, 'spool')
  }
})

test('a spool of another repository is not read', async (t) => {
  const [all, other] = [await given(t), await given(t)]
  await write(all, await openSpool(all), { from: 0, to: 1000 })
  const { ranges } = await readSpool(all.directory, other.repository.ring, all.branch.path.branch)
  assert.deepEqual(ranges, [])
})

test('while the disk is full nothing is durable, and nothing is lost', async (t) => {
  const parent = await mkdtemp(join(tmpdir(), 'resus-full-'))
  const disk = join(parent, 'disk')
  t.after(async () => {
    await execute('umount', ['-l', disk]).catch(() => undefined)
    await rm(parent, { recursive: true, force: true })
  })
  await mkdir(disk)
  try {
    await execute('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk])
  } catch {
    t.skip('a small file system cannot be mounted here')
    return
  }
  const all = await given(t, disk)
  const spool = await openSpool(all)
  const writer = await spool.startWriting(all.branch, START)
  writer.append(START, all.wal.subarray(0, 400_000))
  await writer.sync()
  await writeFile(join(disk, 'filler'), Buffer.alloc(400_000))
  writer.append(START + 400_000n, all.wal.subarray(400_000, 1_000_000))
  await assert.rejects(writer.sync(), { code: 'DISK_FULL' })
  await assert.rejects(writer.sync(), { code: 'DISK_FULL' })
  assert.equal(writer.durableLsn, START + 400_000n)
  assert.deepEqual((await openSpool(all)).ranges(all.branch), [lsnRange(0, 400_000)])
  writer.append(START + 1_000_000n, all.wal.subarray(1_000_000, 1_000_100))
  await rm(join(disk, 'filler'))
  await execute('mount', ['-o', 'remount,size=8m', disk])
  await writer.sync()
  await writer.close()
  const again = await openSpool(all)
  assert.deepEqual(again.ranges(all.branch), [lsnRange(0, 1_000_100)])
  assert.ok((await bytesOf(again.read(all.branch, lsnRange(0, 1_000_100)))).equals(all.wal.subarray(0, 1_000_100)))
})

test('the spool of one component in a directory never touches that of another', async (t) => {
  const all = await given(t)
  await write(all, await openSpool(all), { from: 0, to: 1000 })
  const other = await Spool.open({ directory: all.directory, component: 'other', ring: all.repository.ring, bytesMax: 2 ** 30 })
  assert.equal(other.sizeBytes, 0)
  await other.deleteEarlier([])
  assert.deepEqual((await openSpool(all)).ranges(all.branch), [lsnRange(0, 1000)])
})

test('a spool is made in a directory that is not there yet, more than once', async (t) => {
  const all = await given(t)
  const deeper = { ...all, directory: join(all.directory, 'a', 'b') }
  await write(deeper, await openSpool(deeper), { from: 0, to: 1000 })
  assert.deepEqual((await openSpool(deeper)).ranges(all.branch), [lsnRange(0, 1000)])
})

test('a damaged note of a branch is told when the spool is drained, and written anew by the next writer', async (t) => {
  const all = await given(t)
  await write(all, await openSpool(all), { from: 0, to: 1000 })
  const path = join(all.directory, `${all.branch.path.branch}.branch`)
  const bytes = await readFile(path)
  bytes[60] = bytes[60]! ^ 1
  await writeFile(path, bytes)
  const drain = { repository: all.repository, spoolDirectory: all.directory, component: 'db' }
  assert.deepEqual((await drainSpool(drain)).damaged, [path])
  await (await openSpool(all)).startWriting(all.branch, START)
  assert.deepEqual((await drainSpool(drain)).stored, [{ branch: all.branch, ...lsnRange(0, 1000) }])
})

test('room is counted over restarts, and made by deleting a segment', async (t) => {
  const all = await given(t)
  await write(all, await openSpool(all), { from: 0, to: 3 * SEGMENT })
  const spool = await openSpool(all, 5 * SEGMENT)
  assert.ok(spool.hasRoomFor(SEGMENT, SEGMENT))
  assert.ok(!spool.hasRoomFor(2 * SEGMENT, SEGMENT))
  await spool.deleteSegment(all.branch, START / BigInt(SEGMENT))
  assert.ok(spool.hasRoomFor(2 * SEGMENT, SEGMENT))
  assert.deepEqual(spool.ranges(all.branch), [lsnRange(SEGMENT, 3 * SEGMENT)])
})
