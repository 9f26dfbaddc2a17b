import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { open, readFile, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import pg from 'pg'
import { skipUnlessInstalled, testCluster, type TestCluster } from '../../test/services/postgres.ts'
import { toolPath } from './installation.ts'
import { formatLsn, parseLsn, type Lsn } from './lsn.ts'
import { WalDecoder, type WalDecoderOptions } from './wal-decoder.ts'
import { WAL_PAGE_BYTES, type WalFact } from './wal-record.ts'
import { parseSegmentName, segmentAt, segmentName, segmentStart } from './wal-segment.ts'
import { RESTORE_POINTS_MAX } from './wal-summary.ts'

const MEGABYTE = 1 << 20

interface Fact {
  readonly fact: WalFact
  readonly lsn: Lsn
  readonly endLsn: Lsn
}

interface Stretch {
  readonly startLsn: Lsn
  readonly bytes: Buffer
}

/** A generator of numbers that a seed repeats; the seed is in the test's output. */
function seeded(t: TestContext): (below: number) => number {
  let state = randomInt(2 ** 32)
  t.diagnostic(`seed ${state}`)
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

async function withClient<T>(cluster: TestCluster, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: cluster.connectionString })
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}

async function lsnOf(client: pg.Client, sql: string): Promise<Lsn> {
  const { rows } = await client.query<{ lsn: string }>(`SELECT (${sql})::text AS lsn`)
  return parseLsn(rows[0]!.lsn)
}

/** WAL of every kind that the decoder has to understand or to pass over; gives the restore points that were made. */
async function writeWal(client: pg.Client): Promise<readonly { name: string; lsn: Lsn }[]> {
  const points: { name: string; lsn: Lsn }[] = []
  await client.query('CREATE TABLE visit (id bigserial PRIMARY KEY, note text, extra text)')
  for (let round = 0; round < 6; round++) {
    await client.query("INSERT INTO visit (note, extra) SELECT md5(i::text), repeat('x', i % 900) FROM generate_series(1, 700) i")
    for (let i = 0; i < 40; i++) await client.query("INSERT INTO visit (note) VALUES ('one by one')")
    await client.query('BEGIN; SAVEPOINT a; UPDATE visit SET note = note || note WHERE id % 17 = 0; ROLLBACK TO a; SAVEPOINT b')
    await client.query("INSERT INTO visit (note) VALUES ('kept'); RELEASE b; COMMIT")
    await client.query("BEGIN; INSERT INTO visit (note) VALUES ('taken back'); ROLLBACK")
    await client.query(`BEGIN; CREATE TABLE prepared${round} (id int); DROP TABLE IF EXISTS prepared${(round + 5) % 6}`)
    for (let i = 0; i < 300; i++) await client.query(`SAVEPOINT s${i}; INSERT INTO prepared${round} VALUES (${i})`)
    await client.query(`PREPARE TRANSACTION 'p${round}'`)
    await client.query("SELECT pg_logical_emit_message(false, 'between', repeat('y', 30000))")
    await client.query(`${round % 3 === 2 ? 'ROLLBACK' : 'COMMIT'} PREPARED 'p${round}'`)
    const name = `after round ${round} é`
    points.push({ name, lsn: await lsnOf(client, `pg_create_restore_point('${name}')`) })
    await client.query('SELECT pg_switch_wal()')
    // Longer than two small segments.
    await client.query("SELECT pg_logical_emit_message(false, 'long', repeat('z', 2500000))")
    if (round === 2) await client.query('CHECKPOINT')
    if (round === 3) await client.query('VACUUM visit')
  }
  return points
}

/** The WAL files of the cluster from `from` to `to`, as one piece. */
async function readWal(cluster: TestCluster, options: { sizeBytes: number; from?: Lsn; to: Lsn }): Promise<Stretch> {
  const { sizeBytes, to } = options
  const directory = join(cluster.directory, 'pg_wal')
  const names = (await readdir(directory)).filter((name) => parseSegmentName(name, sizeBytes) !== undefined).sort()
  const startLsn = options.from ?? segmentStart(parseSegmentName(names[0]!, sizeBytes)!)
  const pieces: Buffer[] = []
  for (let lsn = startLsn; lsn < to;) {
    const segment = segmentAt(lsn, 1, sizeBytes)
    const bytes = await readFile(join(directory, segmentName(segment)))
    const end = segmentStart(segment) + BigInt(sizeBytes)
    pieces.push(bytes.subarray(Number(lsn - segmentStart(segment)), to < end ? Number(to - segmentStart(segment)) : sizeBytes))
    lsn = end
  }
  return { startLsn, bytes: Buffer.concat(pieces) }
}

