import { availableParallelism } from 'node:os'
import { ownBytes } from '../stream/own-bytes.ts'
import { WorkerPool } from '../stream/worker-pool.ts'
import { forEachConcurrent } from '../stream/for-each-concurrent.ts'
import { Failure } from '../errors.ts'
import { formatLsn } from '../postgres/lsn.ts'
import { readObject, type ObjectEntry } from '../storage/storage.ts'
import { manifestName, readBackupObject, type BackupManifest } from './backups.ts'
import type { PackFindings } from './damage.ts'
import { listExpired } from './expired.ts'
import { listPacks, readIndex, syncIndex } from './index-sync.ts'
import { keySlotSchema } from './keys.ts'
import { readControlObject } from './control-records.ts'
import {
  AUTHORITY_PREFIX,
  EVIDENCE_PREFIX,
  CONTROL_PREFIX,
  DAMAGE_PREFIX,
  DESCRIPTOR_KEY,
  EXPIRED_PREFIX,
  INDEX_PREFIX,
  KEY_PREFIX,
  packKey,
  SYSTEM_KEY,
} from './layout.ts'
import { markedPacks } from './marks.ts'
import { ReferenceWalker } from './references.ts'
import { descriptorSchema, type Repository } from './repository.ts'
import { getRecord, type ObjectKind } from './sealed-object.ts'
import type { PackVerdict, VerifyPackJob } from './verify-worker.ts'
import { coverage, listWal, readWalBytes } from './wal-archive.ts'
import { parseBranchHead, type Branch } from './wal-branch.ts'

const WORKERS_MAX = 4
const PROBLEMS_MAX = 10_000

export type VerifyScope =
  | { readonly kind: 'all' }
  /** One backup: the packs that it refers to, and its WAL. */
  | { readonly kind: 'backup'; readonly component: string; readonly backup: string }

export interface VerifyProgress {
  readonly phase: string
  readonly bytesDone: number
  readonly bytesTotal: number
}

export interface VerifyReport {
  readonly objectsChecked: number
  readonly blobsChecked: number
  readonly walObjectsChecked: number
  readonly bytesRead: number
  readonly problems: readonly { readonly object: string; readonly problem: string }[]
  /** Of the packs that were read, those that are damaged, and those that are whole: `keepDamage` keeps them for later backups. */
  readonly packs: PackFindings
  /** That every byte is as it was written; a recovery is proven only by a restore. */
  readonly verdict: 'verified' | 'failed'
}

export interface VerifyOptions {
  readonly repository: Repository
  readonly stateDirectory: string
  readonly scope: VerifyScope
  readonly signal: AbortSignal
  readonly onProgress?: (progress: VerifyProgress) => void
}

/**
 * Reads back what the repository keeps, every byte of the scope: blobs are opened and their identities computed again, everything that a
 * backup refers to must be there, WAL must be whole from each backup's start to its end. Goes on after a problem and names each with its object. Throws
 * only when it cannot go on: STORAGE_UNREACHABLE, BACKUP_UNKNOWN.
 */
export async function verifyRepository(options: VerifyOptions): Promise<VerifyReport> {
  const { repository, scope, signal } = options
  const run = new VerifyRun(options)
  const objects = await listObjects(repository, signal)
  const manifests = await run.manifests(objects)
  const wanted = manifests.filter(
    (each) => scope.kind === 'all' || (each.component === scope.component && each.id === scope.backup),
  )
  if (scope.kind === 'backup' && wanted.length === 0 && run.report().problems.length === 0) {
    throw new Failure('BACKUP_UNKNOWN', `"${scope.component}" has no backup "${scope.backup}"`, {
      hint: `"resus backups ${scope.component}" lists those that there are`,
    })
  }
  if (scope.kind === 'all') {
    await run.sequences(manifests)
    await run.identity()
    await run.records(objects)
    await run.indexes(objects)
  }
  const packs = await run.references(wanted)
  await run.packs(scope.kind === 'all' ? undefined : packs)
  await run.wal(objects, wanted)
  return run.report()
}

