import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { formatLsn } from '../../postgres/lsn.ts'
import type { Repository } from '../../repository/repository.ts'
import { streamSpool } from './component.ts'
import { drainSpool } from './drain.ts'

export interface PublishSpoolOptions {
  readonly repository: Repository
  readonly component: string
  readonly stateDirectory: string
  /** Go on without what cannot be published. */
  readonly withoutSpool?: boolean
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onNotice?: (text: string) => void
}

/**
 * What a receiver on this host acknowledged and could not store any more goes into the repository before a restore plans. Throws
 * SPOOL_UNPUBLISHED when some of it does not get there: a restore without acknowledged commits is people's decision.
 */
export async function publishSpool(options: PublishSpoolOptions): Promise<void> {
  const { signal, withoutSpool = false, onNotice } = options
  const left = await drain(options)
  signal.throwIfAborted()
  if (left.problems.length === 0) return
  const what = `this host's spool holds acknowledged WAL that cannot be published: ${left.problems.join('; ')}`
  if (withoutSpool) {
    onNotice?.(`${what}; the restore goes on without it`)
    return
  }
  throw new Failure('SPOOL_UNPUBLISHED', what, {
    hint: 'mend that and run it again, or give --without-spool: what was acknowledged and is only in the spool is then not restored',
    cause: left.cause,
  })
}

async function drain(options: PublishSpoolOptions): Promise<{ problems: string[]; cause: unknown }> {
  const { stateDirectory, component, onNotice } = options
  try {
    const { refused, damaged } = await drainSpool({ ...options, spoolDirectory: streamSpool(stateDirectory, component) })
    for (const path of damaged) {
      onNotice?.(`spool file "${path}" is damaged: what still opens was published, other acknowledged WAL may be lost`)
    }
    const problems = refused.map(({ from, to, branch, failure }) => {
      return `[${formatLsn(from)}, ${formatLsn(to)}) of timeline ${branch.head.timeline} (${failure.code}: ${failure.message})`
    })
    return { problems, cause: refused[0]?.failure }
  } catch (error) {
    // A storage that takes nothing more (a full disk) can still be restored from.
    if (!(error instanceof Failure)) throw error
    return { problems: [`${error.code}: ${error.message}`], cause: error }
  }
}
