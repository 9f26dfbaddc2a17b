import { randomUUID } from 'node:crypto'
import {
  endFamilies,
  endFamily,
  insertFamily,
  listFamilies,
  readFamily,
  rotateFamily,
  shortenPrevious,
  touchFamily,
  type SessionFamily,
} from '../catalog/session-families.ts'
import type { From } from './account-event.ts'
import type { AccountParts } from './account-parts.ts'
import type { SessionView } from './credential-memory.ts'
import type { Factor, Grant } from './principal.ts'
import { digestOf, randomSecret, type SealingKey } from './sealing-key.ts'
import { isFamilySealed, sealOfFamily } from './seals.ts'
import type { WholePerson } from '../catalog/whole-people.ts'

export const ROTATE_MS = 5 * 60_000
/** So long a secret that was replaced is good beside the one in its place, which somebody has shown. */
export const PREVIOUS_MS = 30_000
export const IDLE_MS = 15 * 60_000
export const WHOLE_MS = 12 * 3_600_000
/** Each minute that a family is idle is known to this. */
const TOUCH_MS = 30_000
const LIVE_MAX = 20
const USER_AGENT_MAX = 300
const COOKIE = /^([0-9a-f-]{36})\.(\d{1,9})\.([\w-]{43})\.([\w-]{22})$/

/** What a browser is given: the cookie, and what it has to send beside it. */
export interface NewSession {
  readonly cookie: string
  readonly view: SessionView
}

/** With whom it is of. */
type FamilyWithPerson = SessionFamily & { readonly owner: WholePerson }

export interface FoundSession {
  readonly family: FamilyWithPerson
  readonly view: SessionView
  /** Another secret, where the one that was shown has been replaced just now. */
  readonly cookie: string | null
  /** Of the secret that was shown. */
  readonly goodUntilMs: number
}

/** Of a log-on's end without a log-off. */
export type OnReplay = (replay: { readonly person: { readonly id: string; readonly name: string }; readonly from: From }) => void

/**
 * Families of sessions. The cookie is `<family>.<generation>.<random>.<mark>`: the mark says that we have made it, so that a secret of long ago is known for what it is (a replay) though the store
 * keeps the digests of two; and that what we have not made asks nothing of the store.
 */
export class Sessions {
  readonly #parts: AccountParts
  readonly #onReplay: OnReplay

  constructor(parts: AccountParts, onReplay: OnReplay) {
    this.#parts = parts
    this.#onReplay = onReplay
  }

