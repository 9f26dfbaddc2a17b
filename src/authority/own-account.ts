import type { PublicKeyCredentialCreationOptionsJSON, PublicKeyCredentialRequestOptionsJSON } from '@simplewebauthn/server'
import { updatePerson, type Person } from '../catalog/people.ts'
import { deleteTickets } from '../catalog/tickets.ts'
import { Failure } from '../errors.ts'
import type { From } from './account-event.ts'
import type { AccountParts } from './account-parts.ts'
import { canonicalJson } from './canonical-json.ts'
import type { Factors, FactorView } from './factors.ts'
import type { FreshFactors } from './fresh-factor.ts'
import type { GivenFactor, GivenRegistration } from './given-factor.ts'
import type { Attempts } from './lock-out.ts'
import { requireGoodPassword, type PasswordHashes } from './password.ts'
import type { ChallengePurpose } from './passkeys.ts'
import type { Principal } from './principal.ts'
import { digestOf } from './sealing-key.ts'
import type { NewSession, Sessions } from './sessions.ts'
import type { WantedToken } from './tokens.ts'

const OWN_FACTORS: ChallengePurpose = { kind: 'own-factors', bound: null }

/** Who asks for a change of their own account: in a session of a browser. */
export interface Self {
  readonly principal: Principal
  /** The family. */
  readonly session: string
  readonly from: From
}

/** A factor that was made; and, where it was the first, the session that goes on with it. */
export interface MadeFactor {
  readonly factor: FactorView
  readonly session: NewSession | null
}

interface OwnAccountParts {
  readonly factors: Factors
  readonly fresh: FreshFactors
  readonly sessions: Sessions
  readonly attempts: Attempts
  readonly passwords: PasswordHashes
}

/** What people change of their own account. Whoever has a second factor shows it again: a stolen session must not make itself at home. */
export class OwnAccount {
  readonly #parts: AccountParts
  readonly #of: OwnAccountParts

  constructor(parts: AccountParts, of: OwnAccountParts) {
    this.#parts = parts
    this.#of = of
  }

  /** What a browser needs to show a passkey for what follows; null where there is none. */
  async challenge({ principal }: Self): Promise<PublicKeyCredentialRequestOptionsJSON | null> {
    return await this.#of.factors.assertionOptions(principal.id, OWN_FACTORS)
  }

  async beginTotp(
    self: Self,
    { label, shown }: { readonly label: string; readonly shown?: GivenFactor | undefined },
  ): Promise<{ readonly ticket: string; readonly secret: string; readonly uri: string }> {
    const person = await this.#person(self)
    const isFirst = await this.#mayEnrol(self, shown)
    return await this.#of.factors.beginTotp(person, { label, isFirst })
  }

  async finishTotp(self: Self, given: { readonly ticket: string; readonly code: string }): Promise<MadeFactor> {
    return await this.#made(self, await this.#of.factors.finishTotp(self.principal.id, given))
  }

  async beginPasskey(
    self: Self,
    { label, shown }: { readonly label: string; readonly shown?: GivenFactor | undefined },
  ): Promise<PublicKeyCredentialCreationOptionsJSON> {
    const person = await this.#person(self)
    const isFirst = await this.#mayEnrol(self, shown)
    return await this.#of.factors.beginPasskey(person, { label, isFirst })
  }

  async finishPasskey(self: Self, response: GivenRegistration): Promise<MadeFactor> {
    return await this.#made(self, await this.#of.factors.finishPasskey(self.principal.id, response))
  }

