import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { WAL_ASIDE } from '../../postgres/relation-file.ts'
import type { Repository } from '../../repository/repository.ts'
import { RECOVERY_DIRECTORY } from './data-directory.ts'
import { storeHeld } from './drain.ts'
import { heldParts } from './held-parts.ts'
import { findLocalWal, type LocalWal } from './local-wal.ts'
import { inspectPlaces } from './restore-place.ts'
import { listDirectory } from './spool-branch.ts'
import { repositoryWal, withMoreParts, type WalSupply } from './wal-supply.ts'

/** The end of the WAL that only the cluster's own pg_wal had. */
export interface UsedLocalWal {
  readonly directory: string
  readonly timeline: number
  readonly fromLsn: Lsn
  readonly endLsn: Lsn
  readonly sizeBytes: number
}

export interface PublishLocalWalOptions {
  readonly repository: Repository
  readonly component: string
  /** The data directory that a restore goes over. */
  readonly directory: string
  /** Go on without what cannot be published. */
  readonly withoutLocalWal?: boolean
  readonly signal: AbortSignal
  readonly onNotice?: (text: string) => void
}

/**
 * What the pg_wal of a crashed cluster has beyond the repository goes into the repository before a restore over that cluster plans: there it outlasts whatever happens
 * to the restore, every later restore finds it, and the timeline that the restored cluster begins leaves one that is stored up to there. Throws
 * LOCAL_WAL_UNPUBLISHED when some of it does not get there; doing it again goes on.
 */
export async function publishLocalWal(options: PublishLocalWalOptions): Promise<UsedLocalWal[]> {
  const { repository, component, directory, signal, withoutLocalWal = false, onNotice } = options
  if (withoutLocalWal) return []
  const supply = repositoryWal(repository, component, signal)
  const { found, notices } = await findLocalWal({ supply, directories: await walDirectories(directory), signal })
  for (const notice of notices) onNotice?.(notice)
  for (const { branch, held, ranges, directory: wal } of found) {
    try {
      for (const range of ranges) await storeHeld({ repository, branch, source: 'local', signal }, held, range)
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof Failure)) throw error
      throw new Failure(
        'LOCAL_WAL_UNPUBLISHED',
        `"${wal}" has WAL that the repository lacks, and it cannot be stored: ${error.message} (${error.code})`,
        {
          hint: 'mend that and run it again; nothing was changed. Or give --without-local-wal: the last changes are then not restored, and that WAL is kept aside',
          cause: error,
        },
      )
    }
  }
  const used = found.map(summarize)
  for (const each of used) onNotice?.(`${describeLocalWal(each)} was stored, and is restored`)
  return used
}

/** Directories in which a cluster that a restore goes over may have WAL of its own; none while a server runs on it. */
async function walDirectories(directory: string): Promise<string[]> {
  const [found] = await inspectPlaces([{ path: directory, mark: RECOVERY_DIRECTORY, tablespace: undefined }])
  if (found?.state.kind !== 'occupied' && found?.state.kind !== 'interrupted') return []
  const isInterrupted = await stat(join(directory, 'global/pg_control')).then(
    () => false,
    () => true,
  )
  // What a restore that was interrupted has set aside.
  const aside = isInterrupted ? (await listDirectory(directory)).filter((name) => name.startsWith(WAL_ASIDE)) : []
  return [join(directory, 'pg_wal'), ...aside.toReversed().map((name) => join(directory, name))]
}

function summarize({ directory, branch, ranges }: LocalWal): UsedLocalWal {
  return {
    directory,
    timeline: branch.head.timeline,
    fromLsn: ranges[0].from,
    endLsn: ranges.at(-1)!.to,
    sizeBytes: ranges.reduce((sum, { from, to }) => sum + Number(to - from), 0),
  }
}

export function describeLocalWal({ directory, timeline, fromLsn, endLsn, sizeBytes }: UsedLocalWal): string {
  return `WAL of timeline ${timeline} that only "${directory}" had (${sizeBytes} bytes, from ${formatLsn(fromLsn)} to ${formatLsn(endLsn)})`
}

/** The supply as it would be if that WAL were published: nothing is. */
export async function withLocalWal(
  supply: WalSupply,
  options: { readonly directory: string; readonly signal: AbortSignal },
): Promise<{ supply: WalSupply; local: readonly UsedLocalWal[]; notices: readonly string[] }> {
  const { directory, signal } = options
  const { found, notices } = await findLocalWal({ supply, directories: await walDirectories(directory), signal })
  const more = found.map((local) => ({ branch: local.branch, parts: heldParts({ ...local, acknowledged: null }) }))
  return { supply: withMoreParts(supply, more), local: found.map(summarize), notices }
}
