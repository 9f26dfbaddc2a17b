import { z } from 'zod'
import { Failure } from '../errors.ts'
import { DAMAGE_PREFIX, randomId, timeName } from './layout.ts'
import type { Repository } from './repository.ts'
import { getRecord, putObject } from './sealed-object.ts'

// What verifications found of packs (docs/format.md, "Damage"): blobs of a damaged pack are stored again, because it counts as absent for reuse.

/** So many packs one record names at most: its head is one frame. */
const PACKS_MAX = 10_000

const damageSchema = z.object({
  format: z.literal(1),
  at: z.iso.datetime(),
  damaged: z.array(z.string()),
  whole: z.array(z.string()),
})

/** What one verification found: packs that are damaged, and packs that were said to be and are whole. */
export interface PackFindings {
  readonly damaged: readonly string[]
  readonly whole: readonly string[]
}

/** Keeps what was found, where it says something new. It is durable when this resolves. Gives the packs that are newly known as damaged. */
export async function keepDamage(
  repository: Repository,
  found: PackFindings,
  options: { nowMs: number; signal: AbortSignal },
): Promise<string[]> {
  const { packs: known } = await readDamage(repository, options.signal)
  const damaged = found.damaged.filter((pack) => !known.has(pack))
  const whole = found.whole.filter((pack) => known.has(pack))
  for (let first = 0; first < Math.max(damaged.length, whole.length); first += PACKS_MAX) {
    const part = (packs: readonly string[]) => packs.slice(first, first + PACKS_MAX)
    const head = { format: 1, at: new Date(options.nowMs).toISOString(), damaged: part(damaged), whole: part(whole) }
    const name = `${DAMAGE_PREFIX}${timeName(options.nowMs)}-${randomId()}`
    await putObject(repository.storage, repository.ring, { kind: 'damage', name, head }, { signal: options.signal })
  }
  return damaged
}

/**
 * The packs that the newest record on them says are damaged. A record that does not open says nothing, and is named in `unreadable`: it must not
 * keep anybody from taking a backup.
 */
export async function readDamage(
  repository: Repository,
  signal: AbortSignal,
): Promise<{ packs: Set<string>; unreadable: string[] }> {
  const { records, unreadable } = await listDamage(repository, signal)
  const packs = new Set<string>()
  for (const { damaged, whole } of records.toSorted((left, right) => left.atMs - right.atMs)) {
    for (const pack of whole) packs.delete(pack)
    for (const pack of damaged) packs.add(pack)
  }
  return { packs, unreadable }
}

/** Deletes records that name only packs that are gone: they say nothing any more, because no pack's name ever comes again. */
export async function removeOldDamage(repository: Repository, there: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
  const { records } = await listDamage(repository, signal)
  for (const { key, damaged, whole } of records) {
    if ([...damaged, ...whole].some((pack) => there.has(pack))) continue
    await repository.storage.delete(key, { signal })
  }
}

interface DamageRecord extends PackFindings {
  readonly key: string
  readonly atMs: number
}

async function listDamage(
  repository: Repository,
  signal: AbortSignal,
): Promise<{ records: DamageRecord[]; unreadable: string[] }> {
  const records: DamageRecord[] = []
  const unreadable: string[] = []
  for await (const { key } of repository.storage.list(DAMAGE_PREFIX, { signal })) {
    const record = await readRecord(repository, key, signal)
    if (typeof record === 'string') unreadable.push(record)
    else if (record !== undefined) records.push(record)
  }
  return { records, unreadable }
}

/** A record; what is wrong with it; undefined when it is gone. */
async function readRecord(repository: Repository, key: string, signal: AbortSignal): Promise<DamageRecord | string | undefined> {
  try {
    const head = await getRecord(repository.storage, repository.ring, { kind: 'damage', name: key }, { signal })
    const parsed = damageSchema.safeParse(head)
    if (!parsed.success) return `object "${key}" is damaged: its head is not that of a record of damage`
    return { key, atMs: Date.parse(parsed.data.at), damaged: parsed.data.damaged, whole: parsed.data.whole }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    if (error.code === 'OBJECT_MISSING') return undefined
    if (error.code === 'OBJECT_DAMAGED') return error.message
    throw error
  }
}
