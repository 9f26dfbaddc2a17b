import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { Failure } from '../errors.ts'
import { segmentAt, segmentName } from '../postgres/wal-segment.ts'
import { Secret } from '../secret.ts'
import { DirectoryStorage } from '../storage/directory-storage.ts'
import { FaultyStorage } from '../storage/faulty-storage.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { readObject, type Storage } from '../storage/storage.ts'
import { listBackups, putManifest, readManifest, type BackupManifest } from './backups.ts'
import { BlobWriter } from './blob-writer.ts'
import { expireRepository, type ExpireOptions, type ExpireReport } from './expire.ts'
import { listPacks, syncIndex } from './index-sync.ts'
import { keyedName } from './key-ring.ts'
import { backupId, backupPrefix } from './layout.ts'
import { Lease } from './lease.ts'
import { listMarks, markedPacks } from './marks.ts'
import { PackUploads } from './pack-uploads.ts'
import { assertPublishable } from './publishable.ts'
import { ReferenceWalker } from './references.ts'
import { initRepository, openRepository, type Repository } from './repository.ts'
import type { Keep } from './retention.ts'
import { TreeWriter } from './tree.ts'
import { backupFingerprint, putVerdict, verdictExpiry } from './verdicts.ts'
import { verifyRepository } from './verify.ts'
import { coverage, listWal, putWal, recordGap } from './wal-archive.ts'
import { findOrMakeBranch, listBranches, type Branch } from './wal-branch.ts'
import { NO_CONTENTS } from './wal-note.ts'

const HOUR_MS = 3600 * 1000
const DAY_MS = 24 * HOUR_MS
const SEGMENT = 1024 * 1024
const FIRST_MS = Date.UTC(2026, 0, 1, 2)
const COMPONENT = 'db'
const KEEP: Keep = { daily: 3, weekly: 0, monthly: 0, pitrDays: 3 }
const signal = new AbortController().signal
const ACCESS = { passphrase: new Secret('x'), system: 's' }
const DEFAULTS = { fileMode: 0o600, directoryMode: 0o700, uid: 0, gid: 0 }
const SERVER: BackupManifest['server'] = {
  version: '18.0',
  major: 18,
  systemIdentifier: '7',
  catalogVersion: 1,
  controlVersion: 1,
  segmentSize: SEGMENT,
  dataChecksums: true,
  dataDirectory: '/d',
  encoding: 'UTF8',
  libc: null,
  collationVersions: [],
  preloadLibraries: '',
  settings: {},
  commandLine: {},
  versions: null,
}

type Files = Readonly<Record<string, Buffer>>

/** A repository with a clock of its own, and backups of made-up files, made by the protocol as `backupPostgres` follows it. */
class Scene {
  readonly storage: Storage
  readonly stateDirectory: string
  nowMs = FIRST_MS
  readonly clock = { now: () => this.nowMs, sleep: async () => undefined }
  repository!: Repository
  branch!: Branch
  #segment = 1n

  private constructor(storage: Storage, stateDirectory: string) {
    this.storage = storage
    this.stateDirectory = stateDirectory
  }

  static async open(t: TestContext, storage?: Storage): Promise<Scene> {
    const directory = await mkdtemp(join(tmpdir(), 'resus-expire-'))
    t.after(() => rm(directory, { recursive: true, force: true }))
    const scene = new Scene(storage ?? new MemoryStorage(), join(directory, 'state'))
    const access = { ...ACCESS, storage: scene.storage }
    scene.repository = (await initRepository(access, { clock: scene.clock, kdfCost: 1024 })).repository
    scene.branch = await scene.makeBranch(1, '')
    return scene
  }

  makeBranch(timeline: number, history: string): Promise<Branch> {
    const identity = { component: COMPONENT, systemIdentifier: '7', major: 18, timeline, history, ordinal: 0 }
    return findOrMakeBranch(this.repository, { ...identity, segmentSize: SEGMENT, firstLsn: BigInt(SEGMENT) }, this.clock)
  }

