import { Failure } from '../errors.ts'
import { listPacks, putIndex, readIndex, readIndexPacks } from './index-sync.ts'
import { splitIndexEntries } from './index-table.ts'
import { INDEX_PREFIX } from './layout.ts'
import type { Repository } from './repository.ts'

// Index objects over packs that go are replaced before the packs go, and many small ones by few (docs/format.md, "Index").

/** Entries of an index object that replaces others: 8 MiB. */
const ENTRIES_MAX = 131_072
const SMALL_BYTES = 1024 * 1024
/** So many small index objects may lie about before they are replaced. */
const SMALL_MAX = 32

export interface CompactIndexOptions {
  readonly repository: Repository
  /** Packs that go: no index object may name them any longer. */
  readonly going: ReadonlySet<string>
  readonly signal: AbortSignal
}

/**
 * Replaces index objects; gives how many. At each moment the index objects together name everything that stays: what replaces is there before what is
 * replaced goes. Two at once, or a crash between, leave entries twice, which does no harm.
 */
export async function compactIndex(options: CompactIndexOptions): Promise<number> {
  const { repository, going, signal } = options
  const listed: { index: string; sizeBytes: number }[] = []
  for await (const { key, sizeBytes } of repository.storage.list(INDEX_PREFIX, { signal })) {
    listed.push({ index: key.slice(INDEX_PREFIX.length), sizeBytes })
  }
  // After the index objects: a pack that one of them names was there before it.
  const packs = await listPacks(repository, { signal })
  const stays = (pack: string) => packs.has(pack) && !going.has(pack)
  const old = await chooseIndexes(repository, listed, stays)
  let entries: Buffer[] = []
  let consumed: string[] = []
  const flush = async () => {
    if (entries.length > 0) await putIndex(repository, entries, signal, consumed)
    for (const index of consumed) await repository.storage.delete(INDEX_PREFIX + index, { signal })
    entries = []
    consumed = []
  }
  for (const index of old) {
    const whole = await unlessUnreadable(async () => {
      for await (const block of (await readIndex(repository, index)).entries) {
        const all = splitIndexEntries(Uint8Array.from(block))
        entries.push(...all.filter((entry) => stays(entry.toString('hex', 32, 48))))
        // The index at hand goes with its last part.
        if (entries.length >= ENTRIES_MAX) await flush()
      }
      return true
    })
    if (whole === true) consumed.push(index)
  }
  await flush()
  return old.length
}

/** Those that name packs that go or are gone, and the small ones when they are many. */
async function chooseIndexes(
  repository: Repository,
  listed: readonly { index: string; sizeBytes: number }[],
  stays: (pack: string) => boolean,
): Promise<string[]> {
  const small: string[] = []
  const stale: string[] = []
  for (const { index, sizeBytes } of listed) {
    const packs = await unlessUnreadable(() => readIndexPacks(repository, index))
    if (packs === undefined) continue
    if (!packs.every(stays)) stale.push(index)
    else if (sizeBytes < SMALL_BYTES) small.push(index)
  }
  return small.length > SMALL_MAX ? [...stale, ...small] : stale
}

/** An index object that another run has replaced is done with; one that is damaged is left alone, and `verify` names it. */
async function unlessUnreadable<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    if (error instanceof Failure && ['OBJECT_DAMAGED', 'OBJECT_MISSING'].includes(error.code)) return undefined
    throw error
  }
}
