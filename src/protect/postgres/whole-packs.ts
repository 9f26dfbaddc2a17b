import { createReadStream } from 'node:fs'
import { rename, rm, writeFile } from 'node:fs/promises'
import { z } from 'zod'
import { Failure, systemErrorCode } from '../../errors.ts'
import type { PackSizes } from '../../repository/index-sync.ts'
import { randomId } from '../../repository/layout.ts'
import type { Repository } from '../../repository/repository.ts'
import { openObject, sealObject } from '../../repository/sealed-object.ts'

// The packs with which a backup was whole: a local, sealed file beside its fingerprints. While all of them are there, the next backup need not
// walk what this one refers to, which at a terabyte is a hundred thousand blobs, one after the other. Its body:
//
//   for each pack: id 16 ‖ u64 size in bytes

const ENTRY_BYTES = 24
const ENTRIES_AT_ONCE = 4096

/** Where the packs of a backup lie, given where its fingerprints do. */
export function wholePacksFile(fingerprintsPath: string): string {
  return `${fingerprintsPath}.packs`
}

/** Notes with which packs a backup was published. It is a copy: lost, the next backup walks. */
export async function writeWholePacks(
  repository: Repository,
  file: { path: string; backup: string },
  packs: PackSizes,
): Promise<void> {
  const object = { kind: 'packs' as const, name: localName(file.backup), head: { backup: file.backup } }
  const temporary = `${file.path}.${randomId()}`
  try {
    await writeFile(temporary, sealObject(repository.ring, object, encodePacks(packs)), { mode: 0o600 })
    await rename(temporary, file.path)
  } finally {
    await rm(temporary, { force: true })
  }
}

/** Whether every pack with which a backup was published is there, of the same size; false when nobody noted which. */
export async function areWholePacksThere(
  repository: Repository,
  file: { path: string; backup: string },
  usable: PackSizes,
): Promise<boolean> {
  try {
    for await (const [pack, sizeBytes] of readPacks(repository, file)) if (usable.get(pack) !== sizeBytes) return false
    return true
  } catch (error) {
    // It is a copy: whatever keeps it from being read must not keep a backup from being made.
    if (systemErrorCode(error) === 'ENOENT' || error instanceof Failure) return false
    throw error
  }
}

async function* readPacks(repository: Repository, file: { path: string; backup: string }): AsyncGenerator<[string, number]> {
  const object = { kind: 'packs' as const, name: localName(file.backup) }
  const { head, body } = await openObject(repository.ring, object, createReadStream(file.path))
  z.object({ backup: z.literal(file.backup) }).parse(head)
  let held: Buffer = Buffer.alloc(0)
  for await (const piece of body) {
    held = Buffer.concat([held, piece])
    const whole = held.length - (held.length % ENTRY_BYTES)
    for (let at = 0; at < whole; at += ENTRY_BYTES)
      yield [held.toString('hex', at, at + 16), Number(held.readBigUInt64LE(at + 16))]
    held = held.subarray(whole)
  }
}

function* encodePacks(packs: PackSizes): Generator<Buffer> {
  const entries = Buffer.alloc(ENTRY_BYTES * ENTRIES_AT_ONCE)
  let length = 0
  for (const [pack, sizeBytes] of packs) {
    entries.write(pack, length, 'hex')
    entries.writeBigUInt64LE(BigInt(sizeBytes), length + 16)
    length += ENTRY_BYTES
    if (length < entries.length) continue
    yield Buffer.from(entries)
    length = 0
  }
  yield entries.subarray(0, length)
}

function localName(backup: string): string {
  return `packs/${backup}`
}
