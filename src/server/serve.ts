import { chmod, mkdir } from 'node:fs/promises'
import { forgetNodes, listNodes, renewNode } from '../catalog/nodes.ts'
import type { NodeReach } from '../catalog/schema.ts'
import { isStoreAway, isStoreBroken, Store } from '../catalog/store.ts'
import { deleteOldTasks } from '../catalog/tasks.ts'
import type { Systems } from '../config/systems.ts'
import { Failure } from '../errors.ts'
import { resusVersion } from '../version.ts'
import { ScratchRemoval } from './abandoned-scratch.ts'
import type { AcceptedConfiguration } from './accepted-configuration.ts'
import { Administrator, administratorToken } from './administrator.ts'
import { NodeAuthority, type NodeAuthorityOptions } from './authority/node-authority.ts'
import { AuditKeeper } from './audit-keeper.ts'
import { CatalogueRefresh } from './catalogue-refresh.ts'
import { Catalogue } from './catalogue.ts'
import { ConfigurationWatch } from './configuration-watch.ts'
import { Control } from './control.ts'
import { authorityGate } from './http/authority-gate.ts'
import { begin, type Beginning, type BeginOptions } from './beginning.ts'
import { buildApi } from './http/server.ts'
import { listen, readTls, TlsReload } from './listening.ts'
import { findReach, ServerIdentities } from './reach.ts'
import { ReceiverClaims } from './receiver-claims.ts'
import { ReceiverMemory } from './receiver-memory.ts'
import { Receivers } from './receivers.ts'
import { RecordKeeper } from './record-keeper.ts'
import { Scheduler } from './scheduler.ts'
import type { ServerSettings } from './settings.ts'
import { StatusBoard } from './status-board.ts'
import { StoreHome } from './store-home.ts'
import { StoreKeeper } from './store-keeper.ts'
import { TaskFigures } from './task-figures.ts'
import { TaskQueue } from './task-queue.ts'
import type { TaskPlace } from './task-run.ts'
import { TaskWorker } from './task-worker.ts'
import { Watch } from './watch.ts'

export interface ServeOptions extends BeginOptions {
  /** A PostgreSQL for the store, instead of the embedded one. */
  readonly databaseUrl?: string | undefined
  /** Ends it in good order. */
  readonly signal: AbortSignal
  /** It answers. */
  readonly onReady?: (at: { readonly url: string; readonly tokenPath: string | null; readonly isNewToken: boolean }) => void
}

const RENEW_MS = 5_000
const REFRESH_MS = 60_000
const AUDIT_MS = 5_000
const SCHEDULE_MS = 2_000
const VERIFY_MS = 15_000
const AUTHORITY_MS = 5_000
const ALARMS_MS = 10_000
const COMPLIANCE_MS = 60_000
const SIZES_MS = 600_000
const CLEAN_MS = 3_600_000
const TLS_MS = 10_000
const MEND_MS = 60_000
const STORE_MS = 5_000
const RECORDS_MS = 30_000
const END_MS = 5_000
const TASKS_KEPT_MS = 400 * 24 * 3_600_000
/** People were told of its death long before. */
const NODES_KEPT_MS = 24 * 3_600_000

/** Protects everything that is configured, until the signal aborts. Throws when it cannot begin: nothing that is protected was touched then. */
export async function serve(options: ServeOptions): Promise<void> {
  const beginning = await begin(options)
  await using stack = new AsyncDisposableStack()
  stack.use(new ScratchRemoval(beginning.systems, options.report))
  const failed = new AbortController()
  const signal = AbortSignal.any([options.signal, failed.signal])
  const node = await Node.start({ ...options, signal }, beginning, stack)
  // One part that has failed ends all: half a control plane would look like a whole one.
  await node.run((error) => failed.abort(error))
}

/** One `resus serve`. */
class Node {
  readonly #options: ServeOptions
  readonly #settings: ServerSettings
  readonly #accepted: AcceptedConfiguration
  readonly #store: Store
  readonly #keeper: StoreKeeper
  readonly #queue: TaskQueue
  readonly #catalogue: Catalogue
  readonly #board: StatusBoard
  readonly #refresh: CatalogueRefresh
  readonly #receivers: Receivers
  readonly #claims: ReceiverClaims
  readonly #worker: TaskWorker
  readonly #configuration: ConfigurationWatch
  readonly #scheduler: Scheduler
  readonly #watch: Watch
  readonly #records: RecordKeeper
  readonly #audit: AuditKeeper
  readonly #authority: NodeAuthority
  readonly #tasks = new TaskFigures()
  readonly #startedAt: Date
  readonly #servers = new ServerIdentities()
  #reach: readonly NodeReach[] = []
  #tls: TlsReload | undefined

