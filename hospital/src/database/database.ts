import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { CannotRun } from '../refusal.ts'
import type { Schema } from './schema.ts'

/** For whom a transaction works. Row security sees to it that it sees and changes nothing else. */
export type Context =
  | { readonly kind: 'facility'; readonly facility: string; readonly actor: string }
  | { readonly kind: 'group'; readonly actor: string }
  | { readonly kind: 'worker'; readonly actor: string }

/** One transaction: `sql` for queries in TypeScript, `client` for functions of the database. */
export interface Transaction {
  readonly context: Context
  readonly sql: Kysely<Schema>
  readonly client: pg.PoolClient
  /** The lane that this connection appends events to. */
  readonly lane: number
}

export interface DatabaseOptions {
  /** Of a user that is, or may become, `hospital_service`. */
  readonly connectionString: string
  readonly connectionsMax?: number
  readonly applicationName?: string
}

const CONNECTIONS_MAX = 16
/** A day stays the text that it is: a Date would have a time, and a zone. */
pg.types.setTypeParser(pg.types.builtins.DATE, String)
const CONNECT_TIMEOUT_MS = 10_000
const LANES_MAX = 512
/** The class of advisory locks on lanes; any number that nobody else takes. */
const LANE_LOCKS = 7_310_002
const BEGIN_SERVICE = "begin; set local role hospital_service; set local hospital.facility = ''"
const ROLES = { facility: 'hospital_facility', group: 'hospital_group', worker: 'hospital_worker' } as const

/** One connection of the pool, with what belongs to it. */
interface Seat {
  readonly lane: number
  readonly sql: Kysely<Schema>
}

/**
 * The hospital's database as the service sees it: a pool whose connections are nobody (`hospital_service`) until a transaction takes a role, and whose
 * role and facility end with that transaction.
 */
export class Database {
  readonly #pool: pg.Pool
  readonly #seats = new WeakMap<pg.PoolClient, Seat>()

  constructor(options: DatabaseOptions) {
    this.#pool = new pg.Pool({
      connectionString: options.connectionString,
      max: options.connectionsMax ?? CONNECTIONS_MAX,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      // Queries are sent without waiting for the answers to those before: a transaction begins on the way of its first query.
      pipeline: true,
      application_name: options.applicationName ?? 'hospital',
      // What a session has from its start is also what RESET ROLE gives it back.
      options: '-c role=hospital_service -c search_path=hospital,pg_temp -c timezone=UTC -c jit=off',
    })
    // An idle connection that breaks is replaced at the next use.
    this.#pool.on('error', () => undefined)
    // One that breaks in use fails its query, and that is enough: an error event that nobody hears would end the process.
    this.#pool.on('connect', (client) => client.on('error', () => undefined))
  }

  /** Runs `work` in one transaction for somebody; commits when it returns, rolls back when it throws. */
  async transaction<Result>(context: Context, work: (transaction: Transaction) => Promise<Result>): Promise<Result> {
    return await this.#run(begin(context), async (client) => {
      const seat = await this.#seat(client)
      return await work({ context, client, ...seat })
    })
  }

  /** Runs `work` as the service itself, which sees users, tokens and the registry of facilities, and no patient. */
  async asService<Result>(work: (sql: Kysely<Schema>) => Promise<Result>): Promise<Result> {
    return await this.#run(BEGIN_SERVICE, async (client) => {
      const seat = await this.#seat(client)
      return await work(seat.sql)
    })
  }

  async close(): Promise<void> {
    await this.#pool.end()
  }

  async #run<Result>(beginning: string, work: (client: pg.PoolClient) => Promise<Result>): Promise<Result> {
    const client = await this.#pool.connect()
    let broken: Error | undefined
    try {
      await this.#seat(client)
      const begun = client.query(beginning)
      // Waited for below. Should it fail, so does all that follows: nobody (hospital_service) has no right to any row.
      begun.catch(() => undefined)
      const result = await work(client)
      await begun
      const { command } = await client.query('commit')
      // What PostgreSQL answers when a statement had failed, and `work` did not pass the error on.
      if (command !== 'COMMIT') throw new Error('a statement of this transaction had failed: it was rolled back')
      return result
    } catch (error) {
      await client.query('rollback').catch((cause: unknown) => {
        broken = cause instanceof Error ? cause : new Error(String(cause))
      })
      throw error
    } finally {
      client.release(broken)
    }
  }

  async #seat(client: pg.PoolClient): Promise<Seat> {
    const known = this.#seats.get(client)
    if (known !== undefined) return known
    const seat = { lane: await takeLane(client), sql: queriesOn(client) }
    this.#seats.set(client, seat)
    return seat
  }
}

/** Role and facility are both set, always: what somebody may have set for the session counts for nothing. */
function begin(context: Context): string {
  const facility = context.kind === 'facility' ? context.facility : ''
  return `begin; set local role ${ROLES[context.kind]}; set local hospital.facility = ${pg.escapeLiteral(facility)}`
}

/** The first lane that no other connection holds, held until this one ends. */
async function takeLane(client: pg.PoolClient): Promise<number> {
  for (let lane = 1; lane <= LANES_MAX; lane += 1) {
    const { rows } = await client.query<{ taken: boolean }>('select pg_try_advisory_lock($1, $2) as taken', [LANE_LOCKS, lane])
    if (rows[0]?.taken !== true) continue
    await client.query(
      'begin; set local role hospital_worker; ' +
        `insert into hospital.lanes (lane) values (${lane}) on conflict do nothing; commit`,
    )
    return lane
  }
  throw new CannotRun(`all ${LANES_MAX} lanes are taken`, {
    hint: 'end services of this hospital that nobody needs, or give each fewer connections',
  })
}

/** Kysely on one connection: it makes the statements, and we hold the transaction. */
function queriesOn(client: pg.PoolClient): Kysely<Schema> {
  const handle = {
    query: client.query.bind(client),
    release: () => undefined,
  }
  const pool = { connect: async () => handle, end: async () => undefined, options: {} }
  // What PostgresDialect asks of a pool is these two calls.
  return new Kysely<Schema>({ dialect: new PostgresDialect({ pool: pool as never }) })
}
