import type { Lsn } from '../../postgres/lsn.ts'
import type { LsnRange } from '../../repository/wal-archive.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import { describeRange } from './drain.ts'
import type { HeldWal } from './spool.ts'
import type { WalDescription } from './wal-digest.ts'
import type { WalPart } from './wal-supply.ts'

/** Ranges of held WAL as they would be if they were stored. */
export function heldParts(options: {
  readonly branch: Branch
  readonly held: HeldWal
  readonly ranges: readonly LsnRange[]
  readonly acknowledged: Lsn | null
}): WalPart[] {
  const { branch, held, ranges, acknowledged } = options
  return ranges.map((range): WalPart => {
    // Each call would read the segment again.
    let described: Promise<WalDescription> | undefined
    const note = async () => ({ ...(await (described ??= describeRange(branch, held, range))), acknowledged })
    return { startLsn: range.from, endLsn: range.to, note, read: () => held.read(range) }
  })
}
