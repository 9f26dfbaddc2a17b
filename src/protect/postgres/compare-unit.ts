import { closeSync, constants, openSync } from 'node:fs'
import { systemErrorCode } from '../../errors.ts'
import { blobIdentity, CHUNK_BYTES, PIECE_BYTES } from '../../repository/blob.ts'
import type { KeyRing } from '../../repository/key-ring.ts'
import { PageFingerprinter } from '../../repository/page-fingerprint.ts'
import { FINGERPRINT_BYTES, pageCount } from '../../repository/region.ts'
import { readInPlace } from './restore-unit.ts'

/** A part of a file, and what tells whether the file there has it already: one identity for all of it, or the fingerprint of each page. */
export interface CompareUnit {
  /** Absolute. */
  readonly path: string
  readonly offset: number
  readonly length: number
  readonly identity?: Uint8Array
  readonly fingerprints?: Uint8Array
}

export interface CompareJob {
  readonly kind: 'compare'
  readonly units: readonly CompareUnit[]
}

const content = Buffer.alloc(CHUNK_BYTES)
/** Made for the first region that is compared: a thread has one key ring. */
let fingerprinter: PageFingerprinter | undefined

/** The numbers of the chunks that a file has already, by content. None of a file that is not there. */
export function keptChunks(ring: KeyRing, unit: CompareUnit): number[] {
  const file = openUnlessMissing(unit.path)
  if (file === undefined) return []
  try {
    const kept: number[] = []
    for (let at = 0; at < unit.length; at += CHUNK_BYTES) {
      const length = Math.min(CHUNK_BYTES, unit.length - at)
      const there = readInPlace(file, content.subarray(0, length), unit.offset + at)
      if (there.length === length && isRight(ring, { unit, at, there })) kept.push(at / CHUNK_BYTES)
    }
    return kept
  } finally {
    closeSync(file)
  }
}

function isRight(ring: KeyRing, { unit, at, there }: { unit: CompareUnit; at: number; there: Buffer }): boolean {
  if (unit.identity !== undefined) return blobIdentity(ring, 'chunk', there).equals(unit.identity)
  fingerprinter ??= new PageFingerprinter(ring.pageKey)
  const fingerprints = Buffer.alloc(pageCount(there.length) * FINGERPRINT_BYTES)
  fingerprinter.fingerprint(there, fingerprints)
  const from = (at / PIECE_BYTES) * FINGERPRINT_BYTES
  const wanted = unit.fingerprints?.subarray(from, from + fingerprints.length)
  return wanted !== undefined && fingerprints.equals(wanted)
}

function openUnlessMissing(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}
