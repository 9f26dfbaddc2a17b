import { Failure } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { segmentAt, segmentEnd, segmentStart } from '../../postgres/wal-segment.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { coverFrom, type LsnRange } from '../../repository/wal-archive.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import { switchLsn, type Line } from './recovery-path.ts'
import type { WalPart, WalSupply } from './wal-supply.ts'

/** WAL of one timeline that recovery reads, without a gap: from `from` up to `to`, where the next timeline takes over or it ends. */
export interface Stretch {
  readonly branch: Branch
  readonly from: Lsn
  readonly to: Lsn
  /** From the start of the segment of `from` on. */
  readonly parts: readonly WalPart[]
}

/** What can be replayed behind a backup. */
export interface Reach {
  /** One for each timeline as far as there is no gap; at least that of the backup. */
  readonly stretches: readonly [Stretch, ...Stretch[]]
  /** What is missing behind the last stretch; undefined where the WAL simply ends. */
  readonly hole: LsnRange | undefined
}

/** Proves from names how far the WAL leads along a line from a backup on. Throws WAL_GAP when the backup's own WAL is not whole. */
export async function reachOf(supply: WalSupply, manifest: BackupManifest, line: Line): Promise<Reach> {
  const stretches: Stretch[] = []
  let from = manifest.startLsn
  let hole: LsnRange | undefined
  for (const [index, branch] of line.entries()) {
    const { segmentSize } = branch.head
    // PostgreSQL reads whole segments: what lies before the first position in its segment has to be there too.
    const covered = coverFrom(await supply.parts(branch), (from / BigInt(segmentSize)) * BigInt(segmentSize))
    const next = line[index + 1]
    const end = next === undefined ? undefined : switchLsn(next, branch)
    const to = end !== undefined && end < covered.endLsn ? end : covered.endLsn
    if (index === 0 && to < manifest.stopLsn) throw backupGap(manifest, branch, { at: covered.endLsn, hole: covered.holes[0] })
    // A timeline of which nothing is stored yet: what leads to it is all that there is.
    if (index > 0 && next === undefined && covered.objects.length === 0 && covered.holes.length === 0) break
    if (to < from) {
      hole = { from: to, to: from }
      break
    }
    stretches.push({ branch, from, to, parts: covered.objects })
    if (end === undefined) [hole] = covered.holes
    else if (to < end) hole = { from: to, to: covered.holes[0]?.to ?? end }
    if (end === undefined || hole !== undefined) break
    from = end
  }
  return { stretches: stretches as [Stretch, ...Stretch[]], hole }
}

function backupGap(manifest: BackupManifest, branch: Branch, gap: { at: Lsn; hole: LsnRange | undefined }): Failure {
  const where = `timeline ${branch.head.timeline} ends at ${formatLsn(gap.at)}`
  const behind =
    gap.hole === undefined ? 'nothing is stored behind it' : `the next stored WAL begins at ${formatLsn(gap.hole.to)}`
  return new Failure('WAL_GAP', `the WAL that backup ${manifest.id} needs is not whole: ${where}, ${behind}`, {
    hint: 'choose another backup or an earlier target; "resus verify --all" says what is missing',
  })
}

/** One segment of a stretch, as far as it belongs to it. */
export interface WalUnit {
  readonly stretch: Stretch
  /** The segment's start, and how far it belongs to the stretch. */
  readonly from: Lsn
  readonly to: Lsn
  readonly parts: readonly WalPart[]
}

/** The segments of stretches, in order. A segment in which a timeline began occurs twice. */
export function unitsOf(stretches: readonly Stretch[]): WalUnit[] {
  const units: (WalUnit & { readonly parts: WalPart[] })[] = []
  for (const stretch of stretches) {
    const { timeline, segmentSize } = stretch.branch.head
    for (const part of stretch.parts) {
      const segment = segmentAt(part.startLsn, timeline, segmentSize)
      const from = segmentStart(segment)
      if (from >= stretch.to) break
      const end = segmentEnd(segment)
      const open = units.at(-1)
      if (open?.stretch === stretch && open.from === from) open.parts.push(part)
      else units.push({ stretch, from, to: end < stretch.to ? end : stretch.to, parts: [part] })
    }
  }
  return units
}
