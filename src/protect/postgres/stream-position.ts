import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { parseLsn, type Lsn } from '../../postgres/lsn.ts'
import type { ReplicationConnection, ServerIdentity } from '../../postgres/replication.ts'
import { segmentAt } from '../../postgres/wal-segment.ts'
import type { Repository } from '../../repository/repository.ts'
import { listGaps, listWal, type LsnRange } from '../../repository/wal-archive.ts'
import { findNewestBranch, findOrMakeBranch, type Branch, type BranchIdentity } from '../../repository/wal-branch.ts'
import { readSegmentBytes } from '../../repository/wal-segment-bytes.ts'
import type { Spool } from './spool.ts'
import { joinRanges } from './spool.ts'

const OLDEST_MAJOR = 15

/** Where to begin to stream. */
export interface StreamPosition {
  readonly branch: Branch
  /** Start of a segment. */
  readonly startLsn: Lsn
  /** [startLsn, knownTo) is stored already, in the spool or the repository: what the server sends has to be the same. */
  readonly knownTo: Lsn
  /** The repository alone has everything from startLsn up to here. */
  readonly archivedTo: Lsn
  /** Begins with a segment that is stored whole, only to be compared: the server may have removed it. */
  readonly looksBack: boolean
}

export interface PositionContext {
  readonly repository: Repository
  readonly spool: Spool
  readonly component: string
  readonly clock: Clock
  readonly signal: AbortSignal
  /**
   * Where the stored WAL ends with a segment, begin one earlier: else nothing would be compared, and a server that was rolled back and has
   * grown past that place since would be taken for the one that was archived.
   */
  readonly lookBack: boolean
}

/** What the server is, as far as it decides on the branch. */
export interface ServerHistory {
  readonly identity: ServerIdentity
  readonly major: number
  readonly segmentSize: number
  /** Text of the history file of the server's timeline. */
  readonly history: string
}

/** Throws SERVER_TOO_OLD. */
export async function readServerHistory(connection: ReplicationConnection): Promise<ServerHistory> {
  const { major, segmentSize } = await connection.readVersion()
  if (major < OLDEST_MAJOR) {
    throw new Failure('SERVER_TOO_OLD', `cannot stream from PostgreSQL ${major}: it has to be ${OLDEST_MAJOR} or later`)
  }
  const identity = await connection.identifySystem()
  return { identity, major, segmentSize, history: await connection.readTimelineHistory(identity.timeline) }
}

/**
 * The position for a stream that this process had already, from the spool alone: a server that comes back while the storage is away
 * must not wait for it. Undefined when the server is another, or went on to another timeline.
 */
export function positionFromSpool(
  { spool, lookBack }: Pick<PositionContext, 'spool' | 'lookBack'>,
  branch: Branch,
  server: ServerHistory,
): StreamPosition | undefined {
  const { head } = branch
  const { identity, history, major } = server
  const same = head.systemIdentifier === identity.systemIdentifier && head.major === major && head.history === history
  if (!same || head.timeline !== identity.timeline) return undefined
  const last = spool.ranges(branch).at(-1)
  if (last === undefined) return undefined
  const lsn = segmentStartOf(least(last.to, identity.position), head.segmentSize)
  const looksBack = lookBack && lsn === last.to
  const startLsn = looksBack ? lsn - BigInt(head.segmentSize) : lsn
  if (startLsn < last.from) return undefined
  return { branch, startLsn, knownTo: last.to, archivedTo: startLsn, looksBack }
}

/**
 * Chooses the branch and where on it to go on: the end of the stretch that the oldest WAL kept for the slot belongs to, on the
 * timeline that was streamed last, even when the server is on a later one. A new component begins with the segment at hand.
 */
export async function choosePosition(
  context: PositionContext,
  connection: ReplicationConnection,
  options: { server: ServerHistory; restartLsn: Lsn | null },
): Promise<StreamPosition> {
  const { server, restartLsn } = options
  const { identity } = server
  let younger: Ancestor = { timeline: identity.timeline, history: server.history, beginLsn: identity.position }
  for await (const each of lineage(connection, server)) {
    const branch = await findNewestBranch(context.repository, identityOf(context, server, each), context)
    if (branch !== undefined) {
      const held = await readHeld(context, branch)
      const end = goOnAt(branch, held, restartLsn ?? identity.position)
      if (each.endLsn === undefined) return positionOn(context, branch, held, least(end, identity.position))
      if (end < each.endLsn) return positionOn(context, branch, held, end)
      // All of that timeline is here: go on with the one that followed it.
      return await positionAt(context, { server, ...younger, beginLsn: each.endLsn })
    }
    younger = { ...each, beginLsn: younger.beginLsn }
  }
  return await positionAt(context, { server, timeline: identity.timeline, history: server.history, beginLsn: identity.position })
}

/** The position for a stream that has to hold the WAL from `beginLsn` on: on the newest branch of the timeline, or a new one. */
export async function positionAt(
  context: PositionContext,
  wanted: { server: ServerHistory; timeline: number; history: string; beginLsn: Lsn },
): Promise<StreamPosition> {
  const { server, beginLsn } = wanted
  const { segmentSize } = server
  const identity = identityOf(context, server, wanted)
  const startLsn = segmentStartOf(beginLsn, segmentSize)
  const found = await findNewestBranch(context.repository, identity, context)
  const branch =
    found ??
    (await findOrMakeBranch(
      context.repository,
      { ...identity, ordinal: 0, segmentSize, firstLsn: startLsn },
      context.clock,
      context,
    ))
  return positionOn(context, branch, await readHeld(context, branch), startLsn)
}

