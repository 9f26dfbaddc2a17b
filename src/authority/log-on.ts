import type { PublicKeyCredentialRequestOptionsJSON } from '@simplewebauthn/server'
import { z } from 'zod'
import { noteLogOn, updatePerson, type Person } from '../catalog/people.ts'
import { Failure } from '../errors.ts'
import type { AccountEvent, From } from './account-event.ts'
import type { AccountParts } from './account-parts.ts'
import { wrongFactor, type Factors } from './factors.ts'
import type { GivenFactor } from './given-factor.ts'
import type { AddressAttempts, Attempts } from './lock-out.ts'
import { requireGoodPassword, type PasswordHashes } from './password.ts'
import { INVITATION, LOG_ON_NAME } from './people.ts'
import { grantSchema, type Factor, type Grant } from './principal.ts'
import { digestOf, randomSecret } from './sealing-key.ts'
import type { NewSession, Sessions } from './sessions.ts'

const TICKET_MS = 5 * 60_000
const SECOND_FACTOR = 'second factor'
const ticketSchema = z.object({ grants: z.array(grantSchema) })

/** What became of a log-on: a session, or a ticket for the second factor. */
export type LogOn =
  | { readonly kind: 'session'; readonly session: NewSession; readonly isFactorNeeded: boolean }
  | {
      readonly kind: 'second-factor'
      /** Good once, for five minutes. */
      readonly ticket: string
      readonly factors: readonly ('totp' | 'passkey')[]
      /** For `navigator.credentials.get`. */
      readonly passkey: PublicKeyCredentialRequestOptionsJSON | null
    }

interface LogOnParts {
  readonly factors: Factors
  readonly sessions: Sessions
  readonly attempts: Attempts
  readonly passwords: PasswordHashes
  readonly addresses: AddressAttempts
}

/**
 * How somebody becomes known. Whatever is wrong with a name and a password (nobody has the name, the password is another, the account is locked out or disabled), the answer is the same, after the
 * same work: three statements and one hash.
 */
export class LogOns {
  readonly #parts: AccountParts
  readonly #of: LogOnParts

  constructor(parts: AccountParts, of: LogOnParts) {
    this.#parts = parts
    this.#of = of
  }

  /** Throws LOG_ON_REFUSED, LOCKED_OUT (the address), BUSY. */
  async byPassword({ name, password }: { readonly name: string; readonly password: string }, from: From): Promise<LogOn> {
    const { attempts, passwords, addresses } = this.#of
    const place = addresses.claim(from.address)
    const person = LOG_ON_NAME.test(name) ? await this.#parts.sealed.readGood({ name }) : undefined
    const claimed = await attempts.claim(person?.id)
    const isRight = await passwords
      .verify(password, claimed === undefined ? undefined : person?.password)
      .catch(async (error: unknown) => {
        // It was not looked at.
        place.release()
        if (claimed !== undefined) await attempts.release(claimed.id)
        throw error
      })
    if (claimed === undefined || !isRight) {
      await this.#noteRefused(person, claimed, from)
      throw refused()
    }
    place.release()
    await attempts.release(claimed.id)
    return await this.#goOn(claimed, { shown: 'password', grants: [], from })
  }

