import { createHash } from 'node:crypto'
import { z } from 'zod'
import { assert } from '../assert.ts'
import { Failure } from '../errors.ts'
import { formatLsn, type Lsn } from '../postgres/lsn.ts'
import { parseSegmentName, segmentAt, segmentName, segmentStart, type WalSegment } from '../postgres/wal-segment.ts'
import type { CallOptions } from '../storage/storage.ts'
import { branchPrefix, gapKey, gapPrefix } from './layout.ts'
import type { Repository } from './repository.ts'
import { damaged, getHead, getObject, putObject } from './sealed-object.ts'
import type { Branch } from './wal-branch.ts'
import { lsnText, noteJson, parseNote, type WalNote } from './wal-note.ts'

// WAL of one branch (docs/format.md, "WAL"): whole segments, pieces of segments, gaps.

/** A stored stretch of WAL: a whole segment (`from` 0, `to` the segment's size) or a piece of one. */
export interface WalObject {
  readonly key: string
  readonly segment: WalSegment
  /** Offsets in the segment. */
  readonly from: number
  readonly to: number
  readonly startLsn: Lsn
  readonly endLsn: Lsn
  /** Of the sealed object. */
  readonly sizeBytes: number
}

export interface LsnRange {
  readonly from: Lsn
  readonly to: Lsn
}

export interface Coverage {
  /** The stored WAL has no gap from the LSN asked for up to here; that LSN itself when it is not stored. */
  readonly endLsn: Lsn
  /** What to read, in order, for [fromLsn, endLsn): each goes further than those before it. */
  readonly objects: readonly WalObject[]
  /** What is missing behind endLsn, between stored stretches; recorded as gaps or not. */
  readonly holes: readonly LsnRange[]
}

export interface Gap extends LsnRange {
  readonly why: string
  /** ISO 8601, UTC. */
  readonly at: string
}

const PIECE_NAME = /^([0-9A-F]{24})(?:\.([0-9a-f]{8})-([0-9a-f]{8}))?$/

const gapSchema = z.object({ from: lsnText, to: lsnText, why: z.string(), at: z.string() })

/** The name of a stretch: the segment's own when it is whole, with the offsets behind it when it is a piece. */
export function walKey(branch: Branch, range: { segment: WalSegment; from: number; to: number }): string {
  const name = branchPrefix(branch.path) + segmentName(range.segment)
  if (range.from === 0 && range.to === range.segment.sizeBytes) return name
  const hex = (offset: number) => offset.toString(16).padStart(8, '0')
  return `${name}.${hex(range.from)}-${hex(range.to)}`
}

/**
 * Stores the bytes that `note` describes. `there`: the same bytes are stored under this name already. Throws WAL_CONFLICT when
 * other bytes are, and what the storage throws. Bytes that are not as many as the note says, or have another SHA-256, are our
 * bug: nothing is stored, and the assertion fails.
 */
export async function putWal(
  repository: Repository,
  branch: Branch,
  wal: { note: WalNote; body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>; signal?: AbortSignal },
): Promise<'stored' | 'there'> {
  const { note, body } = wal
  const segment = segmentAt(note.startLsn, note.timeline, branch.head.segmentSize)
  assert(segmentName(segment) === note.segment, `segment ${note.segment} holds ${formatLsn(note.startLsn)}`)
  assert(note.from < note.to && note.to <= segment.sizeBytes, `[${note.from}, ${note.to}) lies in a segment`)
  assert(segmentStart(segment) + BigInt(note.from) === note.startLsn, 'from and startLsn are the same place')
  assert(segmentStart(segment) + BigInt(note.to) === note.endLsn, 'to and endLsn are the same place')
  const name = walKey(branch, { segment, from: note.from, to: note.to })
  const object = { kind: 'wal' as const, name, head: noteJson(note), body: checkBody(body, note, assertion) }
  const options = callOptions(wal.signal)
  try {
    await putObject(repository.storage, repository.ring, object, options)
    return 'stored'
  } catch (error) {
    if (!(error instanceof Failure && error.code === 'OBJECT_EXISTS')) throw error
  }
  const head = await getHead(repository.storage, repository.ring, { kind: 'wal', name }, options)
  const there = parseNote(name, head)
  if (there.sha256 === note.sha256) return 'there'
  const what = `cannot store WAL [${formatLsn(note.startLsn)}, ${formatLsn(note.endLsn)}) of timeline ${note.timeline}: `
  throw new Failure('WAL_CONFLICT', `${what}other bytes are stored under this name, by "${there.source}"`, {
    hint: 'the cluster went another way than the one that was archived (rolled back, perhaps): nothing was overwritten',
  })
}

