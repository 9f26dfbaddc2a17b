import { forEachConcurrent } from '../stream/for-each-concurrent.ts'
import { ownBytes } from '../stream/own-bytes.ts'
import { assert } from '../assert.ts'
import { Failure } from '../errors.ts'
import { openBlob, type BlobKind, type BlobLocation } from './blob.ts'
import { BlobIndex, blobMissing, packMissing, type BlobIndexSource } from './blob-index.ts'
import { packKey } from './layout.ts'
import { openPackHeader } from './pack.ts'
import type { Repository } from './repository.ts'
import { damaged, HEADER_BYTES } from './sealed-object.ts'

/** Blobs this near to each other are read by one range. */
const GAP_BYTES = 64 * 1024
/** No range is longer than this. */
const RANGE_BYTES = 16 * 1024 * 1024
const RANGES_AT_ONCE = 4
const PACK_HEADERS_MAX = 4096

/** A blob as it is stored, with what is needed to open it. */
export interface StoredBlob {
  readonly location: BlobLocation
  /** In the buffer of the range that was read: blobs that lie near each other share it, and nothing else does. */
  readonly stored: Buffer<ArrayBuffer>
  readonly packHeader: Buffer
}

export type FetchBlobs = (identities: Iterable<Buffer>, what: string, signal?: AbortSignal) => Promise<Map<string, StoredBlob>>

/** Reads blobs by identity, near ones together. `onDamage` is told of each copy of a blob that does not open. Close it. */
export class BlobReader {
  readonly #repository: Repository
  readonly #onDamage: (found: { pack: string; problem: string }) => void
  readonly #index: BlobIndex
  readonly #damage: readonly string[]
  readonly #headers = new Map<string, Promise<Buffer>>()

  constructor(
    repository: Repository,
    index: BlobIndexSource,
    onDamage: (found: { pack: string; problem: string }) => void = () => undefined,
  ) {
    this.#repository = repository
    this.#onDamage = onDamage
    this.#index = new BlobIndex(index)
    this.#damage = index.damage
  }

  close(): void {
    this.#index.close()
  }

