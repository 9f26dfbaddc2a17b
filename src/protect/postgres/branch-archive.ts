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
import { WalUploads } from './wal-uploads.ts'

const RETRY_MS_FIRST = 200
const RETRY_MS_MAX = 30_000
/** Longest sleep where only news can bring work. */
const WAIT_MS_MAX = 60_000
/** Whole segments on their way while pieces of the next go out: more would only hold up the pieces. */
const SEGMENTS_IN_FLIGHT_MAX = 2

/**
 * When pieces of the open segment go out. `every`: after so many seconds, one put at a time. `at once`: as soon as something has come
 * and all before it is stored; the next takes all that came meanwhile, so that a commit waits for one put or two, whatever the number
 * of clients. Two pieces on their way at once would be faster, but a crash could leave the second without the first: a hole, before
 * which a restore would stop although nothing was lost.
 */
export type ArchivePace = { readonly kind: 'every'; readonly seconds: number } | { readonly kind: 'at once' }

export interface ArchiveOptions {
  /** Its storage answers in time, or throws. */
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
  readonly pace: ArchivePace
  readonly clock: Clock
  readonly onEvent: (event: StreamEvent) => void
}

/**
 * Brings one stretch of a branch from the spool into the repository: whole segments as soon as they are complete, and
 * pieces of the open one. Whatever the storage does, it goes on trying; the spool keeps what is not stored. Deletes what it stored
 * as whole segments from the spool.
 */
export class BranchArchive {
  readonly branch: Branch
  readonly startLsn: Lsn
  readonly #options: ArchiveOptions
  readonly #digest: WalDigest
  readonly #uploads: WalUploads
  #segmentStart: Lsn
  /** Everything before it is stored or on its way. */
  #sentTo: Lsn
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
    this.#sentTo = archivedTo > startLsn ? archivedTo : startLsn
    this.#uploads = new WalUploads({ archivedTo: this.#sentTo, onNews: () => this.#news() })
    this.#durableLsn = startLsn
    this.#digest = new WalDigest(branch, startLsn)
    this.#lastPieceMs = clock.now()
  }

  get archivedTo(): Lsn {
    return this.#uploads.archivedTo
  }

  get durableLsn(): Lsn {
    return this.#durableLsn
  }

  /** The spool holds everything before `lsn`. */
  setDurable(lsn: Lsn): void {
    if (lsn <= this.#durableLsn) return
    this.#durableLsn = lsn
    // A server that commits often must not wake us for each commit, unless each commit waits for us.
    if (lsn >= this.#segmentEnd || this.#options.pace.kind === 'at once') this.#news()
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
    const failed = new AbortController()
    const either = AbortSignal.any([signal, failed.signal])
    try {
      while (!signal.aborted && (await this.#advance(either))) this.#uploads.throwFailure()
      this.#uploads.throwFailure()
    } finally {
      // Nothing outlives this call: what still runs after a failure is given up.
      failed.abort()
      await this.#uploads.settled()
    }
  }

  /** One step; false when all is stored and nothing more comes. */
  async #advance(signal: AbortSignal): Promise<boolean> {
    if (this.#segmentIsDue()) await this.#beginSegment(signal)
    else if (this.#pieceIsDue()) await this.#beginPiece(signal)
    else if (this.#ended && this.archivedTo >= this.#durableLsn && this.#idle()) return false
    else await this.#wait(signal)
    return true
  }

  get #segmentEnd(): Lsn {
    return this.#segmentStart + BigInt(this.branch.head.segmentSize)
  }

  #idle(): boolean {
    return this.#uploads.running('piece') + this.#uploads.running('segment') === 0
  }

  #segmentIsDue(): boolean {
    if (this.#durableLsn < this.#segmentEnd) return false
    if (this.#options.pace.kind === 'every') return this.#idle()
    if (this.#uploads.running('segment') >= SEGMENTS_IN_FLIGHT_MAX) return false
    // Its pieces hold all of it: it may follow beside those of the next.
    if (this.#sentTo >= this.#segmentEnd) return true
    // When most of it went out already, a commit at its end would wait long for the whole: the rest goes first, as a piece.
    const restFirst = this.#sentTo > this.#segmentStart + BigInt(this.branch.head.segmentSize) / 2n
    return !restFirst && this.archivedTo >= this.#sentTo
  }

  #pieceIsDue(): boolean {
    const { pace, clock } = this.#options
    if (pace.kind === 'at once') return this.#pieceEnd() > this.#sentTo && this.archivedTo >= this.#sentTo
    if (!this.#idle()) return false
    const waitedMs = clock.now() - this.#lastPieceMs
    const due = this.#ended || this.#flush || waitedMs >= pace.seconds * 1000
    if (!due) return false
    this.#flush = false
    if (this.#durableLsn > this.#sentTo) return true
    this.#lastPieceMs = clock.now()
    return false
  }

  #pieceEnd(): Lsn {
    return this.#durableLsn < this.#segmentEnd ? this.#durableLsn : this.#segmentEnd
  }

  async #beginSegment(signal: AbortSignal): Promise<void> {
    await this.#describe(this.#segmentEnd)
    const description = this.#digest.takeSegment()
    const number = this.#segmentStart / BigInt(this.branch.head.segmentSize)
    this.#segmentStart = this.#segmentEnd
    if (this.#segmentStart > this.#sentTo) this.#sentTo = this.#segmentStart
    this.#uploads.begin('segment', async (earlier) => {
      await this.#store(description, signal)
      // Pieces of it may still be read from the spool.
      await earlier
      if (!signal.aborted) await this.#options.spool.deleteSegment(this.branch, number)
    })
  }

  async #beginPiece(signal: AbortSignal): Promise<void> {
    const to = this.#pieceEnd()
    if (this.#digest.position < this.#sentTo) {
      // The repository has the segment's beginning, from another process: it is described for the whole segment's sake only.
      await this.#describe(this.#sentTo)
      this.#digest.takePiece()
    }
    await this.#describe(to)
    const description = this.#digest.takePiece()
    this.#sentTo = to
    this.#uploads.begin('piece', async () => {
      await this.#store(description, signal)
      this.#lastPieceMs = this.#options.clock.now()
    })
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
      const acknowledged = this.#options.pace.kind === 'at once' ? this.archivedTo : this.#durableLsn
      const note = { ...description, acknowledged, source, synchronous: this.#options.synchronous() }
      const body = this.#options.spool.read(branch, { from, to })
      try {
        const result = await putWal(repository, branch, { note, body, signal })
        const further = this.#uploads.setStored({ from, to })
        for (const code of failed) onEvent({ kind: 'cleared', code })
        onEvent({ kind: 'stored', branch, from, to, result })
        if (further) onEvent({ kind: 'archived', branch, lsn: this.archivedTo })
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
    const { clock, pace } = this.#options
    const timed = pace.kind === 'every' && this.#idle()
    const ms = timed ? this.#lastPieceMs + pace.seconds * 1000 - clock.now() : WAIT_MS_MAX
    await waitForEvent(this.#wake.promise, { clock, ms: Math.max(1, ms), signal })
    this.#wake = Promise.withResolvers()
  }

  #news(): void {
    this.#wake.resolve()
  }
}
