import { z } from 'zod'
import type { Clock } from '../clock.ts'
import { keyedName } from './key-ring.ts'
import { LEASE_PREFIX, MARK_PREFIX, randomId, timeName } from './layout.ts'
import type { Repository } from './repository.ts'
import { getRecord, putObject } from './sealed-object.ts'

// Leases and marks (docs/format.md, "Reuse, marks, leases, expiry").

const LEASE_MS = 6 * 3600 * 1000
const RENEWAL_MS = 3600 * 1000

const markSchema = z.object({ packs: z.array(z.string()), backups: z.array(z.string()), at: z.string() })

/** Says that a run may refer to packs that no manifest names yet. Renew it now and then while the run works. */
export class Lease {
  readonly #repository: Repository
  readonly #clock: Clock
  readonly #head: { run: string; component: string; purpose: string; startedAt: string }
  #renewedAt = Number.NEGATIVE_INFINITY

  constructor(repository: Repository, options: { component: string; purpose: string; clock: Clock }) {
    this.#repository = repository
    this.#clock = options.clock
    const startedAt = new Date(options.clock.now()).toISOString()
    this.#head = {
      run: randomId(),
      component: keyedName(repository.ring, 'component', options.component),
      purpose: options.purpose,
      startedAt,
    }
  }

  /** Puts the lease, or another one when the last is an hour old. */
  async renew(signal: AbortSignal): Promise<void> {
    const now = this.#clock.now()
    if (now - this.#renewedAt < RENEWAL_MS) return
    const name = `${LEASE_PREFIX}${timeName(now)}-${randomId()}`
    const head = { ...this.#head, expiresAt: new Date(now + LEASE_MS).toISOString() }
    await putObject(this.#repository.storage, this.#repository.ring, { kind: 'lease', name, head }, { signal })
    this.#renewedAt = now
  }
}

/** The packs that are about to be deleted: they count as absent for reuse. */
export async function markedPacks(repository: Repository, signal: AbortSignal): Promise<Set<string>> {
  const marked = new Set<string>()
  for await (const { key } of repository.storage.list(MARK_PREFIX, { signal })) {
    const head = await getRecord(repository.storage, repository.ring, { kind: 'mark', name: key }, { signal })
    for (const pack of markSchema.parse(head).packs) marked.add(pack)
  }
  return marked
}
