import type pg from 'pg'
import { countsOf, NEWEST, sequencesOf } from './baseline.ts'
import { FindingList, findRows, joined, NO_BASELINE, type Check, type Findings } from './verdict.ts'

interface OwnedSequence {
  readonly sequence: string
  readonly table: string
  readonly column: string
}

/** Sequences of identity and serial columns. */
const OWNED = `
  select s.oid::regclass::text as sequence, d.refobjid::regclass::text as table, format('%I', a.attname) as column
  from pg_class s join pg_depend d on d.objid = s.oid and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')
  join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
  where s.relkind = 'S' and s.relnamespace = 'hospital'::regnamespace order by 1`

const LANES = `
  select 'lane ' || e.lane as row, format('is at %s, and %s is used', coalesce(l.sequence, 0), e.used) as problem
  from (select lane, max(lane_sequence) as used from hospital.events group by lane) e left join hospital.lanes l using (lane)
  where coalesce(l.sequence, 0) < e.used`

export const sequences: Check = {
  name: 'sequences',
  run: async ({ client, baseline }) => {
    const { rows } = await client.query<OwnedSequence>(OWNED)
    const used: Findings[] = []
    for (const each of rows) used.push(await usedAbove(client, each))
    const now = await sequencesOf(client)
    const list = new FindingList()
    for (const [name, value] of Object.entries(baseline?.sequences ?? {})) {
      const found = now[name]
      if (found === undefined) list.add(name, `is gone, and was at ${value} in the baseline`)
      else if (BigInt(found) < BigInt(value)) list.add(name, `is at ${found}, and was at ${value} in the baseline`)
    }
    return {
      kind: 'judged',
      expected: `every sequence, lane and counter is above every value that is used${baseline === undefined ? '' : ", and not below the baseline's"}`,
      found: `${Object.keys(now).length} of them`,
      ...joined(...used, await findRows(client, LANES), list),
    }
  },
}

async function usedAbove(client: pg.ClientBase, { sequence, table, column }: OwnedSequence): Promise<Findings> {
  return await findRows(
    client,
    `select '${sequence}' as row, format('is at %s, and %s is used', last_value, used) as problem
    from (select case when is_called then last_value else last_value - 1 end as last_value from ${sequence}) s,
      (select max(${column}) as used from ${table}) u where used > last_value`,
  )
}

export const counts: Check = {
  name: 'counts',
  run: async ({ client, baseline }) => {
    const now = await countsOf(client)
    const found = ['patients', 'users', 'appointments', 'consent_records', 'audit_events', 'fhir_resources']
      .map((table) => `${now[table]} ${table}`)
      .join(', ')
    if (baseline === undefined) return { kind: 'not proven', reason: NO_BASELINE, found }
    const list = new FindingList()
    for (const [table, count] of Object.entries(baseline.counts)) {
      if ((now[table] ?? 0) < count) list.add(table, `has ${now[table] ?? 0} rows, and had ${count}`)
    }
    const expected = 'no table has fewer rows than in the baseline'
    return { kind: 'judged', expected, found, findings: list.findings, total: list.total }
  },
}

/** How far a clock of another machine may be ahead. */
const AHEAD_MS = 60_000

export const newest: Check = {
  name: 'newest',
  run: async ({ client, baseline, now }) => {
    const { rows } = await client.query<{ updated_at: Date | null; created_at: Date | null }>(NEWEST)
    const times = { updatedAt: rows[0]?.updated_at ?? null, appointmentCreatedAt: rows[0]?.created_at ?? null }
    const found = `last change ${shown(times.updatedAt)}, last appointment made ${shown(times.appointmentCreatedAt)}`
    if (baseline === undefined) return { kind: 'not proven', reason: NO_BASELINE, found }
    const list = new FindingList()
    for (const name of ['updatedAt', 'appointmentCreatedAt'] as const) {
      const [time, before] = [times[name], baseline.newest[name]]
      if (before !== null && (time === null || time < new Date(before))) list.add(name, `is ${shown(time)}, and was ${before}`)
      if (time !== null && time.getTime() > now.getTime() + AHEAD_MS) list.add(name, `is ${shown(time)}, which is still to come`)
    }
    const expected = 'the last change is not before that of the baseline, and not in the future'
    return { kind: 'judged', expected, found, findings: list.findings, total: list.total }
  },
}

function shown(time: Date | null): string {
  return time?.toISOString() ?? 'never'
}
