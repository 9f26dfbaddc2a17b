import type { Lsn } from '../../postgres/lsn.ts'
import type { Repository } from '../../repository/repository.ts'
import { listWal, readNote, readWalBytes } from '../../repository/wal-archive.ts'
import { listBranches, type Branch } from '../../repository/wal-branch.ts'
import type { WalContents } from '../../repository/wal-note.ts'

// What a recovery can read: the repository's WAL, and, for a preview, what a restore would publish first.

/** A stretch of WAL within one segment. */
export interface WalPart {
  readonly startLsn: Lsn
  readonly endLsn: Lsn
  readonly note: () => Promise<PartNote>
  /** Its bytes, from the start. */
  readonly read: () => AsyncGenerator<Uint8Array>
}

export interface PartNote extends WalContents {
  /** The greatest LSN that the receiver had acknowledged when this was stored. */
  readonly acknowledged: Lsn | null
}

export interface WalSupply {
  /** All branches of the component, of all its incarnations. */
  readonly branches: () => Promise<readonly Branch[]>
  /** In the order of their starts, the longest of those with one start first. */
  readonly parts: (branch: Branch) => Promise<readonly WalPart[]>
}

/** A supply with more parts: of branches that it has, or of others. */
export function withMoreParts(
  supply: WalSupply,
  more: readonly { readonly branch: Branch; readonly parts: readonly WalPart[] }[],
): WalSupply {
  const isOf = (branch: Branch) => (other: { branch: Branch }) => other.branch.path.branch === branch.path.branch
  return {
    branches: async () => {
      const known = await supply.branches()
      const isKnown = (branch: Branch) => known.some(({ path }) => path.branch === branch.path.branch)
      return [...known, ...more.filter(({ branch }) => !isKnown(branch)).map(({ branch }) => branch)]
    },
    parts: async (branch) => {
      const isKnown = (await supply.branches()).some(({ path }) => path.branch === branch.path.branch)
      const there = isKnown ? await supply.parts(branch) : []
      const added = more.filter(isOf(branch)).flatMap(({ parts }) => parts)
      return added.length === 0 ? there : [...there, ...added].toSorted(byStart)
    },
  }
}

function byStart(left: WalPart, right: WalPart): number {
  if (left.startLsn !== right.startLsn) return left.startLsn < right.startLsn ? -1 : 1
  if (left.endLsn === right.endLsn) return 0
  return left.endLsn > right.endLsn ? -1 : 1
}

/** The WAL of a component in the repository. Each branch is listed once, however often it is asked for. */
export function repositoryWal(repository: Repository, component: string, signal?: AbortSignal): WalSupply {
  const options = signal === undefined ? {} : { signal }
  const listed = new Map<string, Promise<readonly WalPart[]>>()
  const list = async (branch: Branch): Promise<WalPart[]> => {
    const parts: WalPart[] = []
    for await (const object of listWal(repository, branch, options)) {
      parts.push({
        startLsn: object.startLsn,
        endLsn: object.endLsn,
        note: () => readNote(repository, branch, object, options),
        read: () => readWalBytes(repository, branch, object, options),
      })
    }
    return parts
  }
  return {
    branches: () => listBranches(repository, component, options),
    parts: (branch) => {
      const key = branch.path.branch
      const parts = listed.get(key) ?? list(branch)
      listed.set(key, parts)
      return parts
    },
  }
}
