import pg from 'pg'
import { stopCluster } from '../postgres/cluster-process.ts'
import { checkPages } from '../protect/postgres/page-check.ts'
import { startServer, useServer } from './hospital-server.ts'
import { countLost, judgeHospital, type Hospital, type HospitalJudgement } from './reference-hospital.ts'

/** One thing that was looked at in the restored hospital. */
export type HospitalCheck = HospitalJudgement

export interface HospitalFindings {
  readonly checks: readonly HospitalCheck[]
  /** Of the writes that were acknowledged, before the disaster and since. */
  readonly acknowledged: { readonly count: number; readonly lost: number }
}

/**
 * Looks at everything that can be looked at in the restored hospital, in the order that proves a physical restore: acknowledged
 * writes, what the hospital says of itself, structure, and after a clean stop every page. The server runs again at the end.
 */
export async function checkHospital(hospital: Hospital, signal: AbortSignal): Promise<HospitalFindings> {
  const { server } = hospital
  const { acknowledged, lost } = await countLost(hospital, signal)
  const found = `${acknowledged - lost} of ${acknowledged} are there`
  const writes = judged('acknowledged writes', 'every write that the hospital has confirmed', { passed: lost === 0, found })
  const own = await judgeHospital(hospital, signal)
  const structure = await useServer(server, async (client) => [
    await attempt('tables (amcheck)', 'no corrupt tuple', () => checkTables(client)),
    await attempt('indexes (amcheck)', 'each B-tree is sound and has every row of its table', () => checkIndexes(client)),
  ])
  await stopCluster({ directory: server.directory.cluster, mode: 'fast' })
  const pages = await attempt('page checksums', 'every page of every relation', () => checkRelations(server.directory.cluster))
  await startServer(server)
  return { checks: [writes, ...own, ...structure, pages], acknowledged: { count: acknowledged, lost } }
}

interface Finding {
  readonly passed: boolean
  readonly found: string
}

/** What the server says instead of an answer (a damaged page, say) is a finding. */
async function attempt(name: string, expected: string, look: () => Promise<Finding>): Promise<HospitalCheck> {
  const finding = await look().catch(unlessServerSays)
  return judged(name, expected, typeof finding === 'string' ? { passed: false, found: finding } : finding)
}

function judged(name: string, expected: string, { passed, found }: Finding): HospitalCheck {
  return { name, verdict: passed ? 'passed' : 'failed', expected, found }
}

function unlessServerSays(error: unknown): string {
  if (error instanceof pg.DatabaseError) return error.message
  throw error
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
