import type { Lsn } from '../postgres/lsn.ts'
import { parseTimelineHistory } from '../postgres/timeline-history.ts'
import type { RetainedLine } from './retention.ts'
import type { LsnRange } from './wal-archive.ts'
import type { Branch } from './wal-branch.ts'

// Which WAL the backups that stay need (docs/format.md, "What expiry keeps"). Pure.

export interface WalBackup {
  readonly branch: string
  readonly startLsn: Lsn
  readonly stopLsn: Lsn
  /** Whether instants after the backup are to be restored from it; else it needs its own WAL only. */
  readonly open: boolean
}

/** What is needed of one branch, in whole segments at the beginning. */
export interface WalNeed {
  /** Everything from here on; undefined when nothing is needed openly. */
  readonly fromLsn: Lsn | undefined
  readonly ranges: readonly LsnRange[]
  /** What ends here or before, and is not needed, is older than anything that can be restored on its line; undefined when the age must tell. */
  readonly oldUntilLsn: Lsn | undefined
}

/** A branch and its ancestors; where several share a timeline and history, all of them. */
export function retainedLine(branches: readonly Branch[], head: Branch): RetainedLine {
  const ancestors = branches.flatMap((branch) => {
    const endLsn = switchPoint(head, branch)
    return endLsn === undefined ? [] : [{ branch: branch.path.branch, endLsn }]
  })
  return [...ancestors, { branch: head.path.branch, endLsn: undefined }]
}

/** What these backups need of a branch. */
export function walNeed(branch: Branch, branches: readonly Branch[], backups: readonly WalBackup[]): WalNeed {
  const from: Lsn[] = []
  const oldUntil: Lsn[] = []
  const ranges: LsnRange[] = []
  const floor = (lsn: Lsn) => lsn - (lsn % BigInt(branch.head.segmentSize))
  for (const backup of backups) {
    // Recovery reads the first segment from its beginning.
    const startLsn = floor(backup.startLsn)
    if (backup.branch === branch.path.branch) {
      ranges.push({ from: startLsn, to: backup.stopLsn })
      if (backup.open) from.push(startLsn)
    } else if (backup.open) {
      const own = branches.find((each) => each.path.branch === backup.branch)
      if (own === undefined) continue
      const left = switchPoint(branch, own)
      // The branch goes on from the backup's: all of it is reached from there.
      if (left !== undefined && left >= backup.stopLsn) from.push(0n)
      // The backup's branch goes on from this one: what came before the switch is older than the backup.
      const joined = switchPoint(own, branch)
      if (joined !== undefined) oldUntil.push(joined)
    }
  }
  const fromLsn = least(from)
  if (fromLsn !== undefined) oldUntil.push(fromLsn)
  return {
    fromLsn,
    ranges,
    oldUntilLsn: oldUntil.reduce((max: Lsn | undefined, lsn) => (max === undefined || lsn > max ? lsn : max), undefined),
  }
}

/** `ask`: nothing needs it, and only its age tells whether it may go. */
export function judgeWal(need: WalNeed, wal: { startLsn: Lsn; endLsn: Lsn }): 'needed' | 'old' | 'ask' {
  if (need.fromLsn !== undefined && wal.endLsn > need.fromLsn) return 'needed'
  if (need.ranges.some(({ from, to }) => wal.endLsn > from && wal.startLsn < to)) return 'needed'
  return need.oldUntilLsn !== undefined && wal.endLsn <= need.oldUntilLsn ? 'old' : 'ask'
}

/** Where `child` left `ancestor`; undefined when it does not come from it. */
function switchPoint(child: Branch, ancestor: Branch): Lsn | undefined {
  const sameCluster = child.path.incarnation === ancestor.path.incarnation
  if (!sameCluster || !child.head.history.startsWith(ancestor.head.history)) return undefined
  const entries = parseTimelineHistory(child.head.timeline, child.head.history)
  return entries.find(({ timeline }) => timeline === ancestor.head.timeline)?.endLsn
}

function least(lsns: readonly Lsn[]): Lsn | undefined {
  return lsns.reduce((min: Lsn | undefined, lsn) => (min === undefined || lsn < min ? lsn : min), undefined)
}
