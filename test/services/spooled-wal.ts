import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import type { Lsn } from '../../src/postgres/lsn.ts'
import { Spool } from '../../src/protect/postgres/spool.ts'
import { initRepository, type Repository } from '../../src/repository/repository.ts'
import { listWal, type LsnRange } from '../../src/repository/wal-archive.ts'
import { findOrMakeBranch, type Branch } from '../../src/repository/wal-branch.ts'
import { Secret } from '../../src/secret.ts'
import { FaultyStorage, type Fault, type FaultDecision } from '../../src/storage/faulty-storage.ts'
import { MemoryStorage } from '../../src/storage/memory-storage.ts'

export const SEGMENT = 1024 * 1024
/** Where the WAL begins. */
export const START = BigInt(16 * SEGMENT)

export interface SpooledWal {
  directory: string
  readonly repository: Repository
  readonly branch: Branch
  /** What the WAL is, from START on. */
  readonly wal: Buffer
  /** The storage behind the faults. */
  readonly inner: MemoryStorage
  /** What the storage does wrong; settable. */
  faults: (decision: FaultDecision) => Fault | undefined
}

/** A repository in memory, a place for a spool, and bytes that stand for WAL. */
export async function spooledWal(t: TestContext): Promise<SpooledWal> {
  const directory = join(await mkdtemp(join(tmpdir(), 'resus-spool-')), 'spool')
  t.after(() => rm(join(directory, '..'), { recursive: true, force: true }))
  let faults: SpooledWal['faults'] = () => undefined
  const inner = new MemoryStorage()
  const storage = new FaultyStorage(inner, (decision) => faults(decision))
  const access = { storage, passphrase: new Secret('x'), system: 'test' }
  const { repository } = await initRepository(access, { clock: systemClock, kdfCost: 1024 })
  return {
    directory,
    repository,
    inner,
    branch: await branchOf(repository, 1),
    wal: randomBytes(4 * SEGMENT),
    get faults() {
      return faults
    },
    set faults(decide) {
      faults = decide
    },
  }
}

export async function branchOf(repository: Repository, timeline: number): Promise<Branch> {
  const history = timeline === 1 ? '' : `1\t0/1000000\tfor a test\n`
  const identity = { component: 'db', systemIdentifier: '7345', major: 18, timeline, history, ordinal: 0 }
  return await findOrMakeBranch(repository, { ...identity, segmentSize: SEGMENT, firstLsn: START }, systemClock)
}

export async function openSpool({ directory, repository }: SpooledWal): Promise<Spool> {
  return await Spool.open({ directory, component: 'db', ring: repository.ring, bytesMax: 2 ** 30 })
}

/** Spools [from, to) of the WAL, counted from START, in batches of so many bytes. */
export async function spoolWal(
  all: SpooledWal,
  spool: Spool,
  range: { from: number; to: number; batch?: number; branch?: Branch },
): Promise<void> {
  const { from, to, batch = 100_000, branch = all.branch } = range
  const writer = await spool.startWriting(branch, START + BigInt(from))
  for (let at = from; at < to; at += batch) {
    writer.append(START + BigInt(at), all.wal.subarray(at, Math.min(to, at + batch)))
    await writer.sync()
  }
  await writer.close()
}

export function lsnRange(from: number, to: number): LsnRange {
  return { from: START + BigInt(from), to: START + BigInt(to) }
}

export async function spoolFiles({ directory }: SpooledWal): Promise<string[]> {
  return (await readdir(directory)).filter((name) => name.endsWith('.spool')).map((name) => join(directory, name))
}

/** What the repository has of a branch, object by object. */
export async function storedWal({ repository }: SpooledWal, branch: Branch): Promise<{ from: Lsn; to: Lsn }[]> {
  const stored: { from: Lsn; to: Lsn }[] = []
  for await (const { startLsn, endLsn } of listWal(repository, branch)) stored.push({ from: startLsn, to: endLsn })
  return stored
}
