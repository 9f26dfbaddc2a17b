import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure, systemErrorCode } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { historyFileName } from '../../postgres/timeline-history.ts'
import { WalDecoder } from '../../postgres/wal-decoder.ts'
import { segmentName, segmentStart, type WalSegment } from '../../postgres/wal-segment.ts'
import { coverFrom, type LsnRange } from '../../repository/wal-archive.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import { SegmentFile, type ArchivedCluster } from './archived-file.ts'
import { unstoredRanges } from './drain.ts'
import { KnownWal } from './known-wal.ts'
import { listDirectory } from './spool-branch.ts'
import type { HeldWal } from './spool.ts'
import type { WalPart, WalSupply } from './wal-supply.ts'

// The pg_wal of a cluster that crashed may hold what no receiver got any more. What of it is beyond doubt goes on where the repository's WAL ends.

/** WAL in a directory that the repository does not have, and that follows on what it has. */
export interface LocalWal {
  readonly directory: string
  readonly branch: Branch
  readonly held: HeldWal
  /** What is not stored, cut at segment ends; at least one. */
  readonly ranges: readonly [LsnRange, ...LsnRange[]]
}

/** Segments in a row, of one timeline. */
interface Run {
  readonly directory: string
  readonly cluster: ArchivedCluster
  readonly segments: readonly [WalSegment, ...WalSegment[]]
}

/**
 * Looks in directories that were a server's pg_wal for WAL behind the end of what is stored, and changes nothing. Taken is what has the system
 * identifier and timeline of a stored branch, is whole WAL with right CRCs up to its last record, follows on stored WAL, and agrees with all that
 * is stored in its place, byte for byte. `notices` say what is not taken, and why.
 */
export async function findLocalWal(options: {
  readonly supply: WalSupply
  readonly directories: readonly string[]
  readonly signal: AbortSignal
}): Promise<{ found: LocalWal[]; notices: string[] }> {
  const { supply, directories, signal } = options
  const found: LocalWal[] = []
  const notices: string[] = []
  const branches = await supply.branches()
  const runs: Run[] = []
  for (const directory of directories) runs.push(...(await listRuns(directory)))
  for (let run = runs.shift(); run !== undefined; run = runs.shift()) {
    signal.throwIfAborted()
    const { used, why, to } = await judgeRun(run, branches, supply)
    if (used !== undefined) found.push(used)
    if (why !== undefined) notices.push(`WAL in "${run.directory}" is not used: ${why}`)
    const rest = to === undefined ? undefined : behind(run, to)
    if (rest !== undefined) runs.unshift(rest)
  }
  return { found, notices }
}

interface Judgement {
  readonly used?: LocalWal
  /** Why nothing of it is used. With neither there is nothing new in it, and nothing to say. */
  readonly why?: string
  /** Where its valid WAL ends; undefined when it is of no known timeline. */
  readonly to?: Lsn
}

/** The segments behind a damaged one: what is stored may lead over the damage. */
function behind(run: Run, to: Lsn): Run | undefined {
  const [first, ...more] = run.segments.filter((segment) => segmentStart(segment) > to)
  return first === undefined ? undefined : { ...run, segments: [first, ...more] }
}

/** Files that are what their names say: those that wait to be written again hold old WAL under a new name. */
async function listRuns(directory: string): Promise<Run[]> {
  const runs: { directory: string; cluster: ArchivedCluster; segments: [WalSegment, ...WalSegment[]] }[] = []
  for (const name of await listDirectory(directory)) {
    if (!/^[0-9A-F]{24}$/.test(name)) continue
    const opened = await openUnlessInvalid(join(directory, name), name)
    if (opened === undefined) continue
    const { segment, cluster } = opened
    const open = runs.at(-1)
    const last = open?.segments.at(-1)
    const goesOn =
      last?.timeline === segment.timeline &&
      last.number + 1n === segment.number &&
      open!.cluster.systemIdentifier === cluster.systemIdentifier
    if (goesOn) open!.segments.push(segment)
    else runs.push({ directory, cluster, segments: [segment] })
  }
  return runs
}

