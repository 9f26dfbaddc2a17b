import { mkdir } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { Failure, systemErrorCode } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { realPlace } from '../../postgres/running-clusters.ts'
import type { WalFact } from '../../postgres/wal-record.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { TABLESPACE_MARK } from './data-directory.ts'
import { giveDirectory, isRoot, syncAncestors } from './durable-file.ts'
import type { RecoveryTarget } from './recovery-target.ts'
import { inspectPlaces, type PlaceState } from './restore-place.ts'
import { holds, type TablespacePlace } from './tablespace-map.ts'
import { recordBeginsFrom, searchWal } from './wal-search.ts'
import type { Stretch, WalUnit } from './wal-stretch.ts'

// Replaying CREATE TABLESPACE links the restored cluster to the very path that it names, mapped or not, and from then on recovery and the restored
// server write and delete files there: beside the living cluster, the living cluster's files. One decision for restore, preview and proof.

/** A tablespace that replay makes outside the data directory. */
export interface MadeTablespace {
  readonly oid: string
  readonly path: string
  /** Where the first record of it begins. */
  readonly lsn: Lsn
}

/** All tablespaces that a recovery makes: notes tell which WAL has to be read for them. */
export async function findMadeTablespaces(recovery: {
  readonly stretches: readonly Stretch[]
  readonly target: RecoveryTarget
  /** Recovery replays everything before it; null when it replays all there is. */
  readonly endLsn: Lsn | null
}): Promise<MadeTablespace[]> {
  const { stretches, target, endLsn } = recovery
  // The record that begins at this LSN, or next behind it, is replayed too.
  const oneMore = target.kind === 'lsn' && target.exclusive !== true && endLsn !== null
  const searched = endLsn === null ? stretches : clip(stretches, oneMore ? segmentsBehind(stretches, endLsn) : endLsn)
  const wanted = {
    // Of pieces it is not sure that their writer saw where the first record in them began.
    mayHold: ({ tablespaces }: { tablespaces: boolean }, unit: WalUnit) => tablespaces || !isOnePiece(unit),
    matches: (fact: WalFact) => fact.kind === 'tablespace' && fact.path !== '',
  }
  const made = new Map<string, MadeTablespace>()
  for await (const { fact, lsn } of searchWal(searched, wanted)) {
    if (oneMore && lsn >= endLsn && (await recordBeginsFrom(clip(stretches, lsn), endLsn))) break
    if (fact.kind !== 'tablespace') continue
    const { oid, path } = fact
    const key = `${oid} ${path}`
    if (!made.has(key)) made.set(key, { oid, path, lsn })
  }
  return [...made.values()]
}

/** What is to be said and done about tablespaces that replay makes. */
export interface TablespaceJudgement {
  /** Why the restore must not be begun. */
  readonly problems: readonly Failure[]
  readonly notices: readonly string[]
  /** Directories that are free, and without which recovery would stop. */
  readonly directories: readonly string[]
}

export interface TablespacesToJudge {
  readonly made: readonly MadeTablespace[]
  /** The restored data directory, absolute. */
  readonly directory: string
  /** Of the backup, and where they go. */
  readonly tablespaces: readonly TablespacePlace[]
  /** Write nowhere but into the directories that were named: however free the place is, it is refused. */
  readonly confined: boolean
}

/** Looks where the tablespaces would be made, and touches nothing. */
export async function judgeMadeTablespaces(options: TablespacesToJudge): Promise<TablespaceJudgement> {
  const { directory, tablespaces, confined } = options
  const problems: Failure[] = []
  const notices: string[] = []
  const directories: string[] = []
  for (const made of options.made) {
    // One of the backup that goes back to its own place, which is judged as such.
    if (tablespaces.some(({ oid, path }) => oid === made.oid && resolve(path) === resolve(made.path))) continue
    const why = confined
      ? 'outside the scratch directory: take a backup after it, and use that'
      : await whyTaken(made, directory, tablespaces)
    if (why !== undefined) {
      problems.push(refusal(made, why))
      continue
    }
    directories.push(made.path)
    notices.push(
      `warning: the WAL at ${formatLsn(made.lsn)} makes tablespace ${made.oid} in "${made.path}", wherever the others are mapped to: recovery will write there. ` +
        'Nothing is there on this host; keep every other copy of this cluster away from it',
    )
  }
  return { problems, notices, directories }
}

/** Makes the directories that recovery makes tablespaces in, and gives them to the server's user; says which it cannot make. */
export async function makeTablespaceDirectories(
  directories: readonly string[],
  { defaults }: BackupManifest,
  onNotice: (text: string) => void,
): Promise<void> {
  for (const path of directories) {
    try {
      await mkdir(dirname(path), { recursive: true })
      await mkdir(path, { mode: 0o700 }).catch((error: unknown) => {
        if (systemErrorCode(error) !== 'EEXIST') throw error
      })
      if (isRoot()) await giveDirectory(path, defaults.directoryMode, defaults)
      await syncAncestors(path)
    } catch (error) {
      const code = systemErrorCode(error)
      if (code === undefined) throw error
      onNotice(
        `"${path}" cannot be made (${code}): make it, empty, for the server's user before the server is started, or recovery stops there`,
      )
    }
  }
}

async function whyTaken(
  { oid, path }: MadeTablespace,
  directory: string,
  tablespaces: readonly TablespacePlace[],
): Promise<string | undefined> {
  const real = await realPlace(path)
  for (const ours of [directory, ...tablespaces.map((tablespace) => tablespace.path)]) {
    const place = await realPlace(ours)
    if (holds(place, real) || holds(real, place)) return `where "${ours}" of this restore lies`
  }
  const [found] = await inspectPlaces([{ path, mark: TABLESPACE_MARK, tablespace: oid }])
  return found === undefined ? undefined : whyNotFree(found.state)
}

function whyNotFree(state: PlaceState): string | undefined {
  switch (state.kind) {
    case 'missing':
    case 'empty':
      return undefined
    case 'interrupted':
    case 'cluster':
      return 'and it holds what another restore left'
    case 'occupied':
      return `and ${state.why}`
    case 'in use':
      return `and ${state.why}`
    case 'unreadable':
      return `which cannot be looked into: ${state.why}`
    default:
      return state satisfies never
  }
}

function refusal({ oid, path, lsn }: MadeTablespace, why: string): Failure {
  const at = formatLsn(lsn)
  const what = `the WAL at ${at} makes tablespace ${oid} in "${path}", and replaying that writes there, ${why}`
  return new Failure('TABLESPACE_IN_WAL', what, {
    hint:
      `take a backup that is newer than it, and restore that with --tablespace-map ${oid}=/new/place; or restore to before it, with --target-lsn ${at} --exclusive; ` +
      'or restore on a host where that place is free; or, when nothing needs what is there, move that away',
  })
}

function isOnePiece({ stretch, from, parts }: WalUnit): boolean {
  const end = from + BigInt(stretch.branch.head.segmentSize)
  return parts.some(({ startLsn, endLsn }) => startLsn === from && endLsn === end)
}

/** The end of the segment behind that of an LSN: as far as a record reaches that goes over that LSN. */
function segmentsBehind(stretches: readonly Stretch[], lsn: Lsn): Lsn {
  const size = BigInt(stretches[0]!.branch.head.segmentSize)
  return (lsn / size + 2n) * size
}

function clip(stretches: readonly Stretch[], end: Lsn): Stretch[] {
  return stretches.filter(({ from }) => from < end).map((stretch) => (stretch.to > end ? { ...stretch, to: end } : stretch))
}
