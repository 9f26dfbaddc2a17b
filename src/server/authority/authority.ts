import type { AccountEvent } from '../../authority/account-event.ts'
import { Accounts } from '../../authority/accounts.ts'
import { Approvals } from '../../authority/approvals.ts'
import { actorOf, type NewAuditEntry } from '../../authority/audit-entry.ts'
import type { AuditTrail } from '../../authority/audit-trail.ts'
import type { Json } from '../../authority/canonical-json.ts'
import { givenFactorSchema } from '../../authority/given-factor.ts'
import { IdentityProvider } from '../../authority/identity-provider.ts'
import type { IdentityProviderSettings } from '../../authority/identity-provider-settings.ts'
import { keepConfiguration, newestConfiguration } from '../../authority/configurations.ts'
import type { Site } from '../../authority/passkeys.ts'
import type { Principal } from '../../authority/principal.ts'
import type { Store } from '../../catalog/store.ts'
import type { Clock } from '../../clock.ts'
import type { Configuration } from '../../config/configuration.ts'
import { Failure } from '../../errors.ts'
import type { Repository } from '../../repository/repository.ts'
import type { Secret } from '../../secret.ts'
import type { Catalogue } from '../catalogue.ts'
import type { Control } from '../control.ts'
import { ApprovalNews, type RaiseAlarm } from './approval-news.ts'
import { documentOf } from './configuration-gate.ts'
import { execute } from './executor.ts'
import { FirstAdministrator } from './first-administrator.ts'
import { importAsked } from './host-requests.ts'
import { KnownPeople } from './known-people.ts'
import { PeopleKeeper } from './people-keeper.ts'
import { Reviews } from './reviews.ts'
import { sealingKey } from './sealing-key.ts'

export interface AuthorityOptions {
  readonly store: Store
  readonly clock: Clock
  /** The state directory of this node. */
  readonly directory: string
  readonly catalogue: Catalogue
  readonly trail: AuditTrail
  readonly site: Site | null
  readonly identityProvider: IdentityProviderSettings | undefined
  readonly control: () => Control
  /** Where people reach us. */
  readonly url: () => string
  readonly alarms: RaiseAlarm
  /** A configuration that waited may come into force. */
  readonly admit: () => Promise<void>
  /** Null when a configuration in force may be kept as that; else why not, or not yet. */
  readonly mayAnchor: (before: Json, configuration: Configuration) => Promise<string | null>
  readonly report: (text: string) => void
  readonly onError: (error: unknown) => void
}

const DIGEST_BYTES = 32
const FIRST_DAY_MS = 24 * 3_600_000

/** Who people are, what they may do, and what they decided: what `src/authority` knows, put together for a node. */
export class Authority {
  readonly accounts: Accounts
  /** Null where none is configured. */
  readonly identityProvider: IdentityProvider | null
  readonly approvals: Approvals
  readonly reviews: Reviews
  readonly first: FirstAdministrator
  readonly #options: AuthorityOptions
  readonly #known: KnownPeople
  readonly #keeper: PeopleKeeper
  readonly #news: ApprovalNews
  readonly #anchored = new WeakSet<Configuration>()
  #key: Secret | undefined
  #decidedMs = 0
  #unanchored: string | null = null
  #settling: Promise<void> | undefined