async function openUnlessInvalid(path: string, name: string): Promise<Pick<SegmentFile, 'segment' | 'cluster'> | undefined> {
  try {
    await using file = await SegmentFile.open(path, name)
    return file
  } catch (error) {
    if (isUnreadable(error)) return undefined
    throw error
  }
}

/** What a bad disk gives, or what is no WAL. */
function isUnreadable(error: unknown): boolean {
  return (error instanceof Failure && error.code === 'WAL_INVALID') || systemErrorCode(error) === 'EIO'
}

async function judgeRun(run: Run, branches: readonly Branch[], supply: WalSupply): Promise<Judgement> {
  const { cluster, segments, directory } = run
  const [{ timeline }] = segments
  const ofCluster = branches.filter(
    ({ head }) => head.systemIdentifier === cluster.systemIdentifier && head.major === cluster.major,
  )
  // Another cluster: a restore does not go over it.
  if (ofCluster.length === 0) return {}
  const history = await readHistory(directory, timeline)
  const ways = ofCluster
    .filter(({ head }) => head.timeline === timeline && (history === undefined || head.history === history))
    .toSorted((left, right) => right.head.ordinal - left.head.ordinal)
  if (ways.length === 0) {
    return {
      why: `the repository has nothing of its timeline ${timeline}, so that nothing tells whether it follows on what is stored`,
    }
  }
  let first: Judgement | undefined
  for (const branch of ways) {
    const judged = await judgeWay(run, branch, await supply.parts(branch))
    if (judged.why === undefined) return judged
    first ??= judged
  }
  return first!
}

async function judgeWay(all: Run, branch: Branch, parts: readonly WalPart[]): Promise<Judgement> {
  const run = fromStored(all, parts)
  const { directory, segments } = run
  const from = segmentStart(segments[0])
  const read = (range: LsnRange) => readRun(run, range)
  try {
    const { to, why } = await validEnd(run, branch, parts)
    if (why !== undefined) return { why, to }
    if (to <= from) return { to: from }
    const other = await firstDifference({ from, to }, parts, read)
    if (other !== undefined) {
      const at = `[${formatLsn(other.from)}, ${formatLsn(other.to)}) of timeline ${branch.head.timeline}`
      return { why: `it is not what is stored in ${at}: this cluster went another way than the one that was archived`, to }
    }
    const held: HeldWal = { ranges: [{ from, to }], read }
    const [first, ...more] = unstoredRanges(branch, held, parts)
    return first === undefined ? { to } : { used: { directory, branch, held, ranges: [first, ...more] }, to }
  } catch (error) {
    // Whoever reads the stored WAL for its own sake names the damage; here it only leaves nothing to compare with.
    if (error instanceof Failure && ['OBJECT_DAMAGED', 'OBJECT_MISSING'].includes(error.code))
      return { why: error.message, to: from }
    throw error
  }
}

/** From the first segment on that follows on what is stored, or begins in it: what lies before is older than all backups. */
function fromStored(run: Run, parts: readonly WalPart[]): Run {
  const at = run.segments.findIndex((segment) => {
    const start = segmentStart(segment)
    return coverFrom(parts, start).endLsn > start || coverFrom(parts, start - BigInt(segment.sizeBytes)).endLsn >= start
  })
  const [first, ...more] = run.segments.slice(Math.max(at, 0))
  return { ...run, segments: [first!, ...more] }
}

/**
 * End of the last record that is whole and right, or the start when there is none, and why it does not count. Reading begins in the stored segment before, where there is one, so that a record
 * that goes over into the first of ours is checked as well; else what is stored has to reach the first record that begins in ours.
 */
