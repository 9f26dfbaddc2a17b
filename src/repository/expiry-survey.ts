import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { closeBackup, listBackupKeys, readBackupObject, type BackupManifest } from './backups.ts'
import type { BlobIndexSource } from './blob-index.ts'
import type { BlobLocation } from './blob.ts'
import { backupsToClose, dueMarks, markedBy, neededPacks, type MarkFacts } from './expiry-protocol.ts'
import { listPacks, syncIndex } from './index-sync.ts'
import { BACKUP_PREFIX } from './layout.ts'
import { listLeases, type StoredLease } from './lease.ts'
import { listMarks, type Mark } from './marks.ts'
import { ReferenceWalker } from './references.ts'
import type { Repository } from './repository.ts'

// What an expiry looks at before it decides, in the order that docs/format.md ("A run that deletes") asks for.

/** Blobs that are told apart when live bytes are counted; beyond it they are not counted. */
const COUNTED_MAX = 2_000_000

export interface SurveyOptions {
  readonly repository: Repository
  readonly stateDirectory: string
  readonly graceMs: number
  /** Whether the names of runs that stood still are closed; without it nothing is written. */
  readonly close: boolean
  readonly clock: Clock
  readonly signal: AbortSignal
}

export interface SurveyedBackup {
  /** `<component>/<backup>`, the component by its keyed name. */
  readonly name: string
  readonly folder: string
  readonly manifest: BackupManifest
}

export interface Survey {
  readonly nowMs: number
  readonly marks: readonly Mark[]
  readonly due: readonly MarkFacts[]
  /** With their sizes. */
  readonly packs: ReadonlyMap<string, number>
  readonly index: BlobIndexSource
  readonly leases: readonly StoredLease[]
  readonly backups: readonly SurveyedBackup[]
  /** Names that are closed, and since when. */
  readonly closed: ReadonlyMap<string, number>
}

/** Throws OBJECT_DAMAGED: who cannot read everything must not delete. */
export async function surveyRepository(options: SurveyOptions): Promise<Survey> {
  const { repository, stateDirectory, clock, signal } = options
  const marks = await listMarks(repository, signal)
  const packs = await listPacks(repository, { signal })
  const index = await syncIndex({ repository, stateDirectory, signal })
  if (index.damage.length > 0) throw notSafe(index.damage.join('; '))
  // After the packs: whoever made one of them has a lease that is listed now.
  const leases = await listLeases(repository, signal)
  const nowMs = clock.now()
  const due = dueMarks(marks, nowMs, options.graceMs)
  const names = new Set((await listBackupKeys(repository, signal)).map((key) => key.slice(BACKUP_PREFIX.length)))
  if (options.close && due.length > 0) {
    for (const name of backupsToClose(leases, names, nowMs)) {
      const [folder, id] = name.split('/') as [string, string]
      // A lease of an older Resus does not say which name to close.
      if (id.startsWith('?')) continue
      await closeBackup(repository, { folder, id, nowMs }, signal)
      names.add(name)
    }
  }
  // After the closing: what is published now is all that will ever refer to a pack that is due.
  for (const key of await listBackupKeys(repository, signal)) names.add(key.slice(BACKUP_PREFIX.length))
  return { nowMs, marks, due, packs, index, leases, ...(await readBackups(repository, names)) }
}

async function readBackups(repository: Repository, names: ReadonlySet<string>) {
  const backups: SurveyedBackup[] = []
  const closed = new Map<string, number>()
  for (const name of names) {
    try {
      const object = await readBackupObject(repository, BACKUP_PREFIX + name)
      if (object.kind === 'closed') closed.set(name, object.closedMs)
      else backups.push({ name, folder: name.split('/')[0]!, manifest: object.manifest })
    } catch (error) {
      if (error instanceof Failure && error.code === 'OBJECT_DAMAGED') throw notSafe(error.message, error)
      // Deleted by another expiry since it was listed.
      if (!(error instanceof Failure) || error.code !== 'OBJECT_MISSING') throw error
    }
  }
  return { backups, closed }
}

/** Walks backups, and says which packs they need. Close it. */
export class NeededPacks {
  readonly packs = new Set<string>()
  readonly #repository: Repository
  readonly #marked: ReadonlySet<string>
  readonly #walker: ReferenceWalker
  readonly #counted = new Set<number>()
  #liveBytes = 0

  constructor(repository: Repository, survey: Survey) {
    this.#repository = repository
    this.#marked = markedBy(survey.marks)
    this.#walker = new ReferenceWalker(repository, survey.index)
  }

  /** Bytes of blobs in packs, as stored, that the backups walked so far refer to; null when they are too many to be told apart. */
  get liveBytes(): number | null {
    return this.#counted.size < COUNTED_MAX ? this.#liveBytes : null
  }

  /** Adds what backups need. Throws BLOB_MISSING, OBJECT_DAMAGED. */
  async add(backups: readonly SurveyedBackup[], signal: AbortSignal): Promise<void> {
    for (const { name, manifest } of backups) {
      try {
        for await (const places of this.#walker.walkPlaces(manifest, signal)) this.#take(places)
      } catch (error) {
        if (!(error instanceof Failure) || !['BLOB_MISSING', 'OBJECT_DAMAGED'].includes(error.code)) throw error
        // Another expiry may have deleted the backup, and its packs, while we walked it.
        const there = (await listBackupKeys(this.#repository, signal)).includes(BACKUP_PREFIX + name)
        if (there) throw notSafe(`backup ${manifest.id}: ${error.message}`, error)
      }
    }
  }

  close(): void {
    this.#walker.close()
  }

  #take(places: readonly BlobLocation[]): void {
    const packs = places.map((place) => place.pack)
    for (const pack of neededPacks(packs, this.#marked)) this.packs.add(pack)
    const [place] = places
    const short = place!.identity.readUIntBE(0, 6)
    if (this.#counted.has(short) || this.#counted.size >= COUNTED_MAX) return
    this.#counted.add(short)
    this.#liveBytes += place!.storedBytes
  }
}

function notSafe(what: string, cause?: unknown): Failure {
  return new Failure('OBJECT_DAMAGED', `nothing more is expired from a repository that is damaged: ${what}`, {
    hint: 'run "resus verify --all"; bring the object back from another copy of the storage, then expire again',
    cause,
  })
}
