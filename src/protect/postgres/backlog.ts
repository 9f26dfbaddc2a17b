import type { Clock } from '../../clock.ts'
import type { Lsn } from '../../postgres/lsn.ts'
import type { Backlog } from './stream-event.ts'

/** Said again after this long, while it lasts. */
const ALARM_EVERY_MS = 30_000
const SAMPLE_MS = 1000
const SAMPLES_MAX = 60

/** Lets an alarm through at once, and then every so often as long as its trouble lasts: nobody reads one a second. */
export class AlarmPace {
  readonly #clock: Clock
  readonly #saidMs = new Map<string, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  isDue(subject: string): boolean {
    const saidMs = this.#saidMs.get(subject)
    const nowMs = this.#clock.now()
    if (saidMs !== undefined && nowMs - saidMs < ALARM_EVERY_MS) return false
    this.#saidMs.set(subject, nowMs)
    return true
  }

  /** The trouble is over: the next one is said at once. True when it had been said. */
  end(subject: string): boolean {
    return this.#saidMs.delete(subject)
  }
}

/** How fast WAL comes, over the last minute, and how long a spool has room for it at that rate. */
export class Inflow {
  readonly #clock: Clock
  readonly #samples: { atMs: number; lsn: Lsn }[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** WAL up to `lsn` has come. */
  note(lsn: Lsn): void {
    const atMs = this.#clock.now()
    const last = this.#samples.at(-1)
    // Another branch begins where it likes.
    if (last !== undefined && lsn < last.lsn) this.#samples.length = 0
    else if (last !== undefined && atMs - last.atMs < SAMPLE_MS) return
    this.#samples.push({ atMs, lsn })
    if (this.#samples.length > SAMPLES_MAX) this.#samples.shift()
  }

  forecast(spool: { readonly sizeBytes: number; readonly bytesMax: number }): Backlog {
    const { sizeBytes: waitingBytes, bytesMax: spoolBytesMax } = spool
    const rate = this.#bytesPerSecond()
    const room = Math.max(0, spoolBytesMax - waitingBytes)
    return { waitingBytes, spoolBytesMax, secondsUntilFull: rate > 0 ? Math.round(room / rate) : null }
  }

  #bytesPerSecond(): number {
    const [first] = this.#samples
    const last = this.#samples.at(-1)
    if (first === undefined || last === undefined || last.atMs <= first.atMs) return 0
    // Up to now: WAL that stopped coming fills nothing.
    return Number(last.lsn - first.lsn) / ((this.#clock.now() - first.atMs) / 1000)
  }
}