async function listObjects(repository: Repository, signal: AbortSignal): Promise<ObjectEntry[]> {
  const objects: ObjectEntry[] = []
  for await (const object of repository.storage.list('', { signal })) if (!object.key.startsWith('packs/')) objects.push(object)
  return objects
}

/** Folders whose objects are all head, by kind. */
const RECORDS: Readonly<Record<string, ObjectKind>> = {
  'leases/': 'lease',
  'marks/': 'mark',
  'gaps/': 'gap',
  'verdicts/': 'verdict',
  [EXPIRED_PREFIX]: 'expired',
  [DAMAGE_PREFIX]: 'damage',
  [AUTHORITY_PREFIX]: 'authority',
  [EVIDENCE_PREFIX]: 'evidence',
}

class VerifyRun {
  readonly #options: VerifyOptions
  readonly #problems: { object: string; problem: string }[] = []
  readonly #packs = { damaged: new Array<string>(), whole: new Array<string>() }
  #objects = 0
  #blobs = 0
  #wal = 0
  #bytes = 0

  constructor(options: VerifyOptions) {
    this.#options = options
  }

  report(): VerifyReport {
    return {
      objectsChecked: this.#objects,
      blobsChecked: this.#blobs,
      walObjectsChecked: this.#wal,
      bytesRead: this.#bytes,
      problems: this.#problems,
      packs: this.#packs,
      verdict: this.#problems.length === 0 ? 'verified' : 'failed',
    }
  }

  async manifests(objects: readonly ObjectEntry[]): Promise<BackupManifest[]> {
    const { repository, scope } = this.#options
    const manifests: BackupManifest[] = []
    for (const { key } of objects.filter((object) => object.key.startsWith('backups/'))) {
      if (scope.kind === 'backup' && !key.endsWith(`/${scope.backup}`)) continue
      const read = async () => {
        const object = await readBackupObject(repository, key)
        if (object.kind === 'backup') manifests.push(object.manifest)
      }
      await this.#check(key, read, () => this.#isGone(key))
    }
    return manifests
  }

  /** Backups are numbered: one that is missing was expired, or was taken away. */
  async sequences(manifests: readonly BackupManifest[]): Promise<void> {
    const { repository, signal } = this.#options
    const expired = await listExpired(repository, signal)
    const ids = new Set([...manifests.map((manifest) => manifest.id), ...expired])
    for (const manifest of manifests) {
      if (manifest.previous === null || ids.has(manifest.previous)) continue
      this.#problem(`backup ${manifest.previous}`, `backup ${manifest.id} was made after it, and it is not there any more`)
    }
  }

