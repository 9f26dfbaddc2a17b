import type { BackupManifest } from './backups.ts'
import type { BlobLocation } from './blob.ts'
import type { BlobIndexSource } from './blob-index.ts'
import { BlobReader, openStoredBlob } from './blob-reader.ts'
import { decodeBase, decodeRegions } from './region.ts'
import type { Repository } from './repository.ts'
import { readNode, readTreeLeaf, type TreeEntry } from './tree.ts'

/** Blobs that are remembered as walked, so that what backups share is walked once; beyond it they are walked again. */
const WALKED_MAX = 2_000_000
const BASES_AT_ONCE = 64

interface Reference {
  readonly identity: Buffer
  /** Who needs it, for a failure. */
  readonly what: string
}

/** Walks everything that backups refer to. Close it. */
export class ReferenceWalker {
  readonly #repository: Repository
  readonly #reader: BlobReader
  readonly #walked = new Set<string>()

  constructor(repository: Repository, index: BlobIndexSource) {
    this.#repository = repository
    this.#reader = new BlobReader(repository, index)
  }

  close(): void {
    this.#reader.close()
  }

  /**
   * Where all blobs of a backup lie, but for those under nodes that were walked before: their places were given then. Throws BLOB_MISSING for the first that no pack
   * has, OBJECT_DAMAGED for a list that cannot be read.
   */
  async *walk(manifest: BackupManifest, signal: AbortSignal): AsyncGenerator<BlobLocation> {
    for await (const { identity, what } of this.#node(manifest, manifest.tree, signal)) yield this.#reader.locate(identity, what)
  }

  /** The same, with every place where each blob is. */
  async *walkPlaces(manifest: BackupManifest, signal: AbortSignal): AsyncGenerator<readonly BlobLocation[]> {
    for await (const { identity, what } of this.#node(manifest, manifest.tree, signal)) yield this.#reader.places(identity, what)
  }

  async *#node(
    manifest: BackupManifest,
    node: { identity: Buffer; kind: 5 | 6 },
    signal: AbortSignal,
  ): AsyncGenerator<Reference> {
    if (!this.#first(node.identity)) return
    signal.throwIfAborted()
    yield { identity: node.identity, what: 'the manifest' }
    if (node.kind === 6) {
      for (const child of await readNode(this.#reader, node.identity)) {
        yield* this.#node(manifest, { identity: child.id, kind: child.kind }, signal)
      }
      return
    }
    for (const entry of await readTreeLeaf(this.#reader, node.identity, manifest.defaults)) yield* this.#file(entry)
  }

  async *#file(entry: TreeEntry): AsyncGenerator<Reference> {
    if (entry.kind !== 'file') return
    const what = `file "${entry.path}"`
    if (entry.content.kind === 'chunk') yield { identity: entry.content.identity, what }
    if (entry.content.kind !== 'regions') return
    for (const part of entry.content.parts) {
      if (!this.#first(part)) continue
      yield { identity: part, what }
      const regions = decodeRegions(await this.#reader.read(part, 'regions', what))
      for (const region of regions) for (const overlay of region.overlays) yield { identity: overlay.identity, what }
      const bases = regions.map((region) => region.base).filter((base) => this.#first(base))
      for (let at = 0; at < bases.length; at += BASES_AT_ONCE) yield* this.#bases(bases.slice(at, at + BASES_AT_ONCE), what)
    }
  }

  async *#bases(bases: readonly Buffer[], what: string): AsyncGenerator<Reference> {
    const opened = await this.#reader.withSound(async (fetch) =>
      [...(await fetch(bases, what)).values()].map((blob) => ({
        identity: blob.location.identity,
        base: decodeBase(openStoredBlob(this.#repository, blob, 'region')),
      })),
    )
    for (const { identity, base } of opened) {
      yield { identity, what }
      for (const chunk of base.chunks) yield { identity: chunk, what }
    }
  }

  #first(identity: Buffer): boolean {
    const name = identity.toString('latin1')
    if (this.#walked.has(name)) return false
    if (this.#walked.size < WALKED_MAX) this.#walked.add(name)
    return true
  }
}
