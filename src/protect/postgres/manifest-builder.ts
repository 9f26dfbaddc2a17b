import { lstatSync } from 'node:fs'
import type { BackupManifest } from '../../repository/backups.ts'
import type { BlobKind } from '../../repository/blob.ts'
import type { BlobWriter } from '../../repository/blob-writer.ts'
import type { PackUploads } from '../../repository/pack-uploads.ts'
import { encodeRegions, type RegionRef } from '../../repository/region.ts'
import { TreeWriter, type FileContent, type TreeDefaults } from '../../repository/tree.ts'
import type { UnitResult } from './backup-unit.ts'
import type { BackupJobResult } from './backup-worker.ts'
import type { CopiedPart } from './cluster-copy.ts'
import type { DataEntry } from './data-directory.ts'
import { type FingerprintRecord } from './fingerprints.ts'
import { configurationVanished } from './host-configuration.ts'
import { decodeState } from './region-state.ts'

/** Corrupt pages that a manifest names; their number is counted in any case. */
const CORRUPT_PAGES_MAX = 1000

export interface CopiedCluster {
  readonly tree: BackupManifest['tree']
  readonly defaults: TreeDefaults
  readonly tablespaces: BackupManifest['tablespaces']
  readonly inPlaceTablespaces: BackupManifest['inPlaceTablespaces']
  readonly corruptPages: BackupManifest['corruptPages']
  readonly totals: Omit<BackupManifest['totals'], 'bytesStored' | 'walBytesStored'>
}

/** Makes the manifest's tree and the fingerprints' records from the parts of files as they are copied. */
export class ManifestBuilder {
  readonly #writer: BlobWriter
  readonly #uploads: PackUploads
  readonly #defaults: TreeDefaults
  readonly #tree: TreeWriter
  readonly #tablespaces: { oid: string; path: string }[] = []
  readonly #inPlaceTablespaces: string[] = []
  readonly #corruptPages: { path: string; block: number }[] = []
  readonly #totals = { files: 0, bytes: 0, bytesRead: 0, pagesChecked: 0, corruptPages: 0 }
  #unchangedBytes = 0
  /** Identities of the parts of the file at hand; undefined when it has vanished. */
  #parts: Buffer[] | undefined = []

  constructor(options: { writer: BlobWriter; uploads: PackUploads; dataDirectory: string }) {
    this.#writer = options.writer
    this.#uploads = options.uploads
    const { mode, uid, gid } = lstatSync(options.dataDirectory)
    // A data directory that its group may read has files of mode 0640, else 0600.
    const groupReads = (mode & 0o040) !== 0
    this.#defaults = { directoryMode: groupReads ? 0o750 : 0o700, fileMode: groupReads ? 0o640 : 0o600, uid, gid }
    this.#tree = new TreeWriter((kind, content) => this.#store(kind, content), this.#defaults)
  }

  get bytesDone(): number {
    return this.#totals.bytesRead
  }

  /** Counts what a job has read, as soon as it has. */
  countRead(result: BackupJobResult): void {
    for (const unit of result.results) {
      if (unit.kind === 'vanished') continue
      this.#totals.bytesRead += unit.bytesRead
      this.#totals.pagesChecked += unit.pagesChecked
      this.#unchangedBytes += unit.unchangedBytes
    }
  }

  /** Takes the parts, in order; gives what the next backup compares with. */
  async *collect(parts: AsyncIterable<CopiedPart>): AsyncGenerator<FingerprintRecord> {
    for await (const part of parts) {
      const { entry, firstRegion } = part
      if (part.results.some((result) => result.kind === 'vanished')) this.#parts = undefined
      for (const result of part.results) this.#noteCorrupt(entry, result)
      const states = part.results.flatMap((result) => (result.kind === 'region' ? [result.state] : []))
      if (this.#parts !== undefined && states.length > 0) {
        this.#parts.push(await this.#store('regions', encodeRegions(states.map(regionOf))))
        yield { path: entry.path, firstRegion, states }
      }
      if (part.isLast) await this.#endFile(part)
    }
  }

  /** Ends the tree and its pack. `reusedBytes` are those that the threads did not store again. */
  async finish(reusedBytes: number): Promise<CopiedCluster> {
    const tree = await this.#tree.finish()
    this.#writer.closePack()
    await this.#uploads.accept(this.#writer.drain())
    return {
      tree,
      defaults: this.#defaults,
      tablespaces: this.#tablespaces,
      inPlaceTablespaces: this.#inPlaceTablespaces,
      corruptPages: this.#corruptPages,
      totals: { ...this.#totals, bytesReused: this.#unchangedBytes + reusedBytes },
    }
  }

  async #endFile(part: CopiedPart): Promise<void> {
    const parts = this.#parts
    this.#parts = []
    // A file that was dropped while we read it: the WAL knows that, and a restore need not have it.
    if (parts === undefined && part.entry.isRequired === true) throw configurationVanished(part.entry.absolutePath)
    if (parts === undefined) return
    const { path, mode, uid, gid } = part.entry
    const owner = { path, mode, uid, gid }
    if (part.entry.kind === 'directory') {
      const [, inPlace] = /^pg_tblspc\/([1-9][0-9]*)$/.exec(path) ?? []
      if (inPlace !== undefined) this.#inPlaceTablespaces.push(inPlace)
      await this.#tree.add({ ...owner, kind: 'directory' })
    } else if (part.entry.kind === 'link') {
      const { target } = part.entry
      this.#tablespaces.push({ oid: path.slice('pg_tblspc/'.length), path: target })
      await this.#tree.add({ ...owner, kind: 'link', target })
    } else {
      const [only] = part.results
      const sizeBytes = only?.kind === 'chunk' ? only.sizeBytes : part.entry.sizeBytes
      this.#totals.files += 1
      this.#totals.bytes += sizeBytes
      await this.#tree.add({ ...owner, kind: 'file', sizeBytes, content: contentOf(part.results, parts) })
    }
  }

  #noteCorrupt(entry: DataEntry, result: UnitResult): void {
    if (result.kind === 'vanished') return
    this.#totals.corruptPages += result.corruptBlocks.length
    for (const block of result.corruptBlocks) {
      if (this.#corruptPages.length < CORRUPT_PAGES_MAX) this.#corruptPages.push({ path: entry.path, block })
    }
  }

  async #store(kind: BlobKind, content: Buffer): Promise<Buffer> {
    const identity = this.#writer.store(kind, content)
    await this.#uploads.accept(this.#writer.drain())
    return identity
  }
}

function contentOf(results: readonly UnitResult[], parts: readonly Buffer[]): FileContent {
  const [only] = results
  if (only?.kind === 'chunk' && only.sizeBytes > 0) return { kind: 'chunk', identity: Buffer.from(only.identity) }
  return only === undefined || only.kind === 'chunk' ? { kind: 'empty' } : { kind: 'regions', parts }
}

function regionOf(state: Uint8Array): RegionRef {
  return decodeState(Buffer.from(state.buffer, state.byteOffset, state.byteLength)).region
}
