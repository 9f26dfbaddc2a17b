import { z } from 'zod'
import { Failure } from '../errors.ts'
import { putAuthority, readAuthority } from '../repository/authority-objects.ts'
import type { Repository } from '../repository/repository.ts'
import { decidedSchema, digestOf, type Asked, type Decided } from './operation.ts'

// Decisions as the repository has them (docs/format.md, "Authority"): what runs reads them from there, and no row of the store runs anything.

const usedSchema = z.object({
  format: z.literal(1),
  id: z.string(),
  at: z.string(),
  /** Which run has it; null when it was revoked. */
  run: z.string().nullable(),
})

/** Keeps a decision in each of these, and gives the one that counts: that which was there first. Throws what a storage throws; one that has it is enough. */
export async function anchorDecision(repositories: readonly Repository[], mine: Decided): Promise<Decided> {
  let decided: Decided | undefined
  let failure: unknown
  for (const repository of repositories) {
    try {
      const isFirst = await putAuthority(repository, nameOf(mine.id), decided ?? mine)
      decided ??= isFirst ? mine : await readDecision(repository, mine.id)
    } catch (error) {
      failure = error
    }
  }
  if (decided !== undefined) return decided
  throw failure instanceof Error ? failure : new Failure('STORAGE_UNREACHABLE', 'there is no repository to keep the decision in')
}

/** Undefined when nobody has decided. Throws OBJECT_DAMAGED for what is none, and what the storage throws. */
export async function readDecision(repository: Repository, id: string): Promise<Decided | undefined> {
  const found = await readAuthority(repository, nameOf(id))
  if (found === undefined) return undefined
  const decided = decidedSchema.safeParse(found)
  if (decided.success && decided.data.id === id) return decided.data
  throw new Failure('OBJECT_DAMAGED', `the decision on "${id}" in the repository is none`, { hint: 'run "resus verify --all"' })
}

/**
 * That somebody has approved exactly this, in time, and nobody has taken it back: as one of these repositories has it, whatever a row of the store says. Throws APPROVAL_INVALID, and what a
 * storage throws.
 */
export async function requireApproved(repositories: readonly Repository[], asked: Asked, nowMs: number): Promise<void> {
  if (repositories.length === 0) throw new Failure('STORAGE_UNREACHABLE', 'there is no repository that has the decision')
  const digest = digestOf(asked)
  let isApproved = false
  for (const repository of repositories) {
    const decided = await readDecision(repository, asked.id)
    isApproved ||= decided?.decision === 'approve' && decided.digest === digest
    if (await isInUseBy(repository, asked.id, null)) isApproved = false
    if (isApproved) break
  }
  if (isApproved && Date.parse(asked.expiresAt) > nowMs) return
  throw new Failure('APPROVAL_INVALID', 'no repository knows that this was approved, or its time is over', {
    hint: 'somebody has changed the store, perhaps: find out who, and ask again',
  })
}

/** Whether this run has it already: it goes on, however late. Null: whether it was revoked. */
export async function isInUseBy(repository: Repository, id: string, run: string | null): Promise<boolean> {
  const used = usedSchema.safeParse(await readAuthority(repository, `approvals/${id}.used`))
  return used.success && used.data.run === run
}

/** Nobody uses it any more. Throws APPROVAL_INVALID when it is being used. */
export async function anchorRevocation(repositories: readonly Repository[], id: string, nowMs: number): Promise<void> {
  for (const repository of repositories) await takeUse(repository, { id, run: null, nowMs })
}

/**
 * Uses a decision for one run; that run may come again, as an interrupted restore does. Throws APPROVAL_INVALID when another has used it, or it was revoked.
 */
export async function takeUse(
  repository: Repository,
  { id, run, nowMs }: { readonly id: string; readonly run: string | null; readonly nowMs: number },
): Promise<void> {
  const used = { format: 1, id, at: new Date(nowMs).toISOString(), run }
  if (await putAuthority(repository, `approvals/${id}.used`, used)) return
  const before = usedSchema.parse(await readAuthority(repository, `approvals/${id}.used`))
  if (before.run === run) return
  const what = before.run === null ? 'was revoked' : 'was used'
  throw new Failure('APPROVAL_INVALID', `the approval ${id} ${what} at ${before.at}`, { hint: 'ask for another' })
}

function nameOf(id: string): string {
  return `approvals/${id}.decided`
}
