import { Failure } from '../../errors.ts'
import type { Lsn } from '../../postgres/lsn.ts'
import { parseTimelineHistory } from '../../postgres/timeline-history.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import type { Branch } from '../../repository/wal-branch.ts'

// Timelines branch off each other. A recovery goes along one line of them: a branch and its ancestors.

/** A branch, its parent, and so on, the oldest first. */
export type Line = readonly Branch[]

/**
 * The line that the cluster went last: of the greatest timeline, as PostgreSQL means it by `latest`, and, where a timeline was gone twice, of the
 * later way. Branches are of one incarnation. Undefined when there is none.
 */
export function newestLine(branches: readonly Branch[]): Line | undefined {
  return lineToTimeline(branches, Math.max(...branches.map((branch) => branch.head.timeline)))
}

/** The line that leads to a timeline; where it was gone twice, to the later way. Undefined when there is no such timeline. */
export function lineToTimeline(branches: readonly Branch[], timeline: number): Line | undefined {
  const newest = new Map<string, Branch>()
  for (const branch of branches.toSorted(lastWayFirst)) {
    if (branch.head.timeline === timeline && !newest.has(branch.head.history)) newest.set(branch.head.history, branch)
  }
  // Ordinals count the ways of one history only; which of two histories was gone later only the clock tells.
  const [head] = [...newest.values()].toSorted((left, right) => right.head.createdAt.localeCompare(left.head.createdAt))
  return head === undefined ? undefined : lineOf(branches, head)
}

/** The part of a line that begins with the backup's branch; undefined when the backup lies beyond where the line left that branch. */
export function lineFrom(line: Line, backup: BackupManifest): Line | undefined {
  const at = line.findIndex((branch) => branch.path.branch === backup.branch)
  const [own, child] = [line[at], line[at + 1]]
  if (own === undefined) return undefined
  return child === undefined || backup.stopLsn <= switchLsn(child, own) ? line.slice(at) : undefined
}

/** Where a branch's timeline left that of an ancestor. */
export function switchLsn(child: Branch, parent: Branch): Lsn {
  const entry = historyOf(child).find(({ timeline }) => timeline === parent.head.timeline)
  if (entry !== undefined) return entry.endLsn
  throw new Failure('WAL_GAP', `timeline ${child.head.timeline} does not follow from timeline ${parent.head.timeline}`)
}

/** A branch and those that it came from, as far as they are known. */
export function lineOf(branches: readonly Branch[], head: Branch): Line {
  const ancestors = historyOf(head).map(({ timeline }) =>
    branches
      .filter((branch) => branch.head.timeline === timeline && head.head.history.startsWith(branch.head.history))
      .toSorted(lastWayFirst)
      .at(0),
  )
  return [...ancestors.filter((branch) => branch !== undefined), head]
}

function historyOf(branch: Branch) {
  return parseTimelineHistory(branch.head.timeline, branch.head.history)
}

function lastWayFirst(left: Branch, right: Branch): number {
  return right.head.ordinal - left.head.ordinal
}
