import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { WalDecoder } from '../../src/postgres/wal-decoder.ts'
import { xidPrecedes } from '../../src/postgres/wal-summary.ts'
import { segmentAt, segmentName, segmentStart } from '../../src/postgres/wal-segment.ts'
import { WalDigest } from '../../src/protect/postgres/wal-digest.ts'
import { greatestCommitBefore, lastRecordStart, recordBeginsFrom, searchWal } from '../../src/protect/postgres/wal-search.ts'
import type { Stretch } from '../../src/protect/postgres/wal-stretch.ts'
import type { WalPart } from '../../src/protect/postgres/wal-supply.ts'
import type { Branch } from '../../src/repository/wal-branch.ts'
import { skipUnlessInstalled, testCluster } from '../services/postgres.ts'
import { connect, flushLsn } from '../services/stream.ts'

const TRANSACTIONS = 1500
/** What does not compress, of many lengths, so that records lie over the ends of segments. */
const SCHEMA = `
  create table notes (id int, text text);
  create procedure write_notes() language plpgsql as $$
  begin
    for i in 1 .. ${TRANSACTIONS} loop
      insert into notes select i, string_agg(md5(i || ' ' || j), '') from generate_series(1, 10 + i % 150) j;
      commit;
    end loop;
  end $$`

interface Commit {
  readonly xid: number
  readonly lsn: bigint
  readonly endLsn: bigint
  readonly timeMicros: bigint
}

for (const major of [18, 15]) {
  test(
    `PostgreSQL ${major}: every transaction is found, also in segments of which each was noted by itself`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      const { stretch, commits, lastStart } = await writtenWal(t, major)
      assert.ok(commits.length >= TRANSACTIONS && stretch.parts.length > 3)
      // A commit whose record ends in another segment than it begins in: the note of neither tells of it.
      const { segmentSize } = stretch.branch.head
      const over = commits.filter(({ lsn, endLsn }) => lsn / BigInt(segmentSize) !== (endLsn - 1n) / BigInt(segmentSize))
      t.diagnostic(`${commits.length} commits in ${stretch.parts.length} segments, ${over.length} over a segment's end`)
      const sample = commits.filter((_, index) => index % 97 === 0)
      for (const commit of new Set([...sample, ...over, commits[0]!, commits.at(-1)!])) {
        const found = await findTransaction(stretch, commit.xid)
        assert.deepEqual(found, { lsn: commit.lsn, endLsn: commit.endLsn }, `transaction ${commit.xid}`)
        const before = commits.filter(({ endLsn }) => endLsn <= commit.lsn)
        const greatest = before
          .map(({ timeMicros }) => timeMicros)
          .toSorted((a, b) => (a < b ? -1 : 1))
          .at(-1)
        if (before.length > 0) assert.equal(await greatestCommitBefore([stretch], commit.lsn), greatest)
      }
      assert.equal(await findTransaction(stretch, commits.at(-1)!.xid + 1000), undefined)
      assert.equal(await lastRecordStart([stretch]), lastStart)
      assert.equal(await recordBeginsFrom([stretch], lastStart), true)
      assert.equal(await recordBeginsFrom([stretch], lastStart + 1n), false)
      assert.equal(await recordBeginsFrom([stretch], stretch.from), true)
    },
  )
}

async function findTransaction(stretch: Stretch, xid: number): Promise<{ lsn: bigint; endLsn: bigint } | undefined> {
  const records = searchWal([stretch], {
    mayHold: ({ leastXid, greatestXid }) =>
      leastXid !== null && greatestXid !== null && !xidPrecedes(xid, leastXid) && !xidPrecedes(greatestXid, xid),
    matches: (fact) => fact.kind === 'commit' && fact.xid === xid,
  })
  for await (const { lsn, endLsn } of records) return { lsn, endLsn }
  return undefined
}

/** Segments of a server with their notes, each made by itself, and what they hold, read in one go. */
async function writtenWal(t: TestContext, major: number) {
  const cluster = await testCluster(t, { major, walSegmentMegabytes: 1, settings: { autovacuum: 'off', max_wal_size: '1GB' } })
  const client = await connect(t, cluster.connectionString)
  await client.query(SCHEMA)
  await client.query('select pg_switch_wal()')
  const begin = await flushLsn(client)
  await client.query('call write_notes()')
  const end = await flushLsn(client)
  const segmentSize = 1024 * 1024
  const head = { timeline: 1, history: '', ordinal: 0, systemIdentifier: '1', major, segmentSize, firstLsn: 0n, createdAt: '' }
  const branch: Branch = { path: { component: 'c', incarnation: 'i', branch: 'b' }, head }
  const from = segmentStart(segmentAt(begin, 1, segmentSize))
  const commits: Commit[] = []
  const decoder = new WalDecoder({
    startLsn: from,
    segmentSizeBytes: segmentSize,
    onFact: (fact, lsn, endLsn) => {
      if (fact.kind === 'commit') commits.push({ xid: fact.xid!, lsn, endLsn, timeMicros: fact.timeMicros })
    },
  })
  const parts: WalPart[] = []
  for (let at = from; at < end; at += BigInt(segmentSize)) {
    const whole = await readFile(join(cluster.directory, 'pg_wal', segmentName(segmentAt(at, 1, segmentSize))))
    const bytes = whole.subarray(0, Number(end - at < BigInt(segmentSize) ? end - at : BigInt(segmentSize)))
    decoder.feed(at, bytes)
    parts.push(partOf(branch, at, bytes))
  }
  const stretch: Stretch = { branch, from, to: end, parts }
  return { stretch, commits, lastStart: decoder.recordStart! }
}

function partOf(branch: Branch, startLsn: bigint, bytes: Buffer): WalPart {
  const digest = new WalDigest(branch, startLsn)
  digest.feed(bytes)
  const note = { ...digest.takePiece(), acknowledged: null }
  const read = async function* () {
    // In pieces that no record keeps to.
    for (let at = 0; at < bytes.length; at += 10_007) yield bytes.subarray(at, at + 10_007)
  }
  return { startLsn, endLsn: startLsn + BigInt(bytes.length), note: async () => note, read }
}