function decode(stretch: Stretch, options: Omit<WalDecoderOptions, 'startLsn' | 'onFact'>, pieceBytes: () => number) {
  const facts: Fact[] = []
  const decoder = new WalDecoder({
    ...options,
    startLsn: stretch.startLsn,
    onFact: (fact, lsn, endLsn) => facts.push({ fact, lsn, endLsn }),
  })
  for (let at = 0; at < stretch.bytes.length;) {
    const piece = stretch.bytes.subarray(at, at + Math.max(1, pieceBytes()))
    decoder.feed(stretch.startLsn + BigInt(at), piece)
    at += piece.length
  }
  return { decoder, facts, summary: decoder.takeSummary() }
}

const whole = () => Number.MAX_SAFE_INTEGER

/** Microseconds since 2000 of PostgreSQL's text form. */
function parseMicros(text: string): bigint {
  const match = /^(\d+-\d+-\d+) (\d+:\d+:\d+)(?:\.(\d+))?(?: UTC|\+00)/.exec(text)
  assert(match !== null, text)
  const ms = Date.parse(`${match[1]}T${match[2]}Z`) - Date.UTC(2000, 0, 1)
  return BigInt(ms) * 1000n + BigInt((match[3] ?? '').padEnd(6, '0'))
}

interface Inspected {
  readonly start: string
  readonly end: string
  readonly xid: string
  readonly manager: string
  readonly type: string
  readonly description: string
}

/** What PostgreSQL itself reads in its WAL. */
async function inspect(client: pg.Client, from: Lsn, to: Lsn): Promise<readonly Inspected[]> {
  const { rows } = await client.query<Inspected>(
    `SELECT start_lsn::text AS start, end_lsn::text AS "end", xid::text, resource_manager AS manager, record_type AS type, description
     FROM pg_get_wal_records_info($1, $2) ORDER BY start_lsn`,
    [formatLsn(from), formatLsn(to)],
  )
  return rows
}

/** A transaction's end in the words of the decoder. */
function inspectedEnd({ start, end, xid, type, description }: Inspected) {
  const prepared = type.endsWith('_PREPARED')
  const [, id, time] = /^(?:(\d+): )?(.*)$/s.exec(description)!
  const kind = type.startsWith('COMMIT') ? ('commit' as const) : ('abort' as const)
  const fact: WalFact = { kind, xid: Number(prepared ? id : xid), timeMicros: parseMicros(time!), prepared }
  return { fact, lsn: parseLsn(start), endLsn: parseLsn(end) }
}

const isEnd = ({ fact }: Fact) => fact.kind === 'commit' || fact.kind === 'abort'

