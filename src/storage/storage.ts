/** What a put takes: the whole object, or its bytes as they come. */
export type ObjectSource = Uint8Array | AsyncIterable<Uint8Array>

export interface ObjectEntry {
  readonly key: string
  readonly sizeBytes: number
}

export interface CallOptions {
  readonly signal?: AbortSignal
}

/**
 * Where a repository's objects lie. Keys are `a/b/c`, of `[A-Za-z0-9._-]` and slashes. The promises, which
 * `storage-contract.ts` tests on every driver:
 *
 * - `put` is atomic and durable: when it resolves, the whole object survives a crash of the process and of the machine; when it
 *   rejects or the process dies, there is the whole object or none. It never replaces: OBJECT_EXISTS. A piece of a source is the
 *   source's again as soon as the next one is asked for.
 * - `get` and `getRange` give the bytes that were put, or throw OBJECT_MISSING. A range beyond the end is cut short.
 * - `list` gives every object below a prefix in ascending order of its key's bytes, each once.
 * - `delete` of what is not there does nothing.
 *
 * Every driver throws STORAGE_UNREACHABLE or STORAGE_FULL for what is not the object's own fault.
 */
export interface Storage {
  /** For messages: what and where, without secrets. */
  readonly description: string
  put(key: string, source: ObjectSource, options?: CallOptions): Promise<void>
  get(key: string, options?: CallOptions): AsyncIterable<Uint8Array>
  getRange(key: string, range: { offset: number; length: number }, options?: CallOptions): Promise<Buffer>
  list(prefix: string, options?: CallOptions): AsyncIterable<ObjectEntry>
  delete(key: string, options?: CallOptions): Promise<void>
}

/** Reads one whole object of at most `limitBytes`. Throws OBJECT_MISSING; what is longer is cut. */
export async function readObject(storage: Storage, key: string, limitBytes = 64 * 1024 * 1024): Promise<Buffer> {
  return await storage.getRange(key, { offset: 0, length: limitBytes })
}

/** The pieces of a source, whichever form it has. */
export async function* sourcePieces(source: ObjectSource): AsyncGenerator<Uint8Array> {
  if (source instanceof Uint8Array) yield source
  else yield* source
}
