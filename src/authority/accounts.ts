import type { PublicKeyCredentialRequestOptionsJSON } from '@simplewebauthn/server'
import { assert } from '../assert.ts'
import type { Person } from '../catalog/people.ts'
import { deleteOldFamilies } from '../catalog/session-families.ts'
import type { Store } from '../catalog/store.ts'
import type { PersonCopy } from '../catalog/people-copies.ts'
import { deleteOldTokens } from '../catalog/tokens.ts'
import type { Clock } from '../clock.ts'
import type { Secret } from '../secret.ts'
import { NOWHERE, type From, type Note } from './account-event.ts'
import type { AccountParts } from './account-parts.ts'
import { CredentialMemory } from './credential-memory.ts'
import { Factors, type ShownFactor } from './factors.ts'
import { FreshFactors } from './fresh-factor.ts'
import type { GivenFactor } from './given-factor.ts'
import { AddressAttempts, Attempts } from './lock-out.ts'
import { LogOns, type LogOn } from './log-on.ts'
import { OwnAccount } from './own-account.ts'
import type { Site } from './passkeys.ts'
import { PasswordHashes } from './password.ts'
import { People } from './people.ts'
import type { Grant, Principal } from './principal.ts'
import { Principals, type Credential, type Identified } from './principals.ts'
import { SealedPeople, type ChangedOutside } from './sealed-people.ts'
import { SealingKey } from './sealing-key.ts'
import { sealOfPerson } from './seals.ts'
import { Sessions, type NewSession, type OnReplay } from './sessions.ts'
import { Tickets } from './tickets.ts'
import { Tokens } from './tokens.ts'

export interface AccountsOptions {
  readonly store: Store
  readonly clock: Clock
  /** 32 bytes; of the installation, the same on all nodes. */
  readonly key: () => Secret
  /** Where people reach us; null: no passkeys. */
  readonly site: Site | null
  /** What happened; awaited before whoever asked is answered. */
  readonly note: Note
  /** A secret was shown that had been replaced: somebody has stolen it, or was stolen from. For an alarm. */
  readonly onReplay?: OnReplay
  /** A row of the store does not fit its seal. For an alarm. */
  readonly onChanged?: (found: ChangedOutside) => void
}

const DIGEST_BYTES = 32
/** What has ended stays for reviews of access. */
const KEPT_MS = 400 * 24 * 3_600_000

/** People, their factors, sessions and tokens (docs/authority.md). One for each node; several work on one store. */
export class Accounts {
  /** What the administration does, once it was decided on. */
  readonly people: People
  /** What people change of their own account. */
  readonly own: OwnAccount
  readonly factors: Factors
  readonly sessions: Sessions
  readonly tokens: Tokens
  readonly sealed: SealedPeople
  readonly #parts: AccountParts
  readonly #principals: Principals
  readonly #logOns: LogOns
  readonly #fresh: FreshFactors
  readonly #addresses: AddressAttempts

