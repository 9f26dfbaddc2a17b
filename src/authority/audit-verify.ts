import type { Kysely } from 'kysely'
import { auditProtection, entriesBehind, listMarks } from '../catalog/audit-entries.ts'
import type { Schema } from '../catalog/schema.ts'
import type { Repository } from '../repository/repository.ts'
import type { CallOptions } from '../storage/storage.ts'
import { ChainCopy, compareCopies, compareHead, STORE_NAME, type AuditProblem } from './audit-check.ts'
import { copyTarget, entriesOf, readCopy } from './audit-copy.ts'
import { auditEntrySchema, type AuditEntry } from './audit-entry.ts'
import { isSigned, publicKeyOf, readKey, type AuditHead } from './audit-head.ts'
import type { Json } from './canonical-json.ts'

const AT_ONCE = 1000

export interface AuditReport {
  readonly copies: readonly { readonly where: string; readonly first: number | null; readonly last: number | null }[]
  /** Heads that are signed by the key that was to be theirs. */
  readonly heads: number
  /** What keeps Resus itself from changing the store's copy; null where that was not read. */
  readonly protection: 'role' | 'triggers' | null
  readonly problems: readonly AuditProblem[]
}

/** Reads all copies of the trail, and holds them against each other and against heads that were told outside. Throws what the storage and the store throw. */
export async function verifyTrail(options: {
  readonly repositories: readonly Repository[]
  /** undefined where it is away: then the repositories are all. */
  readonly store: Kysely<Schema> | undefined
  readonly heads: readonly AuditHead[]
  /** PEM; instead of the keys in the repositories, which whoever changed these may have put there. */
  readonly publicKey: string | undefined
  readonly nowMs: number
  readonly signal: AbortSignal
}): Promise<AuditReport> {
  const { repositories, store, heads, publicKey, nowMs, signal } = options
  const copies: ChainCopy[] = []
  const keys = new Map<string, string>()
  // What the store says that was written: before it is looked for.
  const marks = store === undefined ? new Map<string, number>() : await listMarks(store)
  const written = new Map<string, number>()
  for (const repository of repositories) {
    const copy = await copyOfRepository(repository, { signal })
    copies.push(copy)
    written.set(copy.name, marks.get(copyTarget(repository.system)) ?? 0)
    const key =
      publicKey ?? (await readKey(repository, { signal }).then((found) => (found === undefined ? undefined : publicKeyOf(found))))
    if (key !== undefined) keys.set(repository.system, key)
  }
  if (store !== undefined) copies.push(await copyOfStore(store, signal))
  for (const copy of copies) copy.finish(nowMs)
  const good = heads.filter((head) => isSigned(head, publicKey ?? keys.get(head.system) ?? ''))
  return {
    copies: copies.map(({ name, first, last }) => ({ where: name, first, last })),
    heads: good.length,
    protection: store === undefined ? null : await auditProtection(store),
    problems: [
      ...copies.flatMap(({ problems }) => problems),
      ...compareCopies(copies, { nowMs, written }),
      ...heads.flatMap((head) => (good.includes(head) ? compareHead(head, copies) : [notSigned(head)])),
    ],
  }
}

async function copyOfRepository(repository: Repository, call: CallOptions): Promise<ChainCopy> {
  const copy = new ChainCopy(`the repository of "${repository.system}"`)
  for await (const object of readCopy(repository, 'forward', call)) {
    if (object.problem !== null) copy.addDamage(object.problem)
    for (const entry of entriesOf(object)) copy.add(entry)
  }
  return copy
}

async function copyOfStore(store: Kysely<Schema>, signal: AbortSignal): Promise<ChainCopy> {
  const copy = new ChainCopy(STORE_NAME)
  for (let at = 0; ;) {
    signal.throwIfAborted()
    const rows = await entriesBehind(store, at, AT_ONCE)
    for (const row of rows) {
      const entry = parsed(row.entry, row)
      if (entry === undefined) copy.addDamage(`entry ${row.seq} is none`)
      else copy.add(entry, { seq: row.seq, text: row.entry })
    }
    if (rows.length < AT_ONCE) return copy
    at = rows.at(-1)!.seq
  }
}

function parsed(
  text: string,
  { previous, hash }: { previous: string; hash: string },
): (AuditEntry & Readonly<Record<string, Json>>) | undefined {
  try {
    const entry = { ...(JSON.parse(text) as Record<string, Json>), previous, hash }
    return auditEntrySchema.safeParse(entry).success
      ? (entry as unknown as AuditEntry & Readonly<Record<string, Json>>)
      : undefined
  } catch {
    return undefined
  }
}

function notSigned({ seq, system, at }: AuditHead): AuditProblem {
  const text = `the key of "${system}" has not signed the head of ${at}`
  return { kind: 'signature', where: 'the head', seq, to: seq, text }
}
