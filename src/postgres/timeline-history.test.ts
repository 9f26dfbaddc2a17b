import assert from 'node:assert/strict'
import { readFile, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import pg from 'pg'
import { skipUnlessInstalled, testCluster } from '../../test/services/postgres.ts'
import { waitUntil } from '../../test/services/wait-until.ts'
import { parseLsn } from './lsn.ts'
import { formatTimelineHistory, historyFileName, parseHistoryFileName, parseTimelineHistory } from './timeline-history.ts'

test('names of history files are read and written', () => {
  assert.equal(historyFileName(2), '00000002.history')
  assert.equal(historyFileName(0xabcdef12), 'ABCDEF12.history')
  assert.equal(parseHistoryFileName('ABCDEF12.history'), 0xabcdef12)
  for (const name of ['00000001.history', '2.history', '0000000g.history', '00000002.history.tmp', 'abcdef12.history', '']) {
    assert.equal(parseHistoryFileName(name), undefined, name)
  }
  assert.throws(() => historyFileName(1), /has a history/)
})

test('comments, empty lines, spaces and reasons of several words are read', () => {
  const text =
    '# a comment\n\n1\t0/3000A28\tno recovery target specified\r\n  2  16/B374D848  before 2026-01-01 00:00:00+00\n\n7\t16/B374D848\n'
  assert.deepEqual(parseTimelineHistory(9, text), [
    { timeline: 1, endLsn: 0x3000a28n, reason: 'no recovery target specified' },
    { timeline: 2, endLsn: 0x16b374d848n, reason: 'before 2026-01-01 00:00:00+00' },
    { timeline: 7, endLsn: 0x16b374d848n, reason: '' },
  ])
  assert.deepEqual(parseTimelineHistory(9, ''), [])
})

test('what is written is read back', () => {
  const branches = [
    { timeline: 1, endLsn: 0x3000a28n, reason: 'no recovery target specified' },
    { timeline: 3, endLsn: 0x16b374d848n, reason: 'at restore point "x"' },
  ]
  assert.deepEqual(parseTimelineHistory(4, formatTimelineHistory(branches)), branches)
})

test('a history that cannot be is WAL_INVALID', () => {
  for (const [text, message] of [
    ['1\tnowhere\tx\n', /line 1/],
    ['one\t0/1\tx\n', /line 1/],
    ['\n0\t0/1\tx\n', /line 2/],
    ['2\t0/1\tx\n1\t0/2\tx\n', /timeline 1 follows 2/],
    ['1\t0/2\tx\n2\t0/1\tx\n', /ends before it begins/],
    ['1\t0/2\tx\n5\t0/3\tx\n', /timeline 5 is no ancestor/],
  ] as const) {
    assert.throws(() => parseTimelineHistory(5, text), { code: 'WAL_INVALID', message }, text)
  }
})

test('the histories that promoted servers write are read', { skip: await skipUnlessInstalled(15) }, async (t) => {
  const cluster = await testCluster(t, { major: 15, walSegmentMegabytes: 1 })
  for (const timeline of [2, 3]) {
    await cluster.stop()
    await writeFile(join(cluster.directory, 'recovery.signal'), '')
    // Nothing to fetch: the server replays what it has and is promoted, a moment after it is ready.
    await cluster.start({ restore_command: 'false' })
    const client = new pg.Client({ connectionString: cluster.connectionString })
    await client.connect()
    const inRecovery = async () =>
      (await client.query<{ answer: boolean }>('SELECT pg_is_in_recovery() AS answer')).rows[0]!.answer
    await waitUntil('recovery ends', async () => !(await inRecovery()))
    const name = historyFileName(timeline)
    assert((await readdir(join(cluster.directory, 'pg_wal'))).includes(name))
    const text = await readFile(join(cluster.directory, 'pg_wal', name), 'utf8')
    const branches = parseTimelineHistory(timeline, text)
    assert.deepEqual(
      branches.map((branch) => branch.timeline),
      timeline === 2 ? [1] : [1, 2],
    )
    assert.equal(branches.at(-1)?.reason, 'no recovery target specified')
    assert.deepEqual(parseTimelineHistory(timeline, formatTimelineHistory(branches)), branches)
    const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn')
    await client.end()
    assert(branches.at(-1)!.endLsn < parseLsn(rows[0]!.lsn))
  }
})