  /** What an opening reads first. We are open, but the next one may not. */
  async identity(): Promise<void> {
    const { storage, ring, id } = this.#options.repository
    await this.#check(DESCRIPTOR_KEY, async () => {
      const { repository } = descriptorSchema.parse(JSON.parse((await readObject(storage, DESCRIPTOR_KEY)).toString('utf8')))
      if (repository !== id) throw new Failure('OBJECT_DAMAGED', `it names the repository ${repository}, this is ${id}`)
    })
    await this.#check(SYSTEM_KEY, () => getRecord(storage, ring, { kind: 'system', name: SYSTEM_KEY }))
  }

  async records(objects: readonly ObjectEntry[]): Promise<void> {
    const { repository } = this.#options
    for (const { key } of objects) {
      const folder = Object.keys(RECORDS).find((prefix) => key.startsWith(prefix))
      if (folder !== undefined) {
        const read = () => getRecord(repository.storage, repository.ring, { kind: RECORDS[folder]!, name: key })
        await this.#check(key, read, () => this.#isGone(key))
      } else if (key.startsWith(CONTROL_PREFIX)) {
        await this.#check(
          key,
          () => readControlObject(repository, key),
          () => this.#isGone(key),
        )
      } else if (key.startsWith(KEY_PREFIX)) {
        await this.#check(key, async () =>
          keySlotSchema.parse(JSON.parse((await readObject(repository.storage, key)).toString('utf8'))),
        )
      }
    }
  }

  async indexes(objects: readonly ObjectEntry[]): Promise<void> {
    const { repository, signal } = this.#options
    const there = await listPacks(repository, { signal })
    for (const { key } of objects.filter((object) => object.key.startsWith(INDEX_PREFIX))) {
      const read = async () => {
        const { packs, entries } = await readIndex(repository, key.slice(INDEX_PREFIX.length))
        for await (const frame of entries) this.#bytes += frame.length
        const missing = packs.filter((pack) => !there.has(pack))
        if (missing.length === 0 || (await this.#isGone(key))) return
        for (const pack of missing) this.#problem(packKey(pack), 'the index names it, and it is not there')
      }
      await this.#check(key, read, () => this.#isGone(key))
    }
  }

  /** Whether all that the backups refer to is there. Gives the packs that they refer to. */
  async references(manifests: readonly BackupManifest[]): Promise<Set<string>> {
    const { repository, stateDirectory, signal } = this.#options
    const packs = new Set<string>()
    // A damaged index or pack is a finding of its own; without an index nothing can be looked up.
    const index = await this.#check('index', () => syncIndex({ repository, stateDirectory, signal }))
    if (index === undefined) return packs
    const walker = new ReferenceWalker(repository, index)
    try {
      for (const manifest of manifests) {
        const walk = async () => {
          for await (const { pack } of walker.walk(manifest, signal)) packs.add(pack)
        }
        await this.#check(`backup ${manifest.id}`, walk, () => this.#isExpired(manifest))
      }
    } finally {
      walker.close()
    }
    return packs
  }

  /** Reads whole packs and opens every blob; `only` these, or all. */
  async packs(only: ReadonlySet<string> | undefined): Promise<void> {
    const { repository, signal } = this.#options
    const sizes = [...(await listPacks(repository, { signal }))].filter(([pack]) => only === undefined || only.has(pack))
    const bytesTotal = sizes.reduce((sum, [, size]) => sum + size, 0)
    let bytesDone = 0
    const size = Math.min(availableParallelism(), WORKERS_MAX)
    const script = new URL('./verify-worker.ts', import.meta.url)
    const pool = new WorkerPool<VerifyPackJob, PackVerdict>({ script, size, workerData: { ring: repository.ring } })
    try {
      await forEachConcurrent(sizes, { limit: size + 1, signal }, async ([pack, sizeBytes]) => {
        const excuse = async () => (await this.#isGone(packKey(pack))) && (await markedPacks(repository, signal)).has(pack)
        const whole = await this.#check(packKey(pack), () => this.#pack(pool, pack, sizeBytes), excuse)
        // One that is gone does not count for anybody any more.
        if (whole === true) this.#packs.whole.push(pack)
        else if (!(await this.#isGone(packKey(pack)))) this.#packs.damaged.push(pack)
        bytesDone += sizeBytes
        this.#options.onProgress?.({ phase: 'reading packs', bytesDone, bytesTotal })
      })
    } finally {
      await pool.close()
    }
  }

  /** Reads all WAL, and says where a backup's own is not whole. */
  async wal(objects: readonly ObjectEntry[], manifests: readonly BackupManifest[]): Promise<void> {
    const { scope, signal } = this.#options
    const branches = await this.#branches(objects)
    for (const branch of branches) {
      const own = manifests.filter((manifest) => manifest.branch === branch.path.branch)
      if (scope.kind === 'backup' && own.length === 0) continue
      for (const manifest of own) {
        const excuse = () => this.#isExpired(manifest)
        await this.#check(`backup ${manifest.id}`, () => this.#backupWal(branch, manifest), excuse)
      }
      for await (const object of listWal(this.#options.repository, branch, { signal })) {
        const needing = own.filter((manifest) => object.endLsn > manifest.startLsn && object.startLsn < manifest.stopLsn)
        if (scope.kind === 'backup' && needing.length === 0) continue
        this.#wal += 1
        const read = async () => {
          for await (const piece of readWalBytes(this.#options.repository, branch, object, { signal }))
            this.#bytes += piece.length
        }
        // Superseded, or older than what is kept: whether a backup lacks it was looked at above, and is again.
        const excuse = async () => {
          for (const manifest of needing) if (!(await this.#isCovered(branch, manifest))) return false
          return await this.#isGone(object.key)
        }
        await this.#check(object.key, read, excuse)
      }
    }
    for (const manifest of manifests) {
      if (branches.some((branch) => branch.path.branch === manifest.branch)) continue
      this.#problem(`backup ${manifest.id}`, 'the branch that its WAL lies on is not there')
    }
  }

  async #branches(objects: readonly ObjectEntry[]): Promise<Branch[]> {
    const { repository } = this.#options
    const branches: Branch[] = []
    for (const { key } of objects.filter((object) => object.key.startsWith('wal/') && object.key.endsWith('/branch'))) {
      await this.#check(key, async () => {
        const head = parseBranchHead(key, await getRecord(repository.storage, repository.ring, { kind: 'branch', name: key }))
        const [, component, incarnation, branch] = key.split('/')
        branches.push({ path: { component: component!, incarnation: incarnation!, branch: branch! }, head })
      })
    }
    return branches
  }

  async #backupWal(branch: Branch, manifest: BackupManifest): Promise<void> {
    const covered = await coverage(this.#options.repository, branch, manifest.startLsn)
    if (covered.endLsn >= manifest.stopLsn) return
    const what = `its WAL is not whole: it ends at ${formatLsn(covered.endLsn)}, needed is ${formatLsn(manifest.stopLsn)}`
    throw new Failure('WAL_GAP', what)
  }

  async #pack(pool: WorkerPool<VerifyPackJob, PackVerdict>, pack: string, sizeBytes: number): Promise<boolean> {
    const { storage } = this.#options.repository
    const stored = await storage.getRange(packKey(pack), { offset: 0, length: sizeBytes })
    const bytes = ownBytes(stored)
    const verdict = await pool.run({ pack, bytes }, [bytes.buffer])
    this.#bytes += sizeBytes
    this.#blobs += verdict.blobs
    for (const problem of verdict.problems) this.#problem(packKey(pack), problem)
    return verdict.problems.length === 0
  }

  async #isCovered(branch: Branch, manifest: BackupManifest): Promise<boolean> {
    const { endLsn } = await coverage(this.#options.repository, branch, manifest.startLsn)
    return endLsn >= manifest.stopLsn || (await this.#isExpired(manifest))
  }

  /** Whether an expiry has deleted a backup since it was listed. */
  async #isExpired({ component, id }: BackupManifest): Promise<boolean> {
    const { repository, signal } = this.#options
    return (await listExpired(repository, signal)).has(id) && (await this.#isGone(manifestName(repository, component, id)))
  }

  async #isGone(key: string): Promise<boolean> {
    for await (const object of this.#options.repository.storage.list(key)) if (object.key === key) return false
    return true
  }

  /**
   * Does a check; an expected failure of it becomes a problem of this object, unless it is excused: an expiry may work beside us. Storage that
   * is away ends the run.
   */
  async #check<T>(object: string, check: () => Promise<T>, excuse?: () => Promise<boolean>): Promise<T | undefined> {
    this.#options.signal.throwIfAborted()
    this.#objects += 1
    try {
      return await check()
    } catch (error) {
      if (error instanceof Failure && error.code.startsWith('STORAGE_')) throw error
      if (this.#options.signal.aborted) throw error
      if (error instanceof Failure && (await excuse?.()) === true) return undefined
      this.#problem(object, error instanceof Error ? error.message : String(error))
      return undefined
    }
  }

  #problem(object: string, problem: string): void {
    const known = this.#problems.some((each) => each.object === object && each.problem === problem)
    if (!known && this.#problems.length < PROBLEMS_MAX) this.#problems.push({ object, problem })
  }
}
