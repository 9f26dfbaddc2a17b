import pg from 'pg'
import { asOwner } from '../database/owner.ts'
import { CannotRun } from '../refusal.ts'
import { takeBaseline, takeMoment, type Baseline } from './baseline.ts'
import { CHECKS } from './checks.ts'
import type { Check, Evidence, FilesWanted, Outcome, Verdict } from './verdict.ts'

export interface CheckOptions {
  /** Of the owner or a superuser. */
  readonly connectionString: string
  readonly filesDirectory: string
  readonly files?: FilesWanted
  readonly baseline?: Baseline
  /** Names of checks; all when it is left out. */
  readonly only?: readonly string[]
  /** Whether to take a baseline in the same snapshot. */
  readonly takesBaseline?: boolean
}

export interface Report {
  /** False when a check failed, or when one that was asked for by name could not be proven. */
  readonly passed: boolean
  readonly at: string
  readonly position: string
  readonly lsn: string
  readonly checks: readonly Verdict[]
}

/** Runs the self-check in one snapshot, and changes nothing. The hospital may run meanwhile, or not at all. Throws CannotRun where there is none. */
export async function runChecks(options: CheckOptions): Promise<{ readonly report: Report; readonly baseline?: Baseline }> {
  const chosen = chosenOf(options.only)
  return await asOwner({ connectionString: options.connectionString, name: 'hospital check' }, async (client) => {
    const snapshot = await beginSnapshot(client)
    const now = new Date()
    const { files = 'all', filesDirectory, connectionString } = options
    const evidence: Evidence = { client, connectionString, snapshot, filesDirectory, files, baseline: options.baseline, now }
    const moment = await takeMoment(client, now)
    const checks: Verdict[] = []
    for (const check of chosen) checks.push(await verdictOf(check, evidence))
    const asked = options.only !== undefined
    const passed = checks.every(({ verdict }) => verdict === 'passed' || (verdict === 'not proven' && !asked))
    const report = { passed, at: moment.takenAt, position: moment.position, lsn: moment.lsn, checks }
    return options.takesBaseline === true ? { report, baseline: await takeBaseline(client, moment) } : { report }
  })
}

function chosenOf(only: readonly string[] | undefined): readonly Check[] {
  if (only === undefined) return CHECKS
  const unknown = only.find((name) => !CHECKS.some((check) => check.name === name))
  if (unknown === undefined) return CHECKS.filter(({ name }) => only.includes(name))
  throw new CannotRun(`there is no check "${unknown}"`, { hint: `there are ${CHECKS.map(({ name }) => name).join(', ')}` })
}

/** Gives the snapshot's name, by which another connection can look at it; none on a server in recovery. */
async function beginSnapshot(client: pg.Client): Promise<string | undefined> {
  // Whole tables are joined, also where nobody has analyzed them: in a copy just restored the planner knows nothing, and a loop would take hours.
  await client.query(
    "begin isolation level repeatable read, read only; set local work_mem = '128MB'; set local enable_nestloop = off",
  )
  const { rows } = await client.query<{ there: boolean; sees: boolean }>(`
    select to_regclass('hospital.events') is not null as there,
      (select rolsuper or rolbypassrls from pg_roles where rolname = current_user)
        or coalesce(pg_has_role((select relowner from pg_class where oid = to_regclass('hospital.events')), 'usage'), false) as sees`)
  if (rows[0]?.there !== true) throw new CannotRun('this database has no hospital', { hint: 'see --database' })
  if (!rows[0].sees)
    throw new CannotRun('this user does not see all facilities', { hint: "connect as the hospital's owner, or as a superuser" })
  const exported = await client.query<{ snapshot: string | null }>(
    'select case when not pg_is_in_recovery() then pg_export_snapshot() end as snapshot',
  )
  return exported.rows[0]?.snapshot ?? undefined
}

async function verdictOf({ name, run }: Check, evidence: Evidence): Promise<Verdict> {
  const begin = performance.now()
  const outcome = await outcomeOf(run, evidence)
  const durationMs = Math.round(performance.now() - begin)
  if (outcome.kind === 'not proven') {
    return {
      name,
      verdict: 'not proven',
      expected: outcome.reason,
      found: outcome.found ?? '',
      durationMs,
      findings: [],
      total: 0,
    }
  }
  const { expected, found, findings, total } = outcome
  return { name, verdict: total === 0 ? 'passed' : 'failed', expected, found, durationMs, findings, total }
}

/** Rows that cannot even be asked for are a finding: of all others, those that were restored damaged end in an error. */
async function outcomeOf(run: Check['run'], evidence: Evidence): Promise<Outcome> {
  await evidence.client.query('savepoint check_begins')
  try {
    return await run(evidence)
  } catch (error) {
    if (!(error instanceof pg.DatabaseError) || isOfServer(error.code)) throw error
    await evidence.client.query('rollback to check_begins')
    const problem = `cannot be asked: ${error.message}`
    return {
      kind: 'judged',
      expected: 'the database answers',
      found: 'it does not',
      findings: [{ row: 'the database', problem }],
      total: 1,
    }
  }
}

/** Connections, resources, shutdowns: they say nothing of the hospital. */
function isOfServer(code: string | undefined): boolean {
  return code === undefined || /^(08|53|57)/.test(code)
}
