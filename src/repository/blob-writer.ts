import { blobIdentity, type BlobKind } from './blob.ts'
import { BlobIndex, type BlobIndexSource } from './blob-index.ts'
import { encodeIndexEntry } from './index-table.ts'
import type { KeyRing } from './key-ring.ts'
import { PACK_BYTES, PackBuilder } from './pack.ts'

/** Identities that this writer remembers having stored; beyond that, equal content of one run may be stored twice. */
const REMEMBERED_MAX = 100_000

/** Bytes of a pack, in order; `closed`, with its last ones, are the index entries of its blobs. */
export interface PackOutput {
  readonly pack: string
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly closed?: Uint8Array<ArrayBuffer>
}

export interface BlobWriterOptions {
  readonly ring: KeyRing
  readonly index: BlobIndexSource
  readonly compressionLevel: number
  /** How the names of the packs end: they are of a run with a lease. */
  readonly packSuffix?: string
}

/** Stores blobs that the repository does not have yet into packs of its own. One for each thread; the bytes leave by `drain()`. */
export class BlobWriter {
  readonly #ring: KeyRing
  readonly #index: BlobIndex
  readonly #level: number
  readonly #packSuffix: string | undefined
  readonly #remembered = new Set<string>()
  #pack: PackBuilder | undefined
  #outputs: PackOutput[] = []
  /** Raw bytes that were not stored because the repository had them. */
  reusedBytes = 0

  constructor(options: BlobWriterOptions) {
    this.#ring = options.ring
    this.#index = new BlobIndex(options.index)
    this.#level = options.compressionLevel
    this.#packSuffix = options.packSuffix
  }

  /** Stores content unless it is there already. */
  store(kind: BlobKind, content: Uint8Array): Buffer {
    const identity = blobIdentity(this.#ring, kind, content)
    if (this.has(identity)) {
      this.reusedBytes += content.length
      return identity
    }
    this.#pack ??= new PackBuilder(this.#ring, this.#level, this.#packSuffix)
    this.#pack.add(kind, identity, content)
    this.#remember(identity)
    if (this.#pack.sizeBytes >= PACK_BYTES) this.closePack()
    return identity
  }

  /** Whether the blob is in the repository, or in a pack of this writer. */
  has(identity: Buffer): boolean {
    return this.#remembered.has(identity.toString('latin1')) || this.#index.find(identity) !== undefined
  }

  /** What was made since the last call. */
  drain(): PackOutput[] {
    if (this.#pack !== undefined) this.#take(this.#pack)
    const outputs = this.#outputs
    this.#outputs = []
    return outputs
  }

  /** Ends the open pack, if there is one. */
  closePack(): void {
    if (this.#pack === undefined) return
    this.#pack.close()
    this.#take(this.#pack, Uint8Array.from(Buffer.concat(this.#pack.locations.map(encodeIndexEntry))))
    this.#pack = undefined
  }

  close(): void {
    this.#index.close()
  }

  #take(pack: PackBuilder, closed?: Uint8Array<ArrayBuffer>): void {
    const bytes = pack.take()
    if (bytes.length === 0 && closed === undefined) return
    this.#outputs.push({ pack: pack.pack, bytes, ...(closed === undefined ? {} : { closed }) })
  }

  #remember(identity: Buffer): void {
    this.#remembered.add(identity.toString('latin1'))
    if (this.#remembered.size <= REMEMBERED_MAX) return
    const [oldest] = this.#remembered
    if (oldest !== undefined) this.#remembered.delete(oldest)
  }
}
