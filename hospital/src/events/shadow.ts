import type pg from 'pg'
import { PROJECTIONS, type Projection } from './projections.ts'

/** A row that is not what the events say. */
export interface Difference {
  readonly key: Readonly<Record<string, string>>
  /** missing: the events have it, the table not. surplus: the other way round. changed: they differ in `columns`. */
  readonly kind: 'missing' | 'surplus' | 'changed'
  readonly columns: readonly string[]
}

export interface ProjectionComparison {
  readonly table: Projection
  readonly rows: number
  readonly rebuilt: number
  /** How many rows differ; `differences` names the first of them. */
  readonly differing: number
  readonly differences: readonly Difference[]
}

const DIFFERENCES_MAX = 20
const SCHEMA = 'hospital_rebuild'
const POSITION_MAX = 9_223_372_036_854_775_807n
/** For sorts and joins of all events: more than a server gives everybody, and not so much that a small one is in danger. */
const WORK_MEM = '128MB'

/** Makes every projection again, from the events in this transaction's sight, in a schema beside the hospital's. The transaction has to end it. */
export async function projectShadow(client: pg.ClientBase): Promise<void> {
  await client.query(
    `set local work_mem = '${WORK_MEM}'; set local timezone = 'UTC'; set local jit = off; create schema ${SCHEMA}`,
  )
  for (const table of PROJECTIONS) {
    // Not logged, and with the one index that a handler needs: what is compared needs no other, and what is put in place goes into the original's.
    await client.query(`create unlogged table ${SCHEMA}.${table} (like hospital.${table} including generated)`)
    await client.query(`alter table ${SCHEMA}.${table} add primary key (${(await keyOf(client, table)).join(', ')})`)
  }
  await projectInto(client, 0n)
  for (const table of PROJECTIONS) await client.query(`analyze ${SCHEMA}.${table}`)
}

/** Brings the shadow up to all events from a position on. */
export async function projectInto(client: pg.ClientBase, from: bigint): Promise<void> {
  await client.query(`set local search_path = ${SCHEMA}, pg_temp`)
  await client.query('select hospital.project($1, $2)', [String(from), String(POSITION_MAX)])
  await client.query('set local search_path = hospital, pg_temp')
}

export async function dropShadow(client: pg.ClientBase): Promise<void> {
  await client.query(`set local client_min_messages = warning; drop schema ${SCHEMA} cascade`)
}

/** Compares each table with its shadow, row by row, by hashes of all that is in them. */
export async function compareShadow(client: pg.ClientBase): Promise<ProjectionComparison[]> {
  const comparisons: ProjectionComparison[] = []
  for (const table of PROJECTIONS) comparisons.push(await compareTable(client, table))
  return comparisons
}

async function compareTable(client: pg.ClientBase, table: Projection): Promise<ProjectionComparison> {
  const key = await keyOf(client, table)
  const { rows } = await client.query<DifferenceRow>(comparisonOf(table, key))
  const counted = await client.query<{ rows: string; rebuilt: string }>(
    `select (select count(*) from hospital.${table}) as rows, (select count(*) from ${SCHEMA}.${table}) as rebuilt`,
  )
  return {
    table,
    rows: Number(counted.rows[0]!.rows),
    rebuilt: Number(counted.rows[0]!.rebuilt),
    differing: Number(rows[0]?.total ?? 0),
    differences: rows.map((row) => ({ key: row.key, kind: row.kind, columns: row.columns ?? [] })),
  }
}

interface DifferenceRow {
  readonly key: Record<string, string>
  readonly kind: Difference['kind']
  readonly total: string
  readonly columns: string[] | null
}

function comparisonOf(table: Projection, key: readonly string[]): string {
  const keys = key.join(', ')
  const hashed = (schema: string) => `select ${keys}, sha256(convert_to(t::text, 'UTF8')) as hash from ${schema}.${table} t`
  const same = (alias: string) => key.map((column) => `${alias}.${column} = d.${column}`).join(' and ')
  return `
    with d as (
      select ${keys}, there.hash as there, rebuilt.hash as rebuilt, count(*) over () as total
      from (${hashed('hospital')}) there full join (${hashed(SCHEMA)}) rebuilt using (${keys})
      where there.hash is distinct from rebuilt.hash
      order by ${keys} limit ${DIFFERENCES_MAX}
    )
    select total, jsonb_build_object(${key.map((column) => `'${column}', d.${column}::text`).join(', ')}) as key,
      case when there is null then 'missing' when rebuilt is null then 'surplus' else 'changed' end as kind, (
        select array_agg(a.key order by a.key) from hospital.${table} t, ${SCHEMA}.${table} r,
          jsonb_each(to_jsonb(t)) a, jsonb_each(to_jsonb(r)) b
        where ${same('t')} and ${same('r')} and a.key = b.key and a.value::text <> b.value::text
      ) as columns
    from d order by ${key.map((column) => `d.${column}`).join(', ')}`
}

/** Puts the shadow's rows where the table's differ. Whoever calls has locked writers out, and foreign keys off: rows refer to each other. */
export async function replaceRows(client: pg.ClientBase, table: Projection): Promise<void> {
  const same = (await keyOf(client, table)).map((column) => `t.${column} = r.${column}`).join(' and ')
  await client.query(`
    delete from hospital.${table} t where not exists (select from ${SCHEMA}.${table} r where ${same} and t::text = r::text)`)
  const columns = await writtenColumns(client, table)
  await client.query(`
    insert into hospital.${table} (${columns}) select ${columns} from ${SCHEMA}.${table} r where not exists (select from hospital.${table} t where ${same})`)
}

/** All but those that are made from others. */
async function writtenColumns(client: pg.ClientBase, table: Projection): Promise<string> {
  const { rows } = await client.query<{ columns: string }>(
    `select string_agg(format('%I', attname), ', ' order by attnum) as columns from pg_attribute
    where attrelid = $1::regclass and attnum > 0 and not attisdropped and attgenerated = ''`,
    [`hospital.${table}`],
  )
  return rows[0]!.columns
}

async function keyOf(client: pg.ClientBase, table: Projection): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `select attname as name from pg_index join pg_attribute on attrelid = indrelid and attnum = any (indkey)
    where indrelid = $1::regclass and indisprimary order by array_position(indkey::int2[], attnum)`,
    [`hospital.${table}`],
  )
  return rows.map(({ name }) => name)
}
