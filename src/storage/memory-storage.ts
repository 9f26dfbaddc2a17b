import { Failure } from '../errors.ts'
import { sourcePieces, type ObjectEntry, type ObjectSource, type Storage } from './storage.ts'

/** Objects in memory, for tests of what stands above a storage. It keeps every promise of the contract but that of surviving. */
export class MemoryStorage implements Storage {
  readonly description = 'memory'
  readonly #objects = new Map<string, Buffer>()

  async put(key: string, source: ObjectSource): Promise<void> {
    const pieces: Uint8Array[] = []
    for await (const piece of sourcePieces(source)) pieces.push(Buffer.from(piece))
    if (this.#objects.has(key)) throw new Failure('OBJECT_EXISTS', `cannot put "${key}": it exists`)
    this.#objects.set(key, Buffer.concat(pieces))
  }

  async *get(key: string): AsyncGenerator<Uint8Array> {
    yield await this.getRange(key, { offset: 0, length: Number.MAX_SAFE_INTEGER })
  }

  async getRange(key: string, range: { offset: number; length: number }): Promise<Buffer> {
    const object = this.#objects.get(key)
    if (object === undefined) throw new Failure('OBJECT_MISSING', `cannot read "${key}": it is not there`)
    return Buffer.from(object.subarray(range.offset, range.offset + range.length))
  }

  async *list(prefix: string): AsyncGenerator<ObjectEntry> {
    const found = [...this.#objects].filter(([key]) => key.startsWith(prefix))
    found.sort(([left], [right]) => Buffer.compare(Buffer.from(left), Buffer.from(right)))
    for (const [key, object] of found) yield { key, sizeBytes: object.length }
  }

  async delete(key: string): Promise<void> {
    this.#objects.delete(key)
  }
}
