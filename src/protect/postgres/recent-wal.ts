import type { Lsn } from '../../postgres/lsn.ts'
import type { LsnRange } from '../../repository/wal-archive.ts'

/** Pieces that follow one another are put together up to this size: a commit's are small. */
const CHUNK_BYTES = 64 * 1024
const CHUNKS_MAX = 64

/** The last 4 MiB of what was written, in memory: what goes out at once need not be read back and decrypted. */
export class RecentWal {
  readonly #chunks: { startLsn: Lsn; length: number; readonly bytes: Buffer }[] = []

  /** Takes bytes that follow on; what does not follow on begins anew. */
  append(lsn: Lsn, bytes: Uint8Array): void {
    if (this.#endLsn !== lsn) this.#chunks.length = 0
    for (let taken = 0; taken < bytes.length;) {
      let last = this.#chunks.at(-1)
      if (last === undefined || last.length === CHUNK_BYTES) {
        // Never written again: a reader may still hold it.
        if (this.#chunks.length === CHUNKS_MAX) this.#chunks.shift()
        last = { startLsn: lsn + BigInt(taken), length: 0, bytes: Buffer.allocUnsafe(CHUNK_BYTES) }
        this.#chunks.push(last)
      }
      const part = bytes.subarray(taken, taken + CHUNK_BYTES - last.length)
      last.bytes.set(part, last.length)
      last.length += part.length
      taken += part.length
    }
  }

  /** The bytes of a range, if all of it is held. */
  read(range: LsnRange): Buffer[] | undefined {
    const [first] = this.#chunks
    if (first === undefined || range.from < first.startLsn || range.to > this.#endLsn!) return undefined
    const pieces: Buffer[] = []
    for (const { startLsn, length, bytes } of this.#chunks) {
      const from = range.from > startLsn ? Number(range.from - startLsn) : 0
      const to = Number(range.to - startLsn)
      if (from < length && to > from) pieces.push(bytes.subarray(from, Math.min(to, length)))
    }
    return pieces
  }

  get #endLsn(): Lsn | undefined {
    const last = this.#chunks.at(-1)
    return last === undefined ? undefined : last.startLsn + BigInt(last.length)
  }
}
