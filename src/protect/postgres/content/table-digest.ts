import pg from 'pg'

// Rows and hash of a table, which say the same of the protected server and of a copy. The server does the work: no row comes to us.

/** What a row's text depends on. As our own: none of these may be the role's or the database's. `timeoutMs` is for each statement. */
export function textSettings(timeoutMs: number): string {
  const settings = {
    datestyle: 'ISO, YMD',
    intervalstyle: 'postgres',
    timezone: 'UTC',
    extra_float_digits: '3',
    bytea_output: 'hex',
    xmlbinary: 'base64',
    lc_monetary: 'C',
    quote_all_identifiers: 'off',
    search_path: 'pg_catalog',
    // A policy would leave rows out without a word; so the statement is refused instead.
    row_security: 'off',
    // One session is one process of the server.
    max_parallel_workers_per_gather: '0',
    statement_timeout: String(Math.ceil(timeoutMs)),
    lock_timeout: '5000',
  }
  return Object.entries(settings)
    .map(([name, value]) => `set local ${name} = ${pg.escapeLiteral(value)}`)
    .join('; ')
}

/** A table as the catalog has it at one snapshot. */
export interface ListedTable {
  readonly oid: string
  /** With its schema, quoted where need be. */
  readonly name: string
  /** Another one than the table has now: it was emptied or rewritten since, and the snapshot does not show its rows. */
  readonly filenode: string
  readonly pages: number
  readonly readable: boolean
}

export interface TableDigest {
  readonly rows: number
  /** The sum over all rows of a 64-bit hash of the row's text: whatever order they lie in. */
  readonly hash: string
}

/** Why a table cannot be read. `lacking`: this machine or role lacks something, which says nothing against the table. */
export interface Unreadable {
  readonly why: string
  readonly lacking: boolean
}

/** Ordinary tables, leaves of partitioned ones included; not those of extensions' making, of Resus, or that a recovery empties. The greatest first. */
export async function listTables(client: pg.Client): Promise<ListedTable[]> {
  const { rows } = await client.query<ListedTable>(TABLES)
  return rows
}

/**
 * Reads one table in the transaction that the client is in, and lets go of its lock: whoever wants to change the table's definition waits for one table, and not for all.
 * Throws what is not of the table (a lost connection).
 */
export async function digestTable(
  client: pg.Client,
  { oid, name, filenode }: Pick<ListedTable, 'oid' | 'name' | 'filenode'>,
): Promise<TableDigest | Unreadable> {
  await client.query('savepoint resus_table')
  try {
    const { rows } = await client.query<{ rows: string; hash: string }>(
      `select count(*)::text as rows, coalesce(sum(hashtextextended(resus_row::text collate "C", 0)), 0)::text as hash from only ${name} resus_row`,
    )
    const { rows: now } = await client.query<{ filenode: string | null }>(
      'select pg_relation_filenode($1::oid)::text as filenode',
      [oid],
    )
    if (now[0]?.filenode !== filenode) return { why: 'it was emptied or rewritten while it was read', lacking: true }
    const { rows: count, hash } = rows[0]!
    return { rows: Number(count), hash }
  } catch (error) {
    if (!(error instanceof pg.DatabaseError)) throw error
    return explain(error)
  } finally {
    await client.query('rollback to savepoint resus_table').catch(() => undefined)
  }
}

/** SQLSTATEs that say nothing against the data, and what is said of them: the server's words may have a value in them. */
const LACKING: Readonly<Record<string, string>> = {
  '42501': 'the role may not read all of it (select on it, and bypassrls where it has row-level security)',
  '42P01': 'it was dropped meanwhile',
  '55P03': 'somebody is changing its definition',
  '57014': 'it takes longer than it may',
  '58P01': "a type of it needs an extension's library that is not on this machine",
  '54000': 'a row of it is too long as text',
}

function explain({ code = 'unknown', message }: pg.DatabaseError): Unreadable {
  if (/could not (access file|load library)/.test(message)) return { why: LACKING['58P01']!, lacking: true }
  if (/invalid memory alloc request size|out of memory/.test(message)) return { why: LACKING['54000']!, lacking: true }
  const known = LACKING[code]
  if (known !== undefined) return { why: known, lacking: true }
  return { why: `the server does not read it (SQLSTATE ${code})`, lacking: false }
}

const TABLES = `
  select c.oid::text as oid, format('%I.%I', n.nspname, c.relname) as name, c.relfilenode::text as filenode, c.relpages as pages,
    has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') as readable
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'resus')
  order by c.relpages desc, c.oid`
