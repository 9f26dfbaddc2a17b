import { Failure } from '../errors.ts'
import type { From } from './account-event.ts'
import type { AccountParts } from './account-parts.ts'
import { wrongFactor, type Factors, type ShownFactor } from './factors.ts'
import type { GivenFactor } from './given-factor.ts'
import type { Attempts } from './lock-out.ts'
import type { ChallengePurpose } from './passkeys.ts'

/** A second factor that somebody who is logged on shows again, for what a stolen session must not do. */
export class FreshFactors {
  readonly #parts: AccountParts
  readonly #factors: Factors
  readonly #attempts: Attempts

  constructor(parts: AccountParts, { factors, attempts }: { readonly factors: Factors; readonly attempts: Attempts }) {
    this.#parts = parts
    this.#factors = factors
    this.#attempts = attempts
  }

  /** Which it was; it is used then. Throws FACTOR_WRONG, LOCKED_OUT (also for who is disabled), and FACTOR_NEEDED for nothing given. */
  async require(
    person: string,
    given: GivenFactor | undefined,
    { purpose, from }: { readonly purpose: ChallengePurpose; readonly from: From },
  ): Promise<ShownFactor> {
    if (given === undefined) {
      throw new Failure('FACTOR_NEEDED', 'this takes a second factor, shown now', { hint: 'give a code, or a passkey' })
    }
    const claimed = await this.#attempts.claim(person)
    if (claimed === undefined) {
      throw new Failure('LOCKED_OUT', 'this account is locked out for a while', { hint: 'too many attempts have failed' })
    }
    const shown = await this.#factors.check({ person, purpose }, given)
    const { name, failures, locked_until } = claimed
    const who = { id: person, name }
    if (shown === undefined) {
      const reason = `another second factor, for ${purpose.kind}`
      await this.#parts.note({ action: 'factor.shown', outcome: 'refused', person: who, from, reason })
      if (locked_until !== null) {
        await this.#parts.note({ action: 'lock-out', outcome: 'done', person: who, from, after: { failures } })
      }
      throw wrongFactor('it is not the one of now, or was used')
    }
    await this.#attempts.release(person)
    return shown
  }
}
