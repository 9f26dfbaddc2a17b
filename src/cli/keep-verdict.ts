import { Failure } from '../errors.ts'
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