/**
 * The stored WAL of a branch in LSN order, from names alone; a whole segment comes before its pieces. Whatever else lies in the
 * folder is passed over.
 */
export async function* listWal(repository: Repository, branch: Branch, options: CallOptions = {}): AsyncGenerator<WalObject> {
  yield* listBelow(repository, branch, '', options)
}

/** What was noted with a stored stretch: one small range read. Throws OBJECT_MISSING, OBJECT_DAMAGED. */
export async function readNote(
  repository: Repository,
  branch: Branch,
  object: WalObject,
  options: CallOptions = {},
): Promise<WalNote> {
  const head = await getHead(repository.storage, repository.ring, { kind: 'wal', name: object.key }, options)
  return checkNote(branch, object, parseNote(object.key, head))
}

/**
 * The bytes of a stored stretch. Their number and SHA-256 are checked when the last has been given: until the iteration has ended
 * without throwing, nothing of it is proven. Throws OBJECT_MISSING, OBJECT_DAMAGED.
 */
export async function* readWalBytes(
  repository: Repository,
  branch: Branch,
  object: WalObject,
  options: CallOptions = {},
): AsyncGenerator<Uint8Array> {
  const opened = await getObject(repository.storage, repository.ring, { kind: 'wal', name: object.key }, options)
  const note = checkNote(branch, object, parseNote(object.key, opened.head))
  yield* checkBody(opened.body, note, (what) => damaged(object.key, what))
}

/** The stored WAL without a gap from `fromLsn` on, within one branch, and the holes behind it. From names alone. */
export async function coverage(
  repository: Repository,
  branch: Branch,
  fromLsn: Lsn,
  options: CallOptions = {},
): Promise<Coverage> {
  const stored: WalObject[] = []
  for await (const object of listWal(repository, branch, options)) if (object.endLsn > fromLsn) stored.push(object)
  return coverFrom(stored, fromLsn)
}

/** The same, of [from, to) alone: lists the names of its segments, and not of the whole branch. */
export async function coverageOf(
  repository: Repository,
  branch: Branch,
  range: LsnRange,
  options: CallOptions = {},
): Promise<Coverage> {
  const nameAt = (lsn: Lsn) => segmentName(segmentAt(lsn, branch.head.timeline, branch.head.segmentSize))
  const [first, last] = [nameAt(range.from), nameAt(range.to - 1n)]
  let alike = first.length
  while (!last.startsWith(first.slice(0, alike))) alike -= 1
  const start = first.slice(0, alike)
  const stored: WalObject[] = []
  for await (const object of listBelow(repository, branch, start, options)) if (object.endLsn > range.from) stored.push(object)
  return coverFrom(stored, range.from)
}

/** The same of stretches that are at hand, in the order of their starts, the longest of those with one start first. */
export function coverFrom<Stretch extends { readonly startLsn: Lsn; readonly endLsn: Lsn }>(
  stretches: readonly Stretch[],
  fromLsn: Lsn,
): { readonly endLsn: Lsn; readonly objects: readonly Stretch[]; readonly holes: readonly LsnRange[] } {
  const objects: Stretch[] = []
  const holes: LsnRange[] = []
  let endLsn = fromLsn
  let reached = fromLsn
  for (const stretch of stretches) {
    if (stretch.endLsn <= reached) continue
    if (stretch.startLsn > reached) holes.push({ from: reached, to: stretch.startLsn })
    reached = stretch.endLsn
    if (holes.length > 0) continue
    objects.push(stretch)
    endLsn = reached
  }
  return { endLsn, objects, holes }
}