  /** Where a blob is. Throws BLOB_MISSING; `what` names who needs it. */
  locate(identity: Buffer, what: string): BlobLocation {
    const location = this.#index.find(identity)
    if (location === undefined) throw blobMissing(identity, what, this.#damage)
    return location
  }

  /** Every place where a blob is, at least one. Throws BLOB_MISSING; `what` names who needs it. */
  places(identity: Buffer, what: string): readonly BlobLocation[] {
    const places = this.#index.findAll(identity)
    if (places.length === 0) throw blobMissing(identity, what, this.#damage)
    return places
  }

  /**
   * The stored bytes of many blobs, by identity in hexadecimal. Memory: theirs, and the gaps between them; the caller asks for a
   * bounded number at a time. Throws BLOB_MISSING, OBJECT_DAMAGED for a pack that is gone or too short.
   */
  async fetch(identities: Iterable<Buffer>, what: string, signal?: AbortSignal): Promise<Map<string, StoredBlob>> {
    const wanted = new Map<string, BlobLocation>()
    for (const identity of identities) {
      const name = identity.toString('hex')
      if (!wanted.has(name)) wanted.set(name, this.locate(identity, what))
    }
    const found = new Map<string, StoredBlob>()
    const options = { limit: RANGES_AT_ONCE, ...(signal === undefined ? {} : { signal }) }
    await forEachConcurrent(joinRanges([...wanted.values()]), options, async (range) => {
      for (const blob of await this.#readRange(range)) found.set(blob.location.identity.toString('hex'), blob)
    })
    return found
  }

  /** Fetches and opens one blob of a kind. Throws BLOB_MISSING; OBJECT_DAMAGED when no copy of it opens. */
  async read(identity: Buffer, kind: BlobKind, what: string): Promise<Buffer> {
    return await this.withSound(async (fetch) => {
      const blobs = await fetch([identity], what)
      return openStoredBlob(this.#repository, blobs.get(identity.toString('hex'))!, kind)
    })
  }

  /**
   * Does something with blobs. When it finds one damaged, it is done once more with copies that were tried to open first, from whatever pack has one. Throws
   * OBJECT_DAMAGED when a blob has no copy that opens.
   */
  async withSound<T>(use: (fetch: FetchBlobs) => Promise<T>): Promise<T> {
    try {
      return await use((...wanted) => this.fetch(...wanted))
    } catch (error) {
      if (!isDamage(error)) throw error
      return await use((...wanted) => this.#fetchSound(...wanted))
    }
  }

  /** As `fetch`, one by one: the first copy of each that opens. */
  async #fetchSound(identities: Iterable<Buffer>, what: string, signal?: AbortSignal): Promise<Map<string, StoredBlob>> {
    const found = new Map<string, StoredBlob>()
    for (const identity of identities) {
      signal?.throwIfAborted()
      const name = identity.toString('hex')
      if (!found.has(name)) found.set(name, await this.#soundCopy(identity, what))
    }
    return found
  }

  async #soundCopy(identity: Buffer, what: string): Promise<StoredBlob> {
    let damage: Failure | undefined
    for (const location of this.places(identity, what)) {
      const { pack, offset, storedBytes: length } = location
      try {
        const [blob] = await this.#readRange({ pack, offset, length, locations: [location] })
        openStoredBlob(this.#repository, blob!, location.kind)
        return blob!
      } catch (error) {
        if (!isDamage(error)) throw error
        this.#onDamage({ pack, problem: error.message })
        damage ??= error
      }
    }
    assert(damage !== undefined, 'a blob that was located has a place')
    throw damage
  }

  async #readRange(range: PackRange): Promise<StoredBlob[]> {
    const name = packKey(range.pack)
    try {
      const packHeader = await this.#packHeader(range.pack)
      const read = await this.#repository.storage.getRange(name, { offset: range.offset, length: range.length })
      const bytes = Buffer.from(ownBytes(read).buffer)
      if (bytes.length < range.length) throw damaged(name, `it ends at ${range.offset + bytes.length}, before a blob does`)
      return range.locations.map((location) => {
        const at = location.offset - range.offset
        return { location, packHeader, stored: bytes.subarray(at, at + location.storedBytes) }
      })
    } catch (error) {
      if (error instanceof Failure && error.code === 'OBJECT_MISSING') throw packMissing(range.pack)
      throw error
    }
  }

  #packHeader(pack: string): Promise<Buffer> {
    const known = this.#headers.get(pack)
    if (known !== undefined) return known
    const header = this.#repository.storage.getRange(packKey(pack), { offset: 0, length: HEADER_BYTES })
    this.#headers.set(pack, header)
    // A failed read is not remembered.
    header.catch(() => this.#headers.delete(pack))
    if (this.#headers.size > PACK_HEADERS_MAX) {
      const [oldest] = this.#headers.keys()
      if (oldest !== undefined) this.#headers.delete(oldest)
    }
    return header
  }
}

function isDamage(error: unknown): error is Failure {
  return error instanceof Failure && error.code === 'OBJECT_DAMAGED'
}

/** Opens a fetched blob, which has to be of this kind. Throws OBJECT_DAMAGED. */
export function openStoredBlob(repository: Pick<Repository, 'ring'>, blob: StoredBlob, kind: BlobKind): Buffer {
  const { location, packHeader, stored } = blob
  const name = packKey(location.pack)
  if (location.kind !== kind) throw damaged(name, `the blob at ${location.offset} is a ${location.kind}, expected a ${kind}`)
  return openBlob(openPackHeader(repository.ring, location.pack, packHeader), location, stored, name)
}

interface PackRange {
  readonly pack: string
  readonly offset: number
  readonly length: number
  readonly locations: readonly BlobLocation[]
}

/** Joins blobs that lie near each other in one pack into ranges. */
function joinRanges(locations: BlobLocation[]): PackRange[] {
  locations.sort((left, right) => (left.pack === right.pack ? left.offset - right.offset : left.pack < right.pack ? -1 : 1))
  const ranges: { pack: string; offset: number; length: number; locations: BlobLocation[] }[] = []
  for (const location of locations) {
    const last = ranges.at(-1)
    const end = location.offset + location.storedBytes
    const near = last?.pack === location.pack && location.offset - (last.offset + last.length) <= GAP_BYTES
    if (last !== undefined && near && end - last.offset <= RANGE_BYTES) {
      last.length = end - last.offset
      last.locations.push(location)
    } else ranges.push({ pack: location.pack, offset: location.offset, length: location.storedBytes, locations: [location] })
  }
  return ranges
}
