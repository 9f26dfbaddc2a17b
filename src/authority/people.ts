import { randomUUID } from 'node:crypto'
import { deleteFactors } from '../catalog/factors.ts'
import { arePeopleKnown, listPeople, readPerson, updatePerson, type Person, type PersonChange } from '../catalog/people.ts'
import { endFamilies } from '../catalog/session-families.ts'
import { revokeTokens } from '../catalog/tokens.ts'
import { deleteTickets } from '../catalog/tickets.ts'
import { Failure } from '../errors.ts'
import { NOWHERE, type AccountEvent, type From } from './account-event.ts'
import type { AccountParts } from './account-parts.ts'
import { grantsOf } from './grants.ts'
import type { Grant } from './principal.ts'
import { digestOf, randomSecret } from './sealing-key.ts'

export const PERSON_NAME = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$/
/** As the name of somebody whom an identity provider has made known: nobody of ours is called so. */
export const LOG_ON_NAME = /^(idp\/)?[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$/
export const INVITATION = 'invitation'
const INVITATION_MS = 24 * 3_600_000

/** A person, without anything secret. */
export interface PersonView {
  readonly id: string
  readonly name: string
  readonly displayName: string
  readonly email: string | null
  readonly grants: readonly Grant[]
  readonly state: 'active' | 'disabled'
  readonly lockedUntil: Date | null
  readonly hasPassword: boolean
  readonly identity: { readonly issuer: string; readonly subject: string } | null
  readonly madeBy: string
  readonly madeAt: Date
  readonly resetBy: string | null
  readonly resetAt: Date | null
  readonly lastSeenAt: Date | null
}

export interface NewPerson {
  readonly name: string
  readonly displayName: string
  readonly email: string | null
  readonly grants: readonly Grant[]
}

/** What an identity provider says about somebody. */
export interface IdentityClaims {
  readonly issuer: string
  readonly subject: string
  readonly name: string
  readonly displayName: string
  readonly email: string | null
}

/** Who does it, and from where. `id` of a person, or "bootstrap". */
export interface By {
  readonly id: string
  readonly from?: From
}

/**
 * What the administration does to people, once it was decided on: nothing here asks whether it may. Whatever takes something away holds on this node at once, and on others within five
 * seconds.
 */
export class People {
  readonly #parts: AccountParts

  constructor(parts: AccountParts) {
    this.#parts = parts
  }

  async areKnown(): Promise<boolean> {
    return await arePeopleKnown(this.#sql)
  }

  /** Also of whom somebody has changed in the store. Throws PERSON_UNKNOWN. */
  async requireKnown(id: string): Promise<void> {
    known(await readPerson(this.#sql, id))
  }

  /** Throws PERSON_UNKNOWN, PEOPLE_CHANGED_OUTSIDE. */
  async read(id: string): Promise<PersonView> {
    return viewOf(known(await this.#parts.sealed.read({ id })))
  }

  async readByName(name: string): Promise<PersonView | undefined> {
    const person = LOG_ON_NAME.test(name) ? await this.#parts.sealed.read({ name }) : undefined
    return person === undefined ? undefined : viewOf(person)
  }

  /** Those behind a name, in the order of names. */
  async list({ behind = '', limit = 100 }: { readonly behind?: string; readonly limit?: number } = {}): Promise<
    (PersonView & { readonly factors: number })[]
  > {
    return (await listPeople(this.#sql, { behind, limit })).map((person) => ({ ...viewOf(person), factors: person.factors }))
  }

  /** Nobody knows a password of theirs: `invite` lets them choose one. Throws PERSON_EXISTS, ARGUMENTS_INVALID. */
  async insertPerson(person: NewPerson, by: By): Promise<PersonView> {
    if (!PERSON_NAME.test(person.name)) {
      throw new Failure('ARGUMENTS_INVALID', 'a name to log on with has up to 63 letters, digits and ". _ @ -"')
    }
    const id = randomUUID()
    const row = { ...person, id, identity: null, madeBy: by.id, at: this.#now() }
    if (!(await this.#parts.sealed.insert(row))) {
      throw new Failure('PERSON_EXISTS', `there is a "${person.name}" already`, { hint: 'people who have left keep their names' })
    }
    await this.#note('person.made', { id, name: person.name }, by, { after: { ...person } })
    return await this.read(id)
  }

  /** Who an identity provider says somebody is: made known, without a grant of ours, when they are not. */
  async ofIdentity(claims: IdentityClaims): Promise<Person> {
    const { issuer, subject, displayName, email } = claims
    const identity = { issuer, subject }
    const found = await this.#parts.sealed.read(identity)
    if (found !== undefined) return found
    // The provider's people choose their names there: nobody takes one of ours by it.
    for (const name of [claims.name, subject, randomUUID()].map(
      (each) => `idp/${each.replaceAll(/[^A-Za-z0-9._@-]/g, '-').slice(0, 60)}`,
    )) {
      if (!LOG_ON_NAME.test(name)) continue
      const id = randomUUID()
      const row = { id, name, displayName, email, grants: [], identity, madeBy: 'identity-provider', at: this.#now() }
      if (await this.#parts.sealed.insert(row)) {
        await this.#note('person.made', { id, name }, { id: 'identity-provider' }, { after: { name, ...identity } })
      }
      const made = await this.#parts.sealed.read(identity)
      if (made !== undefined) return made
    }
    throw new Failure('PERSON_EXISTS', 'the names that the identity provider gives are taken')
  }

  async setGrants(id: string, grants: readonly Grant[], by: By): Promise<PersonView> {
    return await this.#change(id, { grants }, { by, action: 'person.grants', shown: (person) => grantsOf(person.grants) })
  }

  /**
   * Ends all that they have open; their tokens are worth nothing while it lasts. From an account that somebody has changed in the store everything else is taken too: what it had, nobody
   * knows.
   */
  async disable(id: string, by: By): Promise<PersonView> {
    const { before, after } = await this.#parts.sealed.changeWhatever(id, async (queries, found, isGood) => {
      const nothing = isGood ? {} : { grants: [], password: null }
      const changed = known(await updatePerson(queries, id, { state: 'disabled', ...nothing }))
      if (!isGood) await deleteFactors(queries, id)
      await this.#endAll(queries, id, 'disabled')
      return { before: found, after: changed }
    })
    this.#parts.memory.forget({ person: id })
    await this.#note('person.disabled', after, by, { before: before.state, after: after.state })
    return viewOf(after)
  }

  async enable(id: string, by: By): Promise<PersonView> {
    return await this.#change(id, { state: 'active' }, { by, action: 'person.enabled', shown: (person) => person.state })
  }

  /** Takes their factors and their password away, and ends all that they have open: an invitation is the way back in. */
  async resetFactors(id: string, by: By): Promise<PersonView> {
    const reset = { by: by.id, at: this.#now() }
    const of = { by, action: 'factor.reset', shown: () => undefined } as const
    return await this.#change(id, { password: null, reset }, of, async (queries) => {
      await deleteFactors(queries, id)
      await this.#endAll(queries, id, 'reset')
    })
  }

  /** A code with which they choose a password, once, within 24 hours. Shown this once; another one takes its place. */
  async invite(id: string, by: By): Promise<{ readonly code: string; readonly expiresAt: Date }> {
    const person = known(await this.#parts.sealed.read({ id }))
    const code = randomSecret()
    const at = this.#now()
    const expiresAt = new Date(at.getTime() + INVITATION_MS)
    await this.#parts.sealed.change(id, async (queries) => {
      // Whoever has the code has the account, for now: for a day it does not decide on what they ask for.
      await updatePerson(queries, id, { reset: { by: by.id, at } })
      await queries.deleteFrom('tickets').where('person', '=', id).where('purpose', '=', INVITATION).execute()
      await this.#parts.tickets.insert(queries, {
        digest: digestOf(code),
        purpose: INVITATION,
        person: id,
        data: {},
        at,
        expiresAt,
      })
    })
    await this.#note('invitation.made', person, by, {})
    return { code, expiresAt }
  }

  async #change(
    id: string,
    change: PersonChange,
    of: { readonly by: By; readonly action: AccountEvent['action']; readonly shown: (person: Person) => unknown },
    also: (queries: AccountParts['store']['sql']) => Promise<void> = async () => undefined,
  ): Promise<PersonView> {
    const { before, after } = await this.#parts.sealed.change(id, async (queries, found) => {
      const changed = known(await updatePerson(queries, id, change))
      await also(queries)
      return { before: found, after: changed }
    })
    this.#parts.memory.forget({ person: id })
    await this.#note(of.action, after, of.by, { before: of.shown(before), after: of.shown(after) })
    return viewOf(after)
  }

  async #endAll(queries: AccountParts['store']['sql'], person: string, because: string): Promise<void> {
    await endFamilies(queries, { person, because, at: this.#now() })
    await revokeTokens(queries, person, this.#now())
    await deleteTickets(queries, person)
  }

  async #note(
    action: AccountEvent['action'],
    { id, name }: { readonly id: string; readonly name: string },
    by: By,
    rest: Pick<AccountEvent, 'before' | 'after'>,
  ): Promise<void> {
    await this.#parts.note({ action, outcome: 'done', person: { id, name }, by: by.id, from: by.from ?? NOWHERE, ...rest })
  }

  get #sql(): AccountParts['store']['sql'] {
    return this.#parts.store.sql
  }

  #now(): Date {
    return new Date(this.#parts.clock.now())
  }
}

function known(person: Person | undefined): Person {
  if (person !== undefined) return person
  throw new Failure('PERSON_UNKNOWN', 'there is no such person')
}

function viewOf(person: Person): PersonView {
  const { issuer, subject } = person
  return {
    id: person.id,
    name: person.name,
    displayName: person.display_name,
    email: person.email,
    grants: grantsOf(person.grants),
    state: person.state,
    lockedUntil: person.locked_until,
    hasPassword: person.password !== null,
    identity: issuer === null || subject === null ? null : { issuer, subject },
    madeBy: person.made_by,
    madeAt: person.made_at,
    resetBy: person.reset_by,
    resetAt: person.reset_at,
    lastSeenAt: person.last_seen_at,
  }
}
