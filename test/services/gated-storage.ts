import type { CallOptions, ObjectEntry, ObjectSource, Storage } from '../../src/storage/storage.ts'

/** Another storage whose reads of certain objects wait until the gate is opened. */
export class GatedStorage implements Storage {
  readonly description: string
  readonly #inner: Storage
  readonly #isHeld: (key: string) => boolean
  readonly #gate = Promise.withResolvers<void>()

  constructor(inner: Storage, isHeld: (key: string) => boolean) {
    this.#inner = inner
    this.#isHeld = isHeld
    this.description = inner.description
  }

  open(): void {
    this.#gate.resolve()
  }

  async put(key: string, source: ObjectSource, options?: CallOptions): Promise<void> {
    await this.#inner.put(key, source, options)
  }

  async *get(key: string, options?: CallOptions): AsyncGenerator<Uint8Array> {
    if (this.#isHeld(key)) await this.#gate.promise
    yield* this.#inner.get(key, options)
  }

  async getRange(key: string, range: { offset: number; length: number }, options?: CallOptions): Promise<Buffer> {
    return await this.#inner.getRange(key, range, options)
  }

  list(prefix: string, options?: CallOptions): AsyncIterable<ObjectEntry> {
    return this.#inner.list(prefix, options)
  }

  async delete(key: string, options?: CallOptions): Promise<void> {
    await this.#inner.delete(key, options)
  }
}