for (const [major, megabytes] of [
  [15, 1],
  [15, 16],
  [18, 1],
  [18, 16],
] as const) {
  const skip = await skipUnlessInstalled(major)
  const name = `what is read from WAL of PostgreSQL ${major} in ${megabytes} MiB segments is what PostgreSQL reads, from anywhere, in any pieces`
  test(name, { skip }, async (t) => {
    const random = seeded(t)
    const sizeBytes = megabytes * MEGABYTE
    const settings = { max_prepared_transactions: '5', wal_keep_size: '1GB', timezone: 'UTC', autovacuum: 'off' }
    const cluster = await testCluster(t, { major, walSegmentMegabytes: megabytes, settings })
    await withClient(cluster, async (client) => {
      await client.query('CREATE EXTENSION pg_walinspect')
      const points = await writeWal(client)
      const to = await lsnOf(client, 'pg_current_wal_flush_lsn()')
      const stretch = await readWal(cluster, { sizeBytes, to })
      const { decoder, facts, summary } = decode(stretch, { segmentSizeBytes: sizeBytes, checkCrc: true, timeline: 1 }, whole)
      assert.equal(decoder.ended, undefined)
      assert.equal(decoder.position, to)
      assert.equal(decoder.page?.major, major)

      const records = await inspect(client, summary.firstRecord!, to)
      assert.equal(summary.records, records.length)
      assert.equal(formatLsn(summary.firstRecord!), records[0]!.start)
      assert.equal(formatLsn(summary.lastRecordEnd!), records.at(-1)!.end)
      assert.equal(decoder.recordEnd, summary.lastRecordEnd)
      const ends = records
        .filter(({ manager, type }) => manager === 'Transaction' && /^(COMMIT|ABORT)/.test(type))
        .map(inspectedEnd)
      assert.deepEqual(facts.filter(isEnd), ends)
      assert.equal(summary.commits, ends.filter(({ fact }) => fact.kind === 'commit').length)
      assert.equal(summary.aborts, ends.filter(({ fact }) => fact.kind === 'abort').length)
      assert(ends.some(({ fact }) => fact.kind === 'abort' && fact.prepared))
      const times = ends.map(({ fact }) => ('timeMicros' in fact ? fact.timeMicros : 0n)).sort((a, b) => Number(a - b))
      assert.equal(summary.leastCommit, times[0])
      assert.equal(summary.greatestCommit, times.at(-1))
      assert.equal(summary.greatestCommitMs, Math.floor(Number(times.at(-1)) / 1000) + Date.UTC(2000, 0, 1))
      const xids = ends.map(({ fact }) => ('xid' in fact ? (fact.xid ?? 0) : 0)).filter((xid) => xid >= 3)
      assert.equal(summary.leastXid, Math.min(...xids))
      assert.equal(summary.greatestXid, Math.max(...xids))
      assert.deepEqual(
        summary.restorePoints.map((point) => ({ name: point.name, lsn: point.lsn })),
        points,
      )
      const count = (kind: WalFact['kind']) => facts.filter(({ fact }) => fact.kind === kind).length
      const countRecords = (pattern: RegExp) => records.filter(({ manager, type }) => pattern.test(`${manager} ${type}`)).length
      assert.equal(count('prepare'), 6)
      assert.equal(count('switch'), countRecords(/^XLOG SWITCH/))
      assert.equal(count('checkpoint'), countRecords(/^XLOG CHECKPOINT_(ONLINE|SHUTDOWN)/))

      for (const most of megabytes === 1 ? [3, 40, 9000, 70_000, MEGABYTE] : [9000, 3 * MEGABYTE]) {
        const inPieces = decode(stretch, { segmentSizeBytes: sizeBytes, checkCrc: most % 2 === 0 }, () => random(most))
        assert.deepEqual(inPieces.summary, summary, `pieces of up to ${most} bytes`)
        assert.deepEqual(inPieces.facts, facts)
      }
      for (let round = 0; round < (megabytes === 1 ? 40 : 10); round++) {
        const skipped = random(stretch.bytes.length)
        const startLsn = stretch.startLsn + BigInt(skipped)
        const part = { startLsn, bytes: stretch.bytes.subarray(skipped) }
        const found = decode(part, { segmentSizeBytes: sizeBytes, checkCrc: true }, () => random(100_000))
        const nextPage = ((startLsn + BigInt(WAL_PAGE_BYTES - 1)) / BigInt(WAL_PAGE_BYTES)) * BigInt(WAL_PAGE_BYTES)
        const expected = records.filter(({ start }) => parseLsn(start) >= nextPage)
        assert.equal(found.summary.records, expected.length, `from ${formatLsn(startLsn)}`)
        if (expected.length > 0) assert.equal(formatLsn(found.summary.firstRecord!), expected[0]!.start)
        assert.equal(found.decoder.ended, undefined)
      }
      for (let round = 0; round < 20; round++) {
        const record = records[random(records.length)]!
        const startLsn = parseLsn(record.start)
        const part = { startLsn, bytes: stretch.bytes.subarray(Number(startLsn - stretch.startLsn)) }
        if (startLsn % BigInt(WAL_PAGE_BYTES) < 24n) continue
        const options = { segmentSizeBytes: sizeBytes, checkCrc: true, startsAtRecord: true, major }
        assert.equal(formatLsn(decode(part, options, () => random(100_000)).summary.firstRecord!), record.start)
      }
    })
  })
}

