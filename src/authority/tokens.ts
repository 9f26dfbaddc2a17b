import { randomUUID } from 'node:crypto'
import {
  insertToken,
  listTokens,
  listUnsealedTokens,
  noteTokenUse,
  putTokenSeal,
  readToken,
  revokeToken,
  type NewTokenRow,
  type TokenRow,
} from '../catalog/tokens.ts'
import { Failure } from '../errors.ts'
import type { From } from './account-event.ts'
import type { AccountParts } from './account-parts.ts'
import type { Remembered } from './credential-memory.ts'
import { areWithin, grantsOf, within } from './grants.ts'
import type { Grant, Principal } from './principal.ts'
import { digestOf, randomSecret } from './sealing-key.ts'
import { isTokenSealed, sealOfToken } from './seals.ts'

export const TOKEN = /^resus_[\w-]{43}$/
const DAY_MS = 24 * 3_600_000
const LONGEST_MS = 400 * DAY_MS
const USE_MS = 60_000
const LIVE_MAX = 50
const LISTED_MAX = 200
/** What a token never does, whoever its owner is. */
const NEVER = new Set<string>(['approver', 'administrator'])

export interface TokenView {
  readonly id: string
  readonly name: string
  readonly grants: readonly Grant[]
  readonly madeAt: Date
  readonly expiresAt: Date
  readonly lastUsedAt: Date | null
  readonly revokedAt: Date | null
}

export interface WantedToken {
  readonly name: string
  readonly grants: readonly Grant[]
  readonly expiresAt: Date
}

/** API tokens: of somebody, for less than they may themselves. */
export class Tokens {
  readonly #parts: AccountParts

  constructor(parts: AccountParts) {
    this.#parts = parts
  }

  /** Of what only reads. The token is shown this once. Throws FORBIDDEN for more than the owner may, ARGUMENTS_INVALID. */
  async make(
    owner: Pick<Principal, 'kind' | 'id' | 'grants'>,
    wanted: WantedToken,
    from: From,
  ): Promise<{ readonly token: string; readonly view: TokenView }> {
    const { token, made, view } = await this.prepare(owner, wanted)
    await this.keep(made, from)
    return { token, view }
  }

  /** A token that is worth nothing before it is kept: for one that another person decides on first. Throws what `make` throws. */
  async prepare(
    owner: Pick<Principal, 'kind' | 'id' | 'grants'>,
    wanted: WantedToken,
  ): Promise<{ readonly token: string; readonly made: NewTokenRow; readonly view: TokenView }> {
    const { clock, sealed } = this.#parts
    const at = new Date(clock.now())
    const { name, grants, expiresAt } = wanted
    if (owner.kind !== 'person') throw new Failure('FORBIDDEN', 'only people make tokens')
    const person = await sealed.read({ id: owner.id })
    // The identity provider may take back tomorrow what it grants today, and does not tell us.
    const isLocal = person !== undefined && person.state === 'active' && areWithin(grants, grantsOf(person.grants))
    if (!isLocal || !areWithin(grants, owner.grants) || grants.some(({ role }) => NEVER.has(role))) {
      throw new Failure('FORBIDDEN', 'a token may do no more than its owner, and neither approves nor administers', {
        hint: 'leave grants out; what an identity provider has granted is no token’s',
      })
    }
    const lastsMs = expiresAt.getTime() - at.getTime()
    if (!(lastsMs > 0 && lastsMs <= LONGEST_MS)) throw new Failure('ARGUMENTS_INVALID', 'a token ends within 400 days')
    const token = `resus_${randomSecret()}`
    const id = randomUUID()
    const view = { id, name, grants, madeAt: at, expiresAt, lastUsedAt: null, revokedAt: null }
    return { token, made: { id, person: person.id, name, digest: digestOf(token), grants, at, expiresAt }, view }
  }

  /** From now on it is good. The same again is the same. Throws ARGUMENTS_INVALID, PERSON_UNKNOWN. */
  async keep(made: NewTokenRow, from: From): Promise<void> {
    const { store, note, seal, sealed } = this.#parts
    const person = await sealed.read({ id: made.person })
    if (person === undefined) throw new Failure('PERSON_UNKNOWN', 'there is no such person')
    if ((await readToken(store.sql, made.digest)) !== undefined) return
    const row = { ...made, made_at: made.at, expires_at: made.expiresAt }
    if (!(await insertToken(store.sql, { ...made, seal: sealOfToken(seal, row) }, LIVE_MAX))) {
      throw new Failure('ARGUMENTS_INVALID', `there are ${LIVE_MAX} tokens already`, { hint: 'revoke one' })
    }
    const { id, name, grants, expiresAt } = made
    const after = { token: id, name, grants, expiresAt: expiresAt.toISOString() }
    await note({ action: 'token.made', outcome: 'done', person: { id: person.id, name: person.name }, from, after })
  }

  /** Newest first. */
  async list(person: string): Promise<TokenView[]> {
    return (await listTokens(this.#parts.store.sql, person, LISTED_MAX)).map(viewOf)
  }

  /** At once on this node, within five seconds on others. Throws NOT_FOUND. */
  async revoke(owner: { readonly id: string; readonly name: string }, id: string, from: From): Promise<void> {
    const { store, clock, memory, note } = this.#parts
    const row = await revokeToken(store.sql, { person: owner.id, id, at: new Date(clock.now()) })
    memory.forget({ id })
    if (row === undefined) throw new Failure('NOT_FOUND', 'there is no such token')
    await note({ action: 'token.revoked', outcome: 'done', person: owner, from, before: { token: id, name: row.name } })
  }

  /** Seals those that nobody has sealed yet: once, when sealing begins. */
  async beginSeals(): Promise<void> {
    const { store, seal } = this.#parts
    for (const row of await listUnsealedTokens(store.sql))
      await putTokenSeal(store.sql, { id: row.id, seal: sealOfToken(seal, row) })
  }

  /** Undefined for what is no token (any more). Whose owner has no factor has no grants. */
  async find(token: string): Promise<Remembered | undefined> {
    const { store, clock, seal, sealed, onChanged } = this.#parts
    const row = TOKEN.test(token) ? await readToken(store.sql, digestOf(token)) : undefined
    const at = new Date(clock.now())
    if (row === undefined || row.revoked_at !== null || row.expires_at <= at) return undefined
    const owner = await sealed.readGood({ id: row.person })
    if (owner?.state !== 'active') return undefined
    if (!isTokenSealed(seal, row)) {
      onChanged({ person: { id: owner.id, name: owner.name }, what: 'token' })
      return undefined
    }
    const unlessSince = new Date(at.getTime() - USE_MS)
    if (row.last_used_at === null || row.last_used_at < unlessSince)
      await noteTokenUse(store.sql, { id: row.id, at, unlessSince })
    const principal: Principal = {
      kind: 'token',
      id: row.id,
      person: row.person,
      name: `${owner.name} (token "${row.name}")`,
      grants: owner.factors.length > 0 ? within(grantsOf(row.grants), grantsOf(owner.grants)) : [],
      factor: 'token',
    }
    return { principal, session: null, id: row.id, person: row.person, goodUntilMs: row.expires_at.getTime() }
  }
}

function viewOf(row: TokenRow): TokenView {
  return {
    id: row.id,
    name: row.name,
    grants: grantsOf(row.grants),
    madeAt: row.made_at,
    expiresAt: row.expires_at,
    lastUsedAt: row.last_used_at,
    revokedAt: row.revoked_at,
  }
}
