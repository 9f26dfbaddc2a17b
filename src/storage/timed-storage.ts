import { Failure } from '../errors.ts'
import type { CallOptions, ObjectEntry, ObjectSource, Storage } from './storage.ts'

/** Each call that the file system does not end holds one of the process's few threads: beside so many no other is begun. */
const STUCK_MAX = 2

/**
 * Another storage, whose every call, and every piece of a long one, comes within a time or throws STORAGE_STALLED, and ends at once when
 * its signal aborts, even where the storage heeds no signal: an fsync on a dead network file system never returns. What does
 * not end is left to itself; it may still be done later, which an immutable object allows.
 */
export class TimedStorage implements Storage {
  readonly description: string
  readonly #inner: Storage
  readonly #timeoutMs: number
  readonly #stuck = new Set<Promise<void>>()

  constructor(inner: Storage, timeoutMs: number) {
    this.description = inner.description
    this.#inner = inner
    this.#timeoutMs = timeoutMs
  }

  async put(key: string, source: ObjectSource, options: CallOptions = {}): Promise<void> {
    await this.#within(`put "${key}" into`, options, (signal) => this.#inner.put(key, source, { signal }))
  }

  get(key: string, options: CallOptions = {}): AsyncIterable<Uint8Array> {
    return this.#each(`get "${key}" from`, options, (signal) => this.#inner.get(key, { signal }))
  }

  async getRange(key: string, range: { offset: number; length: number }, options: CallOptions = {}): Promise<Buffer> {
    return await this.#within(`get "${key}" from`, options, (signal) => this.#inner.getRange(key, range, { signal }))
  }

  list(prefix: string, options: CallOptions = {}): AsyncIterable<ObjectEntry> {
    return this.#each(`list "${prefix}" in`, options, (signal) => this.#inner.list(prefix, { signal }))
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    await this.#within(`delete "${key}" from`, options, (signal) => this.#inner.delete(key, { signal }))
  }

  async *#each<T>(action: string, options: CallOptions, begin: (signal: AbortSignal) => AsyncIterable<T>): AsyncGenerator<T> {
    const ended = new AbortController()
    const iterator = begin(ended.signal)[Symbol.asyncIterator]()
    try {
      for (;;) {
        const next = await this.#within(action, options, (signal) => {
          signal.addEventListener('abort', () => ended.abort(signal.reason), { once: true })
          return iterator.next()
        })
        if (next.done === true) return
        yield next.value
      }
    } finally {
      // Of one that is stuck nothing comes back.
      if (!ended.signal.aborted) await iterator.return?.()
    }
  }

  async #within<T>(action: string, { signal }: CallOptions, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const limit = new AbortController()
    const timer = setTimeout(() => limit.abort(), this.#timeoutMs)
    const either = signal === undefined ? limit.signal : AbortSignal.any([signal, limit.signal])
    try {
      while (this.#stuck.size >= STUCK_MAX) await unlessAborted(Promise.race(this.#stuck), either)
      either.throwIfAborted()
      const working = work(either)
      try {
        return await unlessAborted(working, either)
      } finally {
        if (either.aborted) this.#watch(working)
      }
    } catch (cause) {
      if (!limit.signal.aborted || signal?.aborted === true || cause instanceof Failure) throw cause
      throw new Failure('STORAGE_STALLED', `cannot ${action} ${this.description}: no answer within ${this.#timeoutMs / 1000} s`, {
        hint: 'is the storage reachable, and the mount alive? It is tried again',
        cause,
      })
    } finally {
      clearTimeout(timer)
    }
  }

  #watch(working: Promise<unknown>): void {
    const settled = async () => {
      try {
        await working
      } catch {
        // Whoever asked was told already.
      }
      this.#stuck.delete(stuck)
    }
    const stuck: Promise<void> = settled()
    this.#stuck.add(stuck)
  }
}

/** What `work` gives, or the signal's reason as soon as it aborts. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>()
  const abort = () => aborted.reject(signal.reason as Error)
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  try {
    return await Promise.race([work, aborted.promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