  static async start(options: ServeOptions, beginning: Beginning, stack: AsyncDisposableStack): Promise<Node> {
    const { signal, clock, report } = options
    const { accepted, systems, repositories, server } = beginning
    const { settings } = server
    await mkdir(settings.state, { recursive: true, mode: 0o711 })
    // PostgreSQL's account has to pass; what is secret in it has its own mode.
    await chmod(settings.state, 0o711)
    if (beginning.copy === 'files') accepted.goByFiles()
    const unkept = beginning.copy === 'keep' ? await accepted.begin(systems) : null
    if (unkept !== null) report(`${unkept}: until it can, its files are read as they are`)
    const home = stack.use(new StoreHome({ ...options, state: settings.state }))
    const store = stack.use(Store.later(async () => home.find()))
    const queue = stack.use(TaskQueue.later(store, (error) => report(`queue: ${error.message}`)))
    const kept = unkept === null ? {} : { refused: beginning.refused ?? unkept, fingerprint: undefined }
    const node = new Node(options, { ...beginning, ...kept, home, store, queue })
    stack.use(node.#scheduler)
    stack.use(node.#watch)
    await node.#keeper.begin()
    await node.#catalogue.take(systems)
    node.#catalogue.adopt(repositories.opened)
    node.#receivers.configure(systems)
    await node.#lookAround()
    const { restoreRoots } = settings
    const control = new Control({ catalogue: node.#catalogue, store, queue, clock, restoreRoots })
    node.#authority.serves(control)
    await node.#authority.begin(clock)
    const { authority, isSecure } = node.#authority
    const token = authority.isGuarded ? null : await administratorToken(settings.state)
    const tls = await readTls(settings)
    const api = await buildApi({
      control,
      board: node.#board,
      health: node.#watch.health,
      objectives: node.#watch.objectives,
      evidence: node.#watch.evidence,
      readiness: node.#watch.readiness,
      sizes: node.#watch.sizes,
      tasks: node.#tasks,
      scheduler: node.#scheduler,
      notices: node.#watch.notices,
      audit: node.#audit,
      node: settings.node,
      refused: () => node.#configuration.refused?.message ?? node.#authority.settings.refused,
      signal,
      authority,
      isSecure,
      gate: authorityGate(authority, token === null ? undefined : new Administrator(token.token), isSecure),
      tls,
    })
    stack.defer(async () => api.close())
    node.#tls = new TlsReload(settings, api, tls)
    const url = await listen(api, settings)
    node.#authority.listens(url)
    options.onReady?.({ url, tokenPath: token?.path ?? null, isNewToken: token?.isNew ?? false })
    return node
  }

  private constructor(
    options: ServeOptions,
    {
      server,
      serverFile,
      accepted,
      home,
      store,
      queue,
      ...beginning
    }: Beginning & {
      readonly home: StoreHome
      readonly store: Store
      readonly queue: TaskQueue
    },
  ) {
    const { clock, report, configPath } = options
    const { settings } = server
    this.#options = options
    this.#settings = settings
    this.#store = store
    this.#keeper = new StoreKeeper({ home, store, queue, report })
    this.#startedAt = new Date(clock.now())
    this.#queue = queue
    this.#catalogue = new Catalogue(store, clock)
    this.#refresh = this.#newRefresh()
    this.#scheduler = this.#newScheduler()
    this.#accepted = accepted
    this.#receivers = new Receivers({
      configPath: () => accepted.path,
      clock,
      report,
      onMessage: (message) => this.#watch.noteReceiver(message),
    })
    this.#claims = this.#newClaims(home)
    this.#board = new StatusBoard({ catalogue: this.#catalogue, receivers: this.#receivers, clock })
    this.#audit = this.#newAudit()
    this.#records = this.#newRecords()
    this.#watch = new Watch({
      store,
      records: this.#records,
      audit: this.#audit,
      catalogue: this.#catalogue,
      receivers: this.#receivers,
      board: this.#board,
      settings,
      clock,
      refused: () => this.#configuration.refused?.message ?? null,
      settingsRefused: () => this.#authority.settings.refused,
      storeProblem: () => this.#keeper.problem,
      onError: (error) => this.#reportUnlessAway(error),
    })
    this.#configuration = new ConfigurationWatch({
      configPath,
      fingerprint: beginning.fingerprint,
      refused: beginning.refused,
      clock,
      report,
      admit: async (systems) => this.#authority.gate.admit(this.#catalogue.systems, systems),
      take: async (systems) => this.#take(systems),
    })
    this.#authority = this.#newAuthority({ inForce: server, serverFile, unproven: beginning.unproven })
    this.#worker = this.#newWorker(queue)
  }

  #newScheduler(): Scheduler {
    return new Scheduler({
      store: this.#store,
      queue: this.#queue,
      catalogue: this.#catalogue,
      clock: this.#options.clock,
      isReached: (system, component) =>
        this.#board.nodes.some(({ reach }) =>
          reach.some((each) => each.system === system && each.component === component && each.reached),
        ),
    })
  }

  #newAuthority(began: Pick<NodeAuthorityOptions, 'inForce' | 'serverFile' | 'unproven'>): NodeAuthority {
    const { clock, report } = this.#options
    return new NodeAuthority({
      store: this.#store,
      clock,
      ...began,
      catalogue: this.#catalogue,
      trail: this.#audit.trail,
      notices: this.#watch.notices,
      reload: () => this.#configuration.reload(),
      report,
      onError: (error) => this.#reportUnlessAway(error),
    })
  }

  #newRefresh(): CatalogueRefresh {
    const { clock, signal } = this.#options
    return new CatalogueRefresh({ catalogue: this.#catalogue, clock, signal, onError: (error) => this.#reportUnlessAway(error) })
  }

  #newClaims({ isOwn }: StoreHome): ReceiverClaims {
    return new ReceiverClaims({
      store: this.#store,
      isOwnStore: isOwn,
      node: this.#settings.node,
      clock: this.#options.clock,
      catalogue: this.#catalogue,
      receivers: this.#receivers,
      memory: new ReceiverMemory(this.#settings.state),
    })
  }

  #newRecords(): RecordKeeper {
    const { clock, report } = this.#options
    return new RecordKeeper({
      store: this.#store,
      node: this.#settings.node,
      clock,
      systems: () => this.#catalogue.systems.map(({ system }) => system),
      repositoryOf: async (system) => this.#catalogue.repositoryOf(system),
      alsoWrite: async (repository, held) => this.#audit.write(repository, held),
      report,
      onError: (error) => this.#reportUnlessAway(error),
    })
  }

  #newAudit(): AuditKeeper {
    const { clock, report } = this.#options
    const { state, node, auditSyslog } = this.#settings
    return new AuditKeeper({
      store: this.#store,
      node,
      clock,
      state,
      syslog: auditSyslog,
      systems: () => this.#catalogue.systems.map(({ system }) => system),
      repositoryOf: async (system) => this.#catalogue.repositoryOf(system),
      report,
    })
  }

  #newWorker(queue: TaskQueue): TaskWorker {
    const { clock, report } = this.#options
    return new TaskWorker({
      store: this.#store,
      queue,
      node: this.#settings.node,
      clock,
      report,
      placeOf: (system, component) => this.#placeOf(system, component),
      onEnd: (task, outcome) => {
        const endedAt = outcome.at.toISOString()
        this.#board.noteTask({ ...task, state: outcome.state, endedAt })
        this.#watch.noteTask(task, outcome)
        this.#tasks.note({ ...task, startedMs: task.started_at?.getTime() ?? null }, outcome)
        if (task.component !== null) void this.#refresh.one(task.system, task.component)
      },
    })
  }

  async run(onFailure: (error: unknown) => void): Promise<void> {
    const { signal } = this.#options
    const parts = [
      this.#worker.run(signal),
      this.#receivers.run(signal),
      this.#configuration.run(signal),
      this.#always(RENEW_MS, async () => this.#renew()),
      this.#always(RENEW_MS, async () => this.#lookAround()),
      this.#always(REFRESH_MS, async () => this.#refresh.all()),
      this.#always(RECORDS_MS, async () => this.#records.look(signal)),
      this.#always(AUDIT_MS, async () => this.#audit.look(signal)),
      this.#always(AUDIT_MS, async () => this.#audit.forward(this.#scheduler.isLeader, signal)),
      this.#always(VERIFY_MS, async () => this.#audit.verification.look(this.#scheduler.isLeader, signal)),
      this.#always(AUTHORITY_MS, async () => this.#authority.authority.look(this.#scheduler.isLeader)),
      this.#always(
        () => this.#authority.settings.pauseMs,
        async () => this.#authority.settings.look(),
      ),
      this.#always(SCHEDULE_MS, async () => this.#schedule(signal)),
      this.#always(
        () => this.#watch.health.pauseMs,
        async () => this.#watch.health.look(signal),
      ),
      this.#always(ALARMS_MS, async () => this.#watch.lookForAlarms(this.#scheduler.isLeader, signal)),
      this.#always(COMPLIANCE_MS, async () => this.#watch.record(this.#scheduler.isLeader, signal)),
      this.#always(SIZES_MS, async () => this.#watch.sizes.look(this.#scheduler.isLeader)),
      this.#always(CLEAN_MS, async () => this.#forgetOld()),
      this.#always(TLS_MS, async () => this.#tls?.look(this.#options.report)),
      this.#always(MEND_MS, async () => this.#mendTasks()),
      this.#always(STORE_MS, async () => this.#keeper.look()),
    ]
    const outcomes = await Promise.allSettled(
      parts.map(async (part) =>
        part.catch((error: unknown) => {
          onFailure(error)
          throw error
        }),
      ),
    )
    await this.#claims.release()
    // The host may be given away.
    await this.#records.look(AbortSignal.timeout(END_MS)).catch((error: unknown) => this.#reportUnlessAway(error))
    const failure = outcomes.find((outcome) => outcome.status === 'rejected')
    if (failure !== undefined) throw failure.reason as Error
  }

  /** Does it now, and again after every so often, whatever becomes of it. */
  async #always(everyMs: number | (() => number), work: () => Promise<void>): Promise<void> {
    const { signal, clock } = this.#options
    while (!signal.aborted) {
      await work().catch((error: unknown) => this.#reportUnlessAway(error))
      await clock.sleep(typeof everyMs === 'number' ? everyMs : everyMs(), signal).catch(() => undefined)
    }
  }

  /** Behind what the repositories know of the last runs, where the store was lost. */
  async #schedule(signal: AbortSignal): Promise<void> {
    await this.#records.settle(signal)
    await this.#scheduler.look()
  }

  async #mendTasks(): Promise<void> {
    const { clock } = this.#options
    if (this.#scheduler.isLeader) await this.#queue.mend(new Date(clock.now() - MEND_MS))
  }

  #reportUnlessAway(error: unknown): void {
    const { signal, report } = this.#options
    if (signal.aborted || (isStoreAway(error) && !isStoreBroken(error))) return
    if (error instanceof Failure) report(`${error.message} (${error.code})`)
    else report(error instanceof Error ? (error.stack ?? error.message) : String(error))
  }

  async #forgetOld(): Promise<void> {
    const { clock } = this.#options
    if (!this.#scheduler.isLeader) return
    await deleteOldTasks(this.#store.sql, new Date(clock.now() - TASKS_KEPT_MS))
    await this.#authority.authority.accounts.forgetOld()
    await forgetNodes(this.#store.sql, new Date(clock.now() - NODES_KEPT_MS))
  }

  /** By itself: a server that does not answer must not make this node look dead. */
  async #lookAround(): Promise<void> {
    this.#reach = await findReach(this.#catalogue.systems, this.#servers)
  }

  /** Says that this node lives, and what it reaches. */
  async #renew(): Promise<void> {
    const { clock } = this.#options
    const name = this.#settings.node
    this.#board.noteNodes([{ name, reach: [...this.#reach] }])
    const at = new Date(clock.now())
    try {
      await renewNode(this.#store.sql, { name, startedAt: this.#startedAt, at, version: resusVersion(), reach: this.#reach })
      await this.#claims.renew(this.#reach)
    } catch (error) {
      if (isStoreAway(error)) await this.#claims.goOn(this.#reach)
      throw error
    }
    this.#board.noteNodes(await listNodes(this.#store.sql))
  }

  async #take({ systems }: Systems): Promise<void> {
    await this.#accepted.keep(systems)
    await this.#catalogue.take(systems)
    this.#receivers.configure(systems)
    this.#reach = await findReach(systems, this.#servers)
    await this.#refresh.all()
  }

  #placeOf(system: string, component: string | null): TaskPlace | undefined {
    const configuration = this.#catalogue.systems.find((each) => each.system === system)
    if (configuration === undefined) return undefined
    const reached = this.#reach.some((each) => each.system === system && each.component === component && each.reached)
    return reached ? { configPath: this.#accepted.pathOf(configuration), restoreRoots: this.#settings.restoreRoots } : undefined
  }
}
