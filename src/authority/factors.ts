import { randomUUID } from 'node:crypto'
import type { PublicKeyCredentialCreationOptionsJSON, PublicKeyCredentialRequestOptionsJSON } from '@simplewebauthn/server'
import { z } from 'zod'
import { deleteFactor, insertFactor, listFactors, takeStep, type FactorRow } from '../catalog/factors.ts'
import type { Person } from '../catalog/people.ts'
import type { Store } from '../catalog/store.ts'
import { Failure } from '../errors.ts'
import type { AccountParts } from './account-parts.ts'
import type { GivenFactor, GivenRegistration } from './given-factor.ts'
import { Passkeys, type ChallengePurpose, type Site } from './passkeys.ts'
import { digestOf, randomSecret } from './sealing-key.ts'
import { newTotpSecret, stepOfCode, totpUri } from './totp.ts'

const ENROLMENT_MS = 10 * 60_000
const FACTORS_MAX = 10
const TOTP_ENROLMENT = 'totp enrolment'
const enrolmentSchema = z.object({ factor: z.uuid(), isFirst: z.boolean(), label: z.string() })

/** What somebody has shown. */
export interface ShownFactor {
  readonly kind: 'totp' | 'passkey'
  readonly id: string
  readonly label: string
}

export interface FactorView extends ShownFactor {
  readonly madeAt: Date
  readonly lastUsedAt: Date | null
}

type Queries = Store['sql']

/** Second factors: how they are made, and whether one is shown. Who may do so is asked before. */
export class Factors {
  readonly #parts: AccountParts
  readonly #passkeys: Passkeys

  constructor(parts: AccountParts, site: Site | null) {
    this.#parts = parts
    this.#passkeys = new Passkeys({ ...parts, site })
  }

