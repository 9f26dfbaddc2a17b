import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type pg from 'pg'
import { stopCluster } from '../postgres/cluster-process.ts'
import { PAGE_BYTES, PAGE_WORDS, verifyPage } from '../postgres/page-checksum.ts'
import { relationFile } from '../postgres/relation-file.ts'
import { countRows, fingerprintContent } from './hospital.ts'
import { startServer, useServer, type HospitalServer } from './hospital-server.ts'
import { PROBE_FEED } from './recovery.ts'
import type { AcknowledgedWrite } from './write-stream.ts'

/** Pages of a relation's segment file: 1 GiB of 8 KiB. */
const SEGMENT_PAGES = 131_072
const READ_PAGES = 128

/** One thing that was looked at in the restored hospital. */
export interface HospitalCheck {
  readonly name: string
  readonly passed: boolean
  readonly expected: string
  readonly found: string
}

/** What was known of the hospital when it opened, to compare with. */
export interface Baseline {
  readonly rows: Readonly<Record<string, number>>
  readonly fingerprint: string
}

export async function takeBaseline(client: pg.Client): Promise<Baseline> {
  return { rows: await countRows(client), fingerprint: await fingerprintContent(client) }
}

/**
 * Looks at everything that can be looked at in the restored hospital, in the order that proves a physical restore: acknowledged
 * writes, content, structure, and after a clean stop every page. The server runs again at the end.
 */
export async function checkHospital(
  server: HospitalServer,
  expected: { baseline: Baseline; acknowledged: readonly AcknowledgedWrite[] },
): Promise<{ checks: HospitalCheck[]; acknowledgedLost: number }> {
  const { checks, acknowledgedLost } = await useServer(server, async (client) => {
    const writes = await checkWrites(client, expected.acknowledged)
    const content = [await checkContent(client, expected.baseline), await checkReferences(client)]
    const counts = await checkCounts(client, expected)
    return { checks: [...writes.checks, counts, ...content, ...(await checkStructure(client))], acknowledgedLost: writes.lost }
  })
  await stopCluster({ directory: server.directory.cluster, mode: 'fast' })
  const pages = await checkPages(server.directory.cluster)
  await startServer(server)
  return { checks: [...checks, pages], acknowledgedLost }
}

/** Every acknowledged write is there, and what is there is each feed's writes from 1 on without a hole: nothing came out of order. */
async function checkWrites(
  client: pg.Client,
  acknowledged: readonly AcknowledgedWrite[],
): Promise<{ checks: HospitalCheck[]; lost: number }> {
  const { rows } = await client.query<{ feed: number; sequence: string }>(
    'select feed, feed_sequence as sequence from observation where feed <> $1',
    [PROBE_FEED],
  )
  const there = new Set(rows.map(({ feed, sequence }) => `${feed} ${sequence}`))
  const lost = acknowledged.filter(({ feed, sequence }) => !there.has(`${feed} ${sequence}`)).length
  const greatest = new Map<number, number>()
  for (const { feed, sequence } of rows) greatest.set(feed, Math.max(greatest.get(feed) ?? 0, Number(sequence)))
  const whole = [...greatest.values()].reduce((sum, sequence) => sum + sequence, 0)
  const unanswered = rows.length - (acknowledged.length - lost)
  const found = `${acknowledged.length - lost} of them, and ${unanswered} that were committed when the server died, unanswered`
  return {
    lost,
    checks: [
      { name: 'acknowledged writes', passed: lost === 0, expected: `${acknowledged.length} by the log`, found },
      {
        name: 'order of writes',
        passed: rows.length === whole && unanswered >= 0 && unanswered <= greatest.size,
        expected: `each feed from 1 on without a hole`,
        found: `${whole - rows.length} holes in ${greatest.size} feeds`,
      },
    ],
  }
}

async function checkCounts(
  client: pg.Client,
  expected: { baseline: Baseline; acknowledged: readonly AcknowledgedWrite[] },
): Promise<HospitalCheck> {
  const found = await countRows(client)
  const { rows } = await client.query<{ count: string }>('select count(*) from observation where feed is not null')
  const written = Number(rows[0]?.count)
  const wanted = { ...expected.baseline.rows, observation: (expected.baseline.rows.observation ?? 0) + written }
  const text = (counts: Readonly<Record<string, number>>) =>
    Object.entries(counts)
      .map(([table, count]) => `${count} ${table}`)
      .join(', ')
  const passed = text(found) === text(wanted) && written >= expected.acknowledged.length
  return { name: 'row counts', passed, expected: text(wanted), found: text(found) }
}

