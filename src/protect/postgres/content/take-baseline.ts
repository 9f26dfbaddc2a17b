import pg from 'pg'
import { Failure, systemErrorCode } from '../../../errors.ts'
import { formatLsn, parseLsn } from '../../../postgres/lsn.ts'
import type { PostgresComponent } from '../component.ts'
import { findPrimary } from '../heartbeat.ts'
import { listMembers } from '../members.ts'
import type { Baseline, BaselineMoment, BaselineTable } from './baseline.ts'
import { readCatalogFacts } from './catalog-facts.ts'
import type { BaselineSettings, ChecksSettings } from './checks-schema.ts'
import { findMapping, mappingSettings } from './fhir-checks.ts'
import { readFhirFigures, type FhirFigures } from './fhir-figures.ts'
import { allSettled, SharedQueue } from './shared-queue.ts'
import { hasUnseenCommits } from './snapshot-exactness.ts'
import { digestTable, listTables, textSettings, type ListedTable } from './table-digest.ts'

const CONNECT_TIMEOUT_MS = 10_000
/** A server that stalls, or what lies between, is given up this long after its own limit. */
const ANSWER_AFTER_MS = 30_000
const GONE_AFTER_MS = 1000
/** Sessions that read at once, on a server that others work with. */
const SESSIONS = 2
/** How often a moment is looked for in which nothing commits between the snapshot and the reading of the LSN. */
const MOMENT_TRIES = 20
const PAGE_BYTES = 8192n
/** A position behind the header of a page is the beginning of the page to whoever replays. */
const PAGE_HEADER_BYTES: readonly bigint[] = [24n, 40n]

export interface BaselineOptions {
  readonly component: Pick<PostgresComponent, 'name' | 'connection' | 'stream' | 'checks'>
  readonly signal: AbortSignal
  readonly onProgress?: (progress: { readonly phase: string; readonly bytesDone: number; readonly bytesTotal: number }) => void
}

/**
 * Reads the baseline of a component off its primary, in one snapshot, as the role of its connection. Nothing is kept; that is the caller's (`putBaseline`). Throws POSTGRES_UNREACHABLE, PRIMARY_UNCLEAR,
 * POSTGRES_FAILED, the signal's reason.
 */
export async function takeBaseline(options: BaselineOptions): Promise<Baseline> {
  const { component, signal } = options
  const member = await findPrimary(listMembers(component.connection, component.stream.hosts), signal)
  const connectionString = toDatabase(member.connectionString, component.checks.baseline.database)
  const sessions: pg.Client[] = []
  const destroy = () => sessions.forEach((client) => client.connection.stream.destroy())
  signal.addEventListener('abort', destroy, { once: true })
  try {
    while (sessions.length < SESSIONS) sessions.push(await connect(component, connectionString, signal))
    return await readAll(sessions, options)
  } catch (error) {
    signal.throwIfAborted()
    throw explain(component.name, error)
  } finally {
    signal.removeEventListener('abort', destroy)
    await Promise.all(sessions.map(async (client) => client.end().catch(() => undefined)))
  }
}

async function readAll(sessions: readonly pg.Client[], options: BaselineOptions): Promise<Baseline> {
  const { component } = options
  const { minutes } = component.checks.baseline
  const moment = await beginTogether(sessions, { name: component.name, timeoutMs: minutes * 60_000 })
  const [first] = sessions
  const listed = chosenTables(await listTables(first!), component.checks.baseline)
  const catalog = await readCatalogFacts(first!)
  const { tables, unread } = await readTables(sessions, listed, options)
  const { fhir, why } = await readFhir(first!, component.checks)
  if (why !== undefined) unread.push({ name: 'fhir', why })
  for (const client of sessions) await client.query('commit')
  // Something behind it in the WAL: without that, no recovery could stop there.
  const { rows } = await first!.query<{ mark: string }>('select pg_current_xact_id()::text as mark')
  const byName = (left: { name: string }, right: { name: string }) => (left.name < right.name ? -1 : 1)
  return { ...moment, mark: rows[0]!.mark, tables: tables.toSorted(byName), unread: unread.toSorted(byName), catalog, fhir }
}

/** What a mapping cannot read here is no reason to do without the rest. */
async function readFhir(
  client: pg.Client,
  { fhir, baseline }: ChecksSettings,
): Promise<{ fhir: FhirFigures | null; why?: string }> {
  if (fhir === undefined) return { fhir: null }
  try {
    await client.query(mappingSettings(baseline.minutes * 60_000))
    const mapping = await findMapping(client, fhir)
    if (mapping === undefined) return { fhir: null, why: 'the database has no tables of the mapping' }
    return { fhir: await readFhirFigures(client, mapping) }
  } catch (error) {
    if (!(error instanceof pg.DatabaseError)) throw error
    // It was the last thing to be read in this transaction.
    return { fhir: null, why: `its tables cannot be read (SQLSTATE ${error.code ?? 'unknown'}): may the role read all of them?` }
  }
}

