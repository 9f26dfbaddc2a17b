import type { KeyObject } from 'node:crypto'
import { closeSync, openSync, writeSync, constants } from 'node:fs'
import { crc32c } from '../../postgres/crc32c.ts'
import { CHUNK_BYTES, openBlob, type BlobLocation } from '../../repository/blob.ts'
import type { KeyRing } from '../../repository/key-ring.ts'
import { packKey } from '../../repository/layout.ts'
import { openPackHeader } from '../../repository/pack.ts'
import { applyOverlay, decodeOverlay, REGION_BYTES } from '../../repository/region.ts'
import { damaged } from '../../repository/sealed-object.ts'

/** Where the stored bytes of a blob lie in the job's bytes. */
export interface JobBlob extends Omit<BlobLocation, 'identity'> {
  readonly identity: Uint8Array
  readonly at: number
}

/** A part of a file that one thread writes by itself. */
export interface RestoreUnit {
  /** Absolute. */
  readonly path: string
  readonly offset: number
  readonly length: number
  /** Chunks of the base, in order. */
  readonly chunks: readonly JobBlob[]
  /** Overlays, in order. */
  readonly overlays: readonly JobBlob[]
}

export interface RestoreJob {
  readonly units: readonly RestoreUnit[]
  readonly bytes: Uint8Array<ArrayBuffer>
  /** Headers of the packs that the blobs lie in. */
  readonly packs: ReadonlyMap<string, Uint8Array>
}

const region = Buffer.alloc(REGION_BYTES)
const PACK_KEYS_MAX = 1024
const packKeys = new Map<string, KeyObject>()

/**
 * Opens the blobs of a unit, puts them together and writes them in place. Returns the CRC-32C of what it wrote. Throws OBJECT_DAMAGED
 * and what writing throws.
 */
export function restoreUnit(ring: KeyRing, unit: RestoreUnit, job: RestoreJob): number {
  const content = region.subarray(0, unit.length)
  content.fill(0)
  for (const [index, chunk] of unit.chunks.entries()) {
    const at = index * CHUNK_BYTES
    // The base may be longer than the region is now: the relation has been truncated since.
    if (at < content.length) openJobBlob(ring, chunk, job).copy(content, at)
  }
  for (const overlay of unit.overlays) applyOverlay(content, decodeOverlay(openJobBlob(ring, overlay, job)))
  writeInPlace(unit, content)
  return crc32c(content)
}

function writeInPlace(unit: RestoreUnit, content: Buffer): void {
  const file = openSync(unit.path, constants.O_WRONLY | constants.O_CREAT, 0o600)
  try {
    for (let done = 0; done < content.length;) {
      done += writeSync(file, content, done, content.length - done, unit.offset + done)
    }
  } finally {
    closeSync(file)
  }
}

function openJobBlob(ring: KeyRing, blob: JobBlob, job: RestoreJob): Buffer {
  const stored = job.bytes.subarray(blob.at, blob.at + blob.storedBytes)
  const location = { ...blob, identity: Buffer.from(blob.identity) }
  return openBlob(jobPackKey(ring, blob.pack, job), location, stored, packKey(blob.pack))
}

function jobPackKey(ring: KeyRing, pack: string, job: RestoreJob): KeyObject {
  const known = packKeys.get(pack)
  if (known !== undefined) return known
  const header = job.packs.get(pack)
  if (header === undefined) throw damaged(packKey(pack), 'its header was not read')
  const key = openPackHeader(ring, pack, Buffer.from(header))
  if (packKeys.size >= PACK_KEYS_MAX) packKeys.clear()
  packKeys.set(pack, key)
  return key
}
