import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import type { Archives } from './archives.ts'
import { AlarmPace } from './backlog.ts'
import { sleepUnlessAborted } from './sleep.ts'
import type { Spool, SpoolWriter } from './spool.ts'
import type { StreamEvent } from './stream-event.ts'

const SPOOL_RETRY_MS_FIRST = 250
const SPOOL_RETRY_MS_MAX = 15_000
const SPOOL_FULL_LOOK_MS = 10_000

export interface SpoolIntakeOptions {
  readonly spool: Spool
  readonly archives: Archives
  readonly clock: Clock
  readonly stop: AbortSignal
  readonly onEvent: (event: StreamEvent) => void
}

/** The way into the spool: waits for room and for the disk, however long it takes, and says so. Nothing is dropped meanwhile. */
export class SpoolIntake {
  readonly #options: SpoolIntakeOptions
  readonly #pace: AlarmPace

  constructor(options: SpoolIntakeOptions) {
    this.#options = options
    this.#pace = new AlarmPace(options.clock)
  }

  /** Back-pressure: while the spool is full, nothing more is read, and the server keeps its WAL. */
  async waitForRoom(bytes: number, segmentSize: number): Promise<void> {
    const { spool, archives, clock, stop, onEvent } = this.#options
    for (let attempts = 1; !spool.hasRoomFor(bytes, segmentSize); attempts += 1) {
      stop.throwIfAborted()
      if (this.#pace.isDue('SPOOL_FULL')) {
        const message = 'the spool is full: nothing more is acknowledged until the storage takes some'
        onEvent({ kind: 'alarm', code: 'SPOOL_FULL', message, attempts, backlog: { ...archives.backlog, secondsUntilFull: 0 } })
      }
      await spool.waitForRoom(clock, SPOOL_FULL_LOOK_MS, AbortSignal.any([stop, archives.failed]))
      archives.failed.throwIfAborted()
    }
    if (this.#pace.end('SPOOL_FULL')) onEvent({ kind: 'cleared', code: 'SPOOL_FULL' })
  }

  /** Until it is durable. While it is not, nothing is acknowledged, and the server waits or keeps its WAL. */
  async sync(writer: SpoolWriter): Promise<void> {
    const { clock, stop, onEvent } = this.#options
    for (let attempts = 0; ; attempts += 1) {
      try {
        await writer.sync()
        if (this.#pace.end('SPOOL_UNWRITABLE')) onEvent({ kind: 'cleared', code: 'SPOOL_UNWRITABLE' })
        return
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        const { code, message } = error
        if (this.#pace.isDue('SPOOL_UNWRITABLE')) onEvent({ kind: 'alarm', code, message, attempts: attempts + 1 })
      }
      await sleepUnlessAborted(clock, Math.min(SPOOL_RETRY_MS_MAX, SPOOL_RETRY_MS_FIRST * 2 ** Math.min(attempts, 16)), stop)
      stop.throwIfAborted()
    }
  }
}
