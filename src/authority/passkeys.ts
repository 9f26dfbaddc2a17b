import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { isIP } from 'node:net'
import {
  generateAuthenticationOptions,
  generateRegistrationOptions,
  verifyAuthenticationResponse,
  verifyRegistrationResponse,
  type AuthenticationResponseJSON,
  type PublicKeyCredentialCreationOptionsJSON,
  type PublicKeyCredentialRequestOptionsJSON,
  type RegistrationResponseJSON,
} from '@simplewebauthn/server'
import { notePasskeyUse, type FactorRow } from '../catalog/factors.ts'
import { isStoreAway, type Store } from '../catalog/store.ts'
import type { Ticket } from '../catalog/tickets.ts'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import type { GivenAssertion, GivenRegistration } from './given-factor.ts'
import { digestOf } from './sealing-key.ts'
import type { Tickets } from './tickets.ts'

const CHALLENGE_MS = 5 * 60_000
const NONCE_BYTES = 16
const CHALLENGE_BYTES = NONCE_BYTES + 32
const RP_NAME = 'Resus'
/** EdDSA, ES256, RS256: what authenticators have. */
const ALGORITHMS = [-8, -7, -257]

/** Where people reach us: a passkey is bound to it. */
export interface Site {
  readonly origin: string
  /** The name of the host alone; browsers take no address of numbers. */
  readonly rpId: string
}

/** Of `url` in server.yaml; null where there is none, or one that browsers make no passkeys for. */
export function siteOf(url: string | undefined): Site | null {
  if (url === undefined) return null
  const { origin, hostname } = new URL(url)
  return isIP(hostname) === 0 ? { origin, rpId: hostname } : null
}

/** What a challenge is for: an answer to it is good for nothing else. */
export interface ChallengePurpose {
  readonly kind: 'log-on' | 'enrolment' | 'own-factors' | 'own-token' | 'approval'
  /** The digest of the log-on's ticket, of the token that is wanted, or of the approval. */
  readonly bound: Buffer | null
}

export interface NewPasskey {
  readonly credentialId: string
  readonly publicKey: Buffer
  readonly counter: number
  readonly transports: readonly string[]
  /** What was kept with the challenge. */
  readonly data: unknown
}

interface Options {
  readonly store: Store
  readonly clock: Clock
  readonly tickets: Tickets
  readonly site: Site | null
}

/**
 * Passkeys (WebAuthn level 2). A challenge is 16 random bytes and the SHA-256 of them, its purpose, the person and what it is bound to, so that the authenticator's signature itself is for
 * that; it is good once, for five minutes, on any node.
 */
export class Passkeys {
  readonly #options: Options

  constructor(options: Options) {
    this.#options = options
  }

  get isPossible(): boolean {
    return this.#options.site !== null
  }

  /** What the browser needs to make one. */
  async registrationOptions(
    person: { readonly id: string; readonly name: string; readonly display_name: string },
    own: readonly FactorRow[],
    data: Readonly<Record<string, unknown>>,
  ): Promise<PublicKeyCredentialCreationOptionsJSON> {
    const { rpId } = this.#site()
    const challenge = await this.#newChallenge(person.id, { kind: 'enrolment', bound: null }, data)
    return await generateRegistrationOptions({
      rpName: RP_NAME,
      rpID: rpId,
      userName: person.name,
      userDisplayName: person.display_name,
      userID: new Uint8Array(Buffer.from(person.id)),
      challenge,
      timeout: CHALLENGE_MS,
      attestationType: 'none',
      excludeCredentials: credentialsOf(own),
      supportedAlgorithmIDs: ALGORITHMS,
      authenticatorSelection: { residentKey: 'preferred', userVerification: 'required' },
    })
  }

  /** Undefined for what was not made for our challenge. */
  async verifyRegistration(person: string, response: GivenRegistration): Promise<NewPasskey | undefined> {
    const { origin, rpId } = this.#site()
    let data: unknown
    const verified = await orUndefined(async () =>
      verifyRegistrationResponse({
        response: response as RegistrationResponseJSON,
        expectedChallenge: async (given) => {
          const ticket = await this.#takeChallenge(given, person, { kind: 'enrolment', bound: null })
          data = ticket?.data
          return ticket !== undefined
        },
        expectedOrigin: origin,
        expectedRPID: rpId,
        requireUserVerification: true,
        supportedAlgorithmIDs: ALGORITHMS,
      }),
    )
    if (verified?.verified !== true) return undefined
    const { id, publicKey, counter, transports = [] } = verified.registrationInfo.credential
    return { credentialId: id, publicKey: Buffer.from(publicKey), counter, transports: [...transports], data }
  }

