import { assert } from '../../assert.ts'
import type { Clock } from '../../clock.ts'
import { Failure, type FailureCode } from '../../errors.ts'
import type { Lsn } from '../../postgres/lsn.ts'
import type { Repository } from '../../repository/repository.ts'
import { putWal } from '../../repository/wal-archive.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import type { WalSource } from '../../repository/wal-note.ts'
import { sleepUnlessAborted, waitForEvent } from './sleep.ts'
import type { Spool } from './spool.ts'
import type { StreamEvent } from './stream-event.ts'
import { WalDigest, type WalDescription } from './wal-digest.ts'

/** An upload that takes longer counts as stalled, and is tried again. */
export const UPLOAD_TIMEOUT_MS = 120_000
const RETRY_MS_FIRST = 200
const RETRY_MS_MAX = 30_000

export interface ArchiveOptions {
  readonly repository: Repository
  readonly spool: Spool
  readonly branch: Branch
  /** Start of the segment in which this stretch begins. */
  readonly startLsn: Lsn
  /** The repository holds everything from `startLsn` up to here. */
  readonly archivedTo: Lsn
  readonly source: WalSource
  /** Whether the server counts us as a synchronous standby now. */
  readonly synchronous: () => boolean
  readonly partialEverySeconds: number
  readonly uploadTimeoutMs: number
  readonly clock: Clock
  readonly onEvent: (event: StreamEvent) => void
}

/**
 * Brings one stretch of a branch from the spool into the repository, in order: whole segments as soon as they are complete, and
 * pieces of the open one. Whatever the storage does, it goes on trying; the spool keeps what is not stored. Deletes what it stored
 * as whole segments from the spool.
 */
export class BranchArchive {
  readonly branch: Branch
  readonly startLsn: Lsn
  readonly #options: ArchiveOptions
  readonly #digest: WalDigest
  #segmentStart: Lsn
  #archivedTo: Lsn
  #durableLsn: Lsn
  #ended = false
  #flush = false
  #lastPieceMs: number
  #wake = Promise.withResolvers<void>()

  constructor(options: ArchiveOptions) {
    const { branch, startLsn, archivedTo, clock } = options
    assert(startLsn % BigInt(branch.head.segmentSize) === 0n, 'a stretch begins with a segment')
    this.branch = branch
    this.startLsn = startLsn
    this.#options = options
    this.#segmentStart = startLsn
    this.#archivedTo = archivedTo > startLsn ? archivedTo : startLsn
    this.#durableLsn = startLsn
    this.#digest = new WalDigest(branch, startLsn)
    this.#lastPieceMs = clock.now()
  }

  get archivedTo(): Lsn {
    return this.#archivedTo
  }

  get durableLsn(): Lsn {
    return this.#durableLsn
  }

  /** The spool holds everything before `lsn`. */
  setDurable(lsn: Lsn): void {
    if (lsn <= this.#durableLsn) return
    this.#durableLsn = lsn
    // A server that commits often must not wake us for each commit.
    if (lsn >= this.#segmentEnd) this.#news()
  }

  /** Stores what the spool holds beyond the repository now, without waiting for the next piece's time. */
  flush(): void {
    this.#flush = true
    this.#news()
  }

  /** Nothing more comes: `run` stores the rest and ends. */
  end(): void {
    this.#ended = true
    this.#news()
  }

  /** Works until `end` was called and all is stored, or the signal aborts. Throws SPOOL_DAMAGED, and bugs; a storage's failures are alarms. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      if (this.#durableLsn >= this.#segmentEnd) await this.#storeSegment(signal)
      else if (this.#pieceIsDue()) await this.#storePiece(signal)
      else if (this.#ended) return
      else await this.#wait(signal)
    }
  }

  get #segmentEnd(): Lsn {
    return this.#segmentStart + BigInt(this.branch.head.segmentSize)
  }

  #pieceIsDue(): boolean {
    const waitedMs = this.#options.clock.now() - this.#lastPieceMs
    const due = this.#ended || this.#flush || waitedMs >= this.#options.partialEverySeconds * 1000
    if (!due) return false
    this.#flush = false
    if (this.#durableLsn > this.#archivedTo) return true
    this.#lastPieceMs = this.#options.clock.now()
    return false
  }

  async #storeSegment(signal: AbortSignal): Promise<void> {
    await this.#describe(this.#segmentEnd)
    await this.#store(this.#digest.takeSegment(), signal)
    if (signal.aborted) return
    const number = this.#segmentStart / BigInt(this.branch.head.segmentSize)
    this.#segmentStart = this.#segmentEnd
    await this.#options.spool.deleteSegment(this.branch, number)
  }

  async #storePiece(signal: AbortSignal): Promise<void> {
    const to = this.#durableLsn
    if (this.#digest.position < this.#archivedTo) {
      // The repository has the segment's beginning, from another process: it is described for the whole segment's sake only.
      await this.#describe(this.#archivedTo)
      this.#digest.takePiece()
    }
    await this.#describe(to)
    await this.#store(this.#digest.takePiece(), signal)
    this.#lastPieceMs = this.#options.clock.now()
  }

  async #describe(to: Lsn): Promise<void> {
    const from = this.#digest.position
    if (from >= to) return
    for await (const bytes of this.#options.spool.read(this.branch, { from, to })) this.#digest.feed(bytes)
  }

  /** Stores until it is stored, or the signal aborts. */
  async #store(description: WalDescription, signal: AbortSignal): Promise<void> {
    const { repository, branch, source, onEvent, clock } = this.#options
    const { startLsn: from, endLsn: to } = description
    const failed = new Set<FailureCode>()
    for (let attempts = 0; !signal.aborted; attempts += 1) {
      const note = { ...description, acknowledged: this.#durableLsn, source, synchronous: this.#options.synchronous() }
      const body = this.#options.spool.read(branch, { from, to })
      try {
        const timeout = AbortSignal.timeout(this.#options.uploadTimeoutMs)
        const result = await stallFailure(
          timeout,
          putWal(repository, branch, { note, body, signal: AbortSignal.any([signal, timeout]) }),
        )
        if (to > this.#archivedTo) this.#archivedTo = to
        for (const code of failed) onEvent({ kind: 'cleared', code })
        onEvent({ kind: 'stored', branch, from, to, result })
        onEvent({ kind: 'archived', branch, lsn: this.#archivedTo })
        return
      } catch (error) {
        if (signal.aborted) return
        if (!(error instanceof Failure) || error.code === 'SPOOL_DAMAGED') throw error
        failed.add(error.code)
        onEvent({ kind: 'alarm', code: error.code, message: error.message, attempts: attempts + 1 })
      }
      await sleepUnlessAborted(clock, Math.min(RETRY_MS_MAX, RETRY_MS_FIRST * 2 ** Math.min(attempts, 16)), signal)
    }
  }

  /** Until something new is there to do, or the next piece's time. */
  async #wait(signal: AbortSignal): Promise<void> {
    const { clock, partialEverySeconds } = this.#options
    const dueMs = this.#lastPieceMs + partialEverySeconds * 1000 - clock.now()
    await waitForEvent(this.#wake.promise, { clock, ms: Math.max(1, dueMs), signal })
    this.#wake = Promise.withResolvers()
  }

  #news(): void {
    this.#wake.resolve()
  }
}

async function stallFailure<T>(timeout: AbortSignal, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (cause) {
    if (!timeout.aborted || cause instanceof Failure) throw cause
    throw new Failure('STORAGE_STALLED', 'the storage has not taken a piece of WAL in time', {
      hint: 'the spool keeps what is acknowledged; is the storage reachable?',
      cause,
    })
  }
}
