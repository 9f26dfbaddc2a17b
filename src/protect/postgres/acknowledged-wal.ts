import { Failure } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import type { RecoveryTarget } from './recovery-target.ts'
import type { Stretch } from './wal-stretch.ts'
import type { WalPart } from './wal-supply.ts'

// What the server was told to be safe, against what there is: WAL that was deleted from the end leaves no gap.

/** Pieces overlap and come from several writers: the greatest need not be noted with the last. */
const NOTES_READ_MAX = 16

/** The greatest LSN that notes near the end of the WAL name as acknowledged; null when none does. */
export async function greatestAcknowledged(stretches: readonly Stretch[]): Promise<Lsn | null> {
  const { parts, to } = stretches.at(-1)!
  // Cut where another timeline left it: what was acknowledged behind was abandoned, not lost.
  if (parts.some(({ endLsn }) => endLsn > to)) return null
  const noted = await Promise.all(parts.slice(-NOTES_READ_MAX).map(acknowledgedWith))
  return noted.reduce((greatest, each) => (greatest === null || (each !== null && each > greatest) ? each : greatest), null)
}

async function acknowledgedWith(part: WalPart): Promise<Lsn | null> {
  try {
    return (await part.note()).acknowledged
  } catch (error) {
    // Whoever reads its WAL finds and names the damage; this is a comparison beside that.
    if (error instanceof Failure && error.code === 'OBJECT_DAMAGED') return null
    throw error
  }
}

/** Acknowledged WAL that is not there, at least; null when nothing tells, or when recovery is meant to stop before its end. */
export function bytesLost(plan: {
  readonly target: RecoveryTarget
  readonly stretches: readonly Stretch[]
  readonly acknowledgedLsn: Lsn | null
}): number | null {
  const { target, stretches, acknowledgedLsn } = plan
  if (target.kind !== 'latest' || acknowledgedLsn === null) return null
  const { to } = stretches.at(-1)!
  return acknowledgedLsn > to ? Number(acknowledgedLsn - to) : 0
}

/** What to say loudly of a loss. */
export function lossNotice(loss: { acknowledgedLsn: Lsn; endLsn: Lsn; bytes: number }): string {
  const { acknowledgedLsn, endLsn, bytes } = loss
  return (
    `ACKNOWLEDGED CHANGES ARE MISSING: the server was told that its WAL is safe up to ${formatLsn(acknowledgedLsn)}, and what there is ends at ` +
    `${formatLsn(endLsn)}: at least ${bytes} bytes are lost to this restore. Do they lie in the spool of the host that the receiver ran on? Then ` +
    'restore there, or let the receiver run and store them first. If not, the newest WAL was deleted from the repository'
  )
}
