import type pg from 'pg'
import type { Baseline } from './baseline.ts'

/** One thing that is wrong: which row or file, and what about it. */
export interface Finding {
  readonly row: string
  readonly problem: string
}

/** The first findings, and how many there are. */
export interface Findings {
  readonly findings: readonly Finding[]
  readonly total: number
}

/** What a check found out, or why it could not. */
export type Outcome =
  | ({ readonly kind: 'judged'; readonly expected: string; readonly found: string } & Findings)
  | { readonly kind: 'not proven'; readonly reason: string; readonly found?: string }

/** One check's line of the report. */
export interface Verdict extends Findings {
  readonly name: string
  readonly verdict: 'passed' | 'failed' | 'not proven'
  readonly expected: string
  readonly found: string
  readonly durationMs: number
}

export type FilesWanted = 'none' | 'sample' | 'all'

/** What a check may look at. */
export interface Evidence {
  /** In one repeatable-read, read-only transaction that all checks share. */
  readonly client: pg.Client
  readonly connectionString: string
  /** Of that transaction, for another connection. */
  readonly snapshot: string | undefined
  readonly filesDirectory: string
  readonly files: FilesWanted
  readonly baseline: Baseline | undefined
  readonly now: Date
}

export interface Check {
  readonly name: string
  readonly run: (evidence: Evidence) => Promise<Outcome>
}

export const FINDINGS_MAX = 20
export const NO_BASELINE = 'there is no baseline: see --baseline'

/** Runs a statement that gives `row` and `problem` of each finding; keeps the first and counts all. */
export async function findRows(client: pg.ClientBase, statement: string, values: unknown[] = []): Promise<Findings> {
  const { rows } = await client.query<{ row: string; problem: string; total: string }>(
    `select f.row, f.problem, count(*) over () as total from (${statement}) f order by 1, 2 limit ${FINDINGS_MAX}`,
    values,
  )
  return { findings: rows.map(({ row, problem }) => ({ row, problem })), total: Number(rows[0]?.total ?? 0) }
}

/** The same of several, as one. */
export function joined(...several: readonly Findings[]): Findings {
  return {
    findings: several.flatMap(({ findings }) => findings).slice(0, FINDINGS_MAX),
    total: several.reduce((sum, { total }) => sum + total, 0),
  }
}

/** One number that the database gives. */
export async function countOf(client: pg.ClientBase, statement: string): Promise<number> {
  const { rows } = await client.query<{ count: string }>(statement)
  return Number(rows[0]?.count ?? 0)
}

/** Collects findings one by one, of which it keeps the first. */
export class FindingList implements Findings {
  readonly findings: Finding[] = []
  total = 0

  add(row: string, problem: string): void {
    this.total += 1
    if (this.findings.length < FINDINGS_MAX) this.findings.push({ row, problem })
  }
}
