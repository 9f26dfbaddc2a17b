import type { Clock } from '../../clock.ts'
import type { Failure } from '../../errors.ts'
import { AlarmPace } from './backlog.ts'
import type { StreamEvent } from './stream-event.ts'

const CODES = ['STORAGE_UNREACHABLE', 'STORAGE_FULL', 'STORAGE_STALLED'] as const

/** Says that the storage keeps the receiver from streaming: while nothing flows, no archive does. */
export class StorageAlarm {
  readonly #pace: AlarmPace
  readonly #onEvent: (event: StreamEvent) => void

  constructor(clock: Clock, onEvent: (event: StreamEvent) => void) {
    this.#pace = new AlarmPace(clock)
    this.#onEvent = onEvent
  }

  /** Whatever kept it from streaming; only what is the storage's is said. */
  note({ code, message }: Failure, attempts: number): void {
    const isStorage = CODES.some((each) => each === code)
    if (isStorage && this.#pace.isDue(code)) this.#onEvent({ kind: 'alarm', code, message, attempts })
  }

  /** It streams again. */
  end(): void {
    for (const code of CODES) if (this.#pace.end(code)) this.#onEvent({ kind: 'cleared', code })
  }
}
