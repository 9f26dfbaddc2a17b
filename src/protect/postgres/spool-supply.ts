import type { Lsn } from '../../postgres/lsn.ts'
import type { KeyRing } from '../../repository/key-ring.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import { unstoredRanges } from './drain.ts'
import { heldParts } from './held-parts.ts'
import { listSpoolBranches } from './spool-branch.ts'
import { readSpool } from './spool.ts'
import { withMoreParts, type WalPart, type WalSupply } from './wal-supply.ts'

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
  const more: { branch: Branch; parts: readonly WalPart[] }[] = []
  const unpublished: UnpublishedWal[] = []
  const damaged = [...listed.damaged]
  for (const { component, branch } of listed.branches) {
    if (component !== spool.component) continue
    const isStored = stored.some(({ path }) => path.branch === branch.path.branch)
    const contents = await readSpool(spool.directory, spool.ring, branch.path.branch)
    damaged.push(...contents.damaged)
    const ranges = unstoredRanges(branch, contents, isStored ? await supply.parts(branch) : [])
    const last = contents.ranges.at(-1)
    more.push({ branch, parts: last === undefined ? [] : heldParts({ branch, held: contents, ranges, acknowledged: last.to }) })
    if (ranges.length === 0 || last === undefined) continue
    const sizeBytes = ranges.reduce((sum, { from, to }) => sum + Number(to - from), 0)
    unpublished.push({ timeline: branch.head.timeline, sizeBytes, acknowledged: last.to })
  }
  return { supply: withMoreParts(supply, more), unpublished, damaged }
}
