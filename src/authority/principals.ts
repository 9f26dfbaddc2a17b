import { createHash } from 'node:crypto'
import { isStoreAway } from '../catalog/store.ts'
import { Failure } from '../errors.ts'
import type { From } from './account-event.ts'
import type { AccountParts } from './account-parts.ts'
import type { Remembered, SessionView } from './credential-memory.ts'
import { grantsOf } from './grants.ts'
import type { Grant, Principal } from './principal.ts'
import type { FoundSession, Sessions } from './sessions.ts'
import type { Tokens } from './tokens.ts'

/** A store that takes so long is as good as away, where we remember. */
const SLOW_MS = 2_000
/** So long nobody asks a store that was away, where we remember. */
const AWAY_AGAIN_MS = 2_000
/** Questions under way at once; more are refused rather than kept. */
const ASKING_MAX = 1_000

export type Credential =
  { readonly kind: 'bearer'; readonly token: string } | { readonly kind: 'session'; readonly cookie: string }

export interface Identified {
  readonly principal: Principal
  /** Of a browser; null for a token. */
  readonly session: SessionView | null
  /** Another cookie for the browser, where its secret was replaced just now. */
  readonly cookie: string | null
  /** The store is away, and this is what was so some minutes ago: good for reading alone. */
  readonly isReadOnly: boolean
}

interface Asked {
  readonly found: Remembered
  readonly cookie: string | null
}

/** Who has which credential. Asks the store once in five seconds for each, and once for however many ask at the same time. */
export class Principals {
  readonly #parts: AccountParts
  readonly #sessions: Sessions
  readonly #tokens: Tokens
  readonly #asking = new Map<string, Promise<Asked | undefined>>()
  #awayUntilMs = 0

  constructor(parts: AccountParts, { sessions, tokens }: { readonly sessions: Sessions; readonly tokens: Tokens }) {
    this.#parts = parts
    this.#sessions = sessions
    this.#tokens = tokens
  }

  /** Undefined for what is no credential (any more). Throws STORE_UNREACHABLE for what is not remembered while the store is away. */
  async of(credential: Credential, from: From & { readonly isBackground?: boolean }): Promise<Identified | undefined> {
    const { memory, clock } = this.#parts
    const key = keyOf(credential)
    const nowMs = clock.now()
    const fresh = memory.fresh(key, nowMs)
    if (fresh !== undefined) return identified(fresh, { cookie: null, isReadOnly: false })
    const old = memory.whileAway(key, nowMs)
    if (old !== undefined && nowMs < this.#awayUntilMs) return identified(old, { cookie: null, isReadOnly: true })
    try {
      const asked = await this.#patiently(this.#askOnce(key, credential, from), old !== undefined)
      return asked === undefined ? undefined : identified(asked.found, { cookie: asked.cookie, isReadOnly: false })
    } catch (error) {
      if (!isStoreAway(error)) throw error
      this.#awayUntilMs = clock.now() + AWAY_AGAIN_MS
      const still = memory.whileAway(key, clock.now())
      if (still === undefined) throw error
      return identified(still, { cookie: null, isReadOnly: true })
    }
  }

  /** A store that takes a question and never answers holds nobody up who is remembered. */
  async #patiently(asked: Promise<Asked | undefined>, isRemembered: boolean): Promise<Asked | undefined> {
    if (!isRemembered) return await asked
    const answered = new AbortController()
    const slow = this.#parts.clock.sleep(SLOW_MS, answered.signal).then(
      () => Promise.reject(new Failure('STORE_UNREACHABLE', 'the store does not answer in time')),
      async () => asked,
    )
    try {
      return await Promise.race([asked, slow])
    } finally {
      answered.abort()
    }
  }

  async #askOnce(
    key: string,
    credential: Credential,
    from: From & { readonly isBackground?: boolean },
  ): Promise<Asked | undefined> {
    const before = this.#asking.get(key)
    if (before !== undefined) return await before
    if (this.#asking.size >= ASKING_MAX) throw new Failure('BUSY', 'too many ask who they are at once', { hint: 'try again' })
    const asked = this.#ask(key, credential, from).finally(() => this.#asking.delete(key))
    this.#asking.set(key, asked)
    // Whoever waits has gone on without it, perhaps.
    asked.catch(() => undefined)
    return await asked
  }

  async #ask(key: string, credential: Credential, from: From & { readonly isBackground?: boolean }): Promise<Asked | undefined> {
    const { memory, clock } = this.#parts
    const { era } = memory
    const asked =
      credential.kind === 'bearer'
        ? await this.#tokens.find(credential.token).then((found) => (found === undefined ? undefined : { found, cookie: null }))
        : askedSession(await this.#sessions.find(credential.cookie, from))
    if (asked === undefined) memory.drop(key)
    else memory.keep(key, asked.found, { era, nowMs: clock.now() })
    return asked
  }
}

function askedSession(session: FoundSession | undefined): Asked | undefined {
  if (session === undefined) return undefined
  const { family, view, cookie, goodUntilMs } = session
  const { id, person } = family
  const { name } = family.owner
  const factor = family.factor as Principal['factor']
  const principal: Principal = { kind: 'person', id: person, person, name, grants: sessionGrants(session), factor }
  return { found: { principal, session: view, id, person, goodUntilMs }, cookie }
}

/**
 * Their own grants take a factor of ours. An identity provider's are of that log-on alone, and need none. A password by itself is good for making a factor, and for nothing else.
 */
function sessionGrants({ family }: FoundSession): Grant[] {
  const { factor } = family
  const own = factor === 'totp' || factor === 'passkey' ? grantsOf(family.owner.grants) : []
  return [...own, ...grantsOf(family.grants)]
}

function identified(found: Remembered, rest: Pick<Identified, 'cookie' | 'isReadOnly'>): Identified {
  return { principal: found.principal, session: found.session, ...rest }
}

function keyOf(credential: Credential): string {
  const text = credential.kind === 'bearer' ? `b${credential.token}` : `s${credential.cookie}`
  return createHash('sha256').update(text).digest('base64')
}