async function validEnd(run: Run, branch: Branch, parts: readonly WalPart[]): Promise<{ to: Lsn; why?: string }> {
  const { timeline, segmentSize } = branch.head
  const start = segmentStart(run.segments[0])
  const before = start - BigInt(segmentSize)
  const hasBefore = before >= 0n && coverFrom(parts, before).endLsn >= start
  const decoder = newDecoder(run, branch, hasBefore ? before : start)
  if (hasBefore) for await (const bytes of readParts(parts, { from: before, to: start })) decoder.feed(decoder.position, bytes)
  if (decoder.ended !== undefined)
    return { to: start, why: `what is stored before it is damaged at ${formatLsn(decoder.ended.lsn)}` }
  decoder.takeSummary()
  for (const segment of run.segments) {
    if (decoder.ended !== undefined || !(await feedSegment(decoder, run.directory, segment))) break
  }
  const { firstRecord } = decoder.takeSummary()
  const to = decoder.recordEnd
  if (firstRecord === null || to === undefined) return { to: start }
  const stored = coverFrom(parts, start)
  if (hasBefore || stored.endLsn >= firstRecord) return { to }
  const ends = parts.findLast(({ endLsn }) => endLsn <= start)?.endLsn
  const end = ends === undefined ? 'nothing is stored before it' : `what is stored before it ends at ${formatLsn(ends)}`
  return { to, why: `it begins at ${formatLsn(start)} of timeline ${timeline}, and ${end}` }
}

function newDecoder({ cluster }: Run, { head }: Branch, startLsn: Lsn): WalDecoder {
  const { timeline, segmentSize, major } = head
  const systemIdentifier = BigInt(cluster.systemIdentifier)
  return new WalDecoder({ startLsn, segmentSizeBytes: segmentSize, timeline, major, systemIdentifier, checkCrc: true })
}

/** False when the disk does not give all of it: WAL ends there. */
async function feedSegment(decoder: WalDecoder, directory: string, segment: WalSegment): Promise<boolean> {
  const name = segmentName(segment)
  try {
    await using file = await SegmentFile.open(join(directory, name), name)
    for await (const bytes of file.read()) {
      decoder.feed(decoder.position, bytes)
      if (decoder.ended !== undefined) break
    }
    return true
  } catch (error) {
    if (isUnreadable(error)) return false
    throw error
  }
}

/** The first stored part with other bytes than ours, as far as both reach; undefined when they agree in all. */
async function firstDifference(range: LsnRange, parts: readonly WalPart[], read: HeldWal['read']): Promise<LsnRange | undefined> {
  let at = range.from
  for (const part of parts) {
    const from = part.startLsn > at ? part.startLsn : at
    const to = part.endLsn < range.to ? part.endLsn : range.to
    if (from >= to) continue
    if (!(await agree(readParts([part], { from, to }), { range: { from, to }, read }))) return { from, to }
    at = to
  }
  return undefined
}

async function agree(
  stored: AsyncGenerator<Uint8Array>,
  { range, read }: { range: LsnRange; read: HeldWal['read'] },
): Promise<boolean> {
  const known = new KnownWal(stored, range)
  try {
    for await (const bytes of read(range)) if (!(await known.agrees(bytes))) return false
    return true
  } finally {
    await known.close()
  }
}

/** Stored bytes of a range that parts cover without a gap. */
async function* readParts(parts: readonly WalPart[], range: LsnRange): AsyncGenerator<Uint8Array> {
  let at = range.from
  for (const part of parts) {
    if (at >= range.to) return
    if (part.startLsn > at || part.endLsn <= at) continue
    let lsn = part.startLsn
    for await (const bytes of part.read()) {
      const from = at > lsn ? Number(at - lsn) : 0
      const piece = bytes.subarray(Math.min(from, bytes.length), Number(range.to - lsn))
      lsn += BigInt(bytes.length)
      at += BigInt(piece.length)
      if (piece.length > 0) yield piece
      if (at >= range.to) return
    }
  }
}

async function* readRun({ directory, segments }: Run, range: LsnRange): AsyncGenerator<Uint8Array> {
  for (const segment of segments) {
    const start = segmentStart(segment)
    const from = range.from > start ? Number(range.from - start) : 0
    const to = Math.min(segment.sizeBytes, Number(range.to - start))
    if (from >= to) continue
    const name = segmentName(segment)
    await using file = await SegmentFile.open(join(directory, name), name)
    yield* file.read(from, to)
  }
}

/** Undefined when the file of the timeline's history is not there: then only the bytes tell. */
async function readHistory(directory: string, timeline: number): Promise<string | undefined> {
  if (timeline === 1) return ''
  return await readFile(join(directory, historyFileName(timeline)), 'utf8').catch(() => undefined)
}
