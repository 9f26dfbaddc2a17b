import { REGION_BYTES, REGIONS_PART, decodeRegions, type RegionRef } from './region.ts'
import type { BlobReader } from './blob-reader.ts'
import type { TreeEntry } from './tree.ts'

/** A region of a file of a backup: its place, its length in this backup, and the blobs that make it. */
export interface FileRegion extends RegionRef {
  readonly index: number
  readonly offset: number
  readonly length: number
}

/** The regions of a file, in order. Holds one part of the list. Throws BLOB_MISSING, OBJECT_DAMAGED. */
export async function* fileRegions(reader: BlobReader, file: TreeEntry & { kind: 'file' }): AsyncGenerator<FileRegion> {
  if (file.content.kind !== 'regions') return
  for (const [part, identity] of file.content.parts.entries()) {
    const regions = decodeRegions(await reader.read(identity, 'regions', `file "${file.path}"`))
    for (const [at, region] of regions.entries()) {
      const index = part * REGIONS_PART + at
      const offset = index * REGION_BYTES
      yield { ...region, index, offset, length: Math.min(REGION_BYTES, file.sizeBytes - offset) }
    }
  }
}
