import type { Lsn } from '../../postgres/lsn.ts'
import { segmentAt, segmentStart } from '../../postgres/wal-segment.ts'
import type { RestorePoint } from '../../postgres/wal-summary.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import type { Gap, LsnRange } from '../../repository/wal-archive.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import { greatest, least, type WalCell } from './branch-wal.ts'
import { lineFrom, lineOf, newestLine, switchLsn, type Line } from './recovery-path.ts'

// What can be restored (docs/format.md, "WAL"), from what is known of the WAL: pure.

/** A branch with its WAL. Its cells are cut at the LSNs that `windowCuts` gives. */
export interface BranchWal {
  readonly branch: Branch
  readonly cells: readonly WalCell[]
  /** The recorded ones. */
  readonly gaps: readonly Gap[]
}

/** Where a line belongs: `current` is what a restore takes by itself; the others have to be asked for. */
export type LineState = 'current' | 'abandoned' | 'earlier cluster'

/** A gap-free span of moments that can be restored. */
export interface RestoreWindow {
  /** The line's timelines, the oldest first. */
  readonly timelines: readonly number[]
  readonly state: LineState
  /** The first moment: the end of its first backup or, on an abandoned line, where it left the others. */
  readonly fromLsn: Lsn
  /** Of that backup's end, by the server's clock; null where the window begins elsewhere. ISO 8601, UTC. */
  readonly fromTime: string | null
  /** The last moment: end of the last complete record. */
  readonly toLsn: Lsn
  /** The greatest commit time in it, microseconds since 2000: times before it can be restored. Null when no commit is noted. */
  readonly lastCommit: bigint | null
  /** Where the stored WAL ends: a part of a record may follow the last one. */
  readonly walEndLsn: Lsn
  /** The backup that a restore of its first moment begins with. */
  readonly backup: string
  /** How many backups end in it. */
  readonly backups: number
  /** How much of its WAL a synchronous receiver had acknowledged. */
  readonly synchronous: 'all' | 'part' | 'none'
  readonly restorePoints: readonly RestorePoint[]
  readonly restorePointsLeftOut: number
}

/** WAL that is missing between or before stored WAL of a branch, or behind it by a record of the receiver's. */
export interface WindowGap {
  readonly timeline: number
  readonly fromLsn: Lsn
  readonly toLsn: Lsn
  /** Greatest commit before and least behind it, microseconds since 2000; null when none is known. */
  readonly commitBefore: bigint | null
  readonly commitAfter: bigint | null
  /** What the receiver recorded; null when nobody did. */
  readonly recorded: { readonly why: string; readonly at: string } | null
}

export interface Windows {
  /** The current line's first, then by their first LSN. */
  readonly windows: readonly RestoreWindow[]
  readonly gaps: readonly WindowGap[]
  /** Backups that lie in no window: their own WAL is not whole. */
  readonly unusable: readonly string[]
}

/** Where the cells of a branch have to be cut, ascending: backups begin there, timelines leave it, it left another. */
export function windowCuts(branch: Branch, branches: readonly Branch[], backups: readonly BackupManifest[]): readonly Lsn[] {
  const { incarnation } = branch.path
  const cuts = new Set<Lsn>()
  for (const other of branches) {
    if (other.path.incarnation !== incarnation) continue
    const line = lineOf(branches.filter(sameIncarnation(branch)), other)
    const at = line.indexOf(branch)
    const [parent, child] = [line[at - 1], line[at + 1]]
    if (at >= 0 && child !== undefined) cuts.add(switchLsn(child, branch))
    if (at > 0) cuts.add(switchLsn(branch, parent!))
  }
  for (const backup of backups) if (backup.branch === branch.path.branch) cuts.add(backup.startLsn)
  return [...cuts].toSorted((left, right) => (left < right ? -1 : 1))
}

/** The line that a restore takes by itself. */
export function currentLine(branches: readonly Branch[], backups: readonly BackupManifest[]): Line {
  const newest = newestOf(backups)
  return newestLine(branches.filter(({ path }) => newest === undefined || path.incarnation === newest.incarnation)) ?? []
}

function newestOf(backups: readonly BackupManifest[]): BackupManifest | undefined {
  return backups.toSorted((left, right) => right.sequence - left.sequence)[0]
}