  /** Stores the next segments of WAL; each says that it commits now. */
  async stream(segments: number): Promise<void> {
    for (let count = 0; count < segments; count++) await this.storeWal(this.#segment++ * BigInt(SEGMENT))
  }

  async storeWal(startLsn: bigint, length = SEGMENT): Promise<void> {
    const bytes = Buffer.alloc(length, Number(startLsn / BigInt(SEGMENT)))
    const segment = segmentAt(startLsn, this.branch.head.timeline, SEGMENT)
    const commit = BigInt(this.nowMs - Date.UTC(2000, 0, 1)) * 1000n
    const note = {
      ...NO_CONTENTS,
      timeline: this.branch.head.timeline,
      segment: segmentName(segment),
      from: 0,
      to: length,
      startLsn,
      endLsn: startLsn + BigInt(length),
      sha256: createHash('sha256').update(bytes).digest('hex'),
      leastCommit: commit,
      greatestCommit: commit,
      acknowledged: null,
      source: 'stream' as const,
      synchronous: false,
    }
    await putWal(this.repository, this.branch, { note, body: [bytes] })
  }

  /** Backs up these files, with a segment of WAL. `beforePublishing` runs between the copy and the last look. */
  async backup(
    files: Files,
    more: { beforePublishing?: () => Promise<void>; afterLook?: () => Promise<void> } = {},
  ): Promise<string> {
    const { repository, stateDirectory, clock } = this
    const startedMs = this.nowMs
    const id = backupId(startedMs)
    const lease = new Lease(repository, { component: COMPONENT, backup: id, purpose: 'backup', clock })
    await lease.renew(signal)
    const newest = (await listBackups(repository, COMPONENT))[0]
    const startLsn = this.#segment * BigInt(SEGMENT) + 40n
    const marked = await markedPacks(repository, signal)
    const index = await syncIndex({ repository, stateDirectory, marked, signal })
    const packs = await listPacks(repository)
    const tree = await this.#store(
      files,
      new BlobWriter({ ring: repository.ring, index, compressionLevel: 1, packSuffix: lease.packSuffix }),
    )
    await this.stream(1)
    const manifest: BackupManifest = {
      format: 1,
      id,
      component: COMPONENT,
      kind: 'postgres',
      type: newest === undefined ? 'full' : 'incremental',
      previous: newest?.id ?? null,
      sequence: (newest?.sequence ?? 0) + 1,
      startedAt: new Date(startedMs).toISOString(),
      finishedAt: new Date(this.nowMs).toISOString(),
      server: SERVER,
      incarnation: this.branch.path.incarnation,
      branch: this.branch.path.branch,
      timeline: this.branch.head.timeline,
      startLsn,
      stopLsn: startLsn + 1000n,
      stopTime: new Date(this.nowMs).toISOString(),
      backupLabel: '',
      tablespaceMap: '',
      tablespaces: [],
      control: '',
      tree,
      defaults: DEFAULTS,
      totals: {
        files: 0,
        bytes: 0,
        bytesRead: 0,
        bytesStored: 0,
        walBytesStored: 0,
        bytesReused: 0,
        pagesChecked: 0,
        corruptPages: 0,
      },
      corruptPages: [],
    } as unknown as BackupManifest
    await more.beforePublishing?.()
    await lease.renew(signal)
    await assertPublishable({ repository, manifest, stateDirectory, seen: { marked, packs: new Set(packs.keys()) }, signal })
    await more.afterLook?.()
    await putManifest(repository, manifest, signal)
    return id
  }

