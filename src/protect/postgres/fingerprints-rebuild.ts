import { access } from 'node:fs/promises'
import type { BackupManifest } from '../../repository/backups.ts'
import type { BlobIndexSource } from '../../repository/blob-index.ts'
import { BlobReader, openStoredBlob } from '../../repository/blob-reader.ts'
import { fileRegions, type FileRegion } from '../../repository/file-regions.ts'
import {
  bitmapBytes,
  decodeBase,
  decodeOverlay,
  FINGERPRINT_BYTES,
  pageCount,
  REGIONS_PART,
  setBit,
  type Overlay,
  type RegionBase,
} from '../../repository/region.ts'
import type { Repository } from '../../repository/repository.ts'
import { walkTree } from '../../repository/tree.ts'
import type { PostgresComponent } from './component.ts'
import { fingerprintFile, writeFingerprints, type FingerprintRecord } from './fingerprints.ts'
import { encodeState } from './region-state.ts'

/** Regions whose blobs are fetched together: overlays carry their pages, so this bounds memory. */
const REGIONS_AT_ONCE = 16

export interface EnsureFingerprintsOptions {
  readonly repository: Repository
  readonly component: PostgresComponent
  readonly stateDirectory: string
  readonly manifest: BackupManifest
  readonly index: BlobIndexSource
  readonly onNotice?: (text: string) => void
}

/** The file with a backup's fingerprints; made again from the repository when this host does not have it. Gives its path. */
export async function ensureFingerprints(options: EnsureFingerprintsOptions): Promise<string> {
  const { repository, manifest } = options
  const path = fingerprintFile(repository, options.stateDirectory, options.component.name, manifest.id)
  const there = await access(path).then(
    () => true,
    () => false,
  )
  if (there) return path
  options.onNotice?.(`the fingerprints of backup ${manifest.id} are not on this host: making them again from the repository`)
  const reader = new BlobReader(repository, options.index)
  try {
    await writeFingerprints(repository, { path, backup: manifest.id }, rebuildRecords(repository, reader, manifest))
  } finally {
    reader.close()
  }
  return path
}

async function* rebuildRecords(
  repository: Repository,
  reader: BlobReader,
  manifest: BackupManifest,
): AsyncGenerator<FingerprintRecord> {
  for await (const entry of walkTree(reader, manifest.tree, manifest.defaults)) {
    if (entry.kind !== 'file') continue
    let batch: FileRegion[] = []
    let states: Buffer[] = []
    let firstRegion = 0
    for await (const region of fileRegions(reader, entry)) {
      batch.push(region)
      const partEnds = (region.index + 1) % REGIONS_PART === 0
      if (batch.length < REGIONS_AT_ONCE && !partEnds) continue
      states.push(...(await rebuildStates(repository, reader, batch)))
      batch = []
      if (!partEnds) continue
      yield { path: entry.path, firstRegion, states }
      firstRegion = region.index + 1
      states = []
    }
    states.push(...(await rebuildStates(repository, reader, batch)))
    if (states.length > 0) yield { path: entry.path, firstRegion, states }
  }
}

async function rebuildStates(repository: Repository, reader: BlobReader, regions: readonly FileRegion[]): Promise<Buffer[]> {
  const identities = regions.flatMap((region) => [region.base, ...region.overlays.map((overlay) => overlay.identity)])
  return await reader.withSound(async (fetch) => {
    const blobs = await fetch(identities, 'the fingerprints of the last backup')
    return regions.map((region) => {
      const open = (identity: Buffer, kind: 'region' | 'overlay') =>
        openStoredBlob(repository, blobs.get(identity.toString('hex'))!, kind)
      const base = decodeBase(open(region.base, 'region'))
      const overlays = region.overlays.map((overlay) => decodeOverlay(open(overlay.identity, 'overlay')))
      return encodeState({ length: region.length, region, ...mergeFingerprints(region.length, base, overlays) })
    })
  })
}

/** The fingerprints of a region as its base and overlays make it, and which pages lie in an overlay. */
export function mergeFingerprints(length: number, base: RegionBase, overlays: readonly Overlay[]) {
  const fingerprints = Buffer.alloc(pageCount(length) * FINGERPRINT_BYTES)
  const overlaid = Buffer.alloc(bitmapBytes(length))
  base.fingerprints.copy(fingerprints)
  for (const overlay of overlays) {
    for (const [index, page] of overlay.pages.entries()) {
      if (page >= pageCount(length)) continue
      overlay.fingerprints.copy(
        fingerprints,
        page * FINGERPRINT_BYTES,
        index * FINGERPRINT_BYTES,
        (index + 1) * FINGERPRINT_BYTES,
      )
      setBit(overlaid, page)
    }
  }
  return { fingerprints, overlaid }
}
