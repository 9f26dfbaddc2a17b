import type { Lsn } from '../../postgres/lsn.ts'
import type { LsnRange } from '../../repository/wal-archive.ts'

/** Puts of one branch's WAL that run side by side: what they have reached together, without a hole. */
export class WalUploads {
  readonly #onNews: () => void
  readonly #running = new Map<Promise<void>, 'piece' | 'segment'>()
  /** Stored, but behind something that is not. */
  #ahead: LsnRange[] = []
  #archivedTo: Lsn
  #failure: { readonly error: unknown } | undefined

  /** `onNews` is called whenever one has ended. */
  constructor(options: { archivedTo: Lsn; onNews: () => void }) {
    this.#archivedTo = options.archivedTo
    this.#onNews = options.onNews
  }

  /** Everything before this is stored. */
  get archivedTo(): Lsn {
    return this.#archivedTo
  }

  running(kind: 'piece' | 'segment'): number {
    return [...this.#running.values()].filter((each) => each === kind).length
  }

  /** Keeps the work; what it throws, `throwFailure` throws. `work` is given those that run already. */
  begin(kind: 'piece' | 'segment', work: (earlier: Promise<unknown>) => Promise<void>): void {
    const settled = async () => {
      try {
        await work(Promise.all(earlier))
      } catch (error) {
        this.#failure ??= { error }
      }
      this.#running.delete(running)
      this.#onNews()
    }
    const earlier = [...this.#running.keys()]
    const running = settled()
    this.#running.set(running, kind)
  }

  /** Notes what is stored. True when that made the hole-free part longer. */
  setStored(range: LsnRange): boolean {
    this.#ahead.push(range)
    const before = this.#archivedTo
    for (;;) {
      const next = this.#ahead.find(({ from, to }) => from <= this.#archivedTo && to > this.#archivedTo)
      if (next === undefined) break
      this.#archivedTo = next.to
    }
    this.#ahead = this.#ahead.filter(({ to }) => to > this.#archivedTo)
    return this.#archivedTo > before
  }

  throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error
  }

  /** Until all that run have ended. Never throws. */
  async settled(): Promise<void> {
    await Promise.all(this.#running.keys())
  }
}
