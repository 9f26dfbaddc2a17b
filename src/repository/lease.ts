import { z } from 'zod'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { LEASE_MS, LEASE_RENEWAL_MS, RUN_DIGITS, type LeaseFacts } from './expiry-protocol.ts'
import { keyedName } from './key-ring.ts'
import { LEASE_PREFIX, randomId, timeName } from './layout.ts'
import type { Repository } from './repository.ts'
import { damaged, getRecord, putObject } from './sealed-object.ts'

// Leases (docs/format.md, "Reuse, marks, leases, expiry").

const leaseSchema = z.object({
  run: z.string(),
  component: z.string(),
  backup: z.string(),
  expiresAt: z.iso.datetime(),
})

export interface StoredLease extends LeaseFacts {
  readonly key: string
}

/** Says that a run may refer to packs that no manifest names yet, and which backup it may publish. Renew it now and then while the run works. */
export class Lease {
  readonly run = randomId()
  readonly #repository: Repository
  readonly #clock: Clock
  readonly #head: { run: string; component: string; backup: string; purpose: string; startedAt: string }
  #renewedAt = Number.NEGATIVE_INFINITY

  constructor(repository: Repository, options: { component: string; backup: string; purpose: string; clock: Clock }) {
    this.#repository = repository
    this.#clock = options.clock
    const startedAt = new Date(options.clock.now()).toISOString()
    const component = keyedName(repository.ring, 'component', options.component)
    this.#head = { run: this.run, component, backup: options.backup, purpose: options.purpose, startedAt }
  }

  /** How the names of the run's packs end. */
  get packSuffix(): string {
    return this.run.slice(0, RUN_DIGITS)
  }

  /** Puts the lease, or another one when the last is an hour old. */
  async renew(signal: AbortSignal): Promise<void> {
    const now = this.#clock.now()
    if (now - this.#renewedAt < LEASE_RENEWAL_MS) return
    const name = `${LEASE_PREFIX}${timeName(now)}-${randomId()}`
    const head = { ...this.#head, expiresAt: new Date(now + LEASE_MS).toISOString() }
    await putObject(this.#repository.storage, this.#repository.ring, { kind: 'lease', name, head }, { signal })
    this.#renewedAt = now
  }
}

/** All leases, good or ended. Throws OBJECT_DAMAGED: what cannot be read may be of a run at work. */
export async function listLeases(repository: Repository, signal: AbortSignal): Promise<StoredLease[]> {
  const leases: StoredLease[] = []
  for await (const { key } of repository.storage.list(LEASE_PREFIX, { signal })) {
    const head = await recordUnlessGone(repository, { kind: 'lease', name: key }, signal)
    if (head === undefined) continue
    const lease = leaseSchema.safeParse(head)
    if (!lease.success) throw damaged(key, `its head is not that of a lease: ${lease.error.issues[0]?.message}`)
    const { run, component, backup, expiresAt } = lease.data
    leases.push({ key, run, backup: `${component}/${backup}`, expiresAtMs: Date.parse(expiresAt) })
  }
  return leases
}

/** A record that others may delete while we look; undefined when it is gone. */
export async function recordUnlessGone(
  repository: Repository,
  object: { kind: 'lease' | 'mark' | 'backup' | 'expired'; name: string },
  signal?: AbortSignal,
): Promise<unknown> {
  try {
    return await getRecord(repository.storage, repository.ring, object, signal === undefined ? {} : { signal })
  } catch (error) {
    if (error instanceof Failure && error.code === 'OBJECT_MISSING') return undefined
    throw error
  }
}
