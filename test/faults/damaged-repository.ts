import assert from 'node:assert/strict'
import { access, mkdir, mkdtemp, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { Failure, type FailureCode } from '../../src/errors.ts'
import type { BackupReport } from '../../src/protect/postgres/backup.ts'
import type { RecoveryTarget } from '../../src/protect/postgres/recovery-target.ts'
import { restorePostgres, type RestoreReport } from '../../src/protect/postgres/restore.ts'
import { readPackDirectory } from '../../src/repository/pack.ts'
import { HEADER_BYTES, TAG_BYTES } from '../../src/repository/sealed-object.ts'
import { verifyRepository } from '../../src/repository/verify.ts'
import { listBranches, type Branch } from '../../src/repository/wal-branch.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import type { Random } from './random.ts'
import { flushLsn, connect, startStream, writeWal } from '../services/stream.ts'

/** What says that an object is not as it was written, or not there. */
const DAMAGE_CODES: readonly FailureCode[] = [
  'OBJECT_DAMAGED',
  'REPOSITORY_TOO_NEW',
  'KEY_WRONG',
  'BLOB_MISSING',
  'RESTORE_COMMAND_FAILED',
]

/** The pack's parts, in bytes: [from, to). */
export interface PackParts {
  readonly header: readonly [number, number]
  readonly blobs: readonly [number, number]
  readonly directory: readonly [number, number]
  readonly trailer: readonly [number, number]
}

export const FINGERPRINT = `select count(*)::int as count, md5(string_agg(md5(p::text), '' order by id)) as md5 from patients p`

interface Made {
  readonly cluster: ProtectedCluster
  readonly full: BackupReport
  readonly incremental: BackupReport
  readonly expected: unknown
  readonly branch: Branch
  readonly packs: ReadonlyMap<string, readonly string[]>
  readonly scratch: string
}

/** A repository with every kind of object that a cluster makes; the cluster itself is gone. */
export class DamagedRepository {
  readonly cluster: ProtectedCluster
  readonly full: BackupReport
  readonly incremental: BackupReport
  /** What a restore has to bring back. */
  readonly expected: unknown
  readonly branch: Branch
  /** Names of the packs that each backup made, by its id. */
  readonly packs: ReadonlyMap<string, readonly string[]>
  readonly #scratch: string

  constructor(made: Made) {
    this.cluster = made.cluster
    this.full = made.full
    this.incremental = made.incremental
    this.expected = made.expected
    this.branch = made.branch
    this.packs = made.packs
    this.#scratch = made.scratch
  }

  async keys(prefix: string): Promise<string[]> {
    return await listKeys(this.cluster, prefix)
  }

  path(key: string): string {
    return join(this.cluster.repositoryDirectory, key)
  }

  async sizeOf(key: string): Promise<number> {
    return (await stat(this.path(key))).size
  }

  /** The places in a pack of blobs that no other pack has. */
  async uniqueBlobs(key: string): Promise<readonly (readonly [number, number])[]> {
    const { storage, ring } = this.cluster.repository
    const times = new Map<string, number>()
    const own: { name: string; place: readonly [number, number] }[] = []
    for (const each of await this.keys('packs/')) {
      const stored = { pack: each.slice(-32), sizeBytes: await this.sizeOf(each) }
      for (const { identity, offset, storedBytes } of await readPackDirectory(storage, ring, stored)) {
        const name = identity.toString('hex')
        times.set(name, (times.get(name) ?? 0) + 1)
        if (each === key) own.push({ name, place: [offset, offset + storedBytes] })
      }
    }
    return own.filter(({ name }) => times.get(name) === 1).map(({ place }) => place)
  }

  /** Where the frame of an object's head ends: u32 length behind the header, then the ciphertext and its tag. */
  async headEndOf(key: string): Promise<number> {
    return HEADER_BYTES + 4 + ((await readFile(this.path(key))).readUInt32LE(HEADER_BYTES) & 0x7fffffff) + TAG_BYTES
  }

  /** Flips one bit of an object within [from, to), as a disk would, while `check` runs. */
  async whileFlipped(
    flip: { key: string; within?: readonly [number, number]; random: Random; t: Pick<TestContext, 'diagnostic'> },
    check: (offset: number) => Promise<void>,
  ): Promise<void> {
    const { key, random } = flip
    const [from, to] = flip.within ?? [0, await this.sizeOf(key)]
    const at = { offset: from + random.below(to - from), bit: random.below(8) }
    flip.t.diagnostic(`bit ${at.bit} of byte ${at.offset} of "${key}"`)
    await this.#flip(key, at)
    try {
      await check(at.offset)
    } finally {
      await this.#flip(key, at)
    }
  }

  /** Takes objects away while `check` runs. */
  async whileGone(keys: readonly string[], check: () => Promise<void>): Promise<void> {
    for (const key of keys) await rename(this.path(key), this.#aside(key))
    try {
      await check()
    } finally {
      for (const key of keys) await rename(this.#aside(key), this.path(key))
    }
  }

  /** Puts other bytes under the name of an object while `check` runs. */
  async whileReplaced(key: string, bytes: Buffer, check: () => Promise<void>): Promise<void> {
    await this.whileGone([key], async () => {
      await writeFile(this.path(key), bytes)
      try {
        await check()
      } finally {
        await rm(this.path(key))
      }
    })
  }

  #aside(key: string): string {
    return join(this.#scratch, `aside-${key.replaceAll('/', '_')}`)
  }

  async #flip(key: string, at: { offset: number; bit: number }): Promise<void> {
    const file = await open(this.path(key), 'r+')
    try {
      const byte = Buffer.alloc(1)
      await file.read(byte, 0, 1, at.offset)
      byte[0] = byte[0]! ^ (1 << at.bit)
      await file.write(byte, 0, 1, at.offset)
    } finally {
      await file.close()
    }
  }

  async packParts(key: string): Promise<PackParts> {
    const bytes = await readFile(this.path(key))
    const trailer = bytes.length - 16
    const directory = trailer - bytes.readUInt32LE(trailer)
    return { header: [0, 32], blobs: [32, directory], directory: [directory, trailer], trailer: [trailer, bytes.length] }
  }

  /** The problems that reading everything back finds, on a machine that has no local state. */
  async problems(): Promise<readonly { object: string; problem: string }[]> {
    const stateDirectory = await mkdtemp(join(this.#scratch, 'state-'))
    const { repository } = this.cluster
    const { signal } = new AbortController()
    const report = await verifyRepository({ repository, stateDirectory, scope: { kind: 'all' }, signal })
    assert.equal(report.verdict, report.problems.length === 0 ? 'verified' : 'failed')
    await rm(stateDirectory, { recursive: true })
    return report.problems
  }

  /** Restores on a machine that has no local state. */
  async restore(target: RecoveryTarget = { kind: 'latest' }): Promise<RestoreReport> {
    const { repository, component, configPath } = this.cluster
    const stateDirectory = await mkdtemp(join(this.#scratch, 'state-'))
    const common = { stateDirectory, clock: systemClock, signal: new AbortController().signal }
    const to = join(stateDirectory, 'restored')
    return await restorePostgres({ repository, component, configPath, target, to, ...common })
  }

  /** A restore that has to fail with a Failure that names `what`, and to leave nothing that starts. */
  async assertRestoreFails(what: string, target: RecoveryTarget = { kind: 'latest' }): Promise<void> {
    const stateDirectory = await mkdtemp(join(this.#scratch, 'state-'))
    const { repository, component, configPath } = this.cluster
    const to = join(stateDirectory, 'restored')
    const common = { stateDirectory, clock: systemClock, signal: new AbortController().signal }
    await assert.rejects(restorePostgres({ repository, component, configPath, target, to, ...common }), (error) => {
      assert.ok(error instanceof Failure, `a Failure was wanted, found ${String(error)}`)
      assert.ok(DAMAGE_CODES.includes(error.code), `${error.code}: ${error.message}`)
      assert.ok(error.message.includes(what), `"${error.message}" names "${what}"`)
      return true
    })
    await assert.rejects(access(join(to, 'global/pg_control')), { code: 'ENOENT' })
    await rm(stateDirectory, { recursive: true })
  }

  /** Restores, starts, and compares. */
  async assertRestores(target: RecoveryTarget = { kind: 'latest' }, expected = this.expected): Promise<void> {
    const report = await this.restore(target)
    await using restored = await this.cluster.startRestored(report)
    assert.deepEqual(await restored.query(FINGERPRINT), expected)
  }
}

/** Backs a small cluster up, full and incremental, under a receiver that leaves whole segments and pieces, and ends both. */
export async function damagedRepository(t: TestContext, major = 18): Promise<DamagedRepository> {
  const cluster = await protectedCluster(t, { major, walSegmentMegabytes: 1 })
  const { repository, repositoryDirectory, component } = cluster
  const scratch = join(cluster.cluster.home, 'scratch')
  await mkdir(scratch)
  const client = await connect(t, cluster.cluster.connectionString)
  await client.query('create table patients (id bigint primary key, name text not null, noise bytea)')
  await client.query(
    `insert into patients select i, 'patient ' || i, decode(repeat(md5(i::text), 8), 'hex') from generate_series(1, 20000) i`,
  )
  const home = { repository, repositoryDirectory, spoolDirectory: join(scratch, 'spool'), faults: () => undefined }
  const stream = startStream(t, home, {
    connectionString: cluster.cluster.connectionString,
    component: { ...component, stream: { ...component.stream, partialEverySeconds: 1 } },
  })
  await stream.waitFor(({ kind }) => kind === 'connected')
  const full = await cluster.backup()
  const fullPacks = await listKeys(cluster, 'packs/')
  await client.query(`update patients set name = name || ' changed' where id % 20 = 0`)
  const incremental = await cluster.backup()
  const incrementalPacks = (await listKeys(cluster, 'packs/')).filter((key) => !fullPacks.includes(key))
  for (let round = 0; round < 12; round++) await writeWal(client)
  await client.query(`update patients set name = name || ' again' where id % 30 = 0`)
  const { rows: expected } = await client.query(FINGERPRINT)
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await stream.stop()
  await rm(home.spoolDirectory, { recursive: true })
  const [branch] = await listBranches(repository, component.name)
  await cluster.cluster.kill()
  const packs = new Map([
    [full.id, fullPacks],
    [incremental.id, incrementalPacks],
  ])
  return new DamagedRepository({ cluster, full, incremental, expected, branch: branch!, packs, scratch })
}

/** Names of the objects below a prefix. */
async function listKeys(cluster: ProtectedCluster, prefix: string): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of cluster.repository.storage.list(prefix)) keys.push(key)
  return keys
}
