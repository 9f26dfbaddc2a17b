import type { Lsn } from '../postgres/lsn.ts'
import { segmentStart } from '../postgres/wal-segment.ts'
import { gapKey } from './layout.ts'
import type { Mark, MarkedWal } from './marks.ts'
import type { Repository } from './repository.ts'
import { listGaps, listWal, readNote, type WalObject } from './wal-archive.ts'
import { branchKey, type Branch } from './wal-branch.ts'
import { judgeWal, walNeed, type WalBackup } from './wal-retention.ts'

// Which stored WAL of a component may go, found again by each expiry: what a mark names goes when it still may.

const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1)
/** So many stretches from a branch's end on are looked at for its last commit. */
const TAIL_MAX = 16

export interface ExpirableWal extends MarkedWal {
  readonly key: string
  readonly sizeBytes: number
}

export interface WalQuestion {
  readonly repository: Repository
  readonly branches: readonly Branch[]
  readonly backups: readonly WalBackup[]
  /** When the newest backup began; branches that are younger may be waiting for their first one. */
  readonly newestBackupMs: number
  readonly windowStartMs: number
  /** A run that may publish a backup of the component is at work: what only age would free stays. */
  readonly atWork: boolean
  readonly signal: AbortSignal
}

/** The WAL, gaps and branches of one component that may go. Names and, for abandoned branches, notes are read; nothing is touched. */
export async function expirableWal(question: WalQuestion): Promise<ExpirableWal[]> {
  const expirable: ExpirableWal[] = []
  for (const branch of question.branches) {
    if (Date.parse(branch.head.createdAt) >= question.newestBackupMs) continue
    expirable.push(...(await expirableOf(question, branch)))
  }
  return expirable
}

/** Those that a mark names. */
export function namedBy(marks: readonly Mark[], expirable: readonly ExpirableWal[]): ExpirableWal[] {
  const named = new Map<string, MarkedWal[]>()
  for (const wal of marks.flatMap((mark) => mark.wal)) {
    const key = `${wal.path.branch} ${wal.what}`
    named.set(key, [...(named.get(key) ?? []), wal])
  }
  return expirable.filter((each) =>
    named.get(`${each.path.branch} ${each.what}`)?.some(({ from, to }) => from <= each.from && each.to <= to),
  )
}

/** What a mark says of them: neighbours become one range. */
export function markedRanges(expirable: readonly ExpirableWal[]): MarkedWal[] {
  const ranges: { path: MarkedWal['path']; what: MarkedWal['what']; from: Lsn; to: Lsn }[] = []
  for (const { path, what, from, to } of expirable) {
    const last = ranges.findLast((range) => range.what === what && range.path.branch === path.branch)
    if (last !== undefined && from >= last.from && from <= last.to) {
      if (to > last.to) last.to = to
    } else ranges.push({ path, what, from, to })
  }
  return ranges
}

/** When the last commit known on a branch was; when it was made, where no commit is known. */
export async function lastCommitMs(repository: Repository, branch: Branch, signal: AbortSignal): Promise<number> {
  const tail: WalObject[] = []
  for await (const object of listWal(repository, branch, { signal })) {
    tail.push(object)
    if (tail.length > TAIL_MAX) tail.shift()
  }
  for (const object of tail.toReversed()) {
    const { greatestCommit } = await readNote(repository, branch, object, { signal })
    if (greatestCommit !== null) return commitMs(greatestCommit)
  }
  return Date.parse(branch.head.createdAt)
}

async function expirableOf(question: WalQuestion, branch: Branch): Promise<ExpirableWal[]> {
  const { repository, signal } = question
  const need = walNeed(branch, question.branches, question.backups)
  const found: ExpirableWal[] = []
  let [objects, aged] = [0, true]
  let whole: WalObject | undefined
  const judge = async (wal: { startLsn: Lsn; endLsn: Lsn }, isOld: () => Promise<boolean>): Promise<boolean> => {
    const verdict = judgeWal(need, wal)
    if (verdict !== 'ask') return verdict === 'old'
    if (question.atWork || !aged) return false
    // Commit times grow, by and large: behind the first that is young everything stays.
    aged = await isOld()
    return aged
  }
  for await (const object of listWal(repository, branch, { signal })) {
    objects += 1
    const { key, sizeBytes, startLsn: from, endLsn: to } = object
    if (object.from === 0 && object.to === object.segment.sizeBytes) whole = object
    const isOld = async () => {
      const { greatestCommit } = await readNote(repository, branch, object, { signal })
      return greatestCommit === null || commitMs(greatestCommit) < question.windowStartMs
    }
    const superseded = whole !== undefined && whole !== object && segmentStart(whole.segment) === segmentStart(object.segment)
    if (superseded) found.push({ path: branch.path, what: 'superseded', key, sizeBytes, from, to })
    else if (await judge(object, isOld)) found.push({ path: branch.path, what: 'all', key, sizeBytes, from, to })
  }
  const gaps = await listGaps(repository, branch, { signal })
  for (const { from, to, at } of gaps) {
    const old = await judge({ startLsn: from, endLsn: to }, async () => Date.parse(at) < question.windowStartMs)
    if (old) found.push({ path: branch.path, what: 'all', key: gapKey(branch.path, { from, to }), sizeBytes: 0, from, to })
  }
  if (objects === 0 && gaps.length === 0 && isForgotten(question, branch)) {
    found.push({ path: branch.path, what: 'branch', key: branchKey(branch.path), sizeBytes: 0, from: 0n, to: 0n })
  }
  return found
}

/** Whether nothing is kept of the branch's whole cluster, and it is older than the window: of a cluster that is kept the branches stay, they are its history. */
function isForgotten(question: WalQuestion, branch: Branch): boolean {
  const siblings = new Set(
    question.branches.filter((each) => each.path.incarnation === branch.path.incarnation).map((each) => each.path.branch),
  )
  const isOld = Date.parse(branch.head.createdAt) < question.windowStartMs
  return isOld && !question.atWork && !question.backups.some((backup) => siblings.has(backup.branch))
}

function commitMs(microseconds: bigint): number {
  return POSTGRES_EPOCH_MS + Number(microseconds) / 1000
}
