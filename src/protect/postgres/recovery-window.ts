import { Failure } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { microsToMs } from '../../postgres/timestamp.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { lineFrom, type Line } from './recovery-path.ts'
import { greatestCommitBefore } from './wal-search.ts'
import { reachOf, type Reach } from './wal-stretch.ts'
import type { WalSupply } from './wal-supply.ts'

/** Windows that a message names; earlier ones are counted. */
const WINDOWS_TOLD_MAX = 3

/** A span of moments that can be restored along one line. */
export interface Window {
  readonly from: { readonly lsn: Lsn; readonly time: string }
  readonly to: { readonly lsn: Lsn; readonly lastCommit: string | null }
}

/** The windows along a line, oldest first. Backups whose own WAL is not whole open none. */
export async function windowsOf(supply: WalSupply, line: Line, backups: readonly BackupManifest[]): Promise<Window[]> {
  const spans: { backup: BackupManifest; reach: Reach; end: Lsn }[] = []
  for (const backup of backups.toSorted((left, right) => (left.stopLsn < right.stopLsn ? -1 : 1))) {
    const path = lineFrom(line, backup)
    const reach = path === undefined ? undefined : await reachUnlessGap(supply, backup, path)
    if (reach === undefined) continue
    const end = reach.stretches.at(-1)!.to
    const open = spans.at(-1)
    if (open === undefined || backup.stopLsn > open.end) spans.push({ backup, reach, end })
  }
  const windows: Window[] = []
  for (const { backup, reach, end } of spans) {
    const commit = await greatestCommitBefore(reach.stretches, end)
    const lastCommit = commit === null ? null : new Date(microsToMs(commit)).toISOString()
    windows.push({ from: { lsn: backup.stopLsn, time: backup.stopTime }, to: { lsn: end, lastCommit } })
  }
  return windows
}

/** `from <time> (LSN 0/1) to LSN 0/2 (last commit <time>)`, for each. */
export function describeWindows(windows: readonly Window[]): string {
  if (windows.length === 0) return 'nothing can be restored along it'
  const told = windows.slice(-WINDOWS_TOLD_MAX).map(({ from, to }) => {
    const commit = to.lastCommit === null ? 'no commit is known at its end' : `last commit ${to.lastCommit}`
    return `from ${from.time} (LSN ${formatLsn(from.lsn)}) to LSN ${formatLsn(to.lsn)} (${commit})`
  })
  const more = windows.length > told.length ? `${windows.length - told.length} earlier windows; ` : ''
  return `what can be restored: ${more}${told.join('; and ')}`
}

async function reachUnlessGap(supply: WalSupply, backup: BackupManifest, path: Line): Promise<Reach | undefined> {
  try {
    return await reachOf(supply, backup, path)
  } catch (error) {
    if (error instanceof Failure && error.code === 'WAL_GAP') return undefined
    throw error
  }
}
