import { GRACE_MS_MIN } from '../../repository/expiry-protocol.ts'
import { backupKey, BACKUP_PREFIX } from '../../repository/layout.ts'
import { keyedName } from '../../repository/key-ring.ts'
import { listMarks, markedBackups } from '../../repository/marks.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import type { Repository } from '../../repository/repository.ts'

/** What a person should know who restores a backup that an expiry has marked: it can be restored, until it is deleted. */
export async function markedNotice(repository: Repository, manifest: BackupManifest): Promise<readonly string[]> {
  const folder = keyedName(repository.ring, 'component', manifest.component)
  const name = backupKey(folder, manifest.id).slice(BACKUP_PREFIX.length)
  const markedMs = markedBackups(await listMarks(repository)).get(name)
  if (markedMs === undefined) return []
  const from = new Date(markedMs + GRACE_MS_MIN).toISOString()
  return [
    `backup ${manifest.id} has expired: it is whole, and "resus expire" deletes it, and WAL that only it needs, from ${from} on`,
  ]
}