  /** Always a new family. The oldest of too many ends. */
  async begin(start: {
    readonly person: string
    readonly factor: Factor
    readonly grants?: readonly Grant[]
    readonly from: From
  }): Promise<NewSession> {
    const { store, seal } = this.#parts
    const { person, factor, grants = [], from } = start
    const at = this.#now()
    const id = randomUUID()
    const cookie = cookieOf(seal, { id, generation: 1 })
    const userAgent = from.userAgent?.slice(0, USER_AGENT_MAX).replaceAll('\0', '').toWellFormed() ?? null
    const secret = digestOf(cookie)
    const sealed = sealOfFamily(seal, { id, person, factor, grants, made_at: at })
    await insertFamily(store.sql, { id, person, factor, grants, secret, at, address: from.address, userAgent, seal: sealed })
    await endFamilies(store.sql, { person, because: 'too many', at, newest: LIVE_MAX })
    return { cookie, view: this.#view({ id, person, made_at: at }) }
  }

  /** Undefined for what is no session (any more). */
  async find(cookie: string, from: From & { readonly isBackground?: boolean }): Promise<FoundSession | undefined> {
    const { store, seal } = this.#parts
    const shown = readCookie(seal, cookie)
    const row = shown === undefined ? undefined : await readFamily(store.sql, shown.id)
    if (shown === undefined || row === undefined || row.ended_at !== null) return undefined
    const owner = await this.#parts.sealed.readGood({ id: row.person })
    if (owner === undefined) return undefined
    const family = { ...row, owner }
    if (!isFamilySealed(seal, row)) {
      this.#parts.onChanged({ person: { id: owner.id, name: owner.name }, what: 'session' })
      return undefined
    }
    const at = this.#now()
    const overdue = whyOver(family, at)
    if (overdue !== undefined) {
      await this.#end(family, overdue)
      return undefined
    }
    const place = placeOf(family, { generation: shown.generation, digest: digestOf(cookie), at })
    if (place === 'replay') await this.#endReplayed(family, from)
    if (place === 'replay' || place === 'unknown') return undefined
    if (from.isBackground !== true && at.getTime() - family.seen_at.getTime() >= TOUCH_MS)
      await touchFamily(store.sql, family.id, at)
    const view = this.#view(family)
    if (place === 'previous') {
      const goodUntilMs = Math.min(family.previous_until?.getTime() ?? 0, at.getTime() + PREVIOUS_MS)
      return { family, view, cookie: await this.#reissue(family, at), goodUntilMs }
    }
    await this.#noteSeen(family, at)
    const next = await this.#rotateWhenDue(family, at)
    return { family, view, cookie: next, goodUntilMs: next === null ? view.endsAt.getTime() : at.getTime() + PREVIOUS_MS }
  }

  async list(person: string): Promise<SessionFamily[]> {
    const at = this.#now()
    return (await listFamilies(this.#parts.store.sql, person)).filter(
      (each) => whyOver({ ...each, owner: { state: 'active' } }, at) === undefined,
    )
  }

  async end(id: string, because: string): Promise<boolean> {
    const ended = await endFamily(this.#parts.store.sql, { id, because, at: this.#now() })
    this.#parts.memory.forget({ id })
    return ended
  }

  /** All of a person's, but for one; gives how many. */
  async endAll(person: string, because: string, but?: string): Promise<number> {
    const which = { person, because, at: this.#now(), ...(but === undefined ? {} : { but }) }
    const ended = await endFamilies(this.#parts.store.sql, which)
    this.#parts.memory.forget({ person })
    return ended
  }

  async #rotateWhenDue(family: FamilyWithPerson, at: Date): Promise<string | null> {
    const { store, seal } = this.#parts
    if (at.getTime() - family.rotated_at.getTime() < ROTATE_MS) return null
    const { id } = family
    const generation = family.generation + 1
    const cookie = cookieOf(seal, { id, generation })
    // The answer may be lost: until somebody has shown the new one, the old one is good, while the family is not idle.
    const previousUntil = new Date(at.getTime() + IDLE_MS)
    // Of many requests at once, on whatever node, one gets the new secret; the others have shown the one before.
    const isOurs = await rotateFamily(store.sql, { id, generation, secret: digestOf(cookie), at, previousUntil })
    return isOurs ? cookie : null
  }

  /** The current one has arrived: the one before is for what is under way. */
  async #noteSeen({ id, previous_until: until }: FamilyWithPerson, at: Date): Promise<void> {
    const soon = new Date(at.getTime() + PREVIOUS_MS)
    if (until !== null && until > soon) await shortenPrevious(this.#parts.store.sql, id, soon)
  }

  /**
   * Another secret for who shows the one before though the current one is out for half a minute and nobody has shown it: the answer that carried it was lost. If it was not, whoever has it
   * shows what is a replay by then.
   */
  async #reissue(family: FamilyWithPerson, at: Date): Promise<string | null> {
    const { store, seal } = this.#parts
    // Then it ends within that.
    const isSeen = (family.previous_until?.getTime() ?? 0) - at.getTime() <= PREVIOUS_MS
    if (isSeen || at.getTime() - family.rotated_at.getTime() < PREVIOUS_MS) return null
    const { id } = family
    const generation = family.generation + 1
    const cookie = cookieOf(seal, { id, generation })
    const isOurs = await rotateFamily(store.sql, { id, generation, secret: digestOf(cookie), at, previousUntil: null })
    return isOurs ? cookie : null
  }

  async #end({ id }: FamilyWithPerson, because: string): Promise<void> {
    await endFamily(this.#parts.store.sql, { id, because, at: this.#now() })
    this.#parts.memory.forget({ id })
  }

  async #endReplayed({ id, owner }: FamilyWithPerson, from: From): Promise<void> {
    if (!(await this.end(id, 'replay'))) return
    const who = { id: owner.id, name: owner.name }
    this.#onReplay({ person: who, from })
    await this.#parts.note({
      action: 'session.replay',
      outcome: 'refused',
      person: who,
      from: { address: from.address, userAgent: from.userAgent },
      reason: 'a secret of this session was shown after it had been replaced: the session has ended',
    })
  }

  #view({ id, person, made_at }: { readonly id: string; readonly person: string; readonly made_at: Date }): SessionView {
    const csrf = this.#parts.seal.mark('csrf', id).toString('base64url')
    return { id, person, csrf, madeAt: made_at, endsAt: new Date(made_at.getTime() + WHOLE_MS) }
  }

  #now(): Date {
    return new Date(this.#parts.clock.now())
  }
}

/** Why a family is over though nobody has ended it. */
function whyOver(
  {
    made_at,
    seen_at,
    owner,
  }: Pick<SessionFamily, 'made_at' | 'seen_at'> & { readonly owner: { readonly state: 'active' | 'disabled' } },
  at: Date,
): string | undefined {
  if (owner.state !== 'active') return 'disabled'
  if (at.getTime() - made_at.getTime() >= WHOLE_MS) return 'twelve hours'
  return at.getTime() - seen_at.getTime() >= IDLE_MS ? 'idle' : undefined
}

/** Where a secret that we have made stands in its family. One of a generation to come was made before the store lost it. */
function placeOf(
  family: SessionFamily,
  shown: { readonly generation: number; readonly digest: Buffer; readonly at: Date },
): 'current' | 'previous' | 'replay' | 'unknown' {
  const { generation, digest, at } = shown
  if (digest.equals(family.secret)) return 'current'
  if (generation >= family.generation) return 'unknown'
  const isPrevious = family.previous !== null && digest.equals(family.previous)
  return isPrevious && family.previous_until !== null && at < family.previous_until ? 'previous' : 'replay'
}

function cookieOf(seal: SealingKey, { id, generation }: { readonly id: string; readonly generation: number }): string {
  const text = `${id}.${generation}.${randomSecret()}`
  return `${text}.${seal.mark('session', text).toString('base64url')}`
}

function readCookie(seal: SealingKey, cookie: string): { readonly id: string; readonly generation: number } | undefined {
  const [, id = '', generation = '', random = '', mark = ''] = COOKIE.exec(cookie) ?? []
  if (!seal.isMark(Buffer.from(mark, 'base64url'), 'session', `${id}.${generation}.${random}`)) return undefined
  return { id, generation: Number(generation) }
}
