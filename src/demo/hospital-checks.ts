import pg from 'pg'
import { stopCluster } from '../postgres/cluster-process.ts'
import { checkPages } from '../protect/postgres/page-check.ts'
import { countRows, fingerprintContent } from './hospital.ts'
import { startServer, useServer, type HospitalServer } from './hospital-server.ts'
import { PROBE_FEED } from './recovery.ts'
import type { AcknowledgedWrite } from './write-stream.ts'

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

export interface HospitalFindings {
  readonly checks: readonly HospitalCheck[]
  /** Null when the server could not be asked. */
  readonly acknowledgedLost: number | null
}

/**
 * Looks at everything that can be looked at in the restored hospital, in the order that proves a physical restore: acknowledged
 * writes, content, structure, and after a clean stop every page. The server runs again at the end.
 */
export async function checkHospital(
  server: HospitalServer,
  expected: { baseline: Baseline; acknowledged: readonly AcknowledgedWrite[] },
): Promise<HospitalFindings> {
  const findings = await useServer(server, async (client) => {
    const { baseline, acknowledged } = expected
    const lost = await countLost(client, acknowledged).catch(unlessServerSays)
    const checks = [
      await attempt('acknowledged writes', `${acknowledged.length} by the log`, () => checkWrites(client, acknowledged)),
      await attempt('order of writes', 'each feed from 1 on without a hole', () => checkOrder(client, acknowledged)),
      await attempt('row counts', 'those at the opening, and what the feeds wrote', () => checkCounts(client, expected)),
      await attempt('content of rows', 'the fingerprint of the opening', () => checkContent(client, baseline)),
      await attempt('references', "an observation's patient and facility are its encounter's", () => checkReferences(client)),
      await attempt('tables (amcheck)', 'no corrupt tuple', () => checkTables(client)),
      await attempt('indexes (amcheck)', 'each B-tree is sound and has every row of its table', () => checkIndexes(client)),
    ]
    return { checks, acknowledgedLost: typeof lost === 'number' ? lost : null }
  })
  await stopCluster({ directory: server.directory.cluster, mode: 'fast' })
  const pages = await attempt('page checksums', 'every page of every relation', () => checkRelations(server.directory.cluster))
  await startServer(server)
  return { ...findings, checks: [...findings.checks, pages] }
}

type Finding = Pick<HospitalCheck, 'passed' | 'found'> & { readonly expected?: string }

/** What the server says instead of an answer (a damaged page, say) is a finding. */
async function attempt(name: string, expected: string, look: () => Promise<Finding>): Promise<HospitalCheck> {
  const finding = await look().catch(unlessServerSays)
  return typeof finding === 'string' ? { name, expected, passed: false, found: finding } : { name, expected, ...finding }
}

function unlessServerSays(error: unknown): string {
  if (error instanceof pg.DatabaseError) return error.message
  throw error
}

/** Feeds and sequences of all writes that are there. */
async function readWrites(client: pg.Client): Promise<{ feed: number; sequence: number }[]> {
  const { rows } = await client.query<{ feed: number; sequence: string }>(
    'select feed, feed_sequence as sequence from observation where feed <> $1',
    [PROBE_FEED],
  )
  return rows.map(({ feed, sequence }) => ({ feed, sequence: Number(sequence) }))
}

async function countLost(client: pg.Client, acknowledged: readonly AcknowledgedWrite[]): Promise<number> {
  const there = new Set((await readWrites(client)).map(({ feed, sequence }) => `${feed} ${sequence}`))
  return acknowledged.filter(({ feed, sequence }) => !there.has(`${feed} ${sequence}`)).length
}

async function checkWrites(client: pg.Client, acknowledged: readonly AcknowledgedWrite[]): Promise<Finding> {
  const lost = await countLost(client, acknowledged)
  const unanswered = (await readWrites(client)).length - (acknowledged.length - lost)
  const found = `${acknowledged.length - lost} of ${acknowledged.length}, and ${unanswered} that were committed when the server died, unanswered`
  return { passed: lost === 0, found }
}

