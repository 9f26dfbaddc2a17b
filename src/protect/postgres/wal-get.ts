import { randomBytes } from 'node:crypto'
import { open, readFile, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { assert } from '../../assert.ts'
import { Failure, systemErrorCode } from '../../errors.ts'
import { parseSegmentName, segmentEnd, segmentName, segmentStart, type WalSegment } from '../../postgres/wal-segment.ts'
import { historyFileName, parseHistoryFileName } from '../../postgres/timeline-history.ts'
import type { Repository } from '../../repository/repository.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import { readSegmentBytes } from '../../repository/wal-segment-bytes.ts'
import { dismissFetcher } from './fetcher-lock.ts'
import { planSchema, type RecoveryPlan } from './recovery-plan.ts'

/** No timeline is before the first: it has no history, and PostgreSQL asks for it when it leaves that timeline. */
const FIRST_HISTORY = '00000001.history'

export interface WalGetOptions {
  readonly planPath: string
  /** What PostgreSQL asks for: %f. */
  readonly name: string
  /** Where it wants it: %p. */
  readonly destination: string
  readonly openRepository: () => Promise<Repository>
}

/**
 * Answers a restore_command as the frozen plan says. `absent` only for what the plan proves not to belong to this recovery; anything else
 * that is not delivered throws, and must stop PostgreSQL: it would promote with data missing.
 */
export async function walGet(options: WalGetOptions): Promise<'delivered' | 'absent'> {
  const plan = await readPlan(options.planPath)
  const timeline = parseHistoryFileName(options.name)
  if (timeline !== undefined) {
    const history = plan.histories.find((each) => each.timeline === timeline)
    if (history === undefined) return 'absent'
    await writeDurably(options.destination, [Buffer.from(history.text)])
    return 'delivered'
  }
  const segment = parseSegmentName(options.name, plan.segmentSize)
  const wanted = segment === undefined ? undefined : plannedSegment(plan, segment)
  if (wanted === undefined) return 'absent'
  const repository = await openPlanned(plan, options.openRepository)
  await deliver(repository, wanted, options.destination)
  await dismissFetcher(dirname(options.planPath), options.name)
  return 'delivered'
}

export async function readPlan(path: string): Promise<RecoveryPlan> {
  return planSchema.parse(JSON.parse(await readFile(path, 'utf8')))
}

/** Opens the repository that a plan is of. Throws REPOSITORY_FOREIGN when it is another. */
export async function openPlanned(plan: RecoveryPlan, openRepository: () => Promise<Repository>): Promise<Repository> {
  const repository = await openRepository()
  if (repository.id !== plan.repository) {
    throw new Failure('REPOSITORY_FOREIGN', `the recovery plan is of another repository than the configuration names`, {
      hint: 'use the configuration that the restore was made with',
    })
  }
  return repository
}

export interface PlannedSegment {
  readonly segment: WalSegment
  readonly branch: Branch
  /** Where the plan's WAL ends inside this segment; the segment's end when it goes on. */
  readonly endLsn: bigint
}

/** The segment with the branch that it is read from; undefined when no WAL of the plan lies in it. */
export function plannedSegment(plan: RecoveryPlan, segment: WalSegment): PlannedSegment | undefined {
  const stretch = plan.stretches.find((each) => each.timeline === segment.timeline)
  if (stretch === undefined) return undefined
  // A timeline's first segment holds its parent's WAL before the switch point, so that segments count as wholes here.
  const first = stretch.from / BigInt(plan.segmentSize)
  if (segment.number < first || segmentStart(segment) >= stretch.to) return undefined
  const end = segmentEnd(segment)
  return { segment, branch: branchOf(plan, stretch), endLsn: end < stretch.to ? end : stretch.to }
}

/**
 * What PostgreSQL is going to ask for behind a segment, in its order (xlogrecovery.c, XLogFileReadAnyTLI): of each number the youngest timeline's
 * that has begun.
 */
export function* segmentsBehind(plan: RecoveryPlan, name: string): Generator<PlannedSegment> {
  const begin = parseSegmentName(name, plan.segmentSize)
  if (begin === undefined) return
  const size = BigInt(plan.segmentSize)
  for (let number = begin.number + 1n; ; number += 1n) {
    const stretch = plan.stretches.findLast(({ from, to }) => from / size <= number && number * size < to)
    if (stretch === undefined) return
    yield plannedSegment(plan, { timeline: stretch.timeline, number, sizeBytes: plan.segmentSize })!
  }
}

/** Names that PostgreSQL asks for at the end of recovery, and that are not part of it: the segment behind the last, the timeline that it will begin. */
export function absentNames(plan: RecoveryPlan): string[] {
  const { timeline, to } = plan.stretches.at(-1)!
  const size = BigInt(plan.segmentSize)
  const behind: WalSegment = { timeline, number: (to + size - 1n) / size, sizeBytes: plan.segmentSize }
  const known = plan.histories.map((history) => history.timeline)
  const begun = Math.max(timeline, ...known) + 1
  const histories = [timeline, begun].filter((each) => each > 1 && !known.includes(each)).map(historyFileName)
  return [...(plannedSegment(plan, behind) === undefined ? [segmentName(behind)] : []), FIRST_HISTORY, ...histories]
}

function branchOf(plan: RecoveryPlan, stretch: RecoveryPlan['stretches'][number]): Branch {
  const head = {
    timeline: stretch.timeline,
    history: '',
    ordinal: 0,
    systemIdentifier: '',
    major: 0,
    segmentSize: plan.segmentSize,
    firstLsn: stretch.from,
    createdAt: plan.createdAt,
  }
  return { path: stretch.path, head }
}

/** Puts a segment's file there, whole, checked and durable. Throws WAL_GAP, OBJECT_DAMAGED, and what the storage throws. */
export async function deliver(repository: Repository, wanted: PlannedSegment, destination: string): Promise<void> {
  await writeDurably(destination, segmentContent(repository, wanted))
}

/** All bytes of a segment's file, checked. Throws as `deliver`. */
export async function* segmentContent(repository: Repository, wanted: PlannedSegment): AsyncGenerator<Uint8Array> {
  const { segment, branch, endLsn } = wanted
  const stored = await readSegmentBytes(repository, branch, segment)
  const needed = Number(endLsn - segmentStart(segment))
  if (stored === undefined || stored.realBytes < needed) {
    const what = `segment ${segmentName(segment)} has ${stored?.realBytes ?? 0} bytes, the plan of this recovery counts on ${needed}`
    throw new Failure('WAL_GAP', what, { hint: 'objects were lost since the restore began: run "resus verify --all"' })
  }
  yield* cutOff(stored.bytes, needed, segment.sizeBytes)
}

/** The first `needed` bytes, then zeros: what was streamed since the plan was frozen is not part of this recovery. */
async function* cutOff(bytes: AsyncIterable<Uint8Array>, needed: number, sizeBytes: number): AsyncGenerator<Uint8Array> {
  let done = 0
  for await (const piece of bytes) {
    const real = Math.max(0, Math.min(piece.length, needed - done))
    yield piece.subarray(0, real)
    if (real < piece.length) yield Buffer.alloc(piece.length - real)
    done += piece.length
  }
  assert(done === sizeBytes, `a segment has ${sizeBytes} bytes`)
}

/** Writes a file that is there whole and durable, or not at all: a torn segment would look to PostgreSQL like the end of WAL. */
export async function writeDurably(path: string, pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.resus-${process.pid}-${randomBytes(4).toString('hex')}`)
  try {
    const file = await open(temporary, 'w', 0o600)
    try {
      for await (const piece of pieces) await file.writeFile(piece)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (cause) {
    const code = systemErrorCode(cause)
    if (code !== 'ENOSPC' && code !== 'EDQUOT') throw cause
    throw new Failure('DISK_FULL', `there is no room for "${path}": ${code}`, {
      hint: 'make room on the disk of the data directory and start the server again: recovery goes on where it stopped',
      cause,
    })
  } finally {
    await rm(temporary, { force: true }).catch(() => undefined)
  }
}
