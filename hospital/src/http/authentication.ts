import { createHash, randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import type pg from 'pg'
import type { Context, Database } from '../database/database.ts'
import { CannotRun, Refusal } from '../refusal.ts'

const TOKEN_BYTES = 32
/** How long a token that was looked up is believed: as long it may still work after it was taken away. */
const BELIEVED_MS = 5_000
const REMEMBERED_MAX = 10_000

/** Who asks, and for whom: `facility_context` of the seed documents. */
export interface Requester {
  readonly user: string
  readonly role: 'clinician' | 'clerk' | 'group'
  readonly context: Context
}

/** Finds out who holds a bearer token. */
export class Authentication {
  readonly #database: Database
  readonly #now: () => number
  readonly #known = new Map<string, { readonly requester: Requester; readonly untilMs: number }>()

  constructor(database: Database, now: () => number = Date.now) {
    this.#database = database
    this.#now = now
  }

  /** Throws UNAUTHENTICATED for a header that is missing, is no bearer token, or whose token nobody holds. */
  async requester(header: string | undefined): Promise<Requester> {
    const token = /^Bearer ([\w-]{20,100})$/i.exec(header ?? '')?.[1]
    if (token === undefined) {
      throw new Refusal(
        'UNAUTHENTICATED',
        header === undefined ? 'the request has no Authorization header' : 'the Authorization header is no bearer token',
        {
          hint: 'send "Authorization: Bearer TOKEN"; `hospital token USER` makes one',
        },
      )
    }
    const hash = hashOf(token).toString('hex')
    const known = this.#known.get(hash)
    if (known !== undefined && known.untilMs > this.#now()) return known.requester
    const requester = await this.#find(hash)
    if (this.#known.size >= REMEMBERED_MAX) this.#known.clear()
    this.#known.set(hash, { requester, untilMs: this.#now() + BELIEVED_MS })
    return requester
  }

  async #find(hash: string): Promise<Requester> {
    const found = await this.#database.asService(async (queries) =>
      queries
        .selectFrom('user_tokens as t')
        .innerJoin('users as u', 'u.id', 't.user_id')
        .leftJoin('facilities as f', 'f.id', 'u.facility')
        .select(['u.id', 'u.role', 'u.facility', 'f.active as facilityActive'])
        .where('t.token_hash', '=', Buffer.from(hash, 'hex'))
        .where('u.active', '=', true)
        .where((each) => each.or([each('t.expires_at', 'is', null), each('t.expires_at', '>', sql<Date>`now()`)]))
        .executeTakeFirst(),
    )
    if (found === undefined)
      throw new Refusal('UNAUTHENTICATED', 'nobody holds this token', { hint: '`hospital token USER` makes another' })
    const { id: user, facility } = found
    const role = found.role as Requester['role']
    if (facility === null) return { user, role, context: { kind: 'group', actor: `User/${user}` } }
    if (found.facilityActive !== true) throw new Refusal('FORBIDDEN', `the facility ${facility} is not active`)
    return { user, role, context: { kind: 'facility', facility, actor: `User/${user}` } }
  }
}

/** Makes a token for a user and gives it; the database keeps its hash alone. Throws CannotRun when there is no such user. */
export async function makeToken(
  admin: pg.ClientBase,
  user: string,
  options: { readonly expiresAt?: Date } = {},
): Promise<string> {
  const token = randomBytes(TOKEN_BYTES).toString('base64url')
  const { rowCount } = await admin.query(
    'insert into hospital.user_tokens (token_hash, user_id, expires_at) select $1, id, $3 from hospital.users where id = $2',
    [hashOf(token), user, options.expiresAt ?? null],
  )
  if (rowCount === 1) return token
  const { rows } = await admin.query<{ id: string }>('select id from hospital.users order by id limit 10')
  throw new CannotRun(`there is no user "${user}"`, { hint: `there are ${rows.map(({ id }) => id).join(', ') || 'none yet'}` })
}

function hashOf(token: string): Buffer {
  return createHash('sha256').update(token).digest()
}
