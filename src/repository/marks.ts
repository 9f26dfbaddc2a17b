import { z } from 'zod'
import { formatLsn, type Lsn } from '../postgres/lsn.ts'
import { markedBy, type MarkFacts } from './expiry-protocol.ts'
import { MARK_PREFIX, randomId, timeName, type BranchPath } from './layout.ts'
import { recordUnlessGone } from './lease.ts'
import type { Repository } from './repository.ts'
import { damaged, putObject } from './sealed-object.ts'
import { lsnText } from './wal-note.ts'

// Marks (docs/format.md, "Reuse, marks, leases, expiry"): what is about to be deleted.

/** So many packs one mark names at most: its head is one frame. */
const PACKS_MAX = 10_000

const walSchema = z.object({
  path: z.object({ component: z.string(), incarnation: z.string(), branch: z.string() }),
  what: z.enum(['all', 'superseded', 'branch']),
  from: lsnText,
  to: lsnText,
})

const markSchema = z.object({
  packs: z.array(z.string()),
  backups: z.array(z.string()),
  wal: z.array(walSchema).default([]),
  at: z.iso.datetime(),
  ends: z.string().optional(),
})

/** `all` that lies in the range, pieces in it that a whole segment supersedes, or the branch object itself. */
export interface MarkedWal {
  readonly path: BranchPath
  readonly what: 'all' | 'superseded' | 'branch'
  readonly from: Lsn
  readonly to: Lsn
}

export interface Mark extends MarkFacts {
  readonly wal: readonly MarkedWal[]
}

/** All marks. Throws OBJECT_DAMAGED: what cannot be read may name what we are about to refer to. */
export async function listMarks(repository: Repository, signal?: AbortSignal): Promise<Mark[]> {
  const marks: Mark[] = []
  for await (const { key } of repository.storage.list(MARK_PREFIX, signal === undefined ? {} : { signal })) {
    const head = await recordUnlessGone(repository, { kind: 'mark', name: key }, signal)
    if (head === undefined) continue
    const mark = markSchema.safeParse(head)
    if (!mark.success) throw damaged(key, `its head is not that of a mark: ${mark.error.issues[0]?.message}`)
    const { at, ...named } = mark.data
    marks.push({ name: key, atMs: Date.parse(at), ...named })
  }
  return marks
}

/** Puts marks that name all of this, several when they are many packs. */
export async function putMarks(
  repository: Repository,
  marked: Omit<Mark, 'name' | 'atMs'>,
  options: { nowMs: number; signal: AbortSignal },
): Promise<Mark[]> {
  const marks: Mark[] = []
  for (let first = 0; first === 0 || first < marked.packs.length; first += PACKS_MAX) {
    const rest = first === 0 ? marked : { ...marked, backups: [], wal: [] }
    const name = `${MARK_PREFIX}${timeName(options.nowMs)}-${randomId()}`
    const mark = { ...rest, packs: marked.packs.slice(first, first + PACKS_MAX) }
    const wal = mark.wal.map((each) => ({ ...each, from: formatLsn(each.from), to: formatLsn(each.to) }))
    const head = { ...mark, wal, at: new Date(options.nowMs).toISOString() }
    await putObject(repository.storage, repository.ring, { kind: 'mark', name, head }, { signal: options.signal })
    marks.push({ name, atMs: options.nowMs, ...mark })
  }
  return marks
}

/** The packs that are about to be deleted: they count as absent for reuse. */
export async function markedPacks(repository: Repository, signal: AbortSignal): Promise<Set<string>> {
  return markedBy(await listMarks(repository, signal))
}

/** The backups that are about to be deleted, as `<component>/<backup>`, and when the first mark said so. */
export function markedBackups(marks: readonly MarkFacts[]): Map<string, number> {
  const marked = new Map<string, number>()
  for (const { backups, atMs } of marks) {
    for (const backup of backups) marked.set(backup, Math.min(atMs, marked.get(backup) ?? atMs))
  }
  return marked
}
