import { Failure } from '../errors.ts'
import type { BlobLocation } from './blob.ts'
import { IndexTable } from './index-table.ts'
import { packKey } from './layout.ts'
import { damaged } from './sealed-object.ts'

// Looking up blobs in the local tables of the index. Worker threads load this file; `index-sync.ts` makes the tables.

/** What a worker thread needs to look blobs up for itself. */
export interface BlobIndexSource {
  readonly tables: readonly string[]
  /** Packs whose entries count for nothing: they are not there, or are marked. */
  readonly absentPacks: readonly string[]
  /** What could not be read of the index and of packs that it does not name. */
  readonly damage: readonly string[]
}

/** Where blobs are. Lookups read a few blocks of sorted local tables; nothing but small tables is held in memory. Close it. */
export class BlobIndex {
  readonly #tables: IndexTable[]
  readonly #absent: ReadonlySet<string>

  constructor(source: BlobIndexSource) {
    this.#tables = source.tables.map((path) => new IndexTable(path))
    this.#absent = new Set(source.absentPacks)
  }

  /** One place where the blob is; undefined when the repository does not have it. */
  find(identity: Buffer): BlobLocation | undefined {
    for (const table of this.#tables) {
      const there = table.find(identity).find((location) => !this.#absent.has(location.pack))
      if (there !== undefined) return there
    }
    return undefined
  }

  /** Every place where the blob is. */
  findAll(identity: Buffer): BlobLocation[] {
    const found = this.#tables.flatMap((table) => table.find(identity)).filter((location) => !this.#absent.has(location.pack))
    // Two tables may hold the same entry.
    return found.filter(
      (location, at) => found.findIndex(({ pack, offset }) => pack === location.pack && offset === location.offset) === at,
    )
  }

  get entries(): number {
    return this.#tables.reduce((sum, table) => sum + table.entries, 0)
  }

  close(): void {
    for (const table of this.#tables) table.close()
  }
}

/** The failure for a blob that no index knows. */
export function blobMissing(identity: Buffer, what: string, damage: readonly string[]): Failure {
  const found = damage.length === 0 ? '' : `; ${damage.join('; ')}`
  return new Failure(
    'BLOB_MISSING',
    `${what} needs the blob ${identity.toString('hex')}, which no pack of the repository has${found}`,
    {
      hint: 'a pack was lost or deleted: run "resus verify --all" to see which, and bring it back from another copy of the storage',
    },
  )
}

/** The failure for a pack that the index names and the storage does not have. */
export function packMissing(pack: string): Failure {
  return damaged(packKey(pack), 'the index names it, and it is not there')
}