  async list(person: string): Promise<FactorView[]> {
    return (await this.#own(person)).map(viewOf)
  }

  /** The secret to put into an application, and the ticket that finishes it with a code. The secret is shown this once. */
  async beginTotp(
    person: Person,
    { label, isFirst }: { readonly label: string; readonly isFirst: boolean },
  ): Promise<{ readonly ticket: string; readonly secret: string; readonly uri: string }> {
    const { seal } = this.#parts
    const factor = randomUUID()
    const secret = newTotpSecret()
    const ticket = randomSecret()
    const at = this.#now()
    await this.#parts.tickets.insert(this.#sql, {
      digest: digestOf(ticket),
      purpose: TOTP_ENROLMENT,
      person: person.id,
      data: { factor, isFirst, label },
      sealed: seal.seal(Buffer.from(secret), contextOf(person.id, factor)),
      at,
      expiresAt: new Date(at.getTime() + ENROLMENT_MS),
    })
    return { ticket, secret, uri: totpUri({ secret, name: person.name }) }
  }

  /** Throws FACTOR_WRONG for another code: the ticket is still good then. */
  async finishTotp(person: string, { ticket, code }: { readonly ticket: string; readonly code: string }): Promise<FactorView> {
    const which = { digest: digestOf(ticket), purpose: TOTP_ENROLMENT, at: this.#now() }
    const found = await this.#parts.tickets.read(this.#sql, which)
    if (found?.person !== person || found.sealed === null) throw expiredEnrolment()
    const { factor, isFirst, label } = enrolmentSchema.parse(found.data)
    const secret = this.#parts.seal.open(found.sealed, contextOf(person, factor)).toString()
    const step = stepOfCode({ secret, code, nowMs: which.at.getTime() })
    if (step === undefined) throw wrongFactor('this is not the code of now')
    const sealedSecret = found.sealed
    return await this.#insert({ person, isFirst }, async (queries) => {
      if ((await this.#parts.tickets.take(queries, which)) === undefined) throw expiredEnrolment()
      return await insertFactor(queries, { id: factor, person, kind: 'totp', label, at: which.at, sealedSecret, step })
    })
  }

  async beginPasskey(
    person: Person,
    { label, isFirst }: { readonly label: string; readonly isFirst: boolean },
  ): Promise<PublicKeyCredentialCreationOptionsJSON> {
    const data = { factor: randomUUID(), isFirst, label }
    return await this.#passkeys.registrationOptions(person, await this.#own(person.id), data)
  }

  /** Throws FACTOR_WRONG for what was not made for our challenge. */
  async finishPasskey(person: string, response: GivenRegistration): Promise<FactorView> {
    const passkey = await this.#passkeys.verifyRegistration(person, response)
    if (passkey === undefined) throw wrongFactor('this passkey was not made for this enrolment')
    const { factor, isFirst, label } = enrolmentSchema.parse(passkey.data)
    const { credentialId, publicKey, counter, transports } = passkey
    const at = this.#now()
    return await this.#insert({ person, isFirst }, async (queries) =>
      insertFactor(queries, { id: factor, person, kind: 'passkey', label, at, credentialId, publicKey, counter, transports }),
    )
  }

  /** Throws FACTOR_NEEDED for the last one. */
  async remove(person: string, factor: string): Promise<void> {
    await this.#parts.sealed.change(person, async (queries, { factors }) => {
      if (!factors.some(({ id }) => id === factor)) throw new Failure('NOT_FOUND', 'there is no such factor')
      // Of two removals at once one finds what the other has left.
      if (factors.length === 1) throw new Failure('FACTOR_NEEDED', 'the last factor stays', { hint: 'make another one first' })
      await deleteFactor(queries, factor)
    })
  }

  /** What a browser needs to show a passkey for this; null where they have none. */
  async assertionOptions(person: string, purpose: ChallengePurpose): Promise<PublicKeyCredentialRequestOptionsJSON | null> {
    return await this.#passkeys.assertionOptions(person, await this.#own(person), purpose)
  }

  /** Which factor it is; undefined when it is none of theirs, not for this, or was used. Whoever asks counts the attempt. */
  async check(
    { person, purpose }: { readonly person: string; readonly purpose: ChallengePurpose },
    given: GivenFactor,
  ): Promise<ShownFactor | undefined> {
    const own = await this.#own(person)
    const found =
      given.kind === 'totp'
        ? await this.#takeCode(own, given.code)
        : await this.#passkeys.verifyAssertion({ person, own, purpose }, given.response)
    return found === undefined ? undefined : { kind: found.kind, id: found.id, label: found.label }
  }

  async #takeCode(own: readonly FactorRow[], code: string): Promise<FactorRow | undefined> {
    const at = this.#now()
    for (const factor of own) {
      if (factor.sealed_secret === null) continue
      const secret = this.#parts.seal.open(factor.sealed_secret, contextOf(factor.person, factor.id)).toString()
      const step = stepOfCode({ secret, code, nowMs: at.getTime() })
      if (step !== undefined && (await takeStep(this.#sql, { factor: factor.id, step, at }))) return factor
    }
    return undefined
  }

  /** What was begun as the first one is not finished as a second: whoever showed a factor meanwhile is asked for it. */
  async #insert(
    { person, isFirst }: { readonly person: string; readonly isFirst: boolean },
    insert: (queries: Queries) => Promise<boolean>,
  ): Promise<FactorView> {
    return await this.#parts.sealed.change(person, async (queries, { factors: own }) => {
      if (isFirst && own.length > 0) throw expiredEnrolment()
      if (own.length >= FACTORS_MAX) throw new Failure('ARGUMENTS_INVALID', `there are ${FACTORS_MAX} factors already`)
      if (!(await insert(queries))) throw wrongFactor('it is in use already')
      const made = (await listFactors(queries, person)).find(({ id }) => !own.some((each) => each.id === id))
      return viewOf(made!)
    })
  }

  async #own(person: string): Promise<FactorRow[]> {
    return [...((await this.#parts.sealed.read({ id: person }))?.factors ?? [])]
  }

  get #sql(): Queries {
    return this.#parts.store.sql
  }

  #now(): Date {
    return new Date(this.#parts.clock.now())
  }
}

export function wrongFactor(why: string): Failure {
  return new Failure('FACTOR_WRONG', `the second factor is not taken: ${why}`, {
    hint: 'each code is good once, for half a minute',
  })
}

function expiredEnrolment(): Failure {
  return new Failure('FACTOR_WRONG', 'this enrolment is over', { hint: 'begin again' })
}

function contextOf(person: string, factor: string): string {
  return `totp ${person} ${factor}`
}

function viewOf({ id, kind, label, made_at, last_used_at }: FactorRow): FactorView {
  return { id, kind, label, madeAt: made_at, lastUsedAt: last_used_at }
}
