import { entriesBehind, hasHash, insertEntries, oldestEntry, readMark, writeMark } from '../catalog/audit-entries.ts'
import type { Store } from '../catalog/store.ts'
import { Failure } from '../errors.ts'
import {
  BATCH_BYTES_MAX,
  BATCH_RECORDS_MAX,
  fitting,
  listControlObjects,
  putBatch,
  readControlObjectOrWhy,
  recordLine,
  type ControlRecord,
} from '../repository/control-records.ts'
import type { Repository } from '../repository/repository.ts'
import type { CallOptions } from '../storage/storage.ts'
import { auditEntrySchema, hashedText, wholeEntry, type AuditEntry, type ChainedText } from './audit-entry.ts'
import type { Json } from './canonical-json.ts'

// The trail's copy in a system's repository: records of the stream `audit`, kind `entry`, the entry as the record's body (docs/format.md, "Control records").

const STREAM = 'audit'
const ENTRY_KIND = 'entry'

/** What an object of the stream holds; or why it does not open. */
export interface CopiedObject {
  readonly key: string
  readonly records: readonly ControlRecord[]
  readonly problem: string | null
}

/** All objects of the stream, in their order or newest first. */
export async function* readCopy(
  repository: Repository,
  order: 'forward' | 'newest first',
  call: CallOptions = {},
): AsyncGenerator<CopiedObject> {
  const objects = await listControlObjects(repository, STREAM, call)
  for (const { key } of order === 'forward' ? objects : objects.toReversed()) {
    const read = await readControlObjectOrWhy(repository, key, call)
    if (read === undefined) continue
    if (read instanceof Failure) yield { key, records: [], problem: read.message }
    else yield { key, records: read.records, problem: null }
  }
}

/** The entries of an object, as they are kept: members that this version does not know are still there. What is none is left out. */
export function entriesOf({ records }: CopiedObject): (AuditEntry & Readonly<Record<string, Json>>)[] {
  return records.flatMap(({ kind, body }) => {
    if (kind !== ENTRY_KIND || !auditEntrySchema.safeParse(body).success) return []
    return [body as AuditEntry & Readonly<Record<string, Json>>]
  })
}

/** The newest entry that a repository has, as the store would keep it; undefined when it has none. Throws what the storage throws. */
export async function newestCopied(repository: Repository, call: CallOptions = {}): Promise<ChainedText | undefined> {
  for await (const object of readCopy(repository, 'newest first', call)) {
    const newest = entriesOf(object).toSorted((left, right) => right.seq - left.seq)[0]
    if (newest !== undefined) return chainedText(newest)
  }
  return undefined
}

/** Puts what the store has before its oldest entry, from a repository. Gives how many; what does not fit ends it. Throws what the storage and the store throw. */
export async function fillBackwards(store: Store, repository: Repository, call: CallOptions = {}): Promise<number> {
  let count = 0
  let oldest = await oldestEntry(store.sql)
  for await (const object of readCopy(repository, 'newest first', call)) {
    if (oldest === undefined || oldest.seq === 1) return count
    const rows: ChainedText[] = []
    for (const entry of entriesOf(object).toSorted((left, right) => right.seq - left.seq)) {
      const before: { seq: number; previous: string } = rows.at(-1) ?? oldest
      if (entry.seq === before.seq - 1 && entry.hash === before.previous) rows.push(chainedText(entry))
    }
    await insertEntries(store.sql, rows)
    count += rows.length
    oldest = rows.at(-1) ?? oldest
  }
  return count
}

export interface CopyOptions {
  readonly store: Store
  readonly repository: Repository
  readonly node: string
  readonly now: () => number
  /** Called between batches; throws when another node writes by now. */
  readonly hold: () => Promise<void>
  readonly signal: AbortSignal
}

/**
 * Writes what the repository does not have yet, in order. Killed between the object and the mark it writes it once more, which a reader does not see. `forked` says from where on what the repository
 * has is not what the store has. Throws what the storage and the store throw.
 */
export async function writeCopy(options: CopyOptions): Promise<{ readonly written: number; readonly forked: number | null }> {
  const { store, repository, node, now, hold, signal } = options
  const target = copyTarget(repository.system)
  let written = 0
  const { seq: from, forked } = await whereCopyEnds(store, repository, { signal })
  for (let seq = from; !signal.aborted;) {
    const rows = await entriesBehind(store.sql, seq, BATCH_RECORDS_MAX)
    if (rows.length === 0) break
    const lines = rows.map((row) => lineOf(row))
    const some = lines.slice(0, fitting(lines, { records: BATCH_RECORDS_MAX, bytes: BATCH_BYTES_MAX }))
    await hold()
    // Names tell seconds apart: of two batches the later one has to sort behind the other, whatever the clocks say.
    const objects = await listControlObjects(repository, STREAM, { signal })
    const nowMs = Math.max(now(), ...objects.map(({ nameMs }) => nameMs + 1000))
    await putBatch(repository, { stream: STREAM, node, nowMs, lines: some }, { signal })
    seq = rows[some.length - 1]!.seq
    written += some.length
    await writeMark(store.sql, { target, seq, at: new Date(now()) })
  }
  return { written, forked }
}

/** What the store calls this copy. */
export function copyTarget(system: string): string {
  return `repository:${system}`
}

/** Where the store says, or where what both have ends. */
async function whereCopyEnds(
  store: Store,
  repository: Repository,
  call: CallOptions,
): Promise<{ readonly seq: number; readonly forked: number | null }> {
  const mark = await readMark(store.sql, copyTarget(repository.system))
  if (mark !== undefined) return { seq: mark, forked: null }
  let forked: number | null = null
  for await (const object of readCopy(repository, 'newest first', call)) {
    for (const { seq, hash } of entriesOf(object).toSorted((left, right) => right.seq - left.seq)) {
      if (await hasHash(store.sql, { seq, hash })) return { seq, forked }
      forked = seq
    }
  }
  return { seq: 0, forked }
}

function lineOf(row: ChainedText): Buffer {
  const entry = wholeEntry(row)
  return recordLine({ id: String(entry.seq), at: entry.at, kind: ENTRY_KIND, body: entry })
}

function chainedText(entry: AuditEntry & Readonly<Record<string, Json>>): ChainedText {
  return { seq: entry.seq, entry: hashedText(entry), previous: entry.previous, hash: entry.hash }
}
