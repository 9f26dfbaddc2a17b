import { Failure } from '../errors.ts'
import { keepDamage, type PackFindings } from '../repository/damage.ts'
import type { Repository } from '../repository/repository.ts'
import { putVerdict, type Verdict } from '../repository/verdicts.ts'
import type { Context } from './verb.ts'

/** Keeps a verdict in the repository. When that fails, what was found is worth its answer all the same; but nobody else will know of it. */
export async function keepVerdict(context: Context, repository: Repository, verdict: Verdict): Promise<boolean> {
  try {
    await putVerdict(repository, verdict, context.signal)
    return true
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    context.warn(`the verdict could not be kept in the repository, so that it proves nothing to others: ${error.message}`)
    return false
  }
}

/** Keeps which packs are damaged, so that no backup reuses what is in them. When that fails, later backups do not know. */
export async function keepFindings(context: Context, repository: Repository, packs: PackFindings): Promise<boolean> {
  try {
    await keepDamage(repository, packs, { nowMs: context.clock.now(), signal: context.signal })
    return true
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    context.warn(`what is damaged could not be noted in the repository, so that backups may reuse it: ${error.message}`)
    return false
  }
}

/**
 * Does something that restores. The packs that it finds damaged are noted, however it ends, so that the next backup stores their blobs anew: whoever
 * restores because of a disaster has other things to do than to verify.
 */
export async function notingDamage<Result>(
  context: Context,
  repository: Repository,
  work: (onDamagedPack: (pack: string) => void) => Promise<Result>,
): Promise<Result> {
  const damaged = new Set<string>()
  try {
    return await work((pack) => damaged.add(pack))
  } finally {
    if (damaged.size > 0) await keepFindings(context, repository, { damaged: [...damaged], whole: [] })
  }
}
