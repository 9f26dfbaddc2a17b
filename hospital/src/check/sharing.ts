import type pg from 'pg'
import { FindingList, type Check, type Outcome } from './verdict.ts'

/** Rows that a facility sees when they are its own. */
const OWN_TABLES = [
  'locations',
  'encounters',
  'appointments',
  'observations',
  'medication_requests',
  'invoices',
  'consent_records',
  'document_references',
  'messages',
  'patient_facilities',
] as const

/** Rows that two facilities see, and the column of the other one. */
const TWO_SIDED = {
  referrals: 'to_facility',
  events: 'other_facility',
  provenances: 'other_facility',
  audit_events: 'other_facility',
} as const

/** What has to be visible to a facility, said once more and without row security: known there, or referred there. */
const EXPECTED_PATIENTS = `
  select id from hospital.patients where facility = $1
  union select patient_id from hospital.patient_facilities where facility = $1
  union select patient_id from hospital.referrals where to_facility = $1 and status in ('active', 'on-hold', 'completed')`

const NOBODY = ['', 'NOBODY'] as const
const PAGE = 5_000

/** Asks, as each facility's role and as one of no facility, what row security shows, and holds it against what it should show. */
export const sharing: Check = {
  name: 'sharing',
  run: async ({ client }): Promise<Outcome> => {
    const { rows: roles } = await client.query(
      "select from pg_roles where rolname = 'hospital_facility' and pg_has_role(oid, 'usage')",
    )
    if (roles.length === 0) return { kind: 'not proven', reason: 'the role hospital_facility is not there, or not ours to take' }
    const { rows } = await client.query<{ id: string }>('select id from hospital.facilities order by id')
    const list = new FindingList()
    let shown = 0
    for (const { id } of rows) {
      shown += await comparePatients(client, id, list)
      await compareRows(client, id, list)
    }
    for (const id of NOBODY) await compareRows(client, id, list)
    return {
      kind: 'judged',
      expected: 'each facility sees its own rows, and patients and referrals where they are known or referred; nobody else does',
      found: `${rows.length} facilities, to which ${shown} patients are shown`,
      findings: list.findings,
      total: list.total,
    }
  },
}

/** Runs `work` as a facility's role; the transaction is the same, and with it the snapshot. */
async function asFacility<Result>(client: pg.ClientBase, id: string, work: () => Promise<Result>): Promise<Result> {
  await client.query("select set_config('role', 'hospital_facility', true), set_config('hospital.facility', $1, true)", [id])
  const result = await work()
  await client.query("reset role; select set_config('hospital.facility', '', true)")
  return result
}

/** Two ordered lists, of which each is held a page at a time. Gives how many patients are shown. */
async function comparePatients(client: pg.ClientBase, facility: string, list: FindingList): Promise<number> {
  await asFacility(client, facility, async () =>
    client.query('declare shown no scroll cursor for select id from hospital.patients order by id'),
  )
  await client.query(`declare expected no scroll cursor for select id from (${EXPECTED_PATIENTS}) e order by id`, [facility])
  // The facility is asked for when the first row is fetched, so a page is fetched as who declared the cursor.
  const shown = new Pages(async () => asFacility(client, facility, async () => fetchPage(client, 'shown')))
  const expected = new Pages(async () => fetchPage(client, 'expected'))
  for (;;) {
    const [seen, due] = [await shown.first(), await expected.first()]
    if (seen === undefined && due === undefined) break
    if (seen !== due && (due === undefined || (seen !== undefined && seen < due))) {
      list.add(`Patient/${seen}`, `is shown to ${facility}, where it is neither known nor referred`)
      shown.drop()
    } else if (seen !== due) {
      list.add(`Patient/${due}`, `is not shown to ${facility}, where it is known or referred`)
      expected.drop()
    } else {
      shown.drop()
      expected.drop()
    }
  }
  await client.query('close shown; close expected')
  return shown.dropped
}

async function fetchPage(client: pg.ClientBase, cursor: string): Promise<string[]> {
  const { rows } = await client.query<{ id: string }>(`fetch ${PAGE} from ${cursor}`)
  return rows.map(({ id }) => id)
}

/** The ids of a cursor, one after the other. UUIDs as text have the order that they have in the database. */
class Pages {
  readonly #fetch: () => Promise<readonly string[]>
  #page: readonly string[] = []
  #at = 0
  #ended = false
  dropped = 0

  constructor(fetch: () => Promise<readonly string[]>) {
    this.#fetch = fetch
  }

  async first(): Promise<string | undefined> {
    if (this.#at === this.#page.length && !this.#ended) {
      this.#page = await this.#fetch()
      this.#at = 0
      this.#ended = this.#page.length < PAGE
    }
    return this.#page[this.#at]
  }

  drop(): void {
    this.#at += 1
    this.dropped += 1
  }
}

/** Of every other table: how many rows are shown and how many of these are another's, beside how many there are. */
async function compareRows(client: pg.ClientBase, facility: string, list: FindingList): Promise<void> {
  const counts = [
    ...OWN_TABLES.map((table) => `select '${table}' as name, count(*) as count from hospital.${table} where facility = $1`),
    ...Object.entries(TWO_SIDED).map(
      ([table, other]) =>
        `select '${table}' as name, count(*) as count from hospital.${table} where facility = $1 or ${other} = $1`,
    ),
  ].join(' union all ')
  const due = await client.query<{ name: string; count: string }>(counts, [facility])
  const all = counts.replaceAll(/ where facility = \$1( or \w+ = \$1)?/g, '')
  const shown = await asFacility(client, facility, async () => client.query<{ name: string; count: string }>(all))
  const expected = new Map(due.rows.map(({ name, count }) => [name, facility === '' ? '0' : count]))
  for (const { name, count } of shown.rows) {
    if (count === expected.get(name)) continue
    list.add(name, `${count} rows are shown to ${facility || 'one of no facility'}, and ${expected.get(name)} are due`)
  }
}