const skip15 = await skipUnlessInstalled(15)

test('commits, times, transaction ids and the end of the WAL are those that pg_waldump prints', { skip: skip15 }, async (t) => {
  const settings = { max_prepared_transactions: '5', wal_keep_size: '1GB' }
  const cluster = await testCluster(t, { major: 15, walSegmentMegabytes: 1, settings })
  const program = toolPath(cluster.installation, 'pg_waldump')
  if (program === undefined) {
    t.skip('pg_waldump is not installed')
    return
  }
  await withClient(cluster, async (client) => {
    await writeWal(client)
    // Its commit is flushed; the message before it need not have been.
    await client.query('CREATE TABLE last (id int)')
  })
  await cluster.kill()
  const directory = join(cluster.directory, 'pg_wal')
  const names = (await readdir(directory)).filter((name) => parseSegmentName(name, MEGABYTE) !== undefined).sort()
  // It ends with an error at the end of the WAL, which is what is wanted here.
  const [stdout, stderr] = await new Promise<[string, string]>((resolve) => {
    const env = { ...process.env, LC_ALL: 'C', TZ: 'UTC' }
    execFile(program, ['-p', directory, names[0]!, names.at(-1)!], { env, maxBuffer: 1 << 28 }, (_error, out, err) =>
      resolve([out, err]),
    )
  })
  const lines = stdout.split('\n').filter((line) => line.startsWith('rmgr:'))
  const stretch = {
    startLsn: segmentStart(parseSegmentName(names[0]!, MEGABYTE)!),
    bytes: Buffer.concat(await Promise.all(names.map((name) => readFile(join(directory, name))))),
  }
  const { decoder, facts, summary } = decode(stretch, { segmentSizeBytes: MEGABYTE, checkCrc: true }, whole)
  assert.equal(summary.records, lines.length)
  const lsnIn = (line: string) => formatLsn(parseLsn(/lsn: ([0-9A-F/]+)/.exec(line)![1]!))
  assert.equal(formatLsn(summary.firstRecord!), lsnIn(lines[0]!))
  const ends = lines.flatMap((line) => {
    const match = /tx: +(\d+), .*desc: (COMMIT|ABORT)(_PREPARED (\d+):)? (\S+ \S+ UTC)/.exec(line)
    return match === null ? [] : [`${match[2]} ${match[4] ?? match[1]} ${parseMicros(match[5]!)}`]
  })
  assert(ends.length > 250)
  assert.deepEqual(
    facts.filter(isEnd).map(({ fact }) => ('xid' in fact ? `${fact.kind.toUpperCase()} ${fact.xid} ${fact.timeMicros}` : '')),
    ends,
  )
  assert(decoder.ended !== undefined, stderr)
  // It prints the lower half with eight digits where it says which record it was, and without zeros where it says what it found.
  assert(stderr.includes(`at ${formatLsn(decoder.ended.lsn)}`), `${formatLsn(decoder.ended.lsn)} is in: ${stderr}`)
  assert.equal(decoder.ended.lsn, summary.lastRecordEnd)
})

for (const major of [15, 18]) {
  test(
    `a record that PostgreSQL ${major} never finished is passed over`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      const settings = { wal_keep_size: '1GB', autovacuum: 'off', checkpoint_timeout: '1h' }
      const cluster = await testCluster(t, { major, walSegmentMegabytes: 1, settings })
      const end = await withClient(cluster, async (client) => {
        // A message of a transaction is flushed with its commit, so that the end is where the record's own segment is.
        await client.query("SELECT pg_switch_wal(); SELECT pg_logical_emit_message(true, 'x', repeat('y', 1500000))")
        return lsnOf(client, 'pg_current_wal_flush_lsn()')
      })
      await cluster.kill()
      // The crash took the segment in which the record ends.
      const lost = segmentAt(end, 1, MEGABYTE)
      const middle = segmentStart(lost)
      await rm(join(cluster.directory, 'pg_wal', segmentName(lost)))
      await cluster.start()
      const to = await withClient(cluster, async (client) => {
        await client.query('CREATE TABLE afterwards (id int)')
        return lsnOf(client, 'pg_current_wal_flush_lsn()')
      })
      const stretch = await readWal(cluster, { sizeBytes: MEGABYTE, to })
      let abandoned = 0
      for (let at = 0; at < stretch.bytes.length; at += WAL_PAGE_BYTES) abandoned += (stretch.bytes[at + 2]! & 8) >>> 3
      assert.equal(abandoned, 1, 'PostgreSQL wrote an overwritten continuation')
      for (const pieceBytes of [whole, () => 777]) {
        const { decoder, summary, facts } = decode(stretch, { segmentSizeBytes: MEGABYTE, checkCrc: true }, pieceBytes)
        assert.equal(decoder.ended, undefined)
        assert.equal(summary.lastRecordEnd, to)
        assert(facts.some(({ fact, lsn }) => fact.kind === 'commit' && lsn > middle))
      }
    },
  )
}

