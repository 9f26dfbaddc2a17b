import { putIndex } from './index-sync.ts'
import { releaseBytes } from '../stream/own-bytes.ts'
import type { PackOutput } from './blob-writer.ts'
import { splitIndexEntries } from './index-table.ts'
import { packKey } from './layout.ts'
import type { Repository } from './repository.ts'

/** An index object is put over this many entries (4 MiB). */
const INDEX_ENTRIES = 65_536
/** Finished packs whose put (with its fsync) may still be under way. */
const UPLOADS_MAX = 6

interface Upload {
  readonly write: (bytes: Uint8Array) => Promise<void>
  readonly end: () => void
  readonly fail: (error: unknown) => void
  readonly done: Promise<void>
}

/**
 * Puts the packs that several writers make at once, and index objects over those that are durable. Order after a crash: a pack
 * without an index is found by its directory; an index never names a pack that is not there.
 */
export class PackUploads {
  readonly #repository: Repository
  readonly #abort = new AbortController()
  readonly #signal: AbortSignal
  readonly #open = new Map<string, Upload>()
  readonly #finishing = new Set<Promise<void>>()
  #entries: Buffer[] = []
  #failure: unknown
  #last: Promise<void> = Promise.resolve()
  storedBytes = 0

  constructor(repository: Repository, signal: AbortSignal) {
    this.#repository = repository
    this.#signal = AbortSignal.any([signal, this.#abort.signal])
  }

  /**
   * Takes what a writer made, in the order of the calls. Resolves when the storage has taken it, so that nothing piles up.
   */
  accept(outputs: readonly PackOutput[]): Promise<void> {
    const accepted = this.#last.then(() => this.#accept(outputs))
    this.#last = accepted.catch(() => undefined)
    return accepted
  }

  async #accept(outputs: readonly PackOutput[]): Promise<void> {
    for (const output of outputs) {
      this.#throwIfFailed()
      let upload = this.#open.get(output.pack)
      if (upload === undefined) {
        upload = this.#begin(output.pack)
        this.#open.set(output.pack, upload)
      }
      this.storedBytes += output.bytes.length
      await upload.write(output.bytes)
      releaseBytes(output.bytes)
      if (output.closed !== undefined) await this.#finish(output.pack, upload, output.closed)
    }
  }

  /** Waits for all packs, then puts the index over what has none yet. Every pack must have been closed. */
  async finish(): Promise<void> {
    await Promise.all(this.#finishing)
    this.#throwIfFailed()
    await this.#putIndex()
  }

  /** Gives up packs that are not finished, and waits until nothing is under way. */
  async cancel(): Promise<void> {
    const ended = new Error('the run ended early')
    this.#abort.abort(ended)
    // An open pack must fail, never end: an end would make half a pack visible.
    for (const upload of this.#open.values()) upload.fail(ended)
    await Promise.allSettled([...this.#finishing, ...[...this.#open.values()].map((upload) => upload.done)])
  }

  async #finish(pack: string, upload: Upload, closed: Uint8Array): Promise<void> {
    upload.end()
    this.#open.delete(pack)
    const finishing = upload.done.then(() => {
      this.#entries.push(...splitIndexEntries(closed))
    })
    this.#track(finishing)
    if (this.#finishing.size >= UPLOADS_MAX) await Promise.race(this.#finishing)
    if (this.#entries.length >= INDEX_ENTRIES) await this.#putIndex()
  }

  async #putIndex(): Promise<void> {
    const entries = this.#entries
    this.#entries = []
    if (entries.length > 0) await putIndex(this.#repository, entries, this.#signal)
  }

  #track(work: Promise<void>): void {
    const tracked = work
      .catch((error: unknown) => {
        this.#failure ??= error
        this.#abort.abort(error)
      })
      .finally(() => this.#finishing.delete(tracked))
    this.#finishing.add(tracked)
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure as Error
    this.#signal.throwIfAborted()
  }

  #begin(pack: string): Upload {
    const channel = new ByteChannel()
    const done = this.#repository.storage.put(packKey(pack), channel, { signal: this.#signal })
    // A put that fails must release who waits to write, and is reported by them or by finish().
    done.catch((error: unknown) => {
      this.#failure ??= error
      channel.fail(error)
    })
    return { write: (bytes) => channel.write(bytes), end: () => channel.end(), fail: (error) => channel.fail(error), done }
  }
}

interface ChannelPiece {
  readonly bytes: Uint8Array
  readonly taken: () => void
  readonly failed: (error: unknown) => void
}

/** Hands pieces from writers to one reader: a write resolves when its piece was taken. A failure reaches both sides. */
class ByteChannel implements AsyncIterable<Uint8Array> {
  readonly #pieces: ChannelPiece[] = []
  #taking: ChannelPiece | undefined
  #ended = false
  #failure: { error: unknown } | undefined
  #wake: (() => void) | undefined

  write(bytes: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure.error as Error)
    return new Promise((taken, failed) => {
      this.#pieces.push({ bytes, taken, failed })
      this.#wake?.()
    })
  }

  end(): void {
    this.#ended = true
    this.#wake?.()
  }

  /** Also fails the piece that the reader has and will not finish with: a disk that is full ends a put in the middle of one. */
  fail(error: unknown): void {
    this.#failure = { error }
    this.#taking?.failed(error)
    for (const piece of this.#pieces.splice(0)) piece.failed(error)
    this.#wake?.()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure.error as Error
      const next = this.#pieces.shift()
      if (next !== undefined) {
        this.#taking = next
        yield next.bytes
        this.#taking = undefined
        next.taken()
      } else if (this.#ended) return
      else await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }
}