/** The windows of a component, of all its branches. `backups` in any order; the newest tells which cluster is the present one. */
export function findWindows(wal: readonly BranchWal[], backups: readonly BackupManifest[]): Windows {
  const newest = newestOf(backups)
  const windows: RestoreWindow[] = []
  const usable = new Set<string>()
  for (const { line, state, from } of findLines(wal, newest)) {
    for (const stretch of joinLine(line, wal)) {
      const found = windowOf(stretch, { line, state, backups, from, wal })
      for (const id of found.usable) usable.add(id)
      if (found.window !== undefined) windows.push(found.window)
    }
  }
  const gaps = wal.flatMap((each) => gapsOf(each, wal))
  return { windows, gaps, unusable: backups.filter(({ id }) => !usable.has(id)).map(({ id }) => id) }
}

interface WindowLine {
  readonly line: Line
  readonly state: LineState
  /** Windows of the line that end here or before are shown with other lines. */
  readonly from: Lsn
}

/** A line for each branch, the current one first. Of an abandoned one only what lies on its own branch, where no other line has it. */
function findLines(wal: readonly BranchWal[], newest: BackupManifest | undefined): WindowLine[] {
  const lines: WindowLine[] = []
  for (const incarnation of new Set(wal.map(({ branch }) => branch.path.incarnation))) {
    const branches = wal.map(({ branch }) => branch).filter((branch) => branch.path.incarnation === incarnation)
    const isPresent = newest === undefined || newest.incarnation === incarnation
    const current = newestLine(branches)!
    for (const head of branches) {
      const line = lineOf(branches, head)
      const [parent, next] = [line.at(-2), current[current.indexOf(head) + 1]]
      const goesOn = current.includes(head) && next !== undefined
      const leftAt = goesOn ? switchLsn(next, head) : parent === undefined ? 0n : switchLsn(head, parent)
      const isCurrent = head === current.at(-1)
      if (!isPresent) lines.push({ line, state: 'earlier cluster', from: isCurrent ? 0n : leftAt })
      else lines.push(isCurrent ? { line, state: 'current', from: 0n } : { line, state: 'abandoned', from: leftAt })
    }
  }
  const rank = ['current', 'abandoned', 'earlier cluster']
  return lines.toSorted((left, right) => rank.indexOf(left.state) - rank.indexOf(right.state))
}

function sameIncarnation(branch: Branch): (other: Branch) => boolean {
  return (other) => other.path.incarnation === branch.path.incarnation
}

/** WAL without a hole along a line: of each branch what of it belongs to the line. */
interface Stretch {
  readonly parts: { readonly branch: Branch; readonly cells: WalCell[] }[]
}

function joinLine(line: Line, wal: readonly BranchWal[]): Stretch[] {
  const stretches: Stretch[] = []
  for (const [index, branch] of line.entries()) {
    const [parent, child] = [line[index - 1], line[index + 1]]
    const from = parent === undefined ? 0n : switchLsn(branch, parent)
    const to = child === undefined ? undefined : switchLsn(child, branch)
    const own = wal.find((each) => each.branch === branch)!
    // PostgreSQL reads whole segments: the new timeline's has to be there from its start on.
    let joins = parent === undefined || isWholeBefore(own, from)
    for (const cell of own.cells) {
      if (cell.from < from || (to !== undefined && cell.to > to)) continue
      const parts = stretches.at(-1)?.parts
      const last = parts?.at(-1)
      if (parts === undefined || !joins || last?.cells.at(-1)?.to !== cell.from)
        stretches.push({ parts: [{ branch, cells: [cell] }] })
      else if (last.branch === branch) last.cells.push(cell)
      else parts.push({ branch, cells: [cell] })
      joins = true
    }
  }
  return stretches
}

function windowOf(
  stretch: Stretch,
  options: WindowLine & { backups: readonly BackupManifest[]; wal: readonly BranchWal[] },
): { window: RestoreWindow | undefined; usable: readonly string[] } {
  const { line, state } = options
  const usable = options.backups
    .filter((backup) => lineFrom(line, backup) !== undefined && holds(stretch, backup, options.wal))
    .toSorted((left, right) => (left.stopLsn < right.stopLsn ? -1 : 1))
  const ids = usable.map(({ id }) => id)
  const last = stretch.parts.at(-1)!
  const end = last.cells.at(-1)!.to
  // On an abandoned line only what is behind the point where it parted, and on its own branch.
  const own = options.from === 0n || (last.branch === line.at(-1) && end > options.from)
  const first = usable.findLast(({ stopLsn }) => stopLsn <= options.from) ?? usable[0]
  if (first === undefined || !own) return { window: undefined, usable: ids }
  const cells = stretch.parts.flatMap((part) => part.cells).filter(({ to }) => to > greatest(first.startLsn, options.from))
  const fromLsn = greatest(first.stopLsn, options.from)
  const inside = usable.filter(({ stopLsn }) => stopLsn >= fromLsn)
  const window = {
    timelines: line.map(({ head }) => head.timeline),
    state,
    fromLsn,
    fromTime: fromLsn === first.stopLsn ? first.stopTime : null,
    toLsn: greatest(lastRecordEnd(cells), fromLsn),
    lastCommit: cells.reduce<bigint | null>((found, { greatestCommit }) => join(found, greatestCommit, greatest), null),
    walEndLsn: end,
    backup: first.id,
    backups: inside.length,
    synchronous: synchronousShare(cells),
    restorePoints: cells.flatMap(({ restorePoints }) => restorePoints).filter(({ lsn }) => lsn >= fromLsn),
    restorePointsLeftOut: cells.reduce((sum, { restorePointsLeftOut }) => sum + restorePointsLeftOut, 0),
  }
  return { window, usable: ids }
}

