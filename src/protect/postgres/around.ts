import type { Lsn } from '../../postgres/lsn.ts'
import { WalDecoder } from '../../postgres/wal-decoder.ts'
import { msToMicros } from '../../postgres/timestamp.ts'
import type { RestorePoint } from '../../postgres/wal-summary.ts'
import { segmentStart } from '../../postgres/wal-segment.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import type { Repository } from '../../repository/repository.ts'
import { readWalBytes, type WalObject } from '../../repository/wal-archive.ts'
import type { NotedWal } from '../../repository/wal-notes.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import type { RecoveryTarget } from './recovery-target.ts'
import type { RestoreWindow } from './windows.ts'

// What lies around an instant, a corruption for example: what was kept before and after it, and how to get to just before.

/** Stretches of WAL that are read for the commits next to the instant; of more that claim to hold it, the last. */
const STRETCHES_READ_MAX = 8
const SHOWN_EACH_SIDE = 3

export interface KnownCommit {
  /** Microseconds since 2000. */
  readonly timeMicros: bigint
  /** Just past its record. */
  readonly lsn: Lsn
  readonly timeline: number
  readonly xid: number | null
}

/** What is nearest on each side of an instant, the nearest first. */
export interface Around {
  readonly commits: { readonly before: KnownCommit | null; readonly after: KnownCommit | null }
  readonly backups: { readonly before: readonly BackupManifest[]; readonly after: readonly BackupManifest[] }
  readonly restorePoints: { readonly before: readonly RestorePoint[]; readonly after: readonly RestorePoint[] }
  /** How to restore to just before the instant, or, where that cannot be reached, to the last moment before it; null when nothing leads there. */
  readonly target: RecoveryTarget | null
  /** Whether every commit before the instant is in what `target` restores. */
  readonly exact: boolean
}

interface Located extends NotedWal {
  readonly branch: Branch
  /** Where the current line leaves the branch. */
  readonly to: Lsn | undefined
}

/** Watches the notes pass, and remembers in which stretches the commits next to the instant must be. */
export class AroundSearch {
  readonly #micros: bigint
  #before: Located | undefined
  #after: Located | undefined
  readonly #across: Located[] = []

  /** `micros`: the instant, since 2000. */
  constructor(micros: bigint) {
    this.#micros = micros
  }

  observe(branch: Branch, { object, note }: NotedWal, to: Lsn | undefined): void {
    const { leastCommit, greatestCommit } = note
    if (leastCommit === null || greatestCommit === null) return
    const located = { branch, object, note, to }
    if (greatestCommit < this.#micros) {
      if (greatestCommit >= (this.#before?.note.greatestCommit ?? greatestCommit)) this.#before = located
    } else if (leastCommit >= this.#micros) {
      if (leastCommit < (this.#after?.note.leastCommit ?? leastCommit + 1n)) this.#after = located
    } else {
      this.#across.push(located)
      if (this.#across.length > STRETCHES_READ_MAX) this.#across.shift()
    }
  }

  /** Reads the few stretches that matter.  Throws what reading them throws. */
  async commits(repository: Repository, options: { signal: AbortSignal }): Promise<Around['commits']> {
    let before: KnownCommit | null = null
    let after: KnownCommit | null = null
    for (const located of [this.#before, ...this.#across, this.#after]) {
      if (located === undefined) continue
      for (const commit of await readCommits(repository, located, options)) {
        const { timeMicros } = commit
        if (timeMicros < this.#micros && timeMicros >= (before?.timeMicros ?? timeMicros)) before = commit
        if (timeMicros >= this.#micros && timeMicros < (after?.timeMicros ?? timeMicros + 1n)) after = commit
      }
    }
    return { before, after }
  }
}

/** Commits of one stretch. One that began in the stretch before is not seen: its stretch's note does not count it either. */
async function readCommits(
  repository: Repository,
  { branch, object, to }: { branch: Branch; object: WalObject; to: Lsn | undefined },
  options: { signal: AbortSignal },
): Promise<KnownCommit[]> {
  const { segmentSize, major, timeline } = branch.head
  const commits: KnownCommit[] = []
  const startLsn = segmentStart(object.segment) + BigInt(object.from)
  const decoder = new WalDecoder({
    startLsn,
    segmentSizeBytes: segmentSize,
    major,
    timeline,
    onFact: (fact, _, lsn) => {
      if (fact.kind === 'commit' && (to === undefined || lsn <= to))
        commits.push({ timeMicros: fact.timeMicros, lsn, timeline, xid: fact.xid ?? null })
    },
  })
  let at = startLsn
  for await (const bytes of readWalBytes(repository, branch, object, options)) {
    decoder.feed(at, bytes)
    at += BigInt(bytes.length)
  }
  return commits
}

/** Everything around the instant, on the current line. */
export function describeAround(
  micros: bigint,
  known: { windows: readonly RestoreWindow[]; backups: readonly BackupManifest[]; commits: Around['commits'] },
): Around {
  const current = known.windows.filter(({ state }) => state === 'current')
  const points = current.flatMap(({ restorePoints }) => restorePoints)
  const early = (backup: BackupManifest) => msToMicros(Date.parse(backup.stopTime)) < micros
  const byTime = known.backups.toSorted((left, right) => Date.parse(left.stopTime) - Date.parse(right.stopTime))
  return {
    commits: known.commits,
    backups: sides(byTime, early),
    restorePoints: sides(points, (point) => point.timeMicros < micros),
    ...chooseTarget(micros, current, known.commits),
  }
}

function sides<T>(ordered: readonly T[], isBefore: (item: T) => boolean): { before: readonly T[]; after: readonly T[] } {
  const before = ordered.filter(isBefore).toReversed()
  const after = ordered.filter((item) => !isBefore(item))
  return { before: before.slice(0, SHOWN_EACH_SIDE), after: after.slice(0, SHOWN_EACH_SIDE) }
}

function chooseTarget(
  micros: bigint,
  windows: readonly RestoreWindow[],
  commits: Around['commits'],
): { target: RecoveryTarget | null; exact: boolean } {
  // PostgreSQL stops before the first commit that is later than the target: a microsecond before is just before.
  const justBefore = micros - 1n
  const begun = windows.filter(({ fromTime }) => fromTime !== null && msToMicros(Date.parse(fromTime)) <= justBefore)
  const window = begun.toSorted((left, right) => (left.fromLsn < right.fromLsn ? -1 : 1)).at(-1)
  if (window === undefined) return { target: null, exact: false }
  if (window.lastCommit !== null && window.lastCommit > justBefore) {
    return { target: { kind: 'time', micros: justBefore }, exact: true }
  }
  // No later commit in the window, so that its end is the moment; unless it ends in a gap, and more was lost there.
  const isLast = windows.every(({ fromLsn }) => fromLsn <= window.fromLsn)
  const exact = commits.before === null || commits.before.lsn <= window.toLsn
  return { target: isLast ? { kind: 'latest' } : { kind: 'lsn', lsn: window.toLsn }, exact: exact && isLast }
}
