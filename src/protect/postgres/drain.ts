import type { Clock } from '../../clock.ts'
import { systemClock } from '../../clock.ts'
import { Failure, systemErrorCode } from '../../errors.ts'
import type { Lsn } from '../../postgres/lsn.ts'
import type { Repository } from '../../repository/repository.ts'
import { listWal, putWal, type LsnRange } from '../../repository/wal-archive.ts'
import { findOrMakeBranch, type Branch } from '../../repository/wal-branch.ts'
import type { WalSource } from '../../repository/wal-note.ts'
import { listSpoolBranches } from './spool-branch.ts'
import { joinRanges, readSpool, type HeldWal, type SpoolContents } from './spool.ts'
import { WalDigest, type WalDescription } from './wal-digest.ts'

/** How often a living receiver may delete files under us before we give up: each time it has stored a whole segment more. */
const ROUNDS_MAX = 20

export interface DrainResult {
  /** What was put into the repository, by branch. */
  readonly stored: readonly { readonly branch: Branch; readonly from: Lsn; readonly to: Lsn }[]
  /** How far the spool reaches on each of its branches. */
  readonly reached: readonly { readonly branch: Branch; readonly lsn: Lsn }[]
  /** What could not be stored and never will be, whatever the storage does: other bytes are there, or the spool's do not open. */
  readonly refused: readonly RefusedRange[]
  /** Files in which something was damaged after it was written: what still opens was stored. */
  readonly damaged: readonly string[]
}

export interface RefusedRange extends LsnRange {
  readonly branch: Branch
  /** WAL_CONFLICT, SPOOL_DAMAGED. */
  readonly failure: Failure
}

/**
 * Publishes everything that a spool holds beyond the repository, on every branch of the component, whether its receiver is dead or
 * living: segments that it holds whole as such, the rest as pieces. Doing it again does nothing. Nothing is deleted. A stretch that is
 * refused is no reason to keep back the others. Throws what the storage throws.
 */
export async function drainSpool(options: {
  repository: Repository
  spoolDirectory: string
  component: string
  clock?: Clock
  signal?: AbortSignal
}): Promise<DrainResult> {
  const { repository, spoolDirectory, component } = options
  const stored: { branch: Branch; from: Lsn; to: Lsn }[] = []
  const reached: { branch: Branch; lsn: Lsn }[] = []
  const refused: RefusedRange[] = []
  const spool = await listSpoolBranches(spoolDirectory, repository.ring)
  const damaged = [...spool.damaged]
  for (const held of spool.branches) {
    if (held.component !== component) continue
    const { head } = held.branch
    const branch = await findOrMakeBranch(
      repository,
      { ...head, component },
      options.clock ?? systemClock,
      callOptions(options.signal),
    )
    const drained = await drainBranch({ repository, spoolDirectory, branch, signal: options.signal })
    stored.push(...drained.stored.map((range) => ({ branch, ...range })))
    if (drained.reached !== undefined) reached.push({ branch, lsn: drained.reached })
    refused.push(...drained.refused)
    damaged.push(...drained.damaged)
  }
  return { stored, reached, refused, damaged }
}

interface BranchDrain {
  readonly repository: Repository
  readonly spoolDirectory: string
  readonly branch: Branch
  readonly signal: AbortSignal | undefined
}

interface DrainedBranch {
  readonly stored: readonly LsnRange[]
  readonly refused: readonly RefusedRange[]
  readonly reached: Lsn | undefined
  readonly damaged: readonly string[]
}

async function drainBranch(drain: BranchDrain): Promise<DrainedBranch> {
  const { repository, spoolDirectory, branch, signal } = drain
  const stored: LsnRange[] = []
  for (let round = 1; ; round += 1) {
    signal?.throwIfAborted()
    const contents = await readSpool(spoolDirectory, repository.ring, branch.path.branch)
    const refused: RefusedRange[] = []
    try {
      await storeMissing(drain, contents, { stored, refused })
      return { stored, refused, reached: contents.ranges.at(-1)?.to, damaged: contents.damaged }
    } catch (error) {
      // The living receiver deleted a file that we were about to read, having stored its segment whole: look again.
      if (systemErrorCode(error) !== 'ENOENT' || round === ROUNDS_MAX) throw error
    }
  }
}

