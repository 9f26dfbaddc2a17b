import type { AccountEvent } from '../../authority/account-event.ts'
import { Accounts } from '../../authority/accounts.ts'
import { Approvals } from '../../authority/approvals.ts'
import type { NewAuditEntry } from '../../authority/audit-entry.ts'
import type { AuditTrail } from '../../authority/audit-trail.ts'
import type { Json } from '../../authority/canonical-json.ts'
import { givenFactorSchema } from '../../authority/given-factor.ts'
import { IdentityProvider } from '../../authority/identity-provider.ts'
import type { IdentityProviderSettings } from '../../authority/identity-provider-settings.ts'
import { spreadBreakGlass } from '../../authority/break-glass.ts'
import { keepConfiguration } from '../../authority/configurations.ts'
import { idNamed } from '../../authority/named-id.ts'
import type { Site } from '../../authority/passkeys.ts'
import type { Principal } from '../../authority/principal.ts'
import type { Approval } from '../../catalog/approvals.ts'
import type { NewTokenRow } from '../../catalog/tokens.ts'
import type { Store } from '../../catalog/store.ts'
import type { Clock } from '../../clock.ts'
import type { Configuration } from '../../config/configuration.ts'
import { Failure } from '../../errors.ts'
import type { Repository } from '../../repository/repository.ts'
import type { Secret } from '../../secret.ts'
import type { Catalogue } from '../catalogue.ts'
import type { Control } from '../control.ts'
import { facilitiesAbout } from '../view.ts'
import { AccessReview } from './access-review.ts'
import { ApprovalNews, type RaiseAlarm } from './approval-news.ts'
import { askRepositories, type AskedRepositories } from './asked-repositories.ts'
import { documentOf } from './configuration-gate.ts'
import { execute } from './executor.ts'
import { FirstAdministrator } from './first-administrator.ts'
import { areMadeByOne } from './first-day.ts'
import { importAsked } from './host-requests.ts'
import { KnownPeople } from './known-people.ts'
import { PeopleKeeper } from './people-keeper.ts'
import { emergencyDigest, Reviews, type Alone } from './reviews.ts'
import { beginSeals } from './sealing-begin.ts'
import { putKey, sealingKey } from './sealing-key.ts'

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
  readonly mayBeAnchored: (configuration: Configuration) => Promise<boolean>
  readonly report: (text: string) => void
  readonly onError: (error: unknown) => void
}

const DIGEST_BYTES = 32

/** Who people are, what they may do, and what they decided: what `src/authority` knows, put together for a node. */
export class Authority {
  readonly accounts: Accounts
  /** Null where none is configured. */
  readonly identityProvider: IdentityProvider | null
  readonly approvals: Approvals
  readonly reviews: Reviews
  readonly access: AccessReview
  readonly first: FirstAdministrator
  readonly #options: AuthorityOptions
  readonly #known: KnownPeople
  readonly #keeper: PeopleKeeper
  /** Sealed codes that were opened, and are in the trail. */
  readonly #noted = new Set<string>()
  /** Rows without a seal are worth nothing; undefined before it was looked at. */
  #isSealed: boolean | undefined
  readonly #news: ApprovalNews
  readonly #anchored = new WeakSet<Configuration>()
  readonly #unanchored = new WeakSet<Configuration>()
  /** Repositories that have the key. */
  readonly #keyed = new WeakSet<Repository>()
  #key: Secret | undefined
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
    this.#news = new ApprovalNews(alarms, async (entry) => this.note(entry))
    this.reviews = new Reviews(clock)
    this.access = new AccessReview(store, options.trail, clock)
    this.first = new FirstAdministrator({ directory, clock, url })
    this.accounts = new Accounts({
      store,
      clock,
      key: () => this.#keyNow(),
      site,
      note: async (event) => this.note(entryOf(event)),
      onChanged: ({ person, what }) => void this.#news.tellChanged(person, what).catch(options.onError),
      onReplay: ({ person }) => void this.#news.tellReplay(person.name).catch(options.onError),
    })
    this.#keeper = new PeopleKeeper(store, clock, this.accounts)
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
      facilitiesOf: (subject) => facilitiesAbout(catalogue, subject),
      wasInHandOf: async (person, by, since) => this.#wasInHandOf(person, by, since),
      execute: async (approval) =>
        execute(approval, {
          control: options.control,
          people: () => this.accounts.people,
          tokens: () => this.accounts.tokens,
          repositoriesOf: async (system) => this.#repositoriesOf(system),
          clock,
          admit: options.admit,
        }),
      sealOf: (digest) => this.accounts.sealOfRequest(digest),
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

