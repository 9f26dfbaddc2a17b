import type pg from 'pg'
import type { Finding } from '../check-list.ts'
import type { Baseline, BaselineTable } from './baseline.ts'
import type { BaselineSettings } from './checks-schema.ts'
import { askingSession } from './asking-role.ts'
import { readOnly, type CheckedCopy, type ContentCheck } from './content-check.ts'
import type { BaselineShelf, HeldBaseline } from './held-baseline.ts'
import { allSettled, SharedQueue } from './shared-queue.ts'
import { digestTable, listTables, textSettings, type ListedTable, type TableDigest, type Unreadable } from './table-digest.ts'

const SESSIONS = 2
const NAMED_MAX = 3
const FINDINGS_MAX = 200

/** Rows and hash of each table, against the baseline. */
export function rowsCheck(shelf: BaselineShelf, settings: BaselineSettings): ContentCheck {
  return {
    name: 'rows',
    expected: `rows and hash of each table of the baseline, where the copy holds exactly what it saw; else no table gone or emptied, and none with less than ${percent(1 - settings.drift)} of its rows`,
    own: true,
    look: async (copy) => {
      const held = await shelf.find(copy)
      if (held.kind === 'none') return { verdict: 'not proven', found: held.why }
      return judge(held, await compare(copy, held.baseline, settings), settings.drift)
    },
  }
}

type Held = Exclude<HeldBaseline, { kind: 'none' }>

/** A table of the baseline, and what the copy has of it: nothing where it is gone. */
interface Compared {
  readonly was: BaselineTable
  readonly is: TableDigest | Unreadable | undefined
  /** Where it has another name now. */
  readonly renamed?: string | undefined
}

async function compare(copy: CheckedCopy, baseline: Baseline, { minutes }: BaselineSettings): Promise<Compared[]> {
  const listed = await askingSession(copy, baseline.database, listTables)
  const byName = new Map(listed.map((table) => [table.name, table]))
  const byOid = new Map(listed.map((table) => [table.oid, table]))
  const compared: Compared[] = []
  const queue = new SharedQueue(baseline.tables)
  const work = async (client: pg.Client) =>
    readOnly(client, minutes * 60_000, async () => {
      await client.query(textSettings(minutes * 60_000))
      await queue.work(async (was) => {
        copy.signal.throwIfAborted()
        compared.push(await compareTable(client, was, byName.get(was.name) ?? byOid.get(was.oid)))
      })
    })
  await allSettled(Array.from({ length: SESSIONS }, async () => askingSession(copy, baseline.database, work)))
  return compared.toSorted((left, right) => (left.was.name < right.was.name ? -1 : 1))
}

async function compareTable(client: pg.Client, was: BaselineTable, table: ListedTable | undefined): Promise<Compared> {
  if (table === undefined) return { was, is: undefined }
  const is = await digestTable(client, table)
  return { was, is, ...(table.name === was.name ? {} : { renamed: table.name }) }
}

/** What is wrong with a table; undefined: nothing that can be told from here. */
function wrongOf({ was, is }: Compared, kind: Held['kind'], drift: number): string | undefined {
  if (is === undefined) return kind === 'earlier' ? undefined : `${was.name} is gone`
  if ('why' in is) return is.lacking ? undefined : `${was.name}: ${is.why}`
  if (kind === 'earlier') return undefined
  if (was.rows > 0 && is.rows === 0) return `${was.name} is empty, and had ${was.rows} rows`
  if (kind === 'exact' && is.rows !== was.rows) return `${was.name} has ${is.rows} rows, and had ${was.rows}`
  if (kind === 'exact' && is.hash !== was.hash)
    return `${was.name} has its ${is.rows} rows, and another hash: their content is not the same`
  if (is.rows < was.rows * (1 - drift)) return `${was.name} has ${is.rows} rows of ${was.rows}, fewer than drift allows`
  return undefined
}

function judge(held: Held, compared: readonly Compared[], drift: number): Finding {
  const wrong = compared.flatMap((each) => wrongOf(each, held.kind, drift) ?? [])
  const unknown = compared.filter(({ is }) => is !== undefined && 'why' in is && is.lacking)
  const same = compared.filter(
    ({ was, is }) => is !== undefined && !('why' in is) && is.rows === was.rows && is.hash === was.hash,
  )
  const findings = compared.filter((each) => !same.includes(each)).map(detailOf)
  const details = findings.length === 0 ? {} : { findings: findings.slice(0, FINDINGS_MAX) }
  const rest = leftOut(held.baseline, unknown)
  if (wrong.length > 0) {
    return {
      verdict: 'failed',
      found: `${wrong.length} of ${compared.length} tables: ${named(wrong)}${rest} (${against(held)})`,
      ...details,
    }
  }
  const figures = `${same.length} of ${compared.length} tables with the same rows and hash, ${rowsOf(compared)} rows`
  const found = `${figures}${rest} (${against(held)})`
  // Of tables that had nothing, nothing can be said.
  const telling = compared.some(({ was, is }) => was.rows > 0 && is !== undefined && !('why' in is))
  if (!telling)
    return { verdict: 'not proven', found: `no table of the baseline had a row that can be read here; ${found}`, ...details }
  if (held.kind === 'earlier' && same.length < compared.length) return { verdict: 'not proven', found, ...details }
  return { verdict: 'verified', found, ...details }
}

function against({ kind, baseline }: Held): string {
  const at = `baseline of ${baseline.at}, LSN ${baseline.lsn}`
  switch (kind) {
    case 'exact':
      return `exactly what the ${at} saw`
    case 'later':
      return `drift since the ${at}`
    case 'earlier':
      return `the copy is of a moment before the first ${at}: what differs may be right`
    default:
      return kind satisfies never
  }
}

function leftOut({ unread }: Baseline, unknown: readonly Compared[]): string {
  const here = unknown.map(({ was, is }) => `${was.name}: ${is !== undefined && 'why' in is ? is.why : ''}`)
  const there = unread.map(({ name, why }) => `${name}: ${why}`)
  const parts = [
    ...(there.length === 0 ? [] : [`not in the baseline: ${named(there)}`]),
    ...(here.length === 0 ? [] : [`not to be read here: ${named(here)}`]),
  ]
  return parts.map((part) => `; ${part}`).join('')
}

function detailOf({ was, is, renamed }: Compared) {
  const { name: table, rows } = was
  const now =
    is === undefined ? { gone: true } : 'why' in is ? { why: is.why } : { found: is.rows, sameHash: is.hash === was.hash }
  return { table, expected: rows, ...now, ...(renamed === undefined ? {} : { renamed }) }
}

function rowsOf(compared: readonly Compared[]): number {
  return compared.reduce((sum, { is }) => sum + (is === undefined || 'why' in is ? 0 : is.rows), 0)
}

function named(all: readonly string[]): string {
  const more = all.length > NAMED_MAX ? `, and ${all.length - NAMED_MAX} more` : ''
  return `${all.slice(0, NAMED_MAX).join('; ')}${more}`
}

function percent(part: number): string {
  return `${Math.round(part * 100)} %`
}
