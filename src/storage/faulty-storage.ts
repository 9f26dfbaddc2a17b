import { Failure } from '../errors.ts'
import { sourcePieces, type CallOptions, type ObjectEntry, type ObjectSource, type Storage } from './storage.ts'

/**
 * What goes wrong. `torn`: a put dies half way and leaves nothing (the contract), `error`: the call is refused,
 * `full`: no room, `flip`: one bit of what is read is wrong, `short`: what is read ends early, `stall`: no answer until the signal aborts,
 * `deaf`: none then either.
 */
export type Fault = 'torn' | 'error' | 'full' | 'flip' | 'short' | 'stall' | 'deaf'

export interface FaultDecision {
  readonly operation: 'put' | 'get' | 'list' | 'delete'
  readonly key: string
  /** How many calls came before this one. */
  readonly call: number
}

/** Another storage, with faults where `decide` says so. For tests. */
export class FaultyStorage implements Storage {
  readonly description: string
  readonly #inner: Storage
  readonly #decide: (decision: FaultDecision) => Fault | undefined
  #calls = 0

  constructor(inner: Storage, decide: (decision: FaultDecision) => Fault | undefined) {
    this.#inner = inner
    this.#decide = decide
    this.description = `faulty ${inner.description}`
  }

  async put(key: string, source: ObjectSource, options: CallOptions = {}): Promise<void> {
    const fault = await this.#fault('put', key, options)
    if (fault === 'torn') {
      for await (const _ of sourcePieces(source)) break
      throw new Failure('STORAGE_UNREACHABLE', `cannot put "${key}": the connection was lost half way`)
    }
    await this.#inner.put(key, source, options)
  }

  async *get(key: string, options: CallOptions = {}): AsyncGenerator<Uint8Array> {
    const fault = await this.#fault('get', key, options)
    for await (const piece of this.#inner.get(key, options)) yield damage(piece, fault)
  }

  async getRange(key: string, range: { offset: number; length: number }, options: CallOptions = {}): Promise<Buffer> {
    const fault = await this.#fault('get', key, options)
    return Buffer.from(damage(await this.#inner.getRange(key, range, options), fault))
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncGenerator<ObjectEntry> {
    await this.#fault('list', prefix, options)
    yield* this.#inner.list(prefix, options)
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    await this.#fault('delete', key, options)
    await this.#inner.delete(key, options)
  }

  async #fault(operation: FaultDecision['operation'], key: string, options: CallOptions): Promise<Fault | undefined> {
    const fault = this.#decide({ operation, key, call: this.#calls++ })
    if (fault === 'deaf') await new Promise<never>(() => undefined)
    if (fault === 'stall') {
      await new Promise<never>((_, reject) => {
        const abort = () => reject(options.signal!.reason as Error)
        if (options.signal?.aborted === true) abort()
        options.signal?.addEventListener('abort', abort, { once: true })
      })
    }
    if (fault === 'error') throw new Failure('STORAGE_UNREACHABLE', `cannot ${operation} "${key}": injected fault`)
    if (fault === 'full') throw new Failure('STORAGE_FULL', `cannot ${operation} "${key}": injected fault`)
    return fault
  }
}

function damage(bytes: Uint8Array, fault: Fault | undefined): Uint8Array {
  if (fault === 'short') return bytes.subarray(0, Math.floor(bytes.length / 2))
  if (fault !== 'flip' || bytes.length === 0) return bytes
  const copy = Buffer.from(bytes)
  const at = Math.floor(copy.length / 2)
  copy[at] = copy[at]! ^ 0x10
  return copy
}
