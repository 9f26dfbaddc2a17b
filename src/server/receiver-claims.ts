import { claimReceivers, releaseReceivers, type ReceiverLease } from '../catalog/receiver-leases.ts'
import type { NodeReach } from '../catalog/schema.ts'
import { isStoreAway, type Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import type { Catalogue } from './catalogue.ts'
import type { ReceiverMemory } from './receiver-memory.ts'
import type { Receivers } from './receivers.ts'
import { DEAD_AFTER_MS } from './task-worker.ts'

export interface ReceiverClaimsOptions {
  readonly store: Store
  /** Whether no other node can use the store. */
  readonly isOwnStore: boolean
  readonly node: string
  readonly clock: Clock
  readonly catalogue: Catalogue
  readonly receivers: Receivers
  readonly memory: ReceiverMemory
}

/** Which components' WAL this node receives: what the store leases to it; and while that is away, what can do no harm. */
export class ReceiverClaims {
  readonly #options: ReceiverClaimsOptions
  /** Whether the store was asked who receives what. */
  #hasAsked = false

  constructor(options: ReceiverClaimsOptions) {
    this.#options = options
  }

  /** Claims what it reaches, and receives what it got. Throws what the store throws: then it goes on with what it has. */
  async renew(reach: readonly NodeReach[]): Promise<void> {
    const { receivers, memory } = this.#options
    const leases = await this.#claim(reach)
    this.#hasAsked = true
    receivers.want(leases)
    await memory.keep(leases)
  }

  /** The store is away. Until it was asked once, this node receives what it may without. */
  async goOn(reach: readonly NodeReach[]): Promise<void> {
    if (!this.#hasAsked) this.#options.receivers.want(await this.#unasked(reach))
  }

  /** Only where the repository has all that was acknowledged: what another spool has must not be left behind. */
  async release(): Promise<void> {
    const { store, node, catalogue } = this.#options
    const free = catalogue.pictures().filter(({ component }) => component.stream.acknowledge === 'repository')
    const leases = free.map(({ system, component }) => ({ system, component: component.name }))
    await releaseReceivers(store.sql, node, leases).catch((error: unknown) => {
      // The lease then runs out by itself.
      if (!isStoreAway(error)) throw error
    })
  }

  async #claim(reach: readonly NodeReach[]): Promise<ReceiverLease[]> {
    const { store, node, clock, receivers } = this.#options
    const now = clock.now()
    const wanted = reach
      // What it receives already it goes on with: the server may be down for a while.
      .filter(({ system, component, receivable }) => receivable || receivers.wants(system, component))
      .map(({ system, component }) => ({ system, component, takesOver: this.#acknowledge(system, component) === 'repository' }))
    const deadBefore = new Date(now - DEAD_AFTER_MS)
    return await claimReceivers(store.sql, { node, at: new Date(now), deadBefore, wanted })
  }

  /**
   * What may be received while nobody can be asked, since the start: where the store is this node's own; where nothing that was acknowledged can be on another node alone; and
   * what was this node's already. The slot admits one receiver, whoever else thinks so.
   */
  async #unasked(reach: readonly NodeReach[]): Promise<ReceiverLease[]> {
    const { memory, isOwnStore } = this.#options
    const own = await memory.read()
    return reach.filter(
      ({ system, component, receivable }) =>
        receivable &&
        (isOwnStore ||
          this.#acknowledge(system, component) === 'repository' ||
          own.some((each) => each.system === system && each.component === component)),
    )
  }

  #acknowledge(system: string, component: string): string | undefined {
    return this.#options.catalogue.picture(system, component)?.component.stream.acknowledge
  }
}
