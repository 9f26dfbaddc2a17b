import { z } from 'zod'
import { Failure } from '../errors.ts'
import { putAuthority, readAuthority } from '../repository/authority-objects.ts'
import type { Repository } from '../repository/repository.ts'
import { decidedSchema, type Decided } from './operation.ts'

// Decisions as the repository has them (docs/format.md, "Authority"): what runs reads them from there, and no row of the store runs anything.

/** So long the run that has it may go on where it was interrupted. */
export const GOES_ON_MS = 24 * 3_600_000

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

/** Who has used a decision; undefined for nobody so far. */
export async function readUse(
  repository: Repository,
  id: string,
): Promise<{ readonly at: string; readonly run: string | null } | undefined> {
  const used = usedSchema.safeParse(await readAuthority(repository, `approvals/${id}.used`))
  return used.success ? used.data : undefined
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
  if (before.run === run && nowMs - Date.parse(before.at) < GOES_ON_MS) return
  const what = before.run === null ? 'was revoked' : 'was used'
  throw new Failure('APPROVAL_INVALID', `the approval ${id} ${what} at ${before.at}`, { hint: 'ask for another' })
}

function nameOf(id: string): string {
  return `approvals/${id}.decided`
}
