import { Failure } from '../../errors.ts'
import type { Lsn } from '../../postgres/lsn.ts'
import type { Repository } from '../../repository/repository.ts'
import { listWal, type LsnRange } from '../../repository/wal-archive.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import type { WalSource } from '../../repository/wal-note.ts'
import { AlarmPace, Inflow } from './backlog.ts'
import { BranchArchive, type ArchivePace } from './branch-archive.ts'
import { sleepUnlessAborted } from './sleep.ts'
import { joinRanges, type Spool } from './spool.ts'
import type { Backlog, StreamEvent } from './stream-event.ts'
import type { StreamPosition } from './stream-position.ts'
import type { StreamOptions } from './stream.ts'

/** How long a receiver that is told to stop waits for the storage; what is not stored then stays in the spool. */
const FINISH_MS = 5000
/** Until a storage that did not say what it has is asked again. */
const LOOK_AGAIN_MS = 5000

interface RunningArchive {
  readonly archive: BranchArchive
  readonly done: Promise<void>
}

export interface ArchivesOptions extends Pick<StreamOptions, 'repository' | 'component' | 'clock'> {
  readonly spool: Spool
  readonly source: WalSource
  readonly onEvent: (event: StreamEvent) => void
}

/** The stretches that a receiver brings into the repository: one that grows, and earlier ones whose rest is still on its way. */
export class Archives {
  /** Whether the server counts the receiver as a synchronous standby. */
  synchronous = false
  readonly #options: ArchivesOptions
  readonly #abort = new AbortController()
  readonly #running = new Set<RunningArchive>()
  readonly #inflow: Inflow
  readonly #pace: AlarmPace
  #current: BranchArchive | undefined
  #failed = new AbortController()
  #failure: unknown

  constructor(options: ArchivesOptions) {
    this.#options = options
    this.#inflow = new Inflow(options.clock)
    this.#pace = new AlarmPace(options.clock)
  }

  /** Aborts when a stretch cannot be stored and never will be: `takeFailure` tells why. */
  get failed(): AbortSignal {
    return this.#failed.signal
  }

  /** The branch that grows. */
  get current(): Branch | undefined {
    return this.#current?.branch
  }

  get progress(): { durableLsn: Lsn; archivedTo: Lsn } {
    return { durableLsn: this.#current?.durableLsn ?? 0n, archivedTo: this.#current?.archivedTo ?? 0n }
  }

  /** What waits for the storage. */
  get backlog(): Backlog {
    return this.#inflow.forecast(this.#options.spool)
  }

  /**
   * The repository holds all WAL before this LSN: on the branch that grows, and on those that it came from. 0 while none grows.
   */
  get safeTo(): Lsn {
    let lsn = this.#current?.archivedTo ?? 0n
    for (const { archive } of this.#running) {
      if (archive.archivedTo < archive.durableLsn && archive.archivedTo < lsn) lsn = archive.archivedTo
    }
    return lsn
  }

  /** What went wrong, once. The receiver begins again from what is in the spool and the repository. */
  takeFailure(): unknown {
    const failure = this.#failure
    if (failure === undefined) return undefined
    this.#failure = undefined
    this.#failed = new AbortController()
    this.end('kept')
    return failure
  }

  /** Goes on with the stretch at hand when the position lies in it, else begins another. */
  begin(position: StreamPosition): void {
    const { branch, startLsn, archivedTo } = position
    const current = this.#current
    const goesOn =
      current?.branch.path.branch === branch.path.branch && current.startLsn <= startLsn && startLsn <= current.durableLsn
    if (goesOn) return
    this.end('kept')
    const { component } = this.#options
    const archive = new BranchArchive({
      ...this.#options,
      onEvent: (event) => this.#tell(event),
      branch,
      startLsn,
      archivedTo,
      pace: paceOf(component.stream),
      synchronous: () => this.synchronous,
    })
    this.#current = archive
    this.#start(archive)
  }

  setDurable(lsn: Lsn): void {
    this.#inflow.note(lsn)
    this.#current?.setDurable(lsn)
  }

  flush(): void {
    this.#current?.flush()
  }

  /** The stretch at hand grows no more. Of a timeline that is `complete` the spool's files go as far as they are stored. */
  end(rest: 'complete' | 'kept'): void {
    const current = this.#current
    this.#current = undefined
    if (current === undefined) return
    current.end()
    if (rest === 'complete') this.#track(current, this.#deleteAfter(current.branch))
  }

  /** Stores the rest, for as long as a receiver that stops may wait. What is left stays in the spool, and is said. */
  async finish(): Promise<void> {
    for (const { archive } of this.#running) archive.end()
    const timeout = setTimeout(() => this.#abort.abort(), FINISH_MS)
    await Promise.all([...this.#running].map(({ done }) => done))
    clearTimeout(timeout)
    if (!this.#abort.signal.aborted) return
    const { code, message } = new Failure(
      'STORAGE_STALLED',
      'stopped before the storage had taken everything: the rest is in the spool',
    )
    this.#options.onEvent({ kind: 'alarm', code, message, attempts: 1 })
  }

  /** Ends all work at once. What is not stored stays in the spool. */
  async abort(): Promise<void> {
    this.#abort.abort()
    await Promise.all([...this.#running].map(({ done }) => done))
  }

  /** A storage that fails is said at once, then every so often, with what it means for the spool. */
  #tell(event: StreamEvent): void {
    if (event.kind === 'cleared' && !this.#pace.end(event.code)) return
    if (event.kind !== 'alarm') this.#options.onEvent(event)
    else if (this.#pace.isDue(event.code)) this.#options.onEvent({ ...event, backlog: this.backlog })
  }

  #start(archive: BranchArchive): void {
    this.#track(archive, archive.run(this.#abort.signal))
  }

  /**
   * Earlier stretches of the branch may still be on their way, and read the files: behind a gap, say, while the storage was away. What
   * the repository does not have then is kept, whatever became of them.
   */
  async #deleteAfter(branch: Branch): Promise<void> {
    const { repository, spool, clock } = this.#options
    const signal = this.#abort.signal
    const before = [...this.#running].filter(({ archive }) => archive.branch.path.branch === branch.path.branch)
    await Promise.all(before.map(({ done }) => done))
    for (let attempts = 1; !signal.aborted; attempts += 1) {
      try {
        await spool.deleteStored(branch, await storedRanges(repository, branch, signal))
        return
      } catch (error) {
        if (signal.aborted) return
        if (!(error instanceof Failure)) throw error
        this.#tell({ kind: 'alarm', code: error.code, message: error.message, attempts })
      }
      await sleepUnlessAborted(clock, LOOK_AGAIN_MS, signal)
    }
  }

  #track(archive: BranchArchive, work: Promise<void>): void {
    const settled = async () => {
      try {
        await work
      } catch (error) {
        this.#failure ??= error
        this.#failed.abort(error)
      }
      this.#running.delete(running)
    }
    const running: RunningArchive = { archive, done: settled() }
    this.#running.add(running)
  }
}

/** What the repository has of a branch, without holes each. */
async function storedRanges(repository: Repository, branch: Branch, signal: AbortSignal): Promise<LsnRange[]> {
  const objects: { startLsn: Lsn; endLsn: Lsn }[] = []
  for await (const { startLsn, endLsn } of listWal(repository, branch, { signal })) objects.push({ startLsn, endLsn })
  return joinRanges(objects)
}

function paceOf({ acknowledge, partialEverySeconds }: ArchivesOptions['component']['stream']): ArchivePace {
  if (acknowledge === 'spool') return { kind: 'every', seconds: partialEverySeconds }
  return { kind: 'at once' }
}
