import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { asOwner } from '../database/owner.ts'
import { CannotRun } from '../refusal.ts'
import { settledPosition } from './checkpoints.ts'
import { danglingKeys } from './foreign-keys.ts'
import { PROJECTIONS } from './projections.ts'
import { compareShadow, dropShadow, projectInto, projectShadow, replaceRows, type ProjectionComparison } from './shadow.ts'

export interface RebuildOptions {
  /** Of the owner; for `replaceProjections` of a superuser. */
  readonly connectionString: string
}

/** One rebuild at a time. Any number that nobody else takes. */
const LOCK = 7_310_041
const LOCK_TIMEOUT = '10s'
const LOCK_ATTEMPTS = 5
const DEADLOCK = '40P01'
const LOCK_NOT_AVAILABLE = '55P03'

/** Makes every projection again from the events and says where what is there differs. Changes nothing, and holds up nobody: all of it is one snapshot. */
export async function compareProjections({ connectionString }: RebuildOptions): Promise<ProjectionComparison[]> {
  return await asOwner({ connectionString, name: 'hospital rebuild' }, async (client) => {
    await client.query('begin isolation level repeatable read')
    try {
      return await compareInTransaction(client)
    } finally {
      await client.query('rollback')
    }
  })
}

/** The same in a transaction that is begun already, at repeatable read, and that the caller rolls back. */
export async function compareInTransaction(client: pg.ClientBase): Promise<ProjectionComparison[]> {
  await takeTurn(client)
  await projectShadow(client)
  return await compareShadow(client)
}

/**
 * Makes every projection again and puts its rows where what is there differs, in one transaction: a crash leaves all or nothing. The service may run. It
 * is held up only while rows are compared and put in place: events until then are projected before, and the few that came since under the lock.
 * Gives what differed. Throws CannotRun when writers do not let it begin.
 */
export async function replaceProjections({ connectionString }: RebuildOptions): Promise<ProjectionComparison[]> {
  return await asOwner({ connectionString, name: 'hospital rebuild' }, async (client) => {
    const settled = await settledPosition(async (text, values) => (await client.query(text, values)).rows[0])
    if (settled === undefined) {
      throw new CannotRun('a transaction that writes does not end', {
        hint: 'see pg_stat_activity for the one that runs longest',
      })
    }
    await client.query('begin')
    try {
      const comparisons = await replaceInTransaction(client, settled)
      await client.query('commit')
      return comparisons
    } catch (error) {
      await client.query('rollback').catch(() => undefined)
      throw error
    }
  })
}

async function replaceInTransaction(client: pg.ClientBase, settled: bigint): Promise<ProjectionComparison[]> {
  await takeTurn(client)
  await projectShadow(client)
  await lockOutWriters(client)
  // All that was not settled when the first pass began, and all that came since. What it does twice changes nothing.
  await projectInto(client, settled + 1n)
  const comparisons = await compareShadow(client)
  const damaged = comparisons.filter(({ differing }) => differing > 0)
  if (damaged.length > 0) {
    // Rows that refer to each other are replaced one table after the other; what foreign keys would have said is asked below.
    await client.query('set local session_replication_role = replica').catch((cause: unknown) => {
      throw new CannotRun("replacing a projection's rows takes a superuser", { hint: 'connect as one', cause })
    })
    for (const { table } of damaged) await replaceRows(client, table)
    await requireForeignKeys(client)
  }
  await dropShadow(client)
  return comparisons
}

async function takeTurn(client: pg.ClientBase): Promise<void> {
  const { rows } = await client.query<{ taken: boolean }>('select pg_try_advisory_xact_lock($1) as taken', [LOCK])
  if (rows[0]?.taken !== true) throw new CannotRun('another rebuild is at work', { hint: 'wait until it has ended' })
}

/** Readers go on. A writer that holds a row of a projection and waits for the events, while we wait for it, is a deadlock: then we let it pass first. */
async function lockOutWriters(client: pg.ClientBase): Promise<void> {
  await client.query(`set local lock_timeout = '${LOCK_TIMEOUT}'`)
  const tables = ['events', ...PROJECTIONS].map((table) => `hospital.${table}`).join(', ')
  for (let attempt = 1; ; attempt += 1) {
    await client.query('savepoint before_lock')
    try {
      await client.query(`lock table ${tables} in exclusive mode`)
      return
    } catch (error) {
      const code = error instanceof pg.DatabaseError ? error.code : undefined
      if (code !== DEADLOCK && code !== LOCK_NOT_AVAILABLE) throw error
      if (attempt === LOCK_ATTEMPTS || code === LOCK_NOT_AVAILABLE) {
        throw new CannotRun(`writers did not give way within ${LOCK_TIMEOUT}`, {
          hint: 'try again when less is written',
          cause: error,
        })
      }
      await client.query('rollback to before_lock')
      await delay(100 * attempt)
    }
  }
}

async function requireForeignKeys(client: pg.ClientBase): Promise<void> {
  const [first] = (await danglingKeys(client)).dangling
  if (first === undefined) return
  throw new Error(
    `the events refer to what they do not have, so nothing was replaced: ${first.constraint} of ${first.examples[0]}`,
  )
}
