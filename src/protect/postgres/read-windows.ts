import { join } from 'node:path'
import type { Failure } from '../../errors.ts'
import type { Lsn } from '../../postgres/lsn.ts'
import { listBackups, type BackupManifest } from '../../repository/backups.ts'
import type { Repository } from '../../repository/repository.ts'
import { listGaps } from '../../repository/wal-archive.ts'
import { listBranches, type Branch } from '../../repository/wal-branch.ts'
import { readNotes, type NotedWal } from '../../repository/wal-notes.ts'
import { WalCells } from './branch-wal.ts'
import { streamSpool } from './component.ts'
import { subtractRanges } from './drain.ts'
import { switchLsn, type Line } from './recovery-path.ts'
import { joinRanges, readSpool } from './spool.ts'
import { currentLine, findWindows, windowCuts, type BranchWal, type Windows } from './windows.ts'

/** WAL that was acknowledged to the server and lies only in this host's spool. */
export interface SpooledWal {
  readonly timeline: number
  readonly fromLsn: Lsn
  readonly toLsn: Lsn
}

export interface ComponentWindows extends Windows {
  readonly spooled: readonly SpooledWal[]
  /** Newest first. */
  readonly backups: readonly BackupManifest[]
  readonly branches: readonly BranchWal[]
  /** What a person should know: damaged backups that were passed over. */
  readonly notices: readonly string[]
}

export interface ReadWindowsOptions {
  readonly repository: Repository
  readonly component: string
  readonly stateDirectory: string
  readonly signal: AbortSignal
  /** Sees every stored stretch of the current line, in order. `to` is where the line leaves the branch. */
  readonly observe?: (branch: Branch, noted: NotedWal, to: Lsn | undefined) => void
}

/**
 * What can be restored of a component, from names, notes and manifests. The notes are read once and kept in the state directory. Memory grows with
 * backups, branches and holes, and not with WAL. Throws what the storage throws, OBJECT_DAMAGED.
 */
export async function readWindows(options: ReadWindowsOptions): Promise<ComponentWindows> {
  const { repository, component, signal } = options
  const notices: string[] = []
  const backups = await listBackups(repository, component, (failure: Failure) => notices.push(`passed over: ${failure.message}`))
  const branches = await listBranches(repository, component, { signal })
  const current = currentLine(branches, backups)
  const wal: BranchWal[] = []
  const spooled: SpooledWal[] = []
  for (const branch of branches) {
    const cells = await readCells(options, { branch, cuts: windowCuts(branch, branches, backups), current })
    wal.push({ branch, cells, gaps: await listGaps(repository, branch, { signal }) })
    spooled.push(...(await readSpooled(options, branch, cells)))
  }
  return { ...findWindows(wal, backups), spooled, backups, branches: wal, notices }
}

async function readCells(
  options: ReadWindowsOptions,
  wanted: { branch: Branch; cuts: readonly Lsn[]; current: Line },
): Promise<BranchWal['cells']> {
  const { repository, stateDirectory, signal, observe } = options
  const { branch, current } = wanted
  const at = current.indexOf(branch)
  const next = current[at + 1]
  const to = at < 0 || next === undefined ? undefined : switchLsn(next, branch)
  const cells = new WalCells(wanted.cuts)
  for await (const noted of readNotes(repository, branch, { cacheDirectory: join(stateDirectory, 'notes'), signal })) {
    cells.add(noted)
    if (at >= 0 && (to === undefined || noted.object.startLsn < to)) observe?.(branch, noted, to)
  }
  return cells.finish()
}

/** What the receiver of this host has acknowledged beyond the repository; a restore on this host brings it there first. */
async function readSpooled(options: ReadWindowsOptions, branch: Branch, cells: BranchWal['cells']): Promise<SpooledWal[]> {
  const directory = streamSpool(options.stateDirectory, options.component)
  const { ranges } = await readSpool(directory, options.repository.ring, branch.path.branch)
  const stored = joinRanges(cells.map(({ from, to }) => ({ startLsn: from, endLsn: to })))
  return ranges
    .flatMap((range) => subtractRanges(range, stored))
    .map(({ from, to }) => ({ timeline: branch.head.timeline, fromLsn: from, toLsn: to }))
}