  /** What time has done, and what others have; of several nodes one leads. What one storage or one step cannot do keeps no other. */
  async look(leads: boolean): Promise<void> {
    const { store, clock, catalogue, report, onError } = this.#options
    const each = async (work: () => Promise<void>) => work().catch(onError)
    await each(async () => this.settle())
    const repositories = await this.repositories()
    for (const repository of repositories) await each(async () => this.reviews.look(repository))
    await each(async () => this.#news.tellReviews(this.reviews.all, clock.now()))
    await each(async () => this.#noteBreakGlass())
    if (!leads) this.#keeper.forget()
    if (!this.isGuarded || !leads) return
    for (const repository of repositories) {
      await each(async () => {
        const came = await this.#keeper.restore(repository)
        if (came > 0) report(`the store knows ${came} people again whom the repository of "${repository.system}" knows`)
      })
    }
    for (const repository of repositories) {
      await each(async () => this.#news.tellAllChanged(await this.#keeper.keep(repository)))
      const sealOf = (digest: string) => this.accounts.sealOfRequest(digest)
      await each(async () =>
        importAsked({ store, repository, sealOf, nowMs: clock.now() }, async (asked) => this.#news.note('asked', asked)),
      )
    }
    await each(async () => spreadBreakGlass(repositories))
    for (const configuration of catalogue.systems) await each(async () => this.#anchorConfiguration(configuration))
    await each(async () => {
      const { due } = await this.access.dates()
      await this.#news.tellAccessReview(due, clock.now(), async () => this.access.makers())
    })
    await each(async () => this.approvals.look())
  }

  /** For four hours restores to new places take one person; everybody is told now. */
  async declareEmergency(by: Principal, reason: string, factor: unknown): Promise<Alone> {
    if (this.isGuarded) {
      if (by.kind !== 'person' || by.person === null)
        throw new Failure('FORBIDDEN', 'only a person declares an emergency, and no token')
      await this.#freshFactor(by.person, factor, emergencyDigest(reason))
    }
    const declared = await this.reviews.declare(await this.repositories(), by, reason)
    await this.#news.tellReviews(this.reviews.all, this.#options.clock.now())
    return declared
  }

  /** There is a first person now. */
  async begin(): Promise<void> {
    await this.#known.note()
    await this.first.look(false)
    // A storage that does not take them now gets them by a later look.
    for (const repository of await this.repositories()) await this.#keeper.keep(repository).catch(this.#options.onError)
  }

  /** Whether people are still made by one. Throws STORAGE_UNREACHABLE where a repository that cannot be asked has to say so. */
  async isSetUp(person: string): Promise<boolean> {
    const { accounts } = this
    const { clock } = this.#options
    return await areMadeByOne(person, { accounts, clock, repositories: async () => this.askedRepositories() })
  }

  /** A token that does more than read: good when another person has approved it. */
  async askForToken(owner: Principal, { digest, at, expiresAt, grants, ...made }: NewTokenRow): Promise<Approval> {
    const parameters = {
      ...made,
      grants: plain(grants),
      digest: digest.toString('base64'),
      at: at.toISOString(),
      expiresAt: expiresAt.toISOString(),
    }
    return await this.approvals.ask(owner, { operation: 'token', parameters }, { system: null, component: null })
  }

  /** Of all systems that can be reached. */
  async repositories(): Promise<readonly Repository[]> {
    return (await this.askedRepositories()).opened
  }

  /** Of all systems, and which of them are away. */
  async askedRepositories(): Promise<AskedRepositories> {
    const { directory, catalogue } = this.#options
    const systems = catalogue.systems.map(({ system }) => system)
    return await askRepositories(directory, systems, async (system) => catalogue.repositoryOf(system))
  }

  /** Adds to the trail, or to what waits for it. */
  async note(entry: NewAuditEntry): Promise<void> {
    await this.#options.trail.appendSoon(entry)
  }

  /** What was opened on a host is known by the repository alone: whoever sees it writes it down, and however many do, it is one entry. */
  async #noteBreakGlass(): Promise<void> {
    const { trail } = this.#options
    for (const { kind, id, at, until, by } of this.reviews.all) {
      if (kind !== 'break-glass' || this.#noted.has(id) || !(await trail.reachesBackTo(new Date(at)))) continue
      await this.note({
        id: idNamed(`break-glass/${id}.used`),
        actor: { kind: 'break-glass', id: null, name: by.name },
        action: 'break-glass.used',
        object: { code: id, at, until },
        outcome: 'done',
      })
      this.#noted.add(id)
    }
  }

  /** What is in force: what somebody edits on a host later is held against it. What weakens it without a second person never takes its place. */
  async #anchorConfiguration(configuration: Configuration): Promise<void> {
    const { catalogue, clock, mayBeAnchored } = this.#options
    if (this.#anchored.has(configuration)) return
    if (!(await mayBeAnchored(configuration))) {
      if (!this.#unanchored.has(configuration)) {
        this.#options.report(
          `the configuration of "${configuration.system}" in force weakens what two people accepted: no repository keeps it, and "resus expire" does not follow it`,
        )
      }
      this.#unanchored.add(configuration)
      return
    }
    await keepConfiguration(await catalogue.repositoryOf(configuration.system), documentOf(configuration), null, clock)
    this.#anchored.add(configuration)
  }

  async #settle(): Promise<void> {
    const { directory } = this.#options
    const state = await this.#known.look()
    const asked = await this.askedRepositories()
    const repositories = asked.opened
    if (state !== 'unknown' && !repositories.every((repository) => this.#keyed.has(repository))) {
      const mayMake = state === 'none' && repositories.length > 0
      const key = this.#key ?? (await sealingKey(directory, repositories, { mayMake }))
      if (key !== undefined) for (const repository of repositories) await this.#keyIn(repository, key)
      this.#key = key
    }
    if (this.#key !== undefined && !this.#isSealed) await this.#beginSeals(asked)
    // Without a repository that has the key, who comes now would not be let in again.
    await this.first.look(state === 'none' && this.#key !== undefined)
  }

  async #beginSeals(asked: AskedRepositories): Promise<void> {
    const { directory, clock, report } = this.#options
    const sealed = await beginSeals({ directory, asked, accounts: this.accounts, clock })
    if (sealed === undefined && this.#isSealed === undefined)
      report('nobody logs on yet: whether people are sealed is in a repository that cannot be asked')
    else if (sealed !== undefined && sealed > 0)
      report(`${sealed} people were sealed: from now on a row that Resus has not written is nobody`)
    this.#isSealed = sealed !== undefined
  }

  /** One that came later gets it too. */
  async #keyIn(repository: Repository, key: Secret): Promise<void> {
    if (this.#keyed.has(repository)) return
    if (!(await putKey(repository, key))) {
      this.#options.report(
        `the repository of "${repository.system}" has another key of second factors: factors that were made under it are lost there`,
      )
    }
    this.#keyed.add(repository)
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

  async #wasInHandOf(person: string, by: string | null, since: Date): Promise<boolean> {
    const { madeBy, madeAt, resetBy, resetAt } = await this.accounts.people.read(person)
    const isIt = (each: string | null) => (by === null ? each !== null && each !== person : each === by)
    return (isIt(madeBy) && madeAt >= since) || (isIt(resetBy) && resetAt !== null && resetAt >= since)
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
