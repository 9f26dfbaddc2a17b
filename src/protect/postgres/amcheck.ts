import { randomBytes } from 'node:crypto'
import { availableParallelism } from 'node:os'
import pg from 'pg'
import { serverSaid, type Finding } from './check-list.ts'
import { withoutValues } from './server-words.ts'

// PostgreSQL's own amcheck over a restored cluster: every table against itself, every B-tree against its table.

/** feature_not_supported: a B-tree of before PostgreSQL 12 cannot be searched from its root for each tuple. */
const NOT_SUPPORTED = '0A000'
/** The fourth argument of bt_index_parent_check, which checks unique constraints, came with this version. */
const UNIQUE_FROM_MAJOR = 17
/** Each relation is one session's. */
const SESSIONS = Math.min(4, availableParallelism())

/** The server of a restored cluster: one of our own, or a test's. */
export interface CheckedServer {
  readonly major: number
  /** Connects to a database as a superuser, works, and closes. */
  session<T>(database: string, work: (client: pg.Client) => Promise<T>): Promise<T>
  /** The same, in a database that surely is there. */
  anySession<T>(work: (client: pg.Client) => Promise<T>): Promise<T>
}

/** So many of what is corrupt are told in the details. */
const WORDS_MAX = 100

/** An operator class of an extension that is not installed on this machine; the words are PostgreSQL's (dfmgr.c), untranslated. */
const LIBRARY_MISSING = /^could not (?:access file|load library)/

interface Relation {
  readonly oid: number
  readonly name: string
  readonly bytes: string
}

type Look = (client: pg.Client, relation: Relation) => Promise<string | undefined>

/** Several of one kind, in one database or all. */
interface Tally {
  checked: number
  corrupt: number
  /** For want of a library: somebody has to look elsewhere. */
  notProven: number
  /** The first that was corrupt, and what is wrong with it. */
  example: string
  examplePlace: string
  /** Of the first ones, the server's words, which may have a value in them. */
  readonly words: string[]
  /** What could not be looked at, by kind. */
  readonly passedOver: Map<string, number>
}

/** Checks all databases that allow connections. What the server says instead of an answer is a finding. */
export class Amcheck {
  readonly #server: CheckedServer
  readonly #onBytes: (bytes: number) => void
  /** A name of our own, so that nothing that the cluster has is called in its place. */
  readonly #schema = `resus_verify_${randomBytes(4).toString('hex')}`
  readonly #ready = new Set<string>()

  constructor(server: CheckedServer, onBytes: (bytes: number) => void = () => undefined) {
    this.#server = server
    this.#onBytes = onBytes
  }

  /** The heap of every permanent table, TOAST table and materialized view, the catalogs' included. */
  async checkTables(): Promise<Finding> {
    return await this.#check('tables', TABLES, OTHER_TABLES, async (client, table) => {
      const { rows } = await client.query<{ corrupt: string; example: string | null }>(
        `select count(*) as corrupt, min(format('block %s, tuple %s: %s', blkno, offnum, msg)) as example
           from ${this.#schema}.verify_heapam($1::oid::regclass, check_toast => true)`,
        [table.oid],
      )
      const { corrupt = '0', example = null } = rows[0] ?? {}
      return corrupt === '0' ? undefined : `${corrupt} corruptions, ${example}`
    })
  }

  /** Every valid B-tree: its structure, that it has all rows of its table, and that each is found from the root. */
  async checkIndexes(): Promise<Finding> {
    const unique = this.#server.major >= UNIQUE_FROM_MAJOR ? ', true' : ''
    const check = async (client: pg.Client, oid: number, rootDescend: boolean) => {
      const text = `select ${this.#schema}.bt_index_parent_check($1::oid::regclass, true, ${rootDescend}${unique})`
      await client.query(text, [oid])
    }
    return await this.#check('B-trees', INDEXES, OTHER_INDEXES, async (client, index) => {
      try {
        await check(client, index.oid, true)
      } catch (error) {
        // Then everything else is looked at.
        if (error instanceof pg.DatabaseError && error.code === NOT_SUPPORTED) await check(client, index.oid, false)
        else throw error
      }
      return undefined
    })
  }

  async #check(what: string, relations: string, others: string, look: Look): Promise<Finding> {
    const databases = await this.#server.anySession(async (client) => (await client.query<{ name: string }>(DATABASES)).rows)
    const tally: Tally = { checked: 0, corrupt: 0, notProven: 0, example: '', examplePlace: '', words: [], passedOver: new Map() }
    for (const { name } of databases) {
      const known = await this.#server
        .session(name, async (client) => {
          if (!(await this.#prepare(name, client))) return 'absent' as const
          return (await client.query<Relation>(relations)).rows
        })
        .catch(serverSaid)
      if (known === 'absent') return { verdict: 'not proven', found: 'the programs of this PostgreSQL have no amcheck' }
      if (known instanceof Error) noteCorrupt(tally, { database: name, oid: 0, where: `database "${name}"` }, known)
      else await this.#checkDatabase({ database: name, relations: known, others, tally, look })
    }
    return summary(what, databases.length, tally)
  }

  /** In several sessions, the largest relations first: what takes longest must not come last. */
  async #checkDatabase(options: {
    readonly database: string
    readonly relations: readonly Relation[]
    readonly others: string
    readonly tally: Tally
    readonly look: Look
  }): Promise<void> {
    const { database, relations, others, tally, look } = options
    const left = relations.toSorted((one, other) => Number(other.bytes) - Number(one.bytes) || one.oid - other.oid)
    let isLost = false
    const work = async () =>
      this.#server
        .session(database, async (client) => {
          for (let next = left.shift(); next !== undefined && !isLost; next = left.shift()) {
            const said = await look(client, next).catch(serverSaid)
            note(tally, { database, relation: next, said })
            // The server may have died of what it read.
            if (said instanceof Error && !(said instanceof pg.DatabaseError)) isLost = true
            this.#onBytes(Number(next.bytes))
          }
        })
        .catch(serverSaid)
    const ended = await Promise.all(Array.from({ length: Math.min(SESSIONS, relations.length) }, work))
    const broken = ended.find((each) => each instanceof Error)
    if (broken !== undefined && !isLost) noteCorrupt(tally, { database, oid: 0, where: `database "${database}"` }, broken)
    if (broken !== undefined || isLost) return
    const said = await this.#server.session(database, async (client) => noteOthers(client, others, tally)).catch(serverSaid)
    if (said !== undefined) noteCorrupt(tally, { database, oid: 0, where: `database "${database}"` }, said)
  }

  /** Makes the extension, in this copy alone, after the cluster's event triggers were disabled. False where its files are not there. */
  async #prepare(database: string, client: pg.Client): Promise<boolean> {
    if (this.#ready.has(database)) return true
    const { rows } = await client.query("select 1 from pg_available_extensions where name = 'amcheck'")
    if (rows.length === 0) return false
    const { rows: triggers } = await client.query<{ name: string }>(
      "select quote_ident(evtname) as name from pg_event_trigger where evtenabled <> 'D'",
    )
    for (const { name } of triggers) await client.query(`alter event trigger ${name} disable`)
    // One that the cluster has may have been changed: it goes, with what needs it. Nothing of this copy is kept.
    await client.query('drop extension if exists amcheck cascade')
    await client.query(`create schema ${this.#schema}`)
    await client.query(`create extension amcheck schema ${this.#schema}`)
    this.#ready.add(database)
    return true
  }
}

