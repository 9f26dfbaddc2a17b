import { timingSafeEqual } from 'node:crypto'
import type { KeyRing } from '../../../repository/key-ring.ts'
import type { Finding } from '../check-list.ts'
import { canaryValue, WHOLE, type Canary } from './canary.ts'
import { inEachDatabase } from './asking-role.ts'
import type { CheckedCopy, ContentCheck } from './content-check.ts'

/** They are renewed each hour; one that is missed is caught up within the next. */
const OLD_AFTER_MS = 2 * 3600 * 1000
/** Clocks of two hosts may differ by so much. */
const CLOCKS_MS = 60_000
const NAMED_MAX = 5

interface StoredCanary extends Canary {
  readonly value: Buffer
}

interface Planted {
  readonly canaries: readonly StoredCanary[]
  /** The newest heartbeat of the same copy; null where there is none. */
  readonly beatMs: number | null
}

/** Each facility's row, and that of the whole: recomputed from its number and time with the repository's key, and compared byte for byte. */
export function canariesCheck(of: { ring: KeyRing; component: string; facilities: readonly string[] }): ContentCheck {
  return {
    name: 'canaries',
    expected: 'the row of each facility, and that of the whole, byte for byte, none missing, none older than two hours',
    look: async (copy) => {
      const planted = await readCanaries(copy)
      if (planted === undefined)
        return {
          verdict: 'not proven',
          found: 'there is no table of canaries: run the SQL that "resus config --heartbeat ROLE" prints, once more',
        }
      if (planted.canaries.length === 0) return { verdict: 'not proven', found: 'none was ever planted: does "resus serve" run?' }
      return judge(planted, of, copy.askedMs)
    },
  }
}

function judge(
  { canaries, beatMs }: Planted,
  { ring, component, facilities }: { ring: KeyRing; component: string; facilities: readonly string[] },
  askedMs: number | null,
): Finding {
  const wrong: string[] = []
  const whole = canaries.find(({ facility }) => facility === WHOLE)
  const byFacility = new Map(canaries.map((canary) => [canary.facility, canary]))
  for (const facility of [WHOLE, ...(whole?.facilities ?? [])]) {
    const canary = byFacility.get(facility)
    const problem = canary === undefined ? 'is missing' : problemOf(canary, whole, isGenuine(ring, component, canary))
    if (problem !== undefined) wrong.push(`${nameOf(facility)} ${problem}`)
  }
  if (whole === undefined || wrong.length > 0) return failed(wrong)
  const planted = whole.facilities ?? []
  const since = facilities.filter((each) => !planted.includes(each))
  const later = since.length === 0 ? '' : `; not planted yet: ${since.map(nameOf).join(', ')}`
  const found = `${planted.length} facilities and the whole, of ${new Date(whole.atMs).toISOString()}${later}`
  return judgeAge(whole.atMs, { askedMs, beatMs, found })
}

/** All are renewed at once: one that is of another moment was set back, or came from elsewhere. */
function problemOf(canary: StoredCanary, whole: StoredCanary | undefined, genuine: boolean): string | undefined {
  if (!genuine) return 'is not what its number and time make it'
  return canary.atMs === whole?.atMs ? undefined : 'is of another moment than that of the whole'
}

function judgeAge(
  atMs: number,
  { askedMs, beatMs, found }: { askedMs: number | null; beatMs: number | null; found: string },
): Finding {
  if (askedMs !== null && atMs > askedMs + CLOCKS_MS)
    return { verdict: 'failed', found: `${found}: later than the moment asked for` }
  // While the heart beat, they were renewed.
  if (beatMs !== null && beatMs - atMs > OLD_AFTER_MS)
    return { verdict: 'failed', found: `${found}: too old, beside a heartbeat of ${new Date(beatMs).toISOString()}` }
  if (askedMs !== null && askedMs - atMs > OLD_AFTER_MS)
    return {
      verdict: 'not proven',
      found: `${found}: too old for the moment asked for; either nobody renewed them, or commits are missing`,
    }
  return { verdict: 'verified', found }
}

function failed(wrong: readonly string[]): Finding {
  const more = wrong.length > NAMED_MAX ? `, and ${wrong.length - NAMED_MAX} more` : ''
  return { verdict: 'failed', found: `${wrong.slice(0, NAMED_MAX).join('; ')}${more}` }
}

function isGenuine(ring: KeyRing, component: string, canary: StoredCanary): boolean {
  const value = canaryValue(ring, component, canary)
  return canary.value.length === value.length && timingSafeEqual(canary.value, value)
}

function nameOf(facility: string): string {
  return facility === WHOLE ? 'that of the whole' : `that of "${facility}"`
}

async function readCanaries(copy: CheckedCopy): Promise<Planted | undefined> {
  return await inEachDatabase(copy, async (client) => {
    const { rows: tables } = await client.query<{ name: string }>(TABLES)
    const has = (name: string) => tables.some((table) => table.name === name)
    if (!has('canary')) return undefined
    const { rows } = await client.query<{
      facility: string
      number: string
      at: string
      value: Buffer
      facilities: string[] | null
    }>(CANARIES)
    const canaries = rows.map(({ at, number, ...row }) => ({ ...row, number: BigInt(number), atMs: Number(at) }))
    return { canaries, beatMs: has('heartbeat') ? await readBeat(client) : null }
  })
}

async function readBeat(client: { query: (text: string) => Promise<{ rows: { at: string }[] }> }): Promise<number | null> {
  const { rows } = await client.query(BEAT)
  return rows[0] === undefined ? null : Number(rows[0].at)
}

const TABLES = `
  select relname::text as name from pg_class where relnamespace = to_regnamespace('resus') and relkind = 'r' and relname in ('heartbeat', 'canary')`
const CANARIES = `
  select facility, number::text as number, (extract(epoch from at) * 1000)::bigint::text as at, value, facilities from resus.canary`
/** The first row is of the making of the table. */
const BEAT = 'select (extract(epoch from at) * 1000)::bigint::text as at from resus.heartbeat where id = 1 and sequence > 0'