async function missingRanges(drain: BranchDrain, contents: SpoolContents): Promise<LsnRange[]> {
  if (contents.ranges.length === 0) return []
  const { repository, branch, signal } = drain
  const objects: { startLsn: Lsn; endLsn: Lsn }[] = []
  for await (const object of listWal(repository, branch, callOptions(signal))) objects.push(object)
  return unstoredRanges(branch, contents, objects)
}

/** What of held WAL is not stored, cut at segment ends: what `drainSpool` would store. A segment that is held whole comes whole. */
export function unstoredRanges(
  branch: Branch,
  contents: HeldWal,
  objects: readonly { readonly startLsn: Lsn; readonly endLsn: Lsn }[],
): LsnRange[] {
  const size = BigInt(branch.head.segmentSize)
  const covered = joinRanges(objects)
  const missing: LsnRange[] = []
  for (const { from, to } of contents.ranges) {
    for (let start = from; start < to; start = (start / size + 1n) * size) {
      const end = (start / size + 1n) * size
      const held = { from: start, to: end < to ? end : to }
      const gaps = subtractRanges(held, covered)
      if (gaps.length > 0 && start % size === 0n && held.to === end) missing.push(held)
      else missing.push(...gaps)
    }
  }
  return missing
}

/** What of `range` none of the (joined) ranges covers. */
export function subtractRanges(range: LsnRange, covered: readonly LsnRange[]): LsnRange[] {
  const left: LsnRange[] = []
  let at = range.from
  for (const { from, to } of covered) {
    if (to <= at || from >= range.to) continue
    if (from > at) left.push({ from: at, to: from })
    at = to
  }
  if (at < range.to) left.push({ from: at, to: range.to })
  return left
}

async function storeMissing(
  drain: BranchDrain,
  contents: SpoolContents,
  found: { stored: LsnRange[]; refused: RefusedRange[] },
): Promise<void> {
  for (const range of await missingRanges(drain, contents)) {
    try {
      await storeHeld({ ...drain, source: 'spool' }, contents, range)
      found.stored.push(range)
    } catch (failure) {
      const isRefused = failure instanceof Failure && (failure.code === 'WAL_CONFLICT' || failure.code === 'SPOOL_DAMAGED')
      if (!isRefused) throw failure
      found.refused.push({ branch: drain.branch, ...range, failure })
    }
  }
}

/** Stores one of the ranges of held WAL that are not stored. Throws WAL_CONFLICT, and what the storage throws. */
export async function storeHeld(
  to: { repository: Repository; branch: Branch; source: WalSource; signal: AbortSignal | undefined },
  held: HeldWal,
  range: LsnRange,
): Promise<void> {
  const { repository, branch, source, signal } = to
  const description = await describeRange(branch, held, range)
  const note = { ...description, acknowledged: null, source, synchronous: false }
  await putWal(repository, branch, { note, body: held.read(range), ...callOptions(signal) })
}

/**
 * What would be noted with a range of held WAL. Reads from the segment's start where it is held: only there it is known for
 * sure where a record begins.
 */
export async function describeRange(branch: Branch, contents: HeldWal, range: LsnRange): Promise<WalDescription> {
  const size = BigInt(branch.head.segmentSize)
  const segmentStart = (range.from / size) * size
  const held = contents.ranges.find(({ from, to }) => from <= range.from && range.to <= to)
  if (held === undefined) throw new Failure('SPOOL_DAMAGED', 'the spool does not hold what it was said to hold')
  const from = held.from > segmentStart ? held.from : segmentStart
  const digest = new WalDigest(branch, from)
  if (from < range.from) {
    for await (const bytes of contents.read({ from, to: range.from })) digest.feed(bytes)
    digest.takePiece()
  }
  for await (const bytes of contents.read(range)) digest.feed(bytes)
  return digest.takePiece()
}

function callOptions(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal }
}