function note(
  tally: Tally,
  {
    database,
    relation,
    said,
  }: { readonly database: string; readonly relation: Relation; readonly said: string | Error | undefined },
): void {
  tally.checked += 1
  if (said instanceof pg.DatabaseError && LIBRARY_MISSING.test(said.message)) {
    tally.notProven += 1
    passOver(tally, `for which "${said.message}"`, 1)
  } else if (said !== undefined) {
    noteCorrupt(tally, { database, oid: relation.oid, where: `${relation.name} in "${database}"` }, said)
  }
}

async function noteOthers(client: pg.Client, others: string, tally: Tally): Promise<void> {
  const { rows } = await client.query<{ kind: string; count: string }>(others)
  for (const { kind, count } of rows) passOver(tally, kind, Number(count))
}

function passOver(tally: Tally, kind: string, count: number): void {
  tally.passedOver.set(kind, (tally.passedOver.get(kind) ?? 0) + count)
}

/** Of several the first by its place is shown, whichever session was quicker. */
function noteCorrupt(
  tally: Tally,
  { database, oid, where }: { readonly database: string; readonly oid: number; readonly where: string },
  said: string | Error,
): void {
  tally.corrupt += 1
  if (tally.words.length < WORDS_MAX) tally.words.push(`${where}: ${typeof said === 'string' ? said : said.message}`)
  const place = `${database} ${String(oid).padStart(10, '0')}`
  if (tally.example !== '' && tally.examplePlace <= place) return
  tally.example = `${where}: ${typeof said === 'string' ? said : withoutValues(said)}`
  tally.examplePlace = place
}

function summary(what: string, databases: number, tally: Tally): Finding {
  const over = [...tally.passedOver].map(([kind, count]) => `${count} ${kind}`).join(', ')
  const rest = over === '' ? '' : `; not looked at: ${over}`
  if (tally.corrupt > 0)
    return {
      verdict: 'failed',
      found: `${tally.corrupt} of ${tally.checked} ${what} corrupt: ${tally.example}${rest}`,
      findings: tally.words,
    }
  // The catalogs alone are hundreds.
  if (tally.checked === 0) return { verdict: 'failed', found: `no ${what} were found` }
  if (tally.notProven > 0)
    return { verdict: 'not proven', found: `${tally.checked - tally.notProven} of ${tally.checked} ${what} sound${rest}` }
  return { verdict: 'verified', found: `${tally.checked} ${what} in ${databases} databases, all sound${rest}` }
}

const DATABASES = 'select datname::text as name from pg_database where datallowconn order by oid'

const TABLES = `
  select c.oid, c.oid::regclass::text as name, pg_relation_size(c.oid)::text as bytes
  from pg_class c join pg_am a on a.oid = c.relam
  where c.relkind in ('r', 't', 'm') and c.relpersistence = 'p' and a.amname = 'heap' order by c.oid`

const OTHER_TABLES = `
  select 'tables of access method ' || a.amname as kind, count(*) as count
  from pg_class c join pg_am a on a.oid = c.relam
  where c.relkind in ('r', 't', 'm') and c.relpersistence = 'p' and a.amname <> 'heap' group by 1 order by 1`

const INDEXES = `
  select c.oid, c.oid::regclass::text as name, pg_relation_size(c.oid)::text as bytes
  from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
  where c.relkind = 'i' and c.relpersistence = 'p' and a.amname = 'btree' and i.indisvalid and i.indisready order by c.oid`

const OTHER_INDEXES = `
  select case when a.amname = 'btree' then 'invalid B-trees' else a.amname || ' indexes' end as kind, count(*) as count
  from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
  where c.relkind = 'i' and c.relpersistence = 'p' and not (a.amname = 'btree' and i.indisvalid and i.indisready)
  group by 1 order by 1`
