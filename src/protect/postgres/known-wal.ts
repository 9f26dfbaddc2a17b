import type { Lsn } from '../../postgres/lsn.ts'
import type { LsnRange } from '../../repository/wal-archive.ts'

/** WAL that is stored already, held against what a server sends: side by side, in order, one piece of each in memory. */
export class KnownWal {
  readonly #stored: AsyncGenerator<Uint8Array>
  readonly #to: Lsn
  #at: Lsn
  #held: Uint8Array = new Uint8Array(0)

  /** `stored` gives the bytes of `range`; if it gives fewer, only those are compared. */
  constructor(stored: AsyncGenerator<Uint8Array>, range: LsnRange) {
    this.#stored = stored
    this.#at = range.from
    this.#to = range.to
  }

  /** Whether all that is known was compared. */
  get done(): boolean {
    return this.#at >= this.#to
  }

  /** Whether the next bytes are those that are stored; true for what lies beyond. Throws what reading the stored ones throws. */
  async agrees(bytes: Uint8Array): Promise<boolean> {
    for (let compared = 0; compared < bytes.length && !this.done;) {
      if (this.#held.length === 0) {
        const next = await this.#stored.next()
        if (next.done === true) this.#at = this.#to
        else this.#held = next.value
        continue
      }
      const length = Math.min(this.#held.length, bytes.length - compared)
      const stored = this.#held.subarray(0, length)
      if (Buffer.compare(stored, bytes.subarray(compared, compared + length)) !== 0) return false
      this.#held = this.#held.subarray(length)
      compared += length
      this.#at += BigInt(length)
    }
    return true
  }

  async close(): Promise<void> {
    await this.#stored.return(undefined)
  }
}
