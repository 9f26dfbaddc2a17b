import pg from 'pg'
import type { Finding } from '../check-list.ts'
import type { Expectation, SqlCheckSettings } from './checks-schema.ts'
import { askingSession } from './asking-role.ts'
import { readOnly, type CheckedCopy, type ContentCheck } from './content-check.ts'

// Queries of the configuration, each with what it is to give.

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
  if ('error' in answer) {
    return { verdict: 'failed', found: `the server refused it (SQLSTATE ${answer.code ?? 'unknown'})`, findings: answer.error }
  }
  return judge(answer, expect, { askedMs: copy.askedMs, digest: more.digest })
}

interface SqlAnswer {
  /** At most two are kept. */
  readonly rows: readonly (readonly unknown[])[]
  readonly columns: number
}

async function ask(client: pg.Client, query: string): Promise<SqlAnswer> {
  // Ours is pg_catalog alone; whoever writes a query thinks of the usual one.
  await client.query('set local search_path = public')
  // By a cursor: a query that gives millions of rows takes no memory for them.
  await client.query(`declare resus_check no scroll cursor for ${query}`)
  const { rows, fields } = await client.query<unknown[]>({ text: 'fetch 2 from resus_check', rowMode: 'array' })
  return { rows, columns: fields.length }
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
  const value = rows[0]![0]
  const text = 'within' in expect ? age(value, by.askedMs) : shown(value, by.digest)
  const holds = isAsExpected(value, expect, by.askedMs)
  if (holds === undefined) return { verdict: 'not proven', found: `${text}; the target is no time to hold it against` }
  return { verdict: holds ? 'verified' : 'failed', found: text, ...(holds ? {} : { findings: value }) }
}

/** Undefined: nobody can tell. */
function isAsExpected(
  value: unknown,
  expect: Exclude<Expectation, { rows: 'none' }>,
  askedMs: number | null,
): boolean | undefined {
  if ('within' in expect) {
    if (!(value instanceof Date)) return false
    return askedMs === null ? undefined : askedMs - value.getTime() <= expect.within.minutes * 60_000
  }
  if ('equals' in expect && typeof expect.equals !== 'number') return value === expect.equals
  const number = numberOf(value)
  if (number === undefined) return false
  if ('equals' in expect) return Math.abs(number - Number(expect.equals)) <= (expect.tolerance ?? 0)
  const least = 'least' in expect ? expect.least : -Infinity
  return number >= least && number <= (expect.most ?? Infinity)
}

/** bigint and numeric come as text. */
function numberOf(value: unknown): number | undefined {
  if (typeof value === 'number') return value
  if (typeof value !== 'string' || !/^-?\d+(\.\d+)?$/.test(value)) return undefined
  return Number(value)
}

function shown(value: unknown, digest: (text: string) => string): string {
  if (value === null || typeof value === 'boolean') return String(value)
  const number = numberOf(value)
  if (number !== undefined) return String(number)
  return `hmac-sha256:${digest(JSON.stringify(value))}`
}

function age(value: unknown, askedMs: number | null): string {
  if (!(value instanceof Date)) return 'no time'
  if (askedMs === null) return 'a time'
  return `${((askedMs - value.getTime()) / 60_000).toFixed(1)} minutes before the moment asked for`
}

function describeExpectation(expect: Expectation): string {
  if ('rows' in expect) return 'no row'
  if ('within' in expect) return `not older than the moment asked for by more than ${expect.within.minutes} minutes`
  if ('equals' in expect)
    return `${JSON.stringify(expect.equals)}${expect.tolerance === undefined ? '' : `, give or take ${expect.tolerance}`}`
  if ('least' in expect) return `at least ${expect.least}${expect.most === undefined ? '' : `, at most ${expect.most}`}`
  return `at most ${expect.most}`
}