/** What is there is each feed's writes from 1 on: nothing came out of order, and at most one of each feed was unanswered. */
async function checkOrder(client: pg.Client, acknowledged: readonly AcknowledgedWrite[]): Promise<Finding> {
  const writes = await readWrites(client)
  const greatest = new Map<number, number>()
  for (const { feed, sequence } of writes) greatest.set(feed, Math.max(greatest.get(feed) ?? 0, sequence))
  const holes = [...greatest.values()].reduce((sum, sequence) => sum + sequence, 0) - writes.length
  const passed = holes === 0 && writes.length <= acknowledged.length + greatest.size
  return { passed, found: `${holes} holes in ${greatest.size} feeds` }
}

async function checkCounts(
  client: pg.Client,
  expected: { baseline: Baseline; acknowledged: readonly AcknowledgedWrite[] },
): Promise<Finding> {
  const found = await countRows(client)
  const { rows } = await client.query<{ count: string }>('select count(*) from observation where feed is not null')
  const written = Number(rows[0]?.count)
  const wanted = { ...expected.baseline.rows, observation: (expected.baseline.rows.observation ?? 0) + written }
  const passed = listCounts(found) === listCounts(wanted) && written >= expected.acknowledged.length
  return { passed, expected: listCounts(wanted), found: listCounts(found) }
}

function listCounts(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([table, count]) => `${count} ${table}`)
    .join(', ')
}

async function checkContent(client: pg.Client, baseline: Baseline): Promise<Finding> {
  const passed = (await fingerprintContent(client)) === baseline.fingerprint
  return { passed, found: passed ? 'the same fingerprint as at the opening' : 'another fingerprint than at the opening' }
}

async function checkReferences(client: pg.Client): Promise<Finding> {
  const { rows } = await client.query<{ broken: string }>(`
    select (select count(*) from observation o left join encounter e on e.id = o.encounter_id
        where e.id is null or e.patient_id <> o.patient_id or e.facility_id <> o.facility_id)
      + (select count(*) from encounter e left join patient p on p.id = e.patient_id where p.id is null) as broken`)
  const broken = Number(rows[0]?.broken)
  return { passed: broken === 0, found: `${broken} broken` }
}

/** PostgreSQL's own amcheck, of every permanent table with its TOAST. */
async function checkTables(client: pg.Client): Promise<Finding> {
  await client.query('create extension if not exists amcheck')
  const { rows } = await client.query<{ corrupt: string; tables: string }>(`
    select count(v.relation) as corrupt, count(distinct c.oid) as tables from pg_class c
    left join lateral (select c.oid as relation from verify_heapam(c.oid, check_toast => true)) v on true
    where c.relkind in ('r', 't', 'm') and c.relpersistence = 'p'`)
  const { corrupt = '', tables = '' } = rows[0] ?? {}
  return { passed: corrupt === '0', found: `${corrupt} corrupt tuples in ${tables} tables` }
}

/** Each B-tree against its table, and from its root down. */
async function checkIndexes(client: pg.Client): Promise<Finding> {
  const { rows } = await client.query<{ index: number; name: string }>(`
    select i.indexrelid as index, i.indexrelid::regclass::text as name from pg_index i
    join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
    where a.amname = 'btree' and c.relpersistence = 'p' and i.indisvalid order by 1`)
  const corrupt: string[] = []
  for (const { index, name } of rows) {
    // What amcheck finds, it throws: it is the finding.
    const check = client.query('select bt_index_parent_check($1::oid::regclass, true, true)', [index])
    const said = await check.then(() => undefined).catch(unlessServerSays)
    if (said !== undefined) corrupt.push(`${name}: ${said}`)
  }
  const found = corrupt.length === 0 ? `${rows.length} indexes, all sound` : `${corrupt.length} of ${rows.length}: ${corrupt[0]}`
  return { passed: corrupt.length === 0, found }
}

/** Every page of every relation, as `pg_checksums` does it: on a server that was stopped cleanly. */
async function checkRelations(directory: string): Promise<Finding> {
  const { verdict, found } = await checkPages({ directory, signal: new AbortController().signal })
  return { passed: verdict === 'verified', found }
}
