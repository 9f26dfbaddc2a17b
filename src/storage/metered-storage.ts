import { sourcePieces, type CallOptions, type ObjectEntry, type ObjectSource, type Storage } from './storage.ts'

/** Another storage, with a count of the bytes that were put through this one, apart for each first part of the keys. */
export class MeteredStorage implements Storage {
  readonly description: string
  readonly #inner: Storage
  readonly #putBytes = new Map<string, number>()

  constructor(inner: Storage) {
    this.#inner = inner
    this.description = inner.description
  }

  /** Bytes of all objects put whose key begins with `folder/`; of all objects without an argument. */
  putBytes(folder?: string): number {
    if (folder !== undefined) return this.#putBytes.get(folder) ?? 0
    return [...this.#putBytes.values()].reduce((sum, bytes) => sum + bytes, 0)
  }

  async put(key: string, source: ObjectSource, options?: CallOptions): Promise<void> {
    const folder = key.slice(0, Math.max(0, key.indexOf('/')))
    let bytes = 0
    const metered = async function* () {
      for await (const piece of sourcePieces(source)) {
        bytes += piece.length
        yield piece
      }
    }
    await this.#inner.put(key, metered(), options)
    this.#putBytes.set(folder, (this.#putBytes.get(folder) ?? 0) + bytes)
  }

  get(key: string, options?: CallOptions): AsyncIterable<Uint8Array> {
    return this.#inner.get(key, options)
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