  constructor(options: AuthorityOptions) {
    const { store, clock, directory, catalogue, site, url, alarms } = options
    this.#options = options
    this.#known = new KnownPeople({
      directory,
      store,
      systems: () => catalogue.systems.map(({ system }) => system),
      repositoryOf: async (system) => catalogue.repositoryOf(system),
    })
    this.#keeper = new PeopleKeeper(store, clock)
    this.#news = new ApprovalNews(alarms, async (entry) => this.note(entry))
    this.reviews = new Reviews(clock)
    this.first = new FirstAdministrator({ directory, clock, url })
    this.accounts = new Accounts({
      store,
      clock,
      key: () => this.#keyNow(),
      site,
      note: async (event) => this.note(entryOf(event)),
      onReplay: ({ person }) => void this.#news.tellReplay(person.name).catch(options.onError),
    })
    this.identityProvider =
      options.identityProvider === undefined
        ? null
        : new IdentityProvider({
            settings: options.identityProvider,
            accounts: this.accounts,
            store,
            clock,
            key: () => this.#keyNow(),
            note: async (event) => this.note(entryOf(event)),
          })
    this.approvals = new Approvals({
      store,
      clock,
      repositoriesOf: async (system) => this.#repositoriesOf(system),
      freshFactor: async (person, given, digest) => this.#freshFactor(person, given, digest),
      wasInHandOf: async (person, by, since) => this.#wasInHandOf(person, by, since),
      execute: async (approval) =>
        execute(approval, {
          control: options.control,
          people: () => this.accounts.people,
          repositories: async () => this.repositories(),
          clock,
          admit: options.admit,
        }),
      note: async (event, approval) => this.#news.note(event, approval),
    })
  }

  /** From now on what takes two takes two. */
  get isGuarded(): boolean {
    return this.#known.state === 'some'
  }

  /** Looks once whether there are people. */
  async settle(): Promise<void> {
    this.#settling ??= this.#settle().finally(() => (this.#settling = undefined))
    await this.#settling
  }

  /** What time has done, and what others have; of several nodes one leads. Throws what the store and storages throw. */
  async look(leads: boolean): Promise<void> {
    await this.settle()
    const repositories = await this.repositories()
    const { store, catalogue, clock } = this.#options
    const everywhere = [
      async () => this.reviews.look(repositories),
      async () => this.#news.tellReviews(this.reviews.all, clock.now()),
      async () => this.#admitDecided(),
    ]
    const asLeader = [
      async () => this.#keepPeople(repositories),
      async () => importAsked(store, catalogue, repositories, async (approval) => this.#news.note('asked', approval)),
      async () => this.#anchorConfigurations(),
      async () => this.approvals.look(),
    ]
    let failure: unknown
    // One storage that is away, or one damaged object, keeps nothing else from being done.
    for (const part of this.isGuarded && leads ? [...everywhere, ...asLeader] : everywhere)
      await part().catch((error: unknown) => (failure ??= error))
    if (failure !== undefined) throw failure as Error
  }

  /** There is a first person now. */
  async begin(): Promise<void> {
    await this.#known.note()
    await this.first.look(false)
    // A storage that does not take them now gets them by a later look.
    await this.#keeper.keep(await this.repositories()).catch(this.#options.onError)
  }

  /** Whether people are still made by one: on the first day, and until there is an approver beside whoever asks. */
  async isSetUp(person: string): Promise<boolean> {
    const { store, clock } = this.#options
    const people = await store.sql.selectFrom('people').select(['id', 'grants', 'state', 'made_at']).execute()
    const first = Math.min(...people.map(({ made_at: at }) => at.getTime()))
    if (clock.now() - first < FIRST_DAY_MS) return true
    return !people.some(
      ({ id, state, grants }) =>
        id !== person && state === 'active' && grants.some(({ role, facilities }) => role === 'approver' && facilities === null),
    )
  }

  /** Of all systems that can be reached. */
  async repositories(): Promise<readonly Repository[]> {
    const { catalogue } = this.#options
    const opened = await Promise.allSettled(catalogue.systems.map(async ({ system }) => catalogue.repositoryOf(system)))
    return opened.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
  }

  /** Adds to the trail, or to what waits for it. */
  async note(entry: NewAuditEntry): Promise<void> {
    await this.#options.trail.appendSoon(entry)
  }

  async noteDone(by: Principal, entry: Omit<NewAuditEntry, 'actor' | 'factor'>): Promise<void> {
    await this.note({ ...entry, actor: actorOf(by), factor: by.factor })
  }

  async #keepPeople(repositories: readonly Repository[]): Promise<void> {
    const came = await this.#keeper.restore(repositories)
    if (came > 0) this.#options.report(`the store knows the ${came} people again whom the repositories know`)
    await this.#keeper.keep(repositories)
  }

  /** Another node may have been where somebody decided on a configuration that waits here. */
  async #admitDecided(): Promise<void> {
    const { newest } = await this.#options.store.sql
      .selectFrom('approvals')
      .select(({ fn }) => fn.max('decided_at').as('newest'))
      .where('operation', '=', 'configuration')
      .where('state', 'in', ['approved', 'used'])
      .executeTakeFirstOrThrow()
    if (newest === null || newest.getTime() === this.#decidedMs) return
    this.#decidedMs = newest.getTime()
    await this.#options.admit()
  }

  /** What is in force: what somebody edits on a host later is held against it. What weakens it without a second person (a server that has lost its state takes files as they are) is kept by no repository. */
  async #anchorConfigurations(): Promise<void> {
    const { catalogue, clock, mayAnchor, report } = this.#options
    for (const configuration of catalogue.systems) {
      if (this.#anchored.has(configuration)) continue
      const repository = await catalogue.repositoryOf(configuration.system)
      const before = await newestConfiguration(repository)
      const why = before === undefined ? null : await mayAnchor(before.document, configuration)
      if (why === null) {
        await keepConfiguration(repository, documentOf(configuration), null, clock)
        this.#anchored.add(configuration)
      } else if (this.#unanchored !== why) report(why)
      this.#unanchored = why
    }
  }

  async #settle(): Promise<void> {
    const { directory } = this.#options
    const state = await this.#known.look()
    await this.first.look(state === 'none')
    if (this.#key !== undefined || state === 'unknown') return
    this.#key = await sealingKey(directory, await this.repositories(), { mayMake: state === 'none' })
  }

  #keyNow(): Secret {
    if (this.#key !== undefined) return this.#key
    throw new Failure(
      'STORAGE_UNREACHABLE',
      'nobody can log on yet: the key of second factors is in a repository that cannot be asked',
      {
        hint: 'see to the storage; "resus restore --break-glass" needs nobody to log on',
      },
    )
  }

  async #repositoriesOf(system: string | null): Promise<readonly Repository[]> {
    return system === null ? await this.repositories() : [await this.#options.catalogue.repositoryOf(system)]
  }

  async #freshFactor(person: string, given: unknown, digest: string): Promise<'totp' | 'passkey'> {
    const factor = givenFactorSchema.safeParse(given)
    const bytes = Buffer.from(digest, 'hex')
    if (bytes.length !== DIGEST_BYTES) throw new Failure('APPROVAL_INVALID', 'the request has no digest')
    return (await this.accounts.freshFactor(person, factor.success ? factor.data : undefined, bytes)).kind
  }

  async #wasInHandOf(person: string, by: string, since: Date): Promise<boolean> {
    const { madeBy, madeAt, resetBy, resetAt } = await this.accounts.people.read(person)
    return (madeBy === by && madeAt >= since) || (resetBy === by && resetAt !== null && resetAt >= since)
  }
}

function entryOf(event: AccountEvent): NewAuditEntry {
  const { action, outcome, person, by, factor, from, reason, before, after } = event
  const self = person === null ? { kind: 'unknown' as const, id: null, name: 'unknown' } : { kind: 'person' as const, ...person }
  return {
    actor: by === undefined ? self : { kind: by === 'bootstrap' ? 'bootstrap' : 'person', id: by, name: by },
    ...(factor === undefined ? {} : { factor }),
    address: from.address,
    action,
    object: person === null ? {} : { person: person.id, name: person.name },
    ...(before === undefined ? {} : { before: plain(before) }),
    ...(after === undefined ? {} : { after: plain(after) }),
    outcome,
    ...(reason === undefined ? {} : { reason }),
  }
}

function plain(value: unknown): Json {
  return JSON.parse(JSON.stringify(value)) as Json
}