test(
  'after the last record zeros, garbage, an older segment and another cluster all end the reading',
  { skip: skip15 },
  async (t) => {
    const random = seeded(t)
    const cluster = await testCluster(t, {
      major: 15,
      walSegmentMegabytes: 1,
      settings: { wal_keep_size: '1GB', autovacuum: 'off' },
    })
    const to = await withClient(cluster, async (client) => {
      await client.query("CREATE TABLE line (t text); INSERT INTO line SELECT repeat('x', 500) FROM generate_series(1, 6000)")
      return lsnOf(client, 'pg_current_wal_flush_lsn()')
    })
    const stretch = await readWal(cluster, { sizeBytes: MEGABYTE, to })
    const options = { segmentSizeBytes: MEGABYTE, checkCrc: true }
    const good = decode(stretch, options, whole).summary
    const withTail = (tail: Buffer) => ({ startLsn: stretch.startLsn, bytes: Buffer.concat([stretch.bytes, tail]) })

    const zeros = decode(withTail(Buffer.alloc(300_000)), options, () => random(50_000))
    assert.deepEqual(zeros.decoder.ended, { lsn: to, reason: 'unwritten' })
    assert.deepEqual(zeros.summary, good)

    const noise = Buffer.from(Array.from({ length: 300_000 }, () => random(256)))
    const garbage = decode(withTail(noise), options, () => random(50_000))
    assert.notEqual(garbage.decoder.ended, undefined)
    assert.deepEqual(garbage.summary, good)

    // A recycled file: pages and records of the segment before, at the place of the next.
    const boundary = (Number(to - stretch.startLsn) >> 20) << 20
    const recycled = { startLsn: stretch.startLsn, bytes: Buffer.from(stretch.bytes.subarray(0, boundary)) }
    const old = Buffer.concat([recycled.bytes, stretch.bytes.subarray(0, MEGABYTE)])
    const again = decode({ ...recycled, bytes: old }, options, () => random(50_000))
    assert.equal(again.decoder.ended?.reason, 'page')
    assert.deepEqual(again.summary, decode(recycled, options, whole).summary)

    const other = decode(stretch, { ...options, systemIdentifier: 1n }, whole)
    assert.deepEqual(other.decoder.ended, { lsn: stretch.startLsn, reason: 'page' })
    assert.equal(other.summary.firstRecord, null)
    assert.equal(decode(stretch, { ...options, timeline: 0 }, whole).decoder.ended?.reason, 'page')
    assert.equal(decode(stretch, { segmentSizeBytes: 2 * MEGABYTE }, whole).decoder.ended?.reason, 'page')
  },
)

test('a flipped bit ends the reading before it when CRCs are checked', { skip: skip15 }, async (t) => {
  const random = seeded(t)
  const cluster = await testCluster(t, {
    major: 15,
    walSegmentMegabytes: 1,
    settings: { wal_keep_size: '1GB', autovacuum: 'off' },
  })
  const to = await withClient(cluster, async (client) => {
    await client.query("CREATE TABLE line (t text); INSERT INTO line SELECT repeat('x', 500) FROM generate_series(1, 3000)")
    return lsnOf(client, 'pg_current_wal_flush_lsn()')
  })
  const stretch = await readWal(cluster, { sizeBytes: MEGABYTE, to })
  const { systemIdentifier } = decode(stretch, { segmentSizeBytes: MEGABYTE }, whole).decoder
  const options = { segmentSizeBytes: MEGABYTE, checkCrc: true, timeline: 1, systemIdentifier: systemIdentifier! }
  let found = 0
  for (let round = 0; round < 200; round++) {
    const bytes = Buffer.from(stretch.bytes)
    const at = random(bytes.length)
    bytes[at]! ^= 1 << random(8)
    const { decoder, summary } = decode({ startLsn: stretch.startLsn, bytes }, options, whole)
    // Padding between records and the unused bytes of headers belong to no record.
    if (decoder.ended === undefined) continue
    found++
    assert(decoder.ended.lsn <= stretch.startLsn + BigInt(at), `flipped at ${at}, ended at ${formatLsn(decoder.ended.lsn)}`)
    assert(summary.lastRecordEnd === null || summary.lastRecordEnd <= stretch.startLsn + BigInt(at))
  }
  assert(found > 150, `${found} of 200 found`)
})