  constructor({ store, clock, key, site, note, onReplay = () => undefined, onChanged = () => undefined }: AccountsOptions) {
    const seal = new SealingKey(key)
    const sealed = new SealedPeople(store, seal, onChanged)
    const tickets = new Tickets(seal)
    const parts: AccountParts = { store, clock, note, seal, sealed, tickets, onChanged, memory: new CredentialMemory() }
    const attempts = new Attempts(parts)
    const passwords = new PasswordHashes()
    const addresses = new AddressAttempts(clock)
    this.#parts = parts
    this.#addresses = addresses
    this.sealed = sealed
    this.people = new People(parts)
    this.factors = new Factors(parts, site)
    this.sessions = new Sessions(parts, onReplay)
    this.tokens = new Tokens(parts)
    const { factors, sessions, tokens } = this
    this.#fresh = new FreshFactors(parts, { factors, attempts })
    this.#logOns = new LogOns(parts, { factors, sessions, attempts, passwords, addresses })
    this.own = new OwnAccount(parts, { factors, sessions, attempts, passwords, fresh: this.#fresh })
    this.#principals = new Principals(parts, { sessions, tokens })
  }

  /** Who has this credential; undefined for nobody. Throws STORE_UNREACHABLE for who is not remembered while the store is away. */
  async principalOf(
    credential: Credential,
    from: From & { readonly isBackground?: boolean } = NOWHERE,
  ): Promise<Identified | undefined> {
    return await this.#principals.of(credential, from)
  }

  /** Throws LOG_ON_REFUSED for whatever is wrong, LOCKED_OUT for the address, BUSY. */
  async logOn(given: { readonly name: string; readonly password: string }, from: From): Promise<LogOn> {
    return await this.#logOns.byPassword(given, from)
  }

  async secondFactor(ticket: string, given: GivenFactor, from: From): Promise<NewSession> {
    return await this.#logOns.bySecondFactor(ticket, given, from)
  }

  /** What a browser needs to show a passkey for a ticket that it did not get from `logOn`. */
  async secondFactorChallenge(ticket: string): Promise<PublicKeyCredentialRequestOptionsJSON | null> {
    return await this.#logOns.challenge(ticket)
  }

  /** Chooses a password with a code of `people.invite`, and logs on. */
  async acceptInvitation(given: { readonly code: string; readonly password: string }, from: From): Promise<LogOn> {
    return await this.#logOns.byInvitation(given, from)
  }

  /** For somebody whom an identity provider has vouched for. */
  async logOnByIdentity(person: Person, grants: readonly Grant[], from: From): Promise<LogOn> {
    return await this.#logOns.byIdentity(person, grants, from)
  }

  /** An attempt from an address, failed until it is released. Throws LOCKED_OUT. */
  claimAddress({ address }: From): { release(): void } {
    return this.#addresses.claim(address)
  }

  async logOff(session: string, principal: Principal, from: From): Promise<void> {
    const { id, name } = principal
    if (!(await this.sessions.end(session, 'log-off'))) return
    await this.#parts.note({ action: 'log-off', outcome: 'done', person: { id, name }, from })
  }

  async logOffEverywhere(principal: Principal, from: From): Promise<number> {
    const { id, name } = principal
    const ended = await this.sessions.endAll(id, 'log-off everywhere')
    await this.#parts.note({ action: 'log-off.everywhere', outcome: 'done', person: { id, name }, from, after: { ended } })
    return ended
  }

  /** What a browser needs to show a passkey for an approval; null where the person has none. */
  async approvalChallenge(person: string, digest: Buffer): Promise<PublicKeyCredentialRequestOptionsJSON | null> {
    return await this.factors.assertionOptions(person, approvalOf(digest))
  }

  /**
   * The factor that somebody shows for an approval: a code that was not used, or a passkey's answer to a challenge for this very digest. It is used then, whatever becomes of the approval.
   * Throws FACTOR_WRONG, FACTOR_NEEDED, LOCKED_OUT.
   */
  async freshFactor(person: string, given: GivenFactor | undefined, digest: Buffer, from: From = NOWHERE): Promise<ShownFactor> {
    return await this.#fresh.require(person, given, { purpose: approvalOf(digest), from })
  }

  /** What says of a request that Resus has written it. */
  sealOfRequest(digest: string): Buffer {
    return this.#parts.seal.sealRow('request', digest)
  }

  /** What says of a person as a repository has them that Resus has written it. */
  sealOfCopy(copy: PersonCopy): Buffer {
    return sealOfPerson(this.#parts.seal, copy)
  }

  /** Seals what nobody has sealed yet: once, when sealing begins. Gives how many people. */
  async beginSeals(): Promise<number> {
    await this.tokens.beginSeals()
    return await this.sealed.begin()
  }

  /** Forgets sessions and tokens that ended long ago. */
  async forgetOld(): Promise<void> {
    const before = new Date(this.#parts.clock.now() - KEPT_MS)
    await deleteOldFamilies(this.#parts.store.sql, before)
    await deleteOldTokens(this.#parts.store.sql, before)
  }
}

function approvalOf(digest: Buffer) {
  assert(digest.length === DIGEST_BYTES, 'the digest of an approval has 32 bytes')
  return { kind: 'approval', bound: digest } as const
}
