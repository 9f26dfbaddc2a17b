import { Failure } from '../errors.ts'
import type { BackupManifest } from './backups.ts'
import { mayRefer, type PackView } from './expiry-protocol.ts'
import { listPacks, syncIndex, type PackSizes } from './index-sync.ts'
import { markedPacks } from './marks.ts'
import { ReferenceWalker } from './references.ts'
import type { Repository } from './repository.ts'

/** What a run reused by. */
export interface PacksSeen {
  /** Those that it could not reuse: marked, or damaged. */
  readonly marked: ReadonlySet<string>
  readonly packs: ReadonlySet<string>
}

/**
 * The last look before a backup is published (docs/format.md, "A run that writes", step 5): the marks, and then the packs. Gives the packs that it may refer to: while they
 * stay, it is whole. Throws BACKUP_ABORTED when something that it refers to lies only in packs that are marked or gone.
 */
export async function assertPublishable(options: {
  repository: Repository
  manifest: BackupManifest
  stateDirectory: string
  seen: PacksSeen
  signal: AbortSignal
}): Promise<PackSizes> {
  const { repository, manifest, seen, signal } = options
  const marked = await markedPacks(repository, signal)
  const present = await listPacks(repository, { signal })
  const unchanged =
    [...marked].every((pack) => seen.marked.has(pack)) &&
    [...seen.packs].every((pack) => present.has(pack) || seen.marked.has(pack))
  const usable = new Map([...present].filter(([pack]) => !marked.has(pack) && !seen.marked.has(pack)))
  // Nothing that could be reused was marked or has gone since: nothing of it needs to be walked.
  if (unchanged) return usable
  const index = await syncIndex(options)
  const walker = new ReferenceWalker(repository, index)
  try {
    await assertPlaces(walker, { manifest, view: { present, marked }, signal })
    return usable
  } finally {
    walker.close()
  }
}

async function assertPlaces(
  walker: ReferenceWalker,
  look: { manifest: BackupManifest; view: PackView; signal: AbortSignal },
): Promise<void> {
  try {
    for await (const places of walker.walkPlaces(look.manifest, look.signal)) {
      const packs = places.map((place) => place.pack)
      if (!mayRefer(packs, look.view)) throw aborted()
    }
  } catch (cause) {
    // A pack that went while we walked was marked long before: this run has stood still.
    if (cause instanceof Failure && ['BLOB_MISSING', 'OBJECT_DAMAGED'].includes(cause.code)) throw aborted(cause)
    throw cause
  }
}

function aborted(cause?: unknown): Failure {
  return new Failure('BACKUP_ABORTED', 'an expiry began while this backup ran, and deletes what it reuses', {
    hint: 'run the backup again: it stores what it may not reuse any more, and only that',
    cause,
  })
}