test(
  'each summary has what came since the one before, and restore points without end are bounded',
  { skip: skip15 },
  async (t) => {
    const cluster = await testCluster(t, {
      major: 15,
      walSegmentMegabytes: 1,
      settings: { wal_keep_size: '1GB', autovacuum: 'off' },
    })
    const [from, to] = await withClient(cluster, async (client) => {
      const begin = await lsnOf(client, 'pg_switch_wal()')
      await client.query(`SELECT count(pg_create_restore_point('p' || i)) FROM generate_series(1, ${RESTORE_POINTS_MAX + 5}) i`)
      return [segmentStart(segmentAt(begin + BigInt(MEGABYTE), 1, MEGABYTE)), await lsnOf(client, 'pg_current_wal_insert_lsn()')]
    })
    await cluster.stop()
    const stretch = await readWal(cluster, { sizeBytes: MEGABYTE, from, to })
    const all = decode(stretch, { segmentSizeBytes: MEGABYTE }, whole).summary
    assert.equal(all.restorePoints.length, RESTORE_POINTS_MAX)
    assert.equal(all.overflow, true)
    assert.deepEqual([all.commits, all.leastCommit, all.greatestCommitMs, all.leastXid], [0, null, null, null])

    const decoder = new WalDecoder({ startLsn: from, segmentSizeBytes: MEGABYTE })
    const half = stretch.bytes.length >> 1
    decoder.feed(from, stretch.bytes.subarray(0, half))
    const first = decoder.takeSummary()
    assert.equal(decoder.takeSummary().records, 0)
    decoder.feed(from + BigInt(half), stretch.bytes.subarray(half))
    const second = decoder.takeSummary()
    assert.equal(first.records + second.records, all.records)
    assert.equal(first.overflow || second.overflow, false)
    assert.equal(first.lastRecordEnd, second.firstRecord)
    assert.equal(second.restorePoints.at(-1)?.name, `p${RESTORE_POINTS_MAX + 5}`)
    assert.throws(() => decoder.feed(from, stretch.bytes), /without a gap/)
  },
)

test('the WAL of a running server can be read to its last flushed record while it is written', { skip: skip15 }, async (t) => {
  const cluster = await testCluster(t, { major: 15, settings: { wal_keep_size: '1GB' } })
  await withClient(cluster, async (client) => {
    const sizeBytes = 16 * MEGABYTE
    let position = segmentStart(segmentAt(await lsnOf(client, 'pg_current_wal_flush_lsn()'), 1, sizeBytes))
    const decoder = new WalDecoder({ startLsn: position, segmentSizeBytes: sizeBytes, timeline: 1, checkCrc: true })
    await client.query('CREATE TABLE live (id int)')
    for (let round = 0; round < 20; round++) {
      await client.query('INSERT INTO live VALUES (1)')
      const to = await lsnOf(client, 'pg_current_wal_flush_lsn()')
      const file = await open(join(cluster.directory, 'pg_wal', segmentName(segmentAt(position, 1, sizeBytes))))
      const length = Number(to - position)
      const { buffer } = await file.read(Buffer.alloc(length), 0, length, Number(position % BigInt(sizeBytes)))
      await file.close()
      decoder.feed(position, buffer)
      position = to
      assert.equal(decoder.recordEnd, to)
      assert(decoder.takeSummary().commits >= 1)
    }
    assert.equal(decoder.ended, undefined)
  })
})