  /** Chooses a password with an invitation's code. Throws LOG_ON_REFUSED, PASSWORD_WEAK (the code is still good then). */
  async byInvitation({ code, password }: { readonly code: string; readonly password: string }, from: From): Promise<LogOn> {
    const place = this.#of.addresses.claim(from.address)
    const which = { digest: digestOf(code), purpose: INVITATION, at: this.#now() }
    const ticket = await this.#parts.tickets.read(this.#sql, which)
    const id = ticket?.person ?? undefined
    const person = id === undefined ? undefined : await this.#parts.sealed.readGood({ id })
    if (person === undefined || person.state !== 'active') {
      await this.#note('invitation.accepted', 'refused', { person, from, reason: 'no such invitation, or no longer' })
      throw refused()
    }
    place.release()
    requireGoodPassword(password, person.name)
    const hash = await this.#of.passwords.hash(password)
    await this.#parts.sealed.change(person.id, async (queries) => {
      if ((await this.#parts.tickets.take(queries, which)) === undefined) throw refused()
      await updatePerson(queries, person.id, { password: hash })
    })
    await this.#of.sessions.endAll(person.id, 'another password')
    await this.#note('invitation.accepted', 'done', { person, from })
    return await this.#goOn(person, { shown: 'password', grants: [], from })
  }

  /** Who an identity provider says they are, and what it grants for this log-on. Throws LOG_ON_REFUSED for who is disabled. */
  async byIdentity(person: Person, grants: readonly Grant[], from: From): Promise<LogOn> {
    if (person.state !== 'active') {
      await this.#note('log-on.identity-provider', 'refused', { person, from, reason: 'disabled' })
      throw refused()
    }
    return await this.#goOn(person, { shown: 'oidc', grants, from })
  }

  /** The second step. A wrong factor leaves the ticket, and counts against the account. Throws LOG_ON_REFUSED, FACTOR_WRONG, LOCKED_OUT (the address). */
  async bySecondFactor(ticket: string, given: GivenFactor, from: From): Promise<NewSession> {
    const { attempts, addresses, factors } = this.#of
    const place = addresses.claim(from.address)
    const which = { digest: digestOf(ticket), purpose: SECOND_FACTOR, at: this.#now() }
    const found = await this.#parts.tickets.read(this.#sql, which)
    const id = found?.person ?? undefined
    const isGood = id !== undefined && (await this.#parts.sealed.readGood({ id })) !== undefined
    const claimed = isGood ? await attempts.claim(id) : undefined
    if (found === undefined || claimed === undefined) {
      await this.#note('log-on.second-factor', 'refused', { person: undefined, from, reason: 'no such ticket, or locked out' })
      throw refused()
    }
    const { grants } = ticketSchema.parse(found.data)
    const shown = await factors.check({ person: claimed.id, purpose: { kind: 'log-on', bound: which.digest } }, given)
    if (shown === undefined) {
      await this.#note('log-on.second-factor', 'refused', { person: claimed, from, reason: 'another factor, or used' })
      await this.#noteLockOut(claimed, from)
      throw wrongFactor('it is not the one of now, or was used')
    }
    place.release()
    if ((await this.#parts.tickets.take(this.#sql, which)) === undefined) throw refused()
    return await this.#begin(claimed, { shown: shown.kind, grants, from })
  }

  /** What a browser needs to show a passkey for a ticket; null where they have none. Throws LOG_ON_REFUSED. */
  async challenge(ticket: string): Promise<PublicKeyCredentialRequestOptionsJSON | null> {
    const which = { digest: digestOf(ticket), purpose: SECOND_FACTOR, at: this.#now() }
    const person = (await this.#parts.tickets.read(this.#sql, which))?.person ?? undefined
    if (person === undefined) throw refused()
    return await this.#of.factors.assertionOptions(person, { kind: 'log-on', bound: which.digest })
  }

  /** Begins a session for somebody who has shown all they had to. */
  async #begin(person: Person, { shown, grants, from }: Shown): Promise<NewSession> {
    await noteLogOn(this.#sql, person.id, this.#now())
    const session = await this.#of.sessions.begin({ person: person.id, factor: shown, grants, from })
    await this.#note('log-on', 'done', { person, from, factor: shown })
    return session
  }

  async #goOn(person: Person, { shown, grants, from }: Shown): Promise<LogOn> {
    const own = await this.#of.factors.list(person.id)
    if (own.length === 0) {
      const session = await this.#begin(person, { shown, grants, from })
      return { kind: 'session', session, isFactorNeeded: shown === 'password' }
    }
    const ticket = randomSecret()
    const digest = digestOf(ticket)
    const at = this.#now()
    const expiresAt = new Date(at.getTime() + TICKET_MS)
    await this.#parts.tickets.insert(this.#sql, {
      digest,
      purpose: SECOND_FACTOR,
      person: person.id,
      data: { grants },
      at,
      expiresAt,
    })
    const passkey = await this.#of.factors.assertionOptions(person.id, { kind: 'log-on', bound: digest })
    return { kind: 'second-factor', ticket, factors: [...new Set(own.map(({ kind }) => kind))], passkey }
  }

  async #noteRefused(person: Person | undefined, claimed: Person | undefined, from: From): Promise<void> {
    const why = claimed === undefined ? 'locked out, or disabled' : 'another password'
    const reason = person === undefined ? 'nobody has this name' : why
    await this.#note('log-on.password', 'refused', { person, from, reason })
    if (claimed !== undefined) await this.#noteLockOut(claimed, from)
  }

  async #noteLockOut(claimed: Person, from: From): Promise<void> {
    if (claimed.locked_until === null) return
    const { failures, locked_until } = claimed
    const after = { failures, until: locked_until.toISOString() }
    await this.#note('lock-out', 'done', { person: claimed, from, after })
  }

  async #note(
    action: AccountEvent['action'],
    outcome: AccountEvent['outcome'],
    { person, ...rest }: Omit<AccountEvent, 'action' | 'outcome' | 'person'> & { readonly person: Person | undefined },
  ): Promise<void> {
    const who = person === undefined ? null : { id: person.id, name: person.name }
    await this.#parts.note({ action, outcome, person: who, ...rest })
  }

  get #sql(): AccountParts['store']['sql'] {
    return this.#parts.store.sql
  }

  #now(): Date {
    return new Date(this.#parts.clock.now())
  }
}

interface Shown {
  readonly shown: Factor
  readonly grants: readonly Grant[]
  readonly from: From
}

function refused(): Failure {
  return new Failure('LOG_ON_REFUSED', 'nobody is logged on by that', {
    hint: 'look at the name and the password; after five failures in a row an account is locked out for a minute and longer',
  })
}
