import type { Transaction } from '../database/database.ts'
import { record } from '../events/record.ts'
import { GROUP_FACILITY } from '../facilities/users.ts'
import { Refusal } from '../refusal.ts'

export interface Hold {
  readonly held: boolean
  readonly reason: string
  /** Who engaged or released it. */
  readonly person: string
  readonly at: Date
}

const STREAM_ID = '1'
const STREAM = `Hold/${STREAM_ID}`
/** Held shared by each transaction that delivers, and alone by each that changes the hold. Any number that nobody else takes. */
const HOLD_LOCK = 7_310_031
const REASON_LENGTH_MAX = 500

/** The hold as this transaction sees it; undefined when there never was one. */
export async function readHold({ sql }: Transaction): Promise<Hold | undefined> {
  return await sql
    .selectFrom('holds')
    .select(['held', 'reason', 'person', 'updated_at as at'])
    .where('id', '=', STREAM_ID)
    .executeTakeFirst()
}

/** Whether nothing may be delivered. Until this transaction ends, nobody engages the hold: who does waits for it, and then nothing more is delivered. */
export async function isHeld(transaction: Transaction): Promise<boolean> {
  await transaction.client.query('select pg_advisory_xact_lock_shared($1)', [HOLD_LOCK])
  return (await readHold(transaction))?.held === true
}

/** Stops all that leaves the hospital, once this transaction has committed. Held already, it stays so, for both reasons. */
export async function engageHold(transaction: Transaction, given: { reason: string; person: string }): Promise<Hold> {
  const before = await lockHold(transaction)
  const reason = before?.held === true ? `${given.reason}; before that: ${before.reason}` : given.reason
  return await change(transaction, { held: true, reason, person: given.person })
}

/** Lets go what the hold has stopped. Throws CONFLICT when nothing is held, BAD_REQUEST when nobody is named. */
export async function releaseHold(transaction: Transaction, given: { reason?: string; person: string }): Promise<Hold> {
  if (given.person.trim() === '') {
    throw new Refusal('BAD_REQUEST', 'nobody is named', { hint: 'a named person releases the hold', expression: 'person' })
  }
  const before = await lockHold(transaction)
  if (before?.held !== true) throw new Refusal('CONFLICT', 'there is no hold to release')
  return await change(transaction, { held: false, reason: given.reason ?? `released: ${before.reason}`, person: given.person })
}

async function lockHold(transaction: Transaction): Promise<Hold | undefined> {
  await transaction.client.query('select pg_advisory_xact_lock($1)', [HOLD_LOCK])
  return await readHold(transaction)
}

async function change(transaction: Transaction, { held, reason, person }: Omit<Hold, 'at'>): Promise<Hold> {
  const payload = { held, reason: reason.slice(0, REASON_LENGTH_MAX), person }
  const { at } = await record(transaction, {
    stream: STREAM,
    type: held ? 'HoldEngaged' : 'HoldReleased',
    schemaVersion: 1,
    facility: GROUP_FACILITY,
    payload,
  })
  return { ...payload, at }
}
