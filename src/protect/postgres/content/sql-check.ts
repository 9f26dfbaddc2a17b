import pg from 'pg'
import type { Finding } from '../check-list.ts'
import type { Expectation, SqlCheckSettings } from './checks-schema.ts'
import { askingSession } from './asking-role.ts'
import { readOnly, type CheckedCopy, type ContentCheck } from './content-check.ts'

// Queries of the configuration, each with what it is to give.

/** query_canceled: the statement's time was up. */
const CANCELED = '57014'
const { INT2, INT4, INT8, FLOAT4, FLOAT8, NUMERIC, BOOL } = pg.types.builtins
/** By the column's type: a text of digits may be a patient's number. */
const NUMBERS: ReadonlySet<number> = new Set([INT2, INT4, INT8, FLOAT4, FLOAT8, NUMERIC])
/** So far the clocks of two servers may differ. */
const CLOCKS_MS = 2 * 60_000

/** One query. `digest` makes of a value that may be a patient's what may be in a record. */
export function sqlCheck(settings: SqlCheckSettings, more: { database: string; digest: (text: string) => string }): ContentCheck {
  return {
    name: `sql: ${settings.name}`,
    expected: describeExpectation(settings.expect),
    own: true,
    look: async (copy) => look(copy, settings, more),
  }
}

async function look(
  copy: CheckedCopy,
  { query, expect, database, minutes }: SqlCheckSettings,
  more: { database: string; digest: (text: string) => string },
): Promise<Finding> {
  const answer = await askingSession(copy, database ?? more.database, async (client) =>
    readOnly(client, minutes * 60_000, async () => ask(client, query)),
  ).catch((error: unknown) => {
    // Its words may have a value in them.
    if (error instanceof pg.DatabaseError)
      return { error: `${error.message}${error.detail === undefined ? '' : `: ${error.detail}`}`, code: error.code }
    throw error
  })
  if ('error' in answer) return refused(answer.code, answer.error)
  return judge(answer, expect, { askedMs: copy.askedMs, digest: more.digest })
}

/** That it takes long on this machine says nothing against the copy. */
function refused(code: string | undefined, findings: string): Finding {
  if (code === CANCELED) return { verdict: 'not proven', found: `it takes longer than it may (SQLSTATE ${CANCELED})`, findings }
  return { verdict: 'failed', found: `the server refused it (SQLSTATE ${code ?? 'unknown'})`, findings }
}

interface SqlAnswer {
  /** At most two are kept. */
  readonly rows: readonly (readonly unknown[])[]
  readonly columns: number
  /** The type of the first column. */
  readonly type: number
}

async function ask(client: pg.Client, query: string): Promise<SqlAnswer> {
  // Ours is pg_catalog alone; whoever writes a query thinks of the usual one.
  await client.query('set local search_path = public')
  // By a cursor: a query that gives millions of rows takes no memory for them.
  await client.query(`declare resus_check no scroll cursor for ${query}`)
  const { rows, fields } = await client.query<unknown[]>({ text: 'fetch 2 from resus_check', rowMode: 'array' })
  return { rows, columns: fields.length, type: fields[0]?.dataTypeID ?? 0 }
}

function judge(
  answer: SqlAnswer,
  expect: Expectation,
  by: { askedMs: number | null; digest: (text: string) => string },
): Finding {
  const { rows, columns } = answer
  if ('rows' in expect) {
    if (rows.length === 0) return { verdict: 'verified', found: 'no row' }
    return { verdict: 'failed', found: rows.length === 1 ? 'a row' : 'several rows', findings: rows }
  }
  if (rows.length !== 1 || columns !== 1) {
    return {
      verdict: 'failed',
      found: `${rows.length > 1 ? 'several rows' : `${rows.length} rows`} of ${columns} columns, wanted one value`,
    }
  }
  const cell = { value: rows[0]![0], type: answer.type }
  const text = 'within' in expect ? age(cell.value, by.askedMs) : shown(cell, by.digest)
  const holds = isAsExpected(cell, expect, by.askedMs)
  if (holds === undefined) return { verdict: 'not proven', found: `${text}; the target is no time to hold it against` }
  return { verdict: holds ? 'verified' : 'failed', found: text, ...(holds ? {} : { findings: cell.value }) }
}

interface Cell {
  readonly value: unknown
  /** The object identifier of its type. */
  readonly type: number
}

/** Undefined: nobody can tell. */
function isAsExpected(cell: Cell, expect: Exclude<Expectation, { rows: 'none' }>, askedMs: number | null): boolean | undefined {
  const { value } = cell
  if ('within' in expect) {
    if (!(value instanceof Date)) return false
    if (askedMs === null) return undefined
    const ageMs = askedMs - value.getTime()
    return ageMs <= expect.within.minutes * 60_000 && ageMs >= -CLOCKS_MS
  }
  if ('equals' in expect && typeof expect.equals !== 'number') return value === expect.equals
  const text = numberText(cell)
  if (text === undefined) return false
  if ('equals' in expect) {
    const { tolerance = 0 } = expect
    const wanted = Number(expect.equals)
    if (tolerance === 0) return isOrdered(wanted, text) && isOrdered(text, wanted)
    return Math.abs(Number(text) - wanted) <= tolerance
  }
  if ('least' in expect && !isOrdered(expect.least, text)) return false
  return expect.most === undefined || isOrdered(text, expect.most)
}

/** Whether left <= right. Integers are compared as such: a double has no room for a bigint. */
function isOrdered(left: number | string, right: number | string): boolean {
  const isInteger = (value: number | string) => (typeof value === 'string' ? /^-?\d+$/.test(value) : Number.isInteger(value))
  if (isInteger(left) && isInteger(right)) return BigInt(left) <= BigInt(right)
  return Number(left) <= Number(right)
}

/** bigint and numeric come as text, whatever a text column says. */
function numberText({ value, type }: Cell): string | undefined {
  if (!NUMBERS.has(type) || (typeof value !== 'number' && typeof value !== 'string')) return undefined
  return String(value)
}

function shown(cell: Cell, digest: (text: string) => string): string {
  if (cell.value === null || cell.type === BOOL) return String(cell.value)
  return numberText(cell) ?? `hmac-sha256:${digest(JSON.stringify(cell.value))}`
}

function age(value: unknown, askedMs: number | null): string {
  if (!(value instanceof Date)) return 'no time'
  if (askedMs === null) return 'a time'
  const minutes = (askedMs - value.getTime()) / 60_000
  return `${Math.abs(minutes).toFixed(1)} minutes ${minutes < 0 ? 'after' : 'before'} the moment asked for`
}

function describeExpectation(expect: Expectation): string {
  if ('rows' in expect) return 'no row'
  if ('within' in expect) return `not older than the moment asked for by more than ${expect.within.minutes} minutes, nor later`
  if ('equals' in expect)
    return `${JSON.stringify(expect.equals)}${expect.tolerance === undefined ? '' : `, give or take ${expect.tolerance}`}`
  if ('least' in expect) return `at least ${expect.least}${expect.most === undefined ? '' : `, at most ${expect.most}`}`
  return `at most ${expect.most}`
}
