import type pg from 'pg'
import { z } from 'zod'
import type { FhirMapping } from './fhir-mappings.ts'
import { fhirRules, type FhirRule } from './fhir-rules.ts'

// What a FHIR server had at the baseline: what was wrong already, where audit ended, how each consent stood.

/** So many are kept of each; where there are more, nobody can tell which are new. */
const KEPT_MAX = 100_000
const EXAMPLES_MAX = 100

const seriesSchema = z.object({ series: z.string(), first: z.string(), last: z.string() })
/** What numbers AuditEvents: from where to where. */
export type AuditSeries = z.infer<typeof seriesSchema>

export const fhirFiguresSchema = z.object({
  /** By rule: hashes of what was wrong; null where there was too much. */
  known: z.record(z.string(), z.array(z.string()).nullable()),
  audit: z.array(seriesSchema),
  /** id, status, version, and lastUpdated in milliseconds; null where there were too many. */
  consents: z.array(z.tuple([z.string(), z.string().nullable(), z.string().nullable(), z.string()])).nullable(),
})
export type FhirFigures = z.infer<typeof fhirFiguresSchema>

/** Reads them in the transaction that the client is in. Throws what the server says. */
export async function readFhirFigures(client: pg.Client, mapping: FhirMapping): Promise<FhirFigures> {
  const known: Record<string, string[] | null> = {}
  for (const rule of fhirRules(mapping)) {
    const { rows } = await client.query<{ hash: string }>(
      `select hash::text as hash from (${hashed(rule)}) p limit ${KEPT_MAX + 1}`,
    )
    known[rule.name] = rows.length > KEPT_MAX ? null : rows.map(({ hash }) => hash)
  }
  const consents = await released(client, async () => readConsents(client, mapping))
  return {
    known,
    audit: await released(client, async () => readAudit(client, mapping)),
    consents: consents.length > KEPT_MAX ? null : consents,
  }
}

/** Lets go of the locks that the work took: whoever wants to change a table's definition waits for it alone. */
async function released<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query('savepoint resus_fhir')
  const result = await work()
  await client.query('rollback to savepoint resus_fhir')
  return result
}

/** What is wrong by a rule: `total` of all, `fresh` of what the baseline does not have, and some of these. */
export interface RuleResult {
  readonly count: number
  readonly total: number
  readonly fresh: number
  readonly examples: readonly { readonly row: string; readonly problem: string }[]
}

/** Asks a rule; the server does the work, and gives the first hundred of what is new. */
export async function askRule(client: pg.Client, rule: FhirRule, known: readonly string[]): Promise<RuleResult> {
  const { rows: counts } = await client.query<{ count: string }>(rule.count)
  const { rows } = await client.query<{ total: string; fresh: string; examples: RuleResult['examples'] }>(
    `with p as materialized (select p.*, k.hash is null as is_fresh from (${hashed(rule)}) p left join (select distinct hash from unnest($1::bigint[]) u (hash)) k using (hash))
     select count(*)::text as total, (count(*) filter (where is_fresh))::text as fresh,
       (select coalesce(json_agg(json_build_object('row', x.row, 'problem', x.problem)), '[]') from (select * from p where is_fresh limit ${EXAMPLES_MAX}) x) as examples
     from p`,
    [known],
  )
  const { total, fresh, examples } = rows[0]!
  return { count: Number(counts[0]!.count), total: Number(total), fresh: Number(fresh), examples }
}

function hashed({ problems }: FhirRule): string {
  return `select r.row::text as row, r.problem::text as problem, hashtextextended(concat(r.row, ' ', r.problem) collate "C", 0) as hash from (${problems}) r`
}

/** Where nothing numbers them, how many there are. */
export async function readAudit(client: pg.Client, { audit, resources }: FhirMapping): Promise<AuditSeries[]> {
  const { rows } = await client.query<AuditSeries>(
    audit === null
      ? `select 'AuditEvent' as series, '0' as first, count(*)::text as last from (${resources}) r where type = 'AuditEvent' having count(*) > 0`
      : `select series, min(number)::text as first, max(number)::text as last from (${audit}) a group by series order by series`,
  )
  return rows
}

export type KnownConsent = [id: string, status: string | null, version: string | null, lastUpdated: string]

/** One more than are kept, if there are more. */
export async function readConsents(client: pg.Client, { resources }: FhirMapping): Promise<KnownConsent[]> {
  const { rows } = await client.query<KnownConsent>({
    text: `select id, body ->> 'status', version::text, (extract(epoch from last_updated) * 1000)::bigint::text from (${resources}) r
      where type = 'Consent' order by id limit ${KEPT_MAX + 1}`,
    rowMode: 'array',
  })
  return rows
}

/** `row, problem` of consents that are not as they were: `$1` ids, `$2` status, `$3` versions, `$4` times. */
export function changedConsents({ resources }: FhirMapping): string {
  return `
    select 'Consent/' || b.id as row, case when c.id is null then 'is gone'
        when (c.version < b.version or c.version is null and c.at < b.at) then 'went back to an older version'
        else format('is %s, was %s, and no later version says so', c.status, b.status) end as problem
    from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) b (id, status, version, at)
    left join (select id, version, body ->> 'status' as status, (extract(epoch from last_updated) * 1000)::bigint as at from (${resources}) r where type = 'Consent') c on c.id = b.id
    where c.id is null or c.version < b.version or c.version is null and c.at < b.at
      or (c.version = b.version or c.version is null and c.at = b.at) and c.status is distinct from b.status`
}
