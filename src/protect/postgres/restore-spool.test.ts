import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import test from 'node:test'
import {
  branchOf,
  lsnRange,
  openSpool,
  SEGMENT,
  spooledWal,
  spoolFiles,
  spoolWal,
  START,
  storedWal,
  type SpooledWal,
} from '../../../test/services/spooled-wal.ts'
import { systemClock } from '../../clock.ts'
import { segmentAt } from '../../postgres/wal-segment.ts'
import { putWal, walKey } from '../../repository/wal-archive.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import { MemoryStorage } from '../../storage/memory-storage.ts'
import { drainSpool } from './drain.ts'
import { publishSpool } from './restore-spool.ts'
import { WalDigest } from './wal-digest.ts'

const SEGMENT_16 = '000000010000000000000010'

/** Another writer stores other bytes as segment 16 in the moment in which ours is put. */
async function overtake(all: SpooledWal): Promise<void> {
  const other = await sealedSegment(all, all.branch, randomBytes(SEGMENT))
  let overtaken: Promise<void> | undefined
  all.faults = ({ operation, key }) => {
    if (operation === 'put' && key.endsWith(SEGMENT_16)) overtaken ??= all.inner.put(key, other)
    return undefined
  }
}

async function sealedSegment({ repository }: SpooledWal, branch: Branch, bytes: Buffer): Promise<Buffer> {
  const storage = new MemoryStorage()
  const digest = new WalDigest(branch, START)
  digest.feed(bytes)
  const note = { ...digest.takeSegment(), acknowledged: null, source: 'stream' as const, synchronous: false }
  await putWal({ ...repository, storage }, branch, { note, body: [bytes] })
  const key = walKey(branch, { segment: segmentAt(START, 1, SEGMENT), from: 0, to: SEGMENT })
  return await storage.getRange(key, { offset: 0, length: 2 * SEGMENT })
}

/** Two timelines in the spool: of the first a whole segment and a piece, of the second a piece. */
async function twoTimelines(all: SpooledWal): Promise<Branch> {
  const second = await branchOf(all.repository, 2)
  const spool = await openSpool(all)
  await spoolWal(all, spool, { from: 0, to: SEGMENT + 300_000 })
  await spoolWal(all, spool, { from: SEGMENT, to: SEGMENT + 200_000, branch: second })
  return second
}

test('a conflict keeps back neither what follows it nor other timelines, and its file stays', async (t) => {
  const all = await spooledWal(t)
  const second = await twoTimelines(all)
  await overtake(all)
  const drain = { repository: all.repository, spoolDirectory: all.directory, component: 'db' }
  const { refused } = await drainSpool(drain)
  assert.deepEqual(
    refused.map(({ branch, from, to, failure }) => ({ branch, from, to, code: failure.code })),
    [{ branch: all.branch, ...lsnRange(0, SEGMENT), code: 'WAL_CONFLICT' }],
  )
  assert.deepEqual(await storedWal(all, all.branch), [lsnRange(0, SEGMENT), lsnRange(SEGMENT, SEGMENT + 300_000)])
  assert.deepEqual(await storedWal(all, second), [lsnRange(SEGMENT, SEGMENT + 200_000)])
  const spool = await openSpool(all)
  await spool.deleteEarlier(refused)
  const [kept, ...others] = await spoolFiles(all)
  assert.match(kept!, /0000000001000000/)
  assert.deepEqual(others, [])
})

for (const [what, harm, code] of [
  ['other bytes are stored', overtake, /WAL_CONFLICT/],
  [
    'the repository is full',
    async (all: SpooledWal) => {
      all.faults = ({ operation }) => (operation === 'put' ? 'full' : undefined)
    },
    /STORAGE_FULL/,
  ],
] as const) {
  test(`a restore goes on without acknowledged WAL only when it is told to: ${what}`, async (t) => {
    const all = await spooledWal(t)
    const stateDirectory = join(all.directory, '..')
    all.directory = join(stateDirectory, 'spool', 'db', 'stream')
    await twoTimelines(all)
    const notices: string[] = []
    const options = {
      repository: all.repository,
      component: 'db',
      stateDirectory,
      clock: systemClock,
      signal: new AbortController().signal,
      onNotice: (text: string) => void notices.push(text),
    }
    await harm(all)
    await assert.rejects(publishSpool(options), { code: 'SPOOL_UNPUBLISHED', message: code })
    assert.deepEqual(notices, [])
    if (what === 'the repository is full') {
      await publishSpool({ ...options, withoutSpool: true })
      assert.match(notices.join(), code)
      all.faults = () => undefined
      await publishSpool(options)
      assert.equal((await storedWal(all, all.branch)).length, 2)
    }
  })
}
