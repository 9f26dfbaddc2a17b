import pg from 'pg'
import type { KeyRing } from '../../repository/key-ring.ts'
import { canaryValue, WHOLE, type Canary } from './content/canary.ts'
import type { Beat } from './heartbeat-session.ts'

export const CANARIES_EVERY_MS = 3600 * 1000
/** Where the key or the table is not there. */
const AGAIN_MS = 60_000

/** What it takes to renew the canaries of a component. */
export interface CanaryKeeper {
  readonly component: string
  readonly facilities: readonly string[]
  /** The keys of the repository, which may be away: then there are no new canaries. */
  readonly ring: () => Promise<KeyRing>
}

/** Renews canaries beside a heartbeat, once an hour: whatever goes wrong with them, the heart beats on. */
export class CanaryRound {
  readonly #keeper: CanaryKeeper
  #ring: KeyRing | undefined
  #nextMs = 0
  #isOpening = false

  constructor(keeper: CanaryKeeper) {
    this.#keeper = keeper
  }

  /** After a beat, in its session: their time is the beat's, by the server's clock. A connection that is lost fails the next beat. */
  async renew(client: Pick<pg.ClientBase, 'query'>, beat: Beat): Promise<void> {
    const atMs = beat.at.getTime()
    if (atMs < this.#nextMs) return
    this.#nextMs = atMs + AGAIN_MS
    if (this.#ring === undefined) return this.#open()
    try {
      if (await this.#plant(client, this.#ring, atMs)) this.#nextMs = atMs + CANARIES_EVERY_MS
    } catch (error) {
      // What was not planted is what a drill says is not proven.
      if (!(error instanceof pg.DatabaseError)) throw error
    }
  }

  /** A storage that stalls holds no beat up. */
  #open(): void {
    if (this.#isOpening) return
    this.#isOpening = true
    void this.#keeper
      .ring()
      .then((ring) => {
        this.#ring = ring
        this.#nextMs = 0
      })
      .catch(() => undefined)
      .finally(() => {
        this.#isOpening = false
      })
  }

  /** All in one statement. Of two who renew at once, one does. False where there is no table that we may write. */
  async #plant(client: Pick<pg.ClientBase, 'query'>, ring: KeyRing, atMs: number): Promise<boolean> {
    const { rows: allowed } = await client.query<{ allowed: boolean }>(ALLOWED)
    if (allowed[0]?.allowed !== true) return false
    const { rows: there } = await client.query<{ facility: string; number: string; at: string; facilities: string[] | null }>(
      STORED,
    )
    const numbers = new Map(there.map(({ facility, number }) => [facility, BigInt(number)]))
    const whole = there.find(({ facility }) => facility === WHOLE)
    const facilities = [...new Set(this.#keeper.facilities)].toSorted()
    const isSame = JSON.stringify(whole?.facilities) === JSON.stringify(facilities)
    // Another node, or this one before it was started anew.
    if (whole !== undefined && isSame && atMs - Number(whole.at) < CANARIES_EVERY_MS) return true
    const canaries = [WHOLE, ...facilities].map((facility): Canary => {
      const number = (numbers.get(facility) ?? 0n) + 1n
      return { facility, number, atMs, facilities: facility === WHOLE ? facilities : null }
    })
    await client.query(PLANT, [
      canaries.map(({ facility }) => facility),
      canaries.map(({ number }) => String(number)),
      new Date(atMs).toISOString(),
      canaries.map((canary) => canaryValue(ring, this.#keeper.component, canary)),
      facilities,
    ])
    return true
  }
}

/** From the catalog: a statement that fails leaves a line in the hospital's log each time. */
const ALLOWED = `
  select coalesce(bool_and(has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert') and has_table_privilege(c.oid, 'update')), false) as allowed
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'resus' and c.relname = 'canary' and c.relkind = 'r'`
const STORED = `
  select facility, number::text, (extract(epoch from at) * 1000)::bigint::text as at, facilities from resus.canary`
const PLANT = `
  insert into resus.canary as c (facility, number, at, value, facilities)
  select f, n, $3::timestamptz, v, case when f = '' then $5::text[] end from unnest($1::text[], $2::bigint[], $4::bytea[]) p (f, n, v)
  on conflict (facility) do update set number = excluded.number, at = excluded.at, value = excluded.value, facilities = excluded.facilities
  where c.number = excluded.number - 1`