/** Whether a stretch has all WAL that a backup needs, on the backup's own branch. */
function holds(stretch: Stretch, backup: BackupManifest, wal: readonly BranchWal[]): boolean {
  const part = stretch.parts.find(({ branch }) => branch.path.branch === backup.branch)
  const own = wal.find(({ branch }) => branch === part?.branch)
  if (part === undefined || own === undefined || !isWholeBefore(own, backup.startLsn)) return false
  return part.cells[0]!.from <= backup.startLsn && backup.stopLsn <= part.cells.at(-1)!.to
}

/** Whether a branch has all from the start of an LSN's segment up to the LSN. */
function isWholeBefore({ branch, cells }: BranchWal, lsn: Lsn): boolean {
  const { timeline, segmentSize } = branch.head
  let at = segmentStart(segmentAt(lsn, timeline, segmentSize))
  for (const cell of cells) if (cell.from <= at && at < cell.to) at = cell.to
  return at >= lsn
}

function lastRecordEnd(cells: readonly WalCell[]): Lsn {
  const cell = cells.findLast((each) => each.lastRecordEnd !== null)
  return cell === undefined ? 0n : least(cell.lastRecordEnd, cell.to)
}

function synchronousShare(cells: readonly WalCell[]): RestoreWindow['synchronous'] {
  const bytes = cells.reduce((sum, { from, to }) => sum + to - from, 0n)
  const synchronous = cells.reduce((sum, { synchronousBytes }) => sum + synchronousBytes, 0n)
  if (synchronous === 0n) return 'none'
  return synchronous === bytes ? 'all' : 'part'
}

function gapsOf({ branch, cells, gaps }: BranchWal, wal: readonly BranchWal[]): WindowGap[] {
  const found: WindowGap[] = []
  const add = (hole: LsnRange, before: readonly WalCell[], after: readonly WalCell[]) => {
    const recorded = gaps.find(({ from, to }) => from < hole.to && hole.from < to)
    found.push({
      timeline: branch.head.timeline,
      fromLsn: hole.from,
      toLsn: hole.to,
      commitBefore: before.findLast((cell) => cell.greatestCommit !== null)?.greatestCommit ?? null,
      commitAfter: after.find((cell) => cell.leastCommit !== null)?.leastCommit ?? null,
      recorded: recorded === undefined ? null : { why: recorded.why, at: recorded.at },
    })
  }
  for (const [at, cell] of cells.entries()) {
    const before = cells[at - 1]
    if (before !== undefined && before.to < cell.from)
      add({ from: before.to, to: cell.from }, cells.slice(0, at), cells.slice(at))
  }
  const siblings = wal.map((each) => each.branch).filter(sameIncarnation(branch))
  const parent = lineOf(siblings, branch).at(-2)
  const begin = parent === undefined ? undefined : switchLsn(branch, parent)
  if (begin !== undefined && cells[0] !== undefined && cells[0].from > begin) add({ from: begin, to: cells[0].from }, [], cells)
  for (const gap of gaps) if (gap.to > (cells.at(-1)?.to ?? 0n)) addBehind(gap)
  return found.toSorted((left, right) => (left.fromLsn < right.fromLsn ? -1 : 1))

  function addBehind(gap: Gap): void {
    const end = cells.at(-1)?.to ?? gap.from
    add({ from: greatest(end, gap.from), to: gap.to }, cells, [])
  }
}

function join(left: bigint | null, right: bigint | null, pick: (left: bigint, right: bigint) => bigint): bigint | null {
  if (left === null || right === null) return left ?? right
  return pick(left, right)
}