  /** What the browser needs to show one; null where there is none. */
  async assertionOptions(
    person: string,
    own: readonly FactorRow[],
    purpose: ChallengePurpose,
  ): Promise<PublicKeyCredentialRequestOptionsJSON | null> {
    const allowCredentials = credentialsOf(own)
    if (allowCredentials.length === 0 || !this.isPossible) return null
    const challenge = await this.#newChallenge(person, purpose, {})
    return await generateAuthenticationOptions({
      rpID: this.#site().rpId,
      allowCredentials,
      challenge,
      timeout: CHALLENGE_MS,
      userVerification: 'required',
    })
  }

  /** Which passkey it was; undefined for what does not answer our challenge for this purpose. */
  async verifyAssertion(
    { person, own, purpose }: { readonly person: string; readonly own: readonly FactorRow[]; readonly purpose: ChallengePurpose },
    response: GivenAssertion,
  ): Promise<FactorRow | undefined> {
    const factor = own.find((each) => each.kind === 'passkey' && each.credential_id === response.id)
    if (factor === undefined || factor.public_key === null || factor.credential_id === null || !this.isPossible) return undefined
    const { origin, rpId } = this.#site()
    const credential = {
      id: factor.credential_id,
      publicKey: new Uint8Array(factor.public_key),
      counter: Number(factor.counter),
    }
    const verified = await orUndefined(async () =>
      verifyAuthenticationResponse({
        response: response as AuthenticationResponseJSON,
        expectedChallenge: async (given) => (await this.#takeChallenge(given, person, purpose)) !== undefined,
        expectedOrigin: origin,
        expectedRPID: rpId,
        credential,
        requireUserVerification: true,
      }),
    )
    if (verified?.verified !== true) return undefined
    const { newCounter } = verified.authenticationInfo
    const { store, clock } = this.#options
    await notePasskeyUse(store.sql, { factor: factor.id, counter: newCounter, at: new Date(clock.now()) })
    return factor
  }

  async #newChallenge(
    person: string,
    purpose: ChallengePurpose,
    data: Readonly<Record<string, unknown>>,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { store, clock, tickets } = this.#options
    const nonce = randomBytes(NONCE_BYTES)
    const challenge = Buffer.concat([nonce, bindingOf(nonce, person, purpose)])
    const at = new Date(clock.now())
    const expiresAt = new Date(at.getTime() + CHALLENGE_MS)
    const digest = digestOf(challenge)
    await tickets.insert(store.sql, { digest, purpose: ticketPurpose(purpose), person, data, at, expiresAt })
    return new Uint8Array(challenge)
  }

  /** Before anything else of the answer is looked at: an answer that is wrong has used its challenge too. */
  async #takeChallenge(given: string, person: string, purpose: ChallengePurpose): Promise<Ticket | undefined> {
    const { store, clock, tickets } = this.#options
    const challenge = Buffer.from(given, 'base64url')
    if (challenge.length !== CHALLENGE_BYTES) return undefined
    const binding = bindingOf(challenge.subarray(0, NONCE_BYTES), person, purpose)
    if (!timingSafeEqual(binding, challenge.subarray(NONCE_BYTES))) return undefined
    const digest = digestOf(challenge)
    return await tickets.take(store.sql, { digest, purpose: ticketPurpose(purpose), at: new Date(clock.now()) })
  }

  #site(): Site {
    const { site } = this.#options
    if (site !== null) return site
    throw new Failure('ARGUMENTS_INVALID', 'there are no passkeys here: nobody has said under which name people reach Resus', {
      hint: 'set "url" in server.yaml, or use TOTP',
    })
  }
}

function ticketPurpose({ kind }: ChallengePurpose): string {
  return `passkey ${kind}`
}

function bindingOf(nonce: Buffer, person: string, { kind, bound }: ChallengePurpose): Buffer {
  const of = createHash('sha256').update(`resus passkey\0${kind}\0${person}\0`).update(nonce)
  return of.update(bound ?? Buffer.alloc(0)).digest()
}

function credentialsOf(factors: readonly FactorRow[]) {
  return factors.flatMap(({ credential_id, transports }) =>
    credential_id === null ? [] : [{ id: credential_id, transports: transports ?? [] }],
  )
}

/** The library throws for whatever is wrong with an answer; that is no bug of ours, and a store that is away is no wrong answer. */
async function orUndefined<T>(verify: () => Promise<T>): Promise<T | undefined> {
  try {
    return await verify()
  } catch (error) {
    if (isStoreAway(error)) throw error
    return undefined
  }
}