  async #store(files: Files, writer: BlobWriter): Promise<BackupManifest['tree']> {
    const uploads = new PackUploads(this.repository, signal)
    const tree = new TreeWriter(async (kind, content) => writer.store(kind, content), DEFAULTS)
    for (const [path, content] of Object.entries(files)) {
      const identity = writer.store('chunk', content)
      await tree.add({
        kind: 'file',
        path,
        mode: 0o600,
        uid: 0,
        gid: 0,
        sizeBytes: content.length,
        content: { kind: 'chunk', identity },
      })
      // A pack for each file, so that packs die one by one.
      writer.closePack()
    }
    const root = await tree.finish()
    writer.closePack()
    await uploads.accept(writer.drain())
    await uploads.finish()
    writer.close()
    return root
  }

  /** A backup each day, of which most is as on the day before. */
  async days(count: number): Promise<string[]> {
    const ids: string[] = []
    const common = randomBytes(5000)
    for (let day = 0; day < count; day++) {
      ids.push(await this.backup({ common, [`day-${day}`]: randomBytes(5000), evens: Buffer.alloc(4000, day % 2) }))
      await this.stream(2)
      this.nowMs += DAY_MS
    }
    return ids
  }

  expire(more: Partial<ExpireOptions> = {}): Promise<ExpireReport> {
    const { repository, stateDirectory, clock } = this
    return expireRepository({ repository, stateDirectory, keep: new Map([[COMPONENT, KEEP]]), clock, signal, ...more })
  }

  async prove(id: string): Promise<void> {
    const manifest = await readManifest(this.repository, COMPONENT, id)
    await putVerdict(this.repository, {
      format: 1,
      backup: id,
      component: COMPONENT,
      verdict: 'verified',
      by: 'restore',
      target: 'backup',
      reached: { timeline: 1, lsn: '0/0' },
      fingerprint: backupFingerprint(manifest),
      at: new Date(this.nowMs).toISOString(),
      expires: verdictExpiry(this.nowMs),
      seconds: 1,
      checks: [],
      software: { resus: 'test', node: 'test', postgres: null },
    })
  }

  async keys(prefix: string): Promise<string[]> {
    const found: string[] = []
    for await (const { key } of this.storage.list(prefix)) found.push(key)
    return found
  }

  /** The repository opens anew, and all that it lists is whole, by a host that has never seen it. */
  async assertWhole(): Promise<string[]> {
    const repository = await openRepository({ ...ACCESS, storage: this.storage })
    const stateDirectory = await mkdtemp(`${this.stateDirectory}-`)
    const report = await verifyRepository({ repository, stateDirectory, scope: { kind: 'all' }, signal })
    assert.deepEqual(report.problems, [])
    return (await listBackups(repository, COMPONENT)).map(({ id }) => id).toReversed()
  }
}

