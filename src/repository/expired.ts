import { Failure } from '../errors.ts'
import type { BackupManifest } from './backups.ts'
import { EXPIRED_PREFIX, expiredKey } from './layout.ts'
import type { Repository } from './repository.ts'
import { putObject } from './sealed-object.ts'

// That a backup was there and was expired (docs/format.md, "Reuse, marks, leases, expiry"): one that is missing without this was stolen.

/** Records that a backup is expired. Doing it twice is doing it once. */
export async function putExpired(
  repository: Repository,
  expired: { folder: string; manifest: BackupManifest; nowMs: number },
  signal: AbortSignal,
): Promise<void> {
  const { id, component, sequence } = expired.manifest
  const head = { backup: id, component, sequence, at: new Date(expired.nowMs).toISOString() }
  try {
    const name = expiredKey(expired.folder, id)
    await putObject(repository.storage, repository.ring, { kind: 'expired', name, head }, { signal })
  } catch (error) {
    if (!(error instanceof Failure && error.code === 'OBJECT_EXISTS')) throw error
  }
}

/** The ids of all backups that were expired. That each record opens, `verify` checks. */
export async function listExpired(repository: Repository, signal: AbortSignal): Promise<Set<string>> {
  const ids = new Set<string>()
  for await (const { key } of repository.storage.list(EXPIRED_PREFIX, { signal })) ids.add(key.split('/').at(-1)!)
  return ids
}