/** Records that the WAL of a range is lost. Doing it twice is doing it once. */
export async function recordGap(repository: Repository, branch: Branch, gap: Gap, options: CallOptions = {}): Promise<void> {
  assert(gap.from < gap.to, 'a gap is not empty')
  const name = gapKey(branch.path, gap)
  const head = { ...gap, from: formatLsn(gap.from), to: formatLsn(gap.to) }
  try {
    await putObject(repository.storage, repository.ring, { kind: 'gap', name, head }, options)
  } catch (error) {
    if (!(error instanceof Failure && error.code === 'OBJECT_EXISTS')) throw error
  }
}

/** The recorded gaps of a branch, in LSN order. Throws OBJECT_DAMAGED. */
export async function listGaps(repository: Repository, branch: Branch, options: CallOptions = {}): Promise<Gap[]> {
  const gaps: Gap[] = []
  for await (const { key } of repository.storage.list(gapPrefix(branch.path), options)) {
    const head = await getHead(repository.storage, repository.ring, { kind: 'gap', name: key }, options)
    const gap = gapSchema.safeParse(head)
    if (!gap.success) throw damaged(key, `its head is not that of a gap: ${gap.error.issues[0]?.message}`)
    gaps.push(gap.data)
  }
  return gaps
}

/** The stored stretches of one segment: the whole one first, then its pieces by their offsets. */
export async function listSegment(
  repository: Repository,
  branch: Branch,
  segment: WalSegment,
  options: CallOptions = {},
): Promise<WalObject[]> {
  const objects: WalObject[] = []
  for await (const object of listBelow(repository, branch, segmentName(segment), options)) objects.push(object)
  return objects
}

async function* listBelow(
  repository: Repository,
  branch: Branch,
  start: string,
  options: CallOptions,
): AsyncGenerator<WalObject> {
  const prefix = branchPrefix(branch.path)
  for await (const { key, sizeBytes } of repository.storage.list(prefix + start, options)) {
    const range = parseWalName(key.slice(prefix.length), branch)
    if (range === undefined) continue
    const first = segmentStart(range.segment)
    yield { key, ...range, startLsn: first + BigInt(range.from), endLsn: first + BigInt(range.to), sizeBytes }
  }
}

function parseWalName(name: string, branch: Branch): { segment: WalSegment; from: number; to: number } | undefined {
  const match = PIECE_NAME.exec(name)
  if (match === null) return undefined
  const segment = parseSegmentName(match[1]!, branch.head.segmentSize)
  if (segment === undefined || segment.timeline !== branch.head.timeline) return undefined
  if (match[2] === undefined) return { segment, from: 0, to: segment.sizeBytes }
  const [from, to] = [Number.parseInt(match[2], 16), Number.parseInt(match[3]!, 16)]
  return from < to && to <= segment.sizeBytes ? { segment, from, to } : undefined
}

function checkNote(branch: Branch, object: WalObject, note: WalNote): WalNote {
  const same = note.startLsn === object.startLsn && note.endLsn === object.endLsn && note.timeline === branch.head.timeline
  if (!same) throw damaged(object.key, 'its note describes another stretch of WAL than its name')
  return note
}

/** Passes the bytes on, and throws at their end when they are not the note's. */
async function* checkBody(
  body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  note: WalNote,
  failure: (what: string) => Error,
): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha256')
  let length = 0
  for await (const piece of body) {
    hash.update(piece)
    length += piece.length
    yield piece
  }
  if (length !== note.to - note.from) throw failure(`it has ${length} bytes of WAL, its note says ${note.to - note.from}`)
  if (hash.digest('hex') !== note.sha256) throw failure('its bytes do not have the SHA-256 of its note')
}

function assertion(what: string): Error {
  return new Error(`internal error: expected that WAL is as its note says, but ${what}`)
}

function callOptions(signal: AbortSignal | undefined): CallOptions {
  return signal === undefined ? {} : { signal }
}