/** What is stored of [from, to): from the spool where that has it, else from the repository. */
export async function* readKnown(context: PositionContext, branch: Branch, range: LsnRange): AsyncGenerator<Uint8Array> {
  const { timeline, segmentSize } = branch.head
  const size = BigInt(segmentSize)
  for (let at = range.from; at < range.to; at = (at / size + 1n) * size) {
    const to = least((at / size + 1n) * size, range.to)
    if (context.spool.ranges(branch).some((held) => held.from <= at && to <= held.to)) {
      yield* context.spool.read(branch, { from: at, to })
      continue
    }
    const segment = await readSegmentBytes(context.repository, branch, segmentAt(at, timeline, segmentSize), context)
    if (segment === undefined) return
    yield* cut(segment.bytes, Math.min(segment.realBytes, Number(to - (at / size) * size)))
  }
}

interface Ancestor {
  readonly timeline: number
  readonly history: string
  readonly beginLsn: Lsn
}

/** The server's timeline and those that it came from, youngest first; `endLsn` is where the next one left it. */
async function* lineage(
  connection: ReplicationConnection,
  server: ServerHistory,
): AsyncGenerator<{ timeline: number; history: string; endLsn: Lsn | undefined }> {
  yield { timeline: server.identity.timeline, history: server.history, endLsn: undefined }
  const lines = server.history.split('\n').map((line) => /^\s*(\d+)\s+([0-9A-Fa-f]+\/[0-9A-Fa-f]+)/.exec(line))
  for (const line of lines.toReversed()) {
    if (line === null) continue
    const timeline = Number(line[1])
    const history = await historyUnlessGone(connection, timeline)
    if (history === undefined) return
    yield { timeline, history, endLsn: parseLsn(line[2]!) }
  }
}

/** A server made from a backup may lack the history of an ancestor: then nothing of that one can be continued either. */
async function historyUnlessGone(connection: ReplicationConnection, timeline: number): Promise<string | undefined> {
  try {
    return await connection.readTimelineHistory(timeline)
  } catch (error) {
    if (error instanceof Failure && error.code === 'POSTGRES_FAILED') return undefined
    throw error
  }
}

interface Held {
  /** Without holes each. */
  readonly repository: readonly LsnRange[]
  /** Of the repository and the spool. */
  readonly all: readonly LsnRange[]
  /** The same, where recorded gaps count as if they were held: nothing will fill them. */
  readonly settled: readonly LsnRange[]
}

async function readHeld(context: PositionContext, branch: Branch): Promise<Held> {
  const objects: { startLsn: Lsn; endLsn: Lsn }[] = []
  for await (const { startLsn, endLsn } of listWal(context.repository, branch, context)) objects.push({ startLsn, endLsn })
  const stretches = (ranges: readonly LsnRange[]) => ranges.map(({ from, to }) => ({ startLsn: from, endLsn: to }))
  const repository = joinRanges(objects)
  const all = [...stretches(repository), ...stretches(context.spool.ranges(branch))]
  const gaps = stretches(await listGaps(context.repository, branch, context))
  return { repository, all: joinRanges(all), settled: joinRanges([...all, ...gaps]) }
}

/** The end of the stretch that `oldest` belongs to, or else of the one before it. */
function goOnAt(branch: Branch, held: Held, oldest: Lsn): Lsn {
  return held.settled.findLast(({ from }) => from <= oldest)?.to ?? branch.head.firstLsn
}

function positionOn({ lookBack }: PositionContext, branch: Branch, held: Held, lsn: Lsn): StreamPosition {
  const endOf = (ranges: readonly LsnRange[], at: Lsn) => ranges.find(({ from, to }) => from <= at && at < to)?.to ?? at
  const boundary = segmentStartOf(lsn, branch.head.segmentSize)
  const before = boundary - BigInt(branch.head.segmentSize)
  const looksBack = lookBack && endOf(held.all, before) === boundary
  const startLsn = looksBack ? before : boundary
  return {
    branch,
    startLsn,
    knownTo: endOf(held.all, startLsn),
    archivedTo: endOf(held.repository, startLsn),
    looksBack,
  }
}

function identityOf(
  context: PositionContext,
  server: ServerHistory,
  { timeline, history }: { timeline: number; history: string },
): BranchIdentity {
  const { systemIdentifier } = server.identity
  return { component: context.component, systemIdentifier, major: server.major, timeline, history }
}

async function* cut(bytes: AsyncGenerator<Uint8Array>, length: number): AsyncGenerator<Uint8Array> {
  let left = length
  for await (const piece of bytes) {
    if (left > 0) yield piece.subarray(0, left)
    left -= Math.min(left, piece.length)
  }
}

function segmentStartOf(lsn: Lsn, segmentSize: number): Lsn {
  return lsn - (lsn % BigInt(segmentSize))
}

function least(left: Lsn, right: Lsn): Lsn {
  return left < right ? left : right
}