async function checkContent(client: pg.Client, baseline: Baseline): Promise<HospitalCheck> {
  const passed = (await fingerprintContent(client)) === baseline.fingerprint
  return {
    name: 'content of rows',
    passed,
    expected: 'the fingerprint that was taken before the disaster',
    found: passed ? 'the same' : 'another',
  }
}

async function checkReferences(client: pg.Client): Promise<HospitalCheck> {
  const { rows } = await client.query<{ broken: string }>(`
    select (select count(*) from observation o left join encounter e on e.id = o.encounter_id
        where e.id is null or e.patient_id <> o.patient_id or e.facility_id <> o.facility_id)
      + (select count(*) from encounter e left join patient p on p.id = e.patient_id where p.id is null) as broken`)
  const broken = Number(rows[0]?.broken)
  return {
    name: 'references',
    passed: broken === 0,
    expected: "an observation's patient and facility are its encounter's",
    found: `${broken} that are not`,
  }
}

/** PostgreSQL's own amcheck: tables, then each B-tree against its table and from its root down. */
async function checkStructure(client: pg.Client): Promise<HospitalCheck[]> {
  await client.query('create extension if not exists amcheck')
  const tables = await client.query<{ corrupt: string; tables: string }>(`
    select count(v.relation) as corrupt, count(distinct c.oid) as tables from pg_class c
    left join lateral (select c.oid as relation from verify_heapam(c.oid, check_toast => true)) v on true
    where c.relkind in ('r', 't', 'm') and c.relpersistence = 'p'`)
  const { corrupt = '', tables: looked = '' } = tables.rows[0] ?? {}
  return [
    { name: 'tables (amcheck)', passed: corrupt === '0', expected: 'no corrupt tuple', found: `${corrupt} in ${looked} tables` },
    await checkIndexes(client),
  ]
}

async function checkIndexes(client: pg.Client): Promise<HospitalCheck> {
  const name = 'indexes (amcheck)'
  const expected = 'each B-tree is sound and has every row of its table'
  const { rows } = await client.query<{ index: number; name: string }>(`
    select i.indexrelid as index, i.indexrelid::regclass::text as name from pg_index i
    join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
    where a.amname = 'btree' and c.relpersistence = 'p' and i.indisvalid order by 1`)
  for (const index of rows) {
    try {
      await client.query('select bt_index_parent_check($1::oid::regclass, true, true)', [index.index])
    } catch (error) {
      // What amcheck finds, it throws: it is the finding.
      return { name, passed: false, expected, found: `${index.name}: ${error instanceof Error ? error.message : String(error)}` }
    }
  }
  return { name, passed: true, expected, found: `${rows.length} indexes, all sound` }
}

/** Every page of every relation, as `pg_checksums` does it: on a server that was stopped cleanly. */
async function checkPages(dataDirectory: string): Promise<HospitalCheck> {
  let pages = 0
  const corrupt: string[] = []
  for (const entry of await readdir(dataDirectory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name).slice(dataDirectory.length + 1)
    const file = entry.isFile() ? relationFile(path) : undefined
    if (file === undefined) continue
    const judged = await checkFile(join(dataDirectory, path), file.segment * SEGMENT_PAGES)
    pages += judged.pages
    corrupt.push(...judged.corrupt.map((block) => `${path}, block ${block}`))
  }
  const found = corrupt.length === 0 ? `${pages} pages, none corrupt` : `${corrupt.length} of ${pages} corrupt: ${corrupt[0]}`
  return { name: 'page checksums', passed: corrupt.length === 0 && pages > 0, expected: 'every page of every relation', found }
}

async function checkFile(path: string, firstBlock: number): Promise<{ pages: number; corrupt: number[] }> {
  const buffer = new Uint8Array(READ_PAGES * PAGE_BYTES)
  const words = new Uint32Array(buffer.buffer)
  const corrupt: number[] = []
  let pages = 0
  const file = await open(path, 'r')
  try {
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, pages * PAGE_BYTES)
      const whole = Math.floor(bytesRead / PAGE_BYTES)
      for (let page = 0; page < whole; page += 1) {
        const block = firstBlock + pages + page
        if (verifyPage(words, page * PAGE_WORDS, block) === 'corrupt') corrupt.push(block)
      }
      pages += whole
      if (whole < READ_PAGES) return { pages, corrupt }
    }
  } finally {
    await file.close()
  }
}
