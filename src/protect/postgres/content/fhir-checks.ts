import pg from 'pg'
import type { Finding } from '../check-list.ts'
import type { FhirSettings } from './checks-schema.ts'
import { askingSession } from './asking-role.ts'
import { readOnly, type CheckedCopy, type ContentCheck } from './content-check.ts'
import { askRule, changedConsents, readAudit, type AuditSeries, type FhirFigures } from './fhir-figures.ts'
import { SHIPPED_MAPPINGS, type FhirMapping } from './fhir-mappings.ts'
import { EXPECTED, fhirRules, type RuleName } from './fhir-rules.ts'
import type { BaselineShelf } from './held-baseline.ts'
import { textSettings } from './table-digest.ts'

const FINDINGS_MAX = 100
/** query_canceled: the statement's time was up. */
const CANCELED = '57014'

/** The mapping that is wanted, for the database that the client is in. Undefined where it has none of its tables. */
export async function findMapping(client: pg.Client, settings: FhirSettings): Promise<FhirMapping | undefined> {
  if (typeof settings === 'string') return await SHIPPED_MAPPINGS[settings].find(client)
  const { resources, versions = null, references = null, provenances = null, audit = null, hanging = null } = settings
  return { resources, versions, references, provenances, audit, hanging }
}

/** A mapping's queries find tables as whoever wrote them thinks of them. */
export function mappingSettings(timeoutMs: number): string {
  return `${textSettings(timeoutMs)}; set local search_path = public`
}

/** A check for each rule: of what is wrong, what was not so at the baseline. */
export function fhirChecks(
  settings: FhirSettings,
  more: { readonly shelf: BaselineShelf; readonly database: string; readonly minutes: number },
): ContentCheck[] {
  return (Object.keys(EXPECTED) as RuleName[]).map((name) => ({
    name: `fhir: ${name}`,
    expected: EXPECTED[name],
    own: true,
    look: async (copy) => look(copy, name, { settings, ...more }),
  }))
}

interface Asked {
  readonly settings: FhirSettings
  readonly shelf: BaselineShelf
  readonly database: string
  readonly minutes: number
}

async function look(copy: CheckedCopy, name: RuleName, { settings, shelf, database, minutes }: Asked): Promise<Finding> {
  const held = await shelf.find(copy)
  const figures = held.kind === 'none' ? null : held.baseline.fhir
  const isBehind = held.kind === 'exact' || held.kind === 'later'
  try {
    return await askingSession(copy, database, async (client) =>
      readOnly(client, minutes * 60_000, async () => {
        await client.query(mappingSettings(minutes * 60_000))
        const mapping = await findMapping(client, settings)
        if (mapping === undefined)
          return { verdict: 'failed', found: `the database "${database}" has no tables of ${nameOf(settings)}` }
        if (name === 'consents') return await lookAtConsents(client, mapping, isBehind ? figures : null)
        const finding = await lookAtRule(client, { name, mapping, figures })
        if (name !== 'audit' || finding.verdict === 'failed') return finding
        return judgeAudit(await readAudit(client, mapping), isBehind ? figures : null, mapping.audit !== null)
      }),
    )
  } catch (error) {
    if (!(error instanceof pg.DatabaseError)) throw error
    // It says nothing against the copy that this machine is slow.
    if (error.code === CANCELED) return { verdict: 'not proven', found: `it takes longer than it may (SQLSTATE ${CANCELED})` }
    // Its words may have a value in them.
    return { verdict: 'failed', found: `the server refused it (SQLSTATE ${error.code ?? 'unknown'})`, findings: error.message }
  }
}

async function lookAtRule(
  client: pg.Client,
  { name, mapping, figures }: { name: RuleName; mapping: FhirMapping; figures: FhirFigures | null },
): Promise<Finding> {
  const rule = fhirRules(mapping).find((each) => each.name === name)
  if (rule === undefined) return { verdict: 'not proven', found: 'the mapping cannot say' }
  const known = figures?.known[name] ?? null
  const { count, total, fresh, examples } = await askRule(client, rule, known ?? [])
  if (count === 0) return { verdict: 'not proven', found: 'there is nothing of it' }
  if (total === 0) return { verdict: 'verified', found: `${count}, nothing wrong` }
  // Without a baseline nobody can tell whether it was so before.
  if (known === null)
    return {
      verdict: 'not proven',
      found: `${total} wrong of ${count}, and no baseline tells whether they were so before`,
      findings: examples,
    }
  const before = `${total - fresh} were so at the baseline`
  if (fresh === 0) return { verdict: 'verified', found: `${count}, ${before}` }
  return { verdict: 'failed', found: `${fresh} wrong of ${count}; ${before}`, findings: examples }
}

/** Nothing of what there was at the baseline may be cut off, at either end. */
function judgeAudit(series: readonly AuditSeries[], figures: FhirFigures | null, isNumbered: boolean): Finding {
  const now = new Map(series.map((each) => [each.series, each]))
  const cut = (figures?.audit ?? []).filter((was) => {
    const is = now.get(was.series)
    return is === undefined || BigInt(is.last) < BigInt(was.last) || BigInt(is.first) > BigInt(was.first)
  })
  const [first] = cut
  if (first !== undefined) {
    const is = now.get(first.series)
    const ends = is === undefined ? 'is gone' : `is from ${is.first} to ${is.last}`
    return {
      verdict: 'failed',
      found: `cut short: ${first.series} ${ends}, and was from ${first.first} to ${first.last} at the baseline`,
    }
  }
  if (series.length === 0) return { verdict: 'not proven', found: 'there is no AuditEvent' }
  const found = isNumbered ? `${series.length} series without a hole` : `${series[0]!.last} AuditEvents, which nothing numbers`
  if (figures === null)
    return { verdict: isNumbered ? 'verified' : 'not proven', found: `${found}; no baseline tells how far they went` }
  return { verdict: 'verified', found: `${found}, none cut short` }
}

async function lookAtConsents(client: pg.Client, mapping: FhirMapping, figures: FhirFigures | null): Promise<Finding> {
  const consents = figures?.consents ?? null
  if (consents === null) return { verdict: 'not proven', found: 'no baseline before the copy tells how they stood' }
  if (consents.length === 0) return { verdict: 'not proven', found: 'there was none at the baseline' }
  const columns = [0, 1, 2, 3].map((column) => consents.map((consent) => consent[column]))
  const { rows } = await client.query<{ row: string; problem: string }>(changedConsents(mapping), columns)
  if (rows.length > 0)
    return {
      verdict: 'failed',
      found: `${rows.length} of ${consents.length} are not as they were`,
      findings: rows.slice(0, FINDINGS_MAX),
    }
  const unread = consents.filter(([, status]) => status === null).length
  const found = `${consents.length} as they were, or changed by a later version`
  return unread === 0
    ? { verdict: 'verified', found }
    : { verdict: 'not proven', found: `${found}; of ${unread} the status cannot be read` }
}

function nameOf(settings: FhirSettings): string {
  return typeof settings === 'string' ? SHIPPED_MAPPINGS[settings].of : 'the mapping'
}