/** One snapshot for all sessions, at a moment at which, if it can be had, exactly what it saw lies before the LSN. */
async function beginTogether(
  [first, ...others]: readonly pg.Client[],
  { name, timeoutMs }: { name: string; timeoutMs: number },
): Promise<Omit<BaselineMoment, 'mark'>> {
  for (let tries = 1; ; tries += 1) {
    await first!.query(BEGIN)
    const { rows } = await first!.query<Omit<BaselineMoment, 'format' | 'component' | 'mark'> & { exported: string }>(MOMENT)
    const { exported, ...row } = rows[0]!
    if (tries < MOMENT_TRIES && (await hasUnseenCommits(others[0]!, row))) {
      await first!.query('rollback')
      continue
    }
    for (const client of others) {
      await client.query(BEGIN)
      await client.query(`set transaction snapshot ${pg.escapeLiteral(exported)}`)
    }
    for (const client of [first!, ...others]) await client.query(textSettings(timeoutMs))
    return { format: 1, component: name, ...row, lsn: recordStart(row.lsn) }
  }
}

function recordStart(text: string): string {
  const lsn = parseLsn(text)
  const into = lsn % PAGE_BYTES
  return formatLsn(PAGE_HEADER_BYTES.includes(into) ? lsn - into : lsn)
}

interface Chosen {
  readonly tables: readonly ListedTable[]
  readonly absent: readonly string[]
}

function chosenTables(listed: readonly ListedTable[], { tables: wanted, except }: BaselineSettings): Chosen {
  const left = new Set(except.map(qualify))
  const all = listed.filter(({ name }) => !left.has(name))
  if (wanted === 'all') return { tables: all, absent: [] }
  const byName = new Map(all.map((table) => [table.name, table]))
  const names = [...new Set(wanted.map(qualify))].filter((name) => !left.has(name))
  return { tables: names.flatMap((each) => byName.get(each) ?? []), absent: names.filter((each) => !byName.has(each)) }
}

/** `patients` is that of `public`. */
function qualify(name: string): string {
  return name.includes('.') ? name : `public.${name}`
}

async function readTables(
  sessions: readonly pg.Client[],
  { tables: listed, absent }: Chosen,
  { signal, onProgress }: BaselineOptions,
): Promise<{ tables: BaselineTable[]; unread: Baseline['unread'] }> {
  const tables: BaselineTable[] = []
  const unread = absent.map((name) => ({ name, why: 'there is no such table' }))
  const bytesTotal = listed.reduce((sum, { pages }) => sum + pages, 0) * Number(PAGE_BYTES)
  let bytesDone = 0
  const queue = new SharedQueue(listed)
  const read = async (client: pg.Client, { oid, name, readable, pages, filenode }: ListedTable) => {
    signal.throwIfAborted()
    const digest = readable ? await digestTable(client, { oid, name, filenode }) : { why: NOT_READABLE }
    if ('why' in digest) unread.push({ name, why: digest.why })
    else tables.push({ oid, name, ...digest })
    bytesDone += pages * Number(PAGE_BYTES)
    onProgress?.({ phase: 'reading tables', bytesDone, bytesTotal })
  }
  await allSettled(sessions.map(async (client) => queue.work(async (table) => read(client, table))))
  return { tables, unread }
}

const NOT_READABLE = 'the role may not read it: grant it select, or pg_read_all_data'

async function connect(
  { name, checks }: Pick<PostgresComponent, 'name' | 'checks'>,
  connectionString: string,
  signal: AbortSignal,
): Promise<pg.Client> {
  signal.throwIfAborted()
  const client = new pg.Client({
    connectionString,
    application_name: 'resus baseline',
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: checks.baseline.minutes * 60_000 + ANSWER_AFTER_MS,
    keepAlive: true,
  })
  client.on('error', () => undefined)
  try {
    await client.connect()
    // A synchronous standby that is away must not hold us; and when we are gone, the server must not go on reading for nobody.
    await client.query(
      `set idle_in_transaction_session_timeout = 0; set idle_session_timeout = 0; set search_path = pg_catalog; set synchronous_commit = local;
      set client_connection_check_interval = ${GONE_AFTER_MS}`,
    )
    return client
  } catch (cause) {
    await client.end().catch(() => undefined)
    const why = cause instanceof Error ? cause.message || systemErrorCode(cause) : String(cause)
    throw new Failure('POSTGRES_UNREACHABLE', `cannot connect to the server of "${name}": ${why}`, {
      hint: 'is the server running, and do "connection", pg_hba.conf and the password fit?',
      cause,
    })
  }
}

function toDatabase(connectionString: string, database: string | undefined): string {
  if (database === undefined) return connectionString
  const url = new URL(connectionString.replace('@/', '@localhost/'))
  url.pathname = `/${encodeURIComponent(database)}`
  return url.toString()
}

function explain(component: string, error: unknown): unknown {
  if (error instanceof Failure || !(error instanceof Error)) return error
  const standby = error instanceof pg.DatabaseError && error.code === '55000'
  return new Failure('POSTGRES_FAILED', `cannot take a baseline of "${component}": ${error.message}`, {
    hint: standby
      ? 'a standby cannot give one: name the primary in "connection", or all members in "hosts"'
      : "read the server's log",
    cause: error,
  })
}

const BEGIN = 'begin transaction isolation level repeatable read read only'
const MOMENT = `
  select pg_current_snapshot()::text as snapshot, pg_current_wal_insert_lsn()::text as lsn,
    to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as at, current_database()::text as database,
    (select system_identifier::text from pg_control_system()) as "systemIdentifier",
    current_setting('server_version_num')::int / 10000 as major,
    ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int as timeline, pg_export_snapshot() as exported`
