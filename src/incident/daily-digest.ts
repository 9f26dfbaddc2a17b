import { hasNotice, insertNotice } from '../catalog/notices.ts'
import type { Clock } from '../clock.ts'
import type { Channel } from './channel.ts'
import { digestDateDue, type DigestTime } from './digest.ts'
import { cleanText } from './message.ts'
import { digestKey, digestOf } from './outbox.ts'
import type { StoreReach } from './store-reach.ts'

const LINES_MAX = 1_000
const LINE_CHARACTERS = 500

export interface DigestOptions extends DigestTime {
  /** The figures: asked for once a day, by the node that comes first. It ends when the signal aborts. */
  readonly lines: (signal: AbortSignal) => Promise<readonly string[]>
}

/** Writes each day's digest, once, whichever node does it; it then goes its way as any other notice. */
export class DailyDigest {
  readonly #options: DigestOptions
  readonly #reach: StoreReach
  readonly #clock: Clock
  #done = ''

  constructor(options: DigestOptions, { reach, clock }: { reach: StoreReach; clock: Clock }) {
    this.#options = options
    this.#reach = reach
    this.#clock = clock
  }

  /** Throws STORE_UNREACHABLE, and what `lines` throws: then ask again later. */
  async makeDue(channels: readonly Channel[], signal: AbortSignal): Promise<void> {
    if (!channels.some(({ digest }) => digest)) return
    const date = digestDateDue(this.#options, this.#clock.now())
    if (date === undefined || date === this.#done) return
    if (!(await this.#reach.use(async (store) => hasNotice(store, digestKey(date))))) {
      const lines = (await this.#options.lines(signal)).slice(0, LINES_MAX).map((line) => cleanText(line, LINE_CHARACTERS))
      const at = new Date(this.#clock.now())
      // Of two nodes that came here at once, the second writes nothing.
      await this.#reach.use(async (store) => insertNotice(store, digestOf({ date, lines, at }, channels), at))
    }
    this.#done = date
  }
}
