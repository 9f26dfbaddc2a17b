import type { Lsn } from '../../postgres/lsn.ts'
import type { KeyRing } from '../../repository/key-ring.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import { describeRange, unstoredRanges } from './drain.ts'
import { listSpoolBranches } from './spool-branch.ts'
import { readSpool } from './spool.ts'
import type { WalDescription } from './wal-digest.ts'
import type { WalPart, WalSupply } from './wal-supply.ts'

/** WAL in this host's spool that a restore would publish before it plans. */
export interface UnpublishedWal {
  readonly timeline: number
  readonly sizeBytes: number
  /** The receiver had acknowledged everything before it. */
  readonly acknowledged: Lsn
}

/** Paths of what is damaged in a component's spool. Opens every frame of it, and changes nothing. */
export async function damagedSpoolFiles(spool: {
  readonly directory: string
  readonly component: string
  readonly ring: KeyRing
}): Promise<string[]> {
  const listed = await listSpoolBranches(spool.directory, spool.ring)
  const damaged = [...listed.damaged]
  for (const { component, branch } of listed.branches) {
    if (component !== spool.component) continue
    damaged.push(...(await readSpool(spool.directory, spool.ring, branch.path.branch)).damaged)
  }
  return damaged
}

/**
 * The supply as it would be if the spool were published: nothing is, and nothing is deleted. Opens every frame of the spool, as publishing
 * would. Safe beside a living receiver; a file that it deletes meanwhile fails with ENOENT.
 */
export async function withSpool(
  supply: WalSupply,
  spool: { readonly directory: string; readonly component: string; readonly ring: KeyRing },
): Promise<{ supply: WalSupply; unpublished: UnpublishedWal[]; damaged: readonly string[] }> {
  const stored = await supply.branches()
  const listed = await listSpoolBranches(spool.directory, spool.ring)
  const added = new Map<string, WalPart[]>()
  const branches: Branch[] = [...stored]
  const unpublished: UnpublishedWal[] = []
  const damaged = [...listed.damaged]
  for (const { component, branch } of listed.branches) {
    if (component !== spool.component) continue
    const isStored = stored.some(({ path }) => path.branch === branch.path.branch)
    const contents = await readSpool(spool.directory, spool.ring, branch.path.branch)
    damaged.push(...contents.damaged)
    const ranges = unstoredRanges(branch, contents, isStored ? await supply.parts(branch) : [])
    if (!isStored) branches.push(branch)
    const last = contents.ranges.at(-1)
    if (ranges.length === 0 || last === undefined) continue
    const sizeBytes = ranges.reduce((sum, { from, to }) => sum + Number(to - from), 0)
    unpublished.push({ timeline: branch.head.timeline, sizeBytes, acknowledged: last.to })
    const parts = ranges.map((range): WalPart => {
      // Each call would read the segment again.
      let described: Promise<WalDescription> | undefined
      const note = async () => ({ ...(await (described ??= describeRange(branch, contents, range))), acknowledged: last.to })
      return { startLsn: range.from, endLsn: range.to, note, read: () => contents.read(range) }
    })
    added.set(branch.path.branch, parts)
  }
  const parts = async (branch: Branch): Promise<readonly WalPart[]> => {
    const more = added.get(branch.path.branch)
    const there = stored.some(({ path }) => path.branch === branch.path.branch) ? await supply.parts(branch) : []
    return more === undefined ? there : [...there, ...more].toSorted(byStart)
  }
  return { supply: { branches: async () => branches, parts }, unpublished, damaged }
}

function byStart(left: WalPart, right: WalPart): number {
  if (left.startLsn !== right.startLsn) return left.startLsn < right.startLsn ? -1 : 1
  if (left.endLsn === right.endLsn) return 0
  return left.endLsn > right.endLsn ? -1 : 1
}