  /** Throws FACTOR_NEEDED for the last one. */
  async removeFactor(self: Self, factor: string, shown: GivenFactor | undefined): Promise<void> {
    const { id, name } = self.principal
    await this.#of.fresh.require(id, shown, { purpose: OWN_FACTORS, from: self.from })
    await this.#of.factors.remove(id, factor)
    await this.#parts.note({
      action: 'factor.removed',
      outcome: 'done',
      person: { id, name },
      from: self.from,
      before: { factor },
    })
  }

  /** What a browser needs to show a passkey for this very token; null where there is none. */
  async tokenChallenge({ principal }: Self, wanted: WantedToken): Promise<PublicKeyCredentialRequestOptionsJSON | null> {
    return await this.#of.factors.assertionOptions(principal.id, forToken(wanted))
  }

  /** A token outlives the session, which may be a stolen one: it takes a factor shown for it. Throws FACTOR_NEEDED, FACTOR_WRONG, LOCKED_OUT. */
  async showForToken({ principal, from }: Self, wanted: WantedToken, shown: GivenFactor | undefined): Promise<void> {
    await this.#of.fresh.require(principal.id, shown, { purpose: forToken(wanted), from })
  }

  /** Ends all other sessions. Throws LOG_ON_REFUSED for another old password, PASSWORD_WEAK, LOCKED_OUT, BUSY. */
  async changePassword(self: Self, { old, next }: { readonly old: string; readonly next: string }): Promise<void> {
    const { attempts, passwords, sessions } = this.#of
    const { id, name } = self.principal
    requireGoodPassword(next, name)
    const claimed = await attempts.claim(id)
    if (claimed === undefined) throw new Failure('LOCKED_OUT', 'this account is locked out for a while')
    const isRight = await passwords.verify(old, (await this.#person(self)).password).catch(async (error: unknown) => {
      await attempts.release(id)
      throw error
    })
    const noted = { action: 'password.changed', person: { id, name }, from: self.from } as const
    if (!isRight) {
      await this.#parts.note({ ...noted, outcome: 'refused', reason: 'another old password' })
      throw new Failure('FACTOR_WRONG', 'the old password is another')
    }
    await attempts.release(id)
    const password = await passwords.hash(next)
    await this.#parts.sealed.change(id, async (queries) => {
      await updatePerson(queries, id, { password })
      await deleteTickets(queries, id)
    })
    await sessions.endAll(id, 'another password', self.session)
    await this.#parts.note({ ...noted, outcome: 'done' })
  }

  /** Whether it would be the first. An identity provider alone makes no factor of ours: it would grant what it must not. */
  async #mayEnrol({ principal, from }: Self, shown: GivenFactor | undefined): Promise<boolean> {
    if (principal.factor === 'oidc') {
      throw new Failure('FORBIDDEN', 'an identity provider’s word makes no factor of Resus’s own', {
        hint: 'log on with a password of Resus: an administrator can invite you to choose one',
      })
    }
    const isFirst = (await this.#of.factors.list(principal.id)).length === 0
    if (!isFirst) await this.#of.fresh.require(principal.id, shown, { purpose: OWN_FACTORS, from })
    return isFirst
  }

  /** What was known with less than a factor goes on with one, in another session: nobody who had the old one comes along. */
  async #made({ principal, from }: Self, factor: FactorView): Promise<MadeFactor> {
    const { id, name } = principal
    const after = { factor: factor.id, kind: factor.kind, label: factor.label }
    await this.#parts.note({ action: 'factor.made', outcome: 'done', person: { id, name }, from, after })
    if (principal.factor !== 'password') return { factor, session: null }
    const { sessions } = this.#of
    await sessions.endAll(id, 'first factor made')
    return { factor, session: await sessions.begin({ person: id, factor: factor.kind, from }) }
  }

  async #person({ principal }: Self): Promise<Person> {
    const person = await this.#parts.sealed.read({ id: principal.id })
    if (person !== undefined) return person
    throw new Failure('PERSON_UNKNOWN', 'there is no such person')
  }
}

function forToken({ name, grants, expiresAt }: WantedToken): ChallengePurpose {
  const text = canonicalJson({ name, grants: [...grants], expiresAt: expiresAt.toISOString() })
  return { kind: 'own-token', bound: digestOf(text) }
}
