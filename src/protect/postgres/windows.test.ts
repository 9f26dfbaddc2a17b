import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { appendFile, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { Random, testSeed } from '../../../test/faults/random.ts'
import { systemClock } from '../../clock.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { segmentAt, segmentName, segmentStart } from '../../postgres/wal-segment.ts'
import { putManifest, type BackupManifest } from '../../repository/backups.ts'
import { initRepository, type Repository } from '../../repository/repository.ts'
import { putWal, recordGap } from '../../repository/wal-archive.ts'
import { findOrMakeBranch, type Branch } from '../../repository/wal-branch.ts'
import { NO_CONTENTS } from '../../repository/wal-note.ts'
import { Secret } from '../../secret.ts'
import { FaultyStorage } from '../../storage/faulty-storage.ts'
import { MemoryStorage } from '../../storage/memory-storage.ts'
import { planRecovery } from './recovery-plan.ts'
import type { RecoveryTarget } from './recovery-target.ts'
import { readWindows } from './read-windows.ts'
import type { RestoreWindow } from './windows.ts'

// Histories are made up: segments are small, a "record" ends every 64 bytes, and a commit comes every 64 bytes, a second after the last.

const SEGMENT = 4096
const RECORD = 64n
const COMPONENT = 'db'
const identity = { component: COMPONENT, systemIdentifier: '7345', major: 18 }
const { signal } = new AbortController()

interface History {
  readonly repository: Repository
  readonly stateDirectory: string
}

async function makeHistory(t: TestContext): Promise<History> {
  const access = { storage: new MemoryStorage(), passphrase: new Secret('x'), system: 'test' }
  const { repository } = await initRepository(access, { clock: systemClock, kdfCost: 1024 })
  const stateDirectory = await mkdtemp(join(tmpdir(), 'resus-windows-'))
  t.after(() => rm(stateDirectory, { recursive: true }))
  return { repository, stateDirectory }
}

async function makeBranch(repository: Repository, timeline: number, history: string, ordinal = 0): Promise<Branch> {
  const wanted = { ...identity, timeline, history, ordinal, segmentSize: SEGMENT, firstLsn: 0n }
  return await findOrMakeBranch(repository, wanted, systemClock)
}

/** The commit at an LSN that is a multiple of 64, in microseconds since 2000. */
function commitMicros(lsn: Lsn): bigint {
  return (lsn / RECORD) * 1_000_000n
}

function timeMs(micros: bigint): number {
  return Date.UTC(2000, 0, 1) + Number(micros / 1000n)
}

async function store(repository: Repository, branch: Branch, range: { from: Lsn; to: Lsn }, synchronous = false): Promise<void> {
  const { from, to } = range
  const segment = segmentAt(from, branch.head.timeline, SEGMENT)
  const bytes = Buffer.alloc(Number(to - from), Number(segment.number % 251n))
  const [least, greatest] = [((from + RECORD) / RECORD) * RECORD, (to / RECORD) * RECORD]
  const any = greatest >= least
  const note = {
    ...NO_CONTENTS,
    timeline: branch.head.timeline,
    segment: segmentName(segment),
    from: Number(from - segmentStart(segment)),
    to: Number(to - segmentStart(segment)),
    startLsn: from,
    endLsn: to,
    sha256: createHash('sha256').update(bytes).digest('hex'),
    lastRecordEnd: any ? greatest : null,
    leastCommit: any ? commitMicros(least) : null,
    greatestCommit: any ? commitMicros(greatest) : null,
    acknowledged: null,
    source: 'stream' as const,
    synchronous,
  }
  await putWal(repository, branch, { note, body: [bytes] })
}

async function backUp(
  repository: Repository,
  branch: Branch,
  at: { start: Lsn; stop: Lsn; sequence: number },
): Promise<BackupManifest> {
  const stopTime = new Date(timeMs(commitMicros(at.stop))).toISOString()
  const manifest: BackupManifest = {
    format: 1,
    id: `20000101T000000Z-${at.sequence.toString(16).padStart(6, '0')}`,
    component: COMPONENT,
    kind: 'postgres',
    type: 'full',
    previous: null,
    sequence: at.sequence,
    startedAt: stopTime,
    finishedAt: stopTime,
    server: {
      version: '18.4',
      major: 18,
      systemIdentifier: identity.systemIdentifier,
      catalogVersion: 1,
      controlVersion: 1,
      segmentSize: SEGMENT,
      dataChecksums: true,
      dataDirectory: '/',
      encoding: 'UTF8',
      libc: null,
      collationVersions: [],
      preloadLibraries: '',
      settings: {},
      commandLine: {},
      versions: null,
    },
    incarnation: branch.path.incarnation,
    branch: branch.path.branch,
    timeline: branch.head.timeline,
    startLsn: at.start,
    stopLsn: at.stop,
    stopTime,
    backupLabel: '',
    tablespaceMap: '',
    tablespaces: [],
    inPlaceTablespaces: [],
    configuration: null,
    control: '',
    tree: { identity: Buffer.alloc(32), kind: 5 },
    defaults: { fileMode: 0o600, directoryMode: 0o700, uid: 1, gid: 1 },
    totals: {
      files: 0,
      bytes: 0,
      bytesRead: 0,
      bytesStored: 0,
      walBytesStored: 0,
      bytesReused: 0,
      pagesChecked: 0,
      corruptPages: 0,
    },
    corruptPages: [],
    passedOver: [],
  }
  await putManifest(repository, manifest, signal)
  return manifest
}

/** Stores [from, to) of a branch as whole segments and pieces, some of them twice, and leaves holes where `isLost` says. */
async function storeRange(
  repository: Repository,
  branch: Branch,
  range: { from: Lsn; to: Lsn; random: Random; lost: boolean },
): Promise<void> {
  const { random } = range
  const size = BigInt(SEGMENT)
  for (let at = (range.from / size) * size; at < range.to; at += size) {
    const end = at + size < range.to ? at + size : range.to
    if (range.lost && random.below(6) === 0) continue
    const middle = at + RECORD * BigInt(1 + random.below(60)) + BigInt(random.below(64))
    if (end === at + size && random.below(3) > 0) await store(repository, branch, { from: at, to: end })
    if (middle >= end) {
      await store(repository, branch, { from: at, to: end })
      continue
    }
    if (random.below(2) === 0) await store(repository, branch, { from: at, to: middle }, random.below(2) === 0)
    if (!range.lost || random.below(4) > 0) await store(repository, branch, { from: at, to: end })
    else await store(repository, branch, { from: middle, to: end })
  }
}

/** A cluster that is backed up now and then, and goes over to new timelines, some of which are abandoned. */
async function makePast(repository: Repository, random: Random): Promise<Lsn> {
  let history = ''
  let begin = 0n
  let sequence = 1
  let end = 0n
  const timelines = 1 + random.below(3)
  for (let timeline = 1; timeline <= timelines; timeline += 1) {
    const branch = await makeBranch(repository, timeline, history)
    // Nothing of the last timeline may have come yet.
    if (timeline > 1 && timeline === timelines && random.below(3) === 0) break
    end = begin + RECORD * BigInt(300 + random.below(500))
    await storeRange(repository, branch, { from: begin, to: end, random, lost: random.below(2) === 0 })
    for (let at = begin + RECORD * BigInt(random.below(200)); ;) {
      const stop = at + RECORD * BigInt(1 + random.below(90))
      if (stop > end) break
      await backUp(repository, branch, { start: at, stop, sequence: sequence++ })
      at = stop + RECORD * BigInt(1 + random.below(300))
    }
    // The next one leaves it at its end, or before: what is behind is abandoned.
    const left = random.below(2) === 0 ? end : begin + RECORD * BigInt(100 + random.below(200))
    if (timeline < 3 && random.below(4) === 0) {
      const other = `${history}${timeline}\t${formatLsn(left)}\tto another end\n`
      const aside = await makeBranch(repository, timeline + 1, other, 0)
      await storeRange(repository, aside, { from: left, to: left + 5000n, random, lost: false })
    }
    history += `${timeline}\t${formatLsn(left)}\tno recovery target specified\n`
    begin = left
  }
  return end
}

async function accepts(repository: Repository, target: RecoveryTarget): Promise<boolean> {
  try {
    await planRecovery({ repository, component: COMPONENT, target, clock: systemClock })
    return true
  } catch (error) {
    const { code } = error as { code?: string }
    assert.ok(code === 'TARGET_OUTSIDE_WINDOW' || code === 'WAL_GAP', String(error))
    return false
  }
}

// The WAL here holds no records: that a window's times are reached, test/integration/windows.test.ts shows on real servers.
test('a plan takes what a window has, its ends too, and refuses what lies outside of all of them', async (t) => {
  const random = new Random(testSeed(t))
  const seen = { windows: 0, abandoned: 0, gaps: 0, inside: 0, outside: 0 }
  for (let round = 0; round < 25; round += 1) {
    const { repository, stateDirectory } = await makeHistory(t)
    const end = await makePast(repository, random)
    const { windows, gaps } = await readWindows({ repository, component: COMPONENT, stateDirectory, signal })
    const current = windows.filter(({ state }) => state === 'current')
    const holds = (lsn: Lsn) => current.some(({ fromLsn, walEndLsn }) => fromLsn <= lsn && lsn <= walEndLsn)
    const ends = current.flatMap(({ fromLsn, toLsn, walEndLsn }) => [fromLsn, fromLsn - 1n, toLsn, walEndLsn, walEndLsn + 1n])
    const others = Array.from({ length: 10 }, () => BigInt(random.below(Number(end) + 1000)))
    for (const lsn of [...ends, ...others]) {
      const accepted = await accepts(repository, { kind: 'lsn', lsn })
      assert.equal(accepted, holds(lsn), `round ${round}: LSN ${formatLsn(lsn)} of ${describe(current)}`)
      seen[accepted ? 'inside' : 'outside'] += 1
    }
    for (const { backup } of windows) assert.ok(await accepts(repository, { kind: 'backup', backup }))
    seen.windows += current.length
    seen.abandoned += windows.length - current.length
    seen.gaps += gaps.length
  }
  t.diagnostic(JSON.stringify(seen))
  assert.ok(Object.values(seen).every((count) => count > 5))
})

function describe(windows: readonly RestoreWindow[]): string {
  return windows.map((each) => `[${formatLsn(each.fromLsn)}, ${formatLsn(each.toLsn)}] of ${each.timelines.join('>')}`).join(', ')
}

test('a gap is shown with its cause and the commits around it, and ends a window', async (t) => {
  const { repository, stateDirectory } = await makeHistory(t)
  const branch = await makeBranch(repository, 1, '')
  for (const number of [0n, 1n, 4n, 5n, 7n]) await storeNumber(repository, branch, number)
  await recordGap(repository, branch, { from: 8192n, to: 16384n, why: 'the slot was lost', at: '2026-11-21T00:00:00Z' })
  const first = await backUp(repository, branch, { start: 64n, stop: 128n, sequence: 1 })
  const torn = await backUp(repository, branch, { start: 8000n, stop: 17000n, sequence: 2 })
  const second = await backUp(repository, branch, { start: 17024n, stop: 18048n, sequence: 3 })
  const { windows, gaps, unusable } = await readWindows({ repository, component: COMPONENT, stateDirectory, signal })
  assert.deepEqual(
    windows.map(({ fromLsn, toLsn, backup, backups }) => ({ fromLsn, toLsn, backup, backups })),
    [
      { fromLsn: 128n, toLsn: 8192n, backup: first.id, backups: 1 },
      { fromLsn: 18048n, toLsn: 24576n, backup: second.id, backups: 1 },
    ],
  )
  assert.deepEqual(unusable, [torn.id])
  assert.deepEqual(gaps, [
    {
      timeline: 1,
      fromLsn: 8192n,
      toLsn: 16384n,
      commitBefore: commitMicros(8192n),
      commitAfter: commitMicros(16448n),
      recorded: { why: 'the slot was lost', at: '2026-11-21T00:00:00Z' },
    },
    {
      timeline: 1,
      fromLsn: 24576n,
      toLsn: 28672n,
      commitBefore: commitMicros(24576n),
      commitAfter: commitMicros(28736n),
      recorded: null,
    },
  ])
})

test('a window tells how much of its WAL was acknowledged synchronously', async (t) => {
  const { repository, stateDirectory } = await makeHistory(t)
  const branch = await makeBranch(repository, 1, '')
  await storeNumber(repository, branch, 0n)
  await store(repository, branch, { from: 0n, to: 4096n - 64n }, true)
  await backUp(repository, branch, { start: 0n, stop: 128n, sequence: 1 })
  const share = async () =>
    (await readWindows({ repository, component: COMPONENT, stateDirectory, signal })).windows[0]?.synchronous
  assert.equal(await share(), 'part')
  await store(repository, branch, { from: 4000n, to: 4096n }, true)
  assert.equal(await share(), 'all')
  await storeNumber(repository, branch, 1n)
  assert.equal(await share(), 'part')
})

test('the notes are read once: what is known locally is not asked for again, and a damaged cache only costs time', async (t) => {
  const history = await makeHistory(t)
  const branch = await makeBranch(history.repository, 1, '')
  for (let number = 0n; number < 20n; number += 1n) await storeNumber(history.repository, branch, number)
  await backUp(history.repository, branch, { start: 0n, stop: 128n, sequence: 1 })
  const { stateDirectory } = history
  const look = async () => {
    let reads = 0
    const storage = new FaultyStorage(history.repository.storage, ({ operation }) => {
      if (operation === 'get') reads += 1
      return undefined
    })
    const repository = { ...history.repository, storage }
    const { windows } = await readWindows({ repository, component: COMPONENT, stateDirectory, signal })
    return { windows, reads }
  }
  const first = await look()
  const second = await look()
  assert.deepEqual(second.windows, first.windows)
  assert.equal(first.reads - second.reads, 20)
  await storeNumber(history.repository, branch, 20n)
  assert.equal((await look()).reads, second.reads + 1)
  const [name] = await readdir(join(stateDirectory, 'notes'))
  await appendFile(join(stateDirectory, 'notes', name!), 'x')
  assert.equal((await look()).windows[0]?.toLsn, 21n * 4096n)
  await writeFile(join(stateDirectory, 'notes', name!), 'no cache at all')
  assert.equal((await look()).reads, second.reads + 21)
  assert.equal((await look()).reads, second.reads)
  assert.deepEqual(await readdir(join(stateDirectory, 'notes')), [name])
  await rm(join(stateDirectory, 'notes'), { recursive: true })
  await writeFile(join(stateDirectory, 'notes'), 'where the directory should be')
  assert.equal((await look()).reads, second.reads + 21)
})

async function storeNumber(repository: Repository, branch: Branch, number: bigint): Promise<void> {
  await store(repository, branch, { from: number * 4096n, to: (number + 1n) * 4096n })
}
