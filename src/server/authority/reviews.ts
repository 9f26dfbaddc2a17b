import { createHash, randomUUID } from 'node:crypto'
import { z } from 'zod'
import type { Principal } from '../../authority/principal.ts'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { listAuthority, putAuthority, readAuthority } from '../../repository/authority-objects.ts'
import type { Repository } from '../../repository/repository.ts'

// What one person did alone because it could not wait: declared emergencies, and sealed codes that were opened. Another person reviews each.

const HOLDS_MS = 4 * 3_600_000
const REVIEW_MS = 72 * 3_600_000

const byShape = z.object({ id: z.string(), name: z.string() })
const declaredSchema = z.object({
  format: z.literal(1),
  id: z.uuid(),
  at: z.string(),
  until: z.string(),
  by: byShape,
  reason: z.string(),
})
const usedSchema = z.object({
  format: z.literal(1),
  id: z.uuid(),
  at: z.string(),
  until: z.string(),
  host: z.string(),
  account: z.string(),
})
const reviewedSchema = z.object({ format: z.literal(1), id: z.uuid(), at: z.string(), by: byShape, text: z.string() })

export interface Alone {
  readonly kind: 'emergency' | 'break-glass'
  readonly id: string
  readonly at: string
  /** Until when restores to new places run by it. */
  readonly until: string
  readonly by: { readonly id: string | null; readonly name: string }
  readonly reason: string | null
  readonly reviewDue: string
  readonly review: { readonly at: string; readonly by: string; readonly text: string } | null
}

/** Known by each repository alone, so that it is known where the store is lost, or was never there. */
export class Reviews {
  /** As of the last look. */
  all: readonly Alone[] = []
  readonly #clock: Clock
  readonly #documents = new Map<string, unknown>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** A declared emergency that goes on. */
  get emergency(): Alone | undefined {
    return this.all.find(({ kind, until }) => kind === 'emergency' && Date.parse(until) > this.#clock.now())
  }

  async look(repository: Repository): Promise<void> {
    const found = new Map(this.all.map((alone) => [alone.id, alone]))
    for (const alone of await this.#read(repository)) {
      const before = found.get(alone.id)
      if (before === undefined || before.review === null) found.set(alone.id, alone)
    }
    this.all = [...found.values()].toSorted((left, right) => (left.at < right.at ? 1 : -1))
  }

  /** In each of these. Throws what a storage throws when none takes it. */
  async declare(repositories: readonly Repository[], by: Principal, reason: string): Promise<Alone> {
    if (by.kind === 'token') throw new Failure('FORBIDDEN', 'a token declares no emergency')
    const nowMs = this.#clock.now()
    const declared = {
      format: 1 as const,
      id: randomUUID(),
      at: new Date(nowMs).toISOString(),
      until: new Date(nowMs + HOLDS_MS).toISOString(),
      by: { id: by.person ?? by.id, name: by.name },
      reason,
    }
    await putInAny(repositories, `emergencies/${declared.id}.declared`, declared)
    const alone = emergencyOf(declared, null)
    this.all = [alone, ...this.all]
    return alone
  }

  /** By another person than who did it. Throws APPROVAL_UNKNOWN, APPROVAL_INVALID, FORBIDDEN. */
  async review(repositories: readonly Repository[], id: string, by: Principal, text: string): Promise<void> {
    const alone = this.all.find((each) => each.id === id)
    if (alone === undefined) throw new Failure('APPROVAL_UNKNOWN', `there is nothing "${id}" to review`)
    if (alone.review !== null) throw new Failure('APPROVAL_INVALID', `it was reviewed at ${alone.review.at}`)
    if (by.kind !== 'person' || alone.by.id === by.person) {
      throw new Failure('FORBIDDEN', 'another person than who did it reviews it', { hint: 'ask an approver or an auditor' })
    }
    const folder = alone.kind === 'emergency' ? 'emergencies' : 'break-glass'
    const reviewed = { format: 1, id, at: new Date(this.#clock.now()).toISOString(), by: { id: by.person!, name: by.name }, text }
    await putInAny(repositories, `${folder}/${id}.reviewed`, reviewed)
    for (const repository of repositories) await this.look(repository).catch(() => undefined)
  }

  async #read(repository: Repository): Promise<Alone[]> {
    const names = [...(await listAuthority(repository, 'emergencies/')), ...(await listAuthority(repository, 'break-glass/'))]
    const found: Alone[] = []
    for (const name of names.filter((each) => /\.(declared|used)$/.test(each))) {
      const reviewName = name.replace(/\.\w+$/, '.reviewed')
      const reviewed = names.includes(reviewName)
        ? reviewedSchema.safeParse(await this.#document(repository, reviewName))
        : undefined
      const review = reviewed?.success === true ? reviewed.data : null
      const document = await this.#document(repository, name)
      const [declared, used] = [declaredSchema.safeParse(document), usedSchema.safeParse(document)]
      if (declared.success) found.push(emergencyOf(declared.data, review))
      else if (used.success) found.push(breakGlassOf(used.data, review))
    }
    return found
  }

  /** They never change. */
  async #document(repository: Repository, name: string): Promise<unknown> {
    const key = `${repository.id} ${name}`
    const known = this.#documents.get(key)
    if (known !== undefined) return known
    const read = await readAuthority(repository, name).catch((error: unknown) => {
      if (error instanceof Failure && error.code === 'OBJECT_DAMAGED') return undefined
      throw error
    })
    if (read !== undefined) this.#documents.set(key, read)
    return read
  }
}

/** What a factor is shown for when somebody declares an emergency. SHA-256, hex. */
export function emergencyDigest(reason: string): string {
  return createHash('sha256').update(`resus: emergency\0${reason}`).digest('hex')
}

type Reviewed = z.infer<typeof reviewedSchema> | null

function emergencyOf({ id, at, until, by, reason }: z.infer<typeof declaredSchema>, review: Reviewed): Alone {
  return { kind: 'emergency', id, at, until, by, reason, reviewDue: dueOf(at), review: reviewOf(review) }
}

function breakGlassOf({ id, at, until, host, account }: z.infer<typeof usedSchema>, review: Reviewed): Alone {
  const by = { id: null, name: `${account}@${host}` }
  return { kind: 'break-glass', id, at, until, by, reason: null, reviewDue: dueOf(at), review: reviewOf(review) }
}

function reviewOf(review: Reviewed): Alone['review'] {
  return review === null ? null : { at: review.at, by: review.by.name, text: review.text }
}

function dueOf(at: string): string {
  return new Date(Date.parse(at) + REVIEW_MS).toISOString()
}

async function putInAny(repositories: readonly Repository[], name: string, document: object): Promise<void> {
  const outcomes = await Promise.allSettled(repositories.map(async (repository) => putAuthority(repository, name, document)))
  if (outcomes.some(({ status }) => status === 'fulfilled')) return
  const failed = outcomes.find((outcome) => outcome.status === 'rejected')
  throw failed?.reason instanceof Error
    ? failed.reason
    : new Failure('STORAGE_UNREACHABLE', 'there is no repository to keep it in')
}