async function directoryStorage(t: TestContext): Promise<DirectoryStorage> {
  const directory = await mkdtemp(join(tmpdir(), 'resus-expire-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  const storage = new DirectoryStorage(join(directory, 'repository'))
  await storage.prepare()
  return storage
}

const fates = (report: ExpireReport) => report.components[0]!.backups.map(({ id, fate }) => [id, fate])

for (const kind of ['memory', 'directory'] as const) {
  test(`${kind}: what is not kept is marked, deleted a day later, and forgotten a day after that`, async (t) => {
    const scene = await Scene.open(t, kind === 'directory' ? await directoryStorage(t) : undefined)
    const ids = await scene.days(8)
    const packs = await listPacks(scene.repository)

    const first = await scene.expire()
    assert.deepEqual(fates(first).toReversed(), [
      ...ids.slice(0, 5).map((id) => [id, 'expires']),
      ...ids.slice(5).map((id) => [id, 'stays']),
    ])
    assert.deepEqual(
      first.components[0]!.backups.slice(0, 3).map(({ reasons }) => reasons),
      [
        ['newest', 'pitr', 'daily'],
        ['pitr', 'daily'],
        ['pitr', 'daily'],
      ],
    )
    assert(first.packs.marked > 0 && first.packs.deleted === 0)
    assert.deepEqual(await scene.assertWhole(), ids)

    scene.nowMs += DAY_MS - 1
    assert.deepEqual((await scene.expire()).packs.deleted, 0)
    scene.nowMs += 1
    const second = await scene.expire()
    assert.deepEqual(
      fates(second).toReversed().slice(0, 5),
      ids.slice(0, 5).map((id) => [id, 'goes']),
    )
    assert.equal(second.packs.deleted, first.packs.marked)
    assert.equal((await listPacks(scene.repository)).size, packs.size - first.packs.marked)
    assert.deepEqual(await scene.assertWhole(), ids.slice(5))
    // What the backups that went needed for themselves is only marked by now, and what lies between two that stay, of which one is kept for its day only.
    const { deletedObjects, markedObjects } = second.components[0]!.wal
    assert.deepEqual([deletedObjects, markedObjects], [10, 5 + 2])

    for (let run = 0; run < 5; run++) {
      scene.nowMs += DAY_MS
      await scene.expire()
    }
    assert.deepEqual(await listMarks(scene.repository, signal), [])
    assert.equal((await scene.keys('leases/')).length, 0)
    assert.equal((await scene.keys('expired/')).length, 5)
    // The window has gone past: the newest backup with all behind it, the others with a segment of their own.
    assert.equal((await scene.keys('wal/')).length, 1 + 3 + 1 + 1)
    assert.deepEqual(await scene.assertWhole(), ids.slice(5))
  })
}

test('a dry run says the same and touches nothing', async (t) => {
  const scene = await Scene.open(t)
  await scene.days(5)
  const before = await scene.keys('')
  const dry = await scene.expire({ dryRun: true })
  assert.deepEqual(await scene.keys(''), before)
  const real = await scene.expire()
  assert.deepEqual({ ...dry, dryRun: false }, { ...real, indexObjectsReplaced: 0 })
  scene.nowMs += DAY_MS
  const marked = await scene.keys('')
  assert((await scene.expire({ dryRun: true })).packs.deleted > 0)
  assert.deepEqual(await scene.keys(''), marked)
})

test('the newest backup that a restore has proven stays, with its WAL, whatever its age', async (t) => {
  const scene = await Scene.open(t)
  const ids = await scene.days(6)
  await scene.prove(ids[0]!)
  await scene.prove(ids[1]!)
  for (let run = 0; run < 3; run++) {
    await scene.expire()
    scene.nowMs += DAY_MS
  }
  assert.deepEqual((await scene.assertWhole()).slice(0, 2), [ids[1], ids[3]])
})

test('a backup that is proven, or wanted by a new policy, before its grace is over stays', async (t) => {
  const scene = await Scene.open(t)
  const ids = await scene.days(6)
  await scene.expire()
  await scene.prove(ids[0]!)
  scene.nowMs += DAY_MS
  const report = await scene.expire({ keep: new Map([[COMPONENT, { ...KEEP, pitrDays: 5 }]]) })
  assert.deepEqual(
    fates(report)
      .toReversed()
      .slice(0, 4)
      .map(([, fate]) => fate),
    ['stays', 'goes', 'stays', 'stays'],
  )
  const left = await scene.assertWhole()
  assert.deepEqual(left, [ids[0], ...ids.slice(2)])
  // Its packs stay marked, and are not reused: they may go as soon as it does.
  assert((await markedPacks(scene.repository, signal)).size > 0)
})

test('a pack of a run at work is not marked, nor what an interrupted one stored in the last week', async (t) => {
  const scene = await Scene.open(t)
  await scene.days(1)
  const ended = scene.backup({ a: randomBytes(3000) }, { beforePublishing: () => Promise.reject(new Error('killed')) })
  await assert.rejects(ended, /killed/)
  const orphans = (await listPacks(scene.repository)).size
  for (let day = 0; day < 6; day++) {
    assert.equal((await scene.expire()).packs.marked, 0)
    scene.nowMs += DAY_MS
  }
  scene.nowMs += 2 * DAY_MS
  assert.equal((await scene.expire()).packs.marked, 2)
  scene.nowMs += DAY_MS
  assert.equal((await scene.expire()).packs.deleted, 2)
  assert.equal((await listPacks(scene.repository)).size, orphans - 2)
  await scene.assertWhole()
})

test('a backup beside an expiry is published when it refers to nothing that is marked, and is ended when it does', async (t) => {
  const scene = await Scene.open(t)
  const old = randomBytes(3000)
  await scene.backup({ old, other: randomBytes(100) })
  scene.nowMs += 5 * DAY_MS
  await scene.days(3)
  const mark = async () => {
    assert((await scene.expire()).packs.marked > 0)
  }
  // It reuses what only the oldest backup has, and that one is marked while it runs.
  await assert.rejects(scene.backup({ old }, { beforePublishing: mark }), { code: 'BACKUP_ABORTED' })
  // Run again it stores that anew.
  const again = await scene.backup({ old })
  scene.nowMs += DAY_MS
  await scene.expire()
  assert((await scene.assertWhole()).includes(again))
  scene.nowMs += 9 * DAY_MS
  const markMore = async () => {
    assert((await scene.expire({ keep: new Map([[COMPONENT, { ...KEEP, daily: 1 }]]) })).packs.marked > 0)
  }
  const untouched = await scene.backup({ fresh: randomBytes(3000) }, { beforePublishing: markMore })
  assert((await scene.assertWhole()).includes(untouched))
})

test('a run that stood still over the grace period finds its name closed, and its backup never was', async (t) => {
  const scene = await Scene.open(t)
  const old = randomBytes(3000)
  await scene.backup({ old })
  scene.nowMs += 5 * DAY_MS
  const ids = await scene.days(3)
  const frozen = async () => {
    await scene.expire()
    scene.nowMs += DAY_MS
    assert((await scene.expire()).packs.deleted > 0)
  }
  await assert.rejects(scene.backup({ old }, { afterLook: frozen }), { code: 'BACKUP_ABORTED' })
  assert.deepEqual(await scene.assertWhole(), ids)
  assert.equal((await scene.keys(backupPrefix(keyedName(scene.repository.ring, 'component', COMPONENT)))).length, 4)
})

test('a run that looked before the mark and published after it keeps what it refers to', async (t) => {
  const scene = await Scene.open(t)
  const old = randomBytes(3000)
  await scene.backup({ old })
  scene.nowMs += 5 * DAY_MS
  await scene.days(3)
  const mark = async () => {
    await scene.expire()
  }
  const late = await scene.backup({ old }, { afterLook: mark })
  for (let run = 0; run < 4; run++) {
    scene.nowMs += DAY_MS
    await scene.expire()
    assert((await scene.assertWhole()).includes(late))
  }
})

test('superseded pieces, gaps that concern nothing kept and branches of a forgotten cluster go', async (t) => {
  const scene = await Scene.open(t)
  const main = scene.branch
  const other = { component: COMPONENT, systemIdentifier: '8', major: 17, timeline: 1, history: '', ordinal: 0 }
  await findOrMakeBranch(scene.repository, { ...other, segmentSize: SEGMENT, firstLsn: 0n }, scene.clock)
  await recordGap(scene.repository, main, { from: 100n, to: 200n, why: 'test', at: new Date(scene.nowMs).toISOString() })
  await scene.storeWal(5n * BigInt(SEGMENT), 5000)
  await scene.days(6)
  const newestStart = (await listBackups(scene.repository, COMPONENT))[0]!.startLsn
  const piece = (newestStart / BigInt(SEGMENT) + 1n) * BigInt(SEGMENT)
  await scene.storeWal(piece, 7000)
  for (let run = 0; run < 2; run++) {
    await scene.expire()
    scene.nowMs += DAY_MS
  }
  await scene.expire()
  assert.deepEqual(await scene.keys('gaps/'), [])
  const left: string[] = []
  for await (const { key } of listWal(scene.repository, main)) left.push(key)
  assert.deepEqual(
    left.filter((key) => key.includes('.')),
    [],
  )
  assert.deepEqual(
    (await listBranches(scene.repository, COMPONENT)).map(({ head }) => head.systemIdentifier),
    ['7'],
  )
  await scene.assertWhole()
})

test('timelines: WAL of the line that the kept backups lie on stays, across the switch', async (t) => {
  const scene = await Scene.open(t)
  const [first] = await scene.days(1)
  await scene.stream(2)
  const switchLsn = 5n * BigInt(SEGMENT)
  scene.nowMs += DAY_MS
  scene.branch = await scene.makeBranch(2, `1\t0/${switchLsn.toString(16).toUpperCase()}\tno recovery target specified\n`)
  await scene.stream(3)
  for (let run = 0; run < 3; run++) {
    await scene.expire()
    scene.nowMs += 2 * DAY_MS
  }
  // The only backup is on timeline 1: everything since is reached from it.
  assert.equal((await scene.keys('wal/')).length, 2 + 1 + 2 + 2 + 3)
  const later = await scene.days(6)
  for (let run = 0; run < 3; run++) {
    await scene.expire()
    scene.nowMs += DAY_MS
  }
  const left = await scene.assertWhole()
  assert(!left.includes(first!) && left.includes(later.at(-1)!))
  const onFirst = (await scene.keys('wal/')).filter((key) => key.includes('/000000010'))
  assert.deepEqual(onFirst, [])
})

test('many small index objects become one, and a host that knew the old ones finds everything', async (t) => {
  const scene = await Scene.open(t)
  await scene.days(40)
  assert((await scene.keys('index/')).length >= 40)
  assert((await scene.expire()).indexObjectsReplaced >= 40)
  scene.nowMs += DAY_MS
  await scene.expire()
  assert((await scene.keys('index/')).length <= 2)
  await syncIndex({ repository: scene.repository, stateDirectory: scene.stateDirectory })
  await scene.assertWhole()
})

test('nothing expires from a repository that is damaged', async (t) => {
  const scene = await Scene.open(t)
  await scene.days(5)
  const [oldest] = await scene.keys('backups/')
  const flipping = new FaultyStorage(scene.storage, ({ operation, key }) =>
    operation === 'get' && key === oldest ? 'flip' : undefined,
  )
  const before = await scene.keys('')
  await assert.rejects(scene.expire({ repository: { ...scene.repository, storage: flipping } }), { code: 'OBJECT_DAMAGED' })
  assert.deepEqual(await scene.keys(''), before)
})

const FEW = new Map([[COMPONENT, { daily: 1, weekly: 0, monthly: 0, pitrDays: 0 }]])

test('an expiry that dies at any call of the storage leaves a repository that is whole, and the next ones end what it began', async (t) => {
  const scene = await Scene.open(t)
  const ids = await scene.days(3)
  const made = await copyOf(scene.storage)
  const startMs = scene.nowMs
  for (let failAt = 0; ; failAt++) {
    const storage = await copyOf(made)
    let calls = 0
    const dying = new FaultyStorage(storage, ({ operation }) => {
      calls += 1
      if (calls <= failAt) return undefined
      return operation === 'put' ? 'torn' : 'error'
    })
    scene.nowMs = startMs
    const died = await expireUntilDeath(scene, { ...scene.repository, storage: dying })
    const after = { ...scene.repository, storage }
    await assertReferences(scene, after, `call ${failAt}`)
    for (let run = 0; run < 5; run++) {
      scene.nowMs += DAY_MS
      await scene.expire({ repository: after, keep: FEW })
    }
    assert.deepEqual(await assertReferences(scene, after, `call ${failAt}`), ids.slice(-1))
    assert.deepEqual(await listMarks(after, signal), [], `call ${failAt}`)
    if (died) continue
    t.diagnostic(`${failAt} places to die`)
    assert(failAt > 100)
    return
  }
})

/** Both phases and their end, in one process that dies once. */
async function expireUntilDeath(scene: Scene, repository: Repository): Promise<boolean> {
  for (let run = 0; run < 4; run++) {
    try {
      await scene.expire({ repository, keep: FEW })
    } catch (error) {
      assert(error instanceof Failure && error.code === 'STORAGE_UNREACHABLE', String(error))
      return true
    }
    scene.nowMs += DAY_MS
  }
  return false
}

/** Every blob of every backup that is listed is in a pack that is there, and its WAL is whole. */
async function assertReferences(scene: Scene, repository: Repository, what: string): Promise<string[]> {
  const backups = await listBackups(repository, COMPONENT)
  const walker = new ReferenceWalker(repository, await syncIndex({ repository, stateDirectory: scene.stateDirectory }))
  try {
    for (const manifest of backups) {
      for await (const places of walker.walkPlaces(manifest, signal)) assert(places.length > 0, what)
      assert((await coverage(repository, scene.branch, manifest.startLsn)).endLsn >= manifest.stopLsn, what)
    }
  } finally {
    walker.close()
  }
  return backups.map(({ id }) => id).toReversed()
}

async function copyOf(storage: Storage): Promise<MemoryStorage> {
  const copy = new MemoryStorage()
  for await (const { key } of storage.list('')) await copy.put(key, await readObject(storage, key))
  return copy
}
