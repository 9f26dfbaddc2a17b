import { createHmac } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { Failure } from '../errors.ts'
import type { BlobIndexSource } from './blob-index.ts'
import { encodeIndexEntry, INDEX_ENTRY_BYTES, IndexTable, sortIndexEntries, TABLE_MAC_BYTES } from './index-table.ts'
import { INDEX_PREFIX, indexKey, PACK_PREFIX, randomId } from './layout.ts'
import { readPackDirectory } from './pack.ts'
import type { Repository } from './repository.ts'
import { getHead, getObject, putObject } from './sealed-object.ts'

/** More local tables than this are merged into one when the index is opened. */
const TABLES_MAX = 8
/** Tables that are not in use any more may still be open in another process, or be about to be: it touched them when it chose them. */
const UNUSED_TABLE_MS = 3600 * 1000
const MERGE_READ_ENTRIES = 4096
/** So often the listing begins again when index objects go, replaced by others, while they are read. */
const SYNCS_MAX = 5

const headSchema = z.object({ packs: z.array(z.string()), replaces: z.array(z.string()) })
/** What the local tables hold: `members` are index objects, and `pack:<id>` for a pack that no index object names. */
const tablesSchema = z.array(z.object({ file: z.string(), members: z.array(z.string()), packs: z.array(z.string()) }))
type LocalTable = z.infer<typeof tablesSchema>[number]

/** Packs by name, with the sizes of their objects in bytes. */
export type PackSizes = ReadonlyMap<string, number>

export interface OpenIndexOptions {
  readonly repository: Repository
  /** Where local state lies; the tables go below `<state>/<repository>/index`. */
  readonly stateDirectory: string
  /** Packs that must not be reused. */
  readonly marked?: ReadonlySet<string>
  readonly signal?: AbortSignal
}

/**
 * Brings the local tables up to the repository's index, and reads the directories of packs that no index object names (a backup died
 * before it wrote its index). Writes only below the state directory.
 */
export async function syncIndex(options: OpenIndexOptions): Promise<BlobIndexSource> {
  for (let syncs = 1; ; syncs++) {
    const { source, gone } = await syncOnce(options)
    // What is gone was replaced before: the replacement is listed now. Without it its packs were read by their directories, which is right, but slow.
    if (gone === 0 || syncs === SYNCS_MAX) return source
  }
}

async function syncOnce(options: OpenIndexOptions): Promise<{ source: BlobIndexSource; gone: number }> {
  const { repository } = options
  const directory = join(options.stateDirectory, repository.id, 'index')
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const stored = new Set<string>()
  for await (const { key } of repository.storage.list(INDEX_PREFIX, options)) stored.add(key.slice(INDEX_PREFIX.length))
  const packs = await listPacks(repository, options)
  let tables = await usableTables(repository, directory, stored)
  const held = new Set(tables.flatMap((table) => table.members))
  const damage: string[] = []
  let gone = 0
  for (const index of stored) {
    if (held.has(index)) continue
    const table = await unlessGone(unlessDamaged(damage, fetchTable(repository, directory, index)))
    if (table === undefined) gone += 1
    else tables.push(...table)
  }
  const indexed = new Set(tables.flatMap((table) => table.packs))
  for (const [pack, sizeBytes] of packs) {
    if (indexed.has(pack)) continue
    const table = await unlessGone(unlessDamaged(damage, adoptPack(repository, directory, { pack, sizeBytes })))
    if (table === undefined) packs.delete(pack)
    else tables.push(...table)
  }
  if (tables.length > TABLES_MAX) tables = [await mergeTables(repository, directory, tables)]
  await writeAtomically(join(directory, 'tables.json'), [Buffer.from(JSON.stringify(tables))])
  await removeUnused(directory, tables)
  const absent = tables.flatMap((table) => table.packs).filter((pack) => !packs.has(pack) || options.marked?.has(pack) === true)
  return { source: { tables: tables.map((table) => join(directory, table.file)), absentPacks: absent, damage }, gone }
}

/** Undefined for an object that an expiry has deleted since it was listed. */
async function unlessGone<T>(made: Promise<T>): Promise<T | undefined> {
  try {
    return await made
  } catch (error) {
    if (error instanceof Failure && error.code === 'OBJECT_MISSING') return undefined
    throw error
  }
}

/** All packs that are there, with their sizes. */
export async function listPacks(repository: Repository, options: { signal?: AbortSignal } = {}): Promise<Map<string, number>> {
  const packs = new Map<string, number>()
  for await (const { key, sizeBytes } of repository.storage.list(PACK_PREFIX, options)) packs.set(key.slice(-32), sizeBytes)
  return packs
}

/** Puts an index object with these entries, all of packs that are durable. */
export async function putIndex(
  repository: Repository,
  entries: readonly Buffer[],
  signal: AbortSignal,
  replaces: readonly string[] = [],
): Promise<void> {
  const index = randomId()
  const body = sortIndexEntries(entries)
  const packs = [...new Set(entries.map((entry) => entry.toString('hex', 32, 48)))]
  const object = { kind: 'index' as const, name: indexKey(index), head: { packs, replaces }, body: [body] }
  await putObject(repository.storage, repository.ring, object, { signal })
}

/** The packs that a stored index object is over. */
export async function readIndexPacks(repository: Repository, index: string): Promise<string[]> {
  const head = await getHead(repository.storage, repository.ring, { kind: 'index', name: indexKey(index) })
  return headSchema.parse(head).packs
}

/** Reads the head and entries of a stored index object. */
export async function readIndex(
  repository: Repository,
  index: string,
): Promise<{ packs: string[]; entries: AsyncIterable<Buffer> }> {
  const opened = await getObject(repository.storage, repository.ring, { kind: 'index', name: indexKey(index) })
  return { packs: headSchema.parse(opened.head).packs, entries: opened.body }
}

/**
 * A damaged index object is as good as none: its packs are read by their directories. A pack whose directory is damaged has nothing to
 * find; whoever needs a blob of it fails, and `verify` names it.
 */
async function unlessDamaged(damage: string[], made: Promise<LocalTable>): Promise<LocalTable[]> {
  try {
    return [await made]
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'OBJECT_DAMAGED') throw error
    damage.push(error.message)
    return []
  }
}

async function usableTables(repository: Repository, directory: string, stored: ReadonlySet<string>): Promise<LocalTable[]> {
  let listed: LocalTable[]
  try {
    listed = tablesSchema.parse(JSON.parse(await readFile(join(directory, 'tables.json'), 'utf8')))
  } catch {
    // Local tables are a copy: what cannot be read is made again.
    return []
  }
  const usable: LocalTable[] = []
  for (const table of listed) {
    // A table with an index object that is gone, or a pack that an index object may name by now, is made again.
    const current = table.members.every((member) => stored.has(member) || member.startsWith('pack:'))
    if (current && (await touch(join(directory, table.file))) && (await isAuthentic(repository, join(directory, table.file))))
      usable.push(table)
  }
  return usable
}

/** Says that a table is in use, so that another process that merges it away leaves it for a while. False when it is gone. */
async function touch(path: string): Promise<boolean> {
  const now = new Date()
  return await utimes(path, now, now).then(
    () => true,
    () => false,
  )
}

async function fetchTable(repository: Repository, directory: string, index: string): Promise<LocalTable> {
  const { packs, entries } = await readIndex(repository, index)
  const file = `${index}.table`
  await writeTable(repository, join(directory, file), entries)
  return { file, members: [index], packs }
}

async function adoptPack(
  repository: Repository,
  directory: string,
  stored: { pack: string; sizeBytes: number },
): Promise<LocalTable> {
  const { pack } = stored
  const locations = await readPackDirectory(repository.storage, repository.ring, stored)
  const file = `pack-${pack}.table`
  await writeTable(repository, join(directory, file), [sortIndexEntries(locations.map(encodeIndexEntry))])
  return { file, members: [`pack:${pack}`], packs: [pack] }
}

async function mergeTables(repository: Repository, directory: string, tables: readonly LocalTable[]): Promise<LocalTable> {
  const sources = tables.map((table) => new IndexTable(join(directory, table.file)))
  const file = `merged-${randomId()}.table`
  try {
    await writeTable(repository, join(directory, file), mergedEntries(sources))
  } finally {
    for (const source of sources) source.close()
  }
  const members = [...new Set(tables.flatMap((table) => table.members))]
  return { file, members, packs: [...new Set(tables.flatMap((table) => table.packs))] }
}

/** The entries of sorted tables in one order, without repeats, in blocks. */
function* mergedEntries(sources: readonly IndexTable[]): Generator<Buffer> {
  const cursors = sources.map((source) => entriesOf(source))
  const heads = cursors.map((cursor) => cursor.next().value as Buffer | undefined)
  let last: Buffer | undefined
  for (;;) {
    let least = -1
    for (const [at, head] of heads.entries()) {
      if (head !== undefined && (least < 0 || head.compare(heads[least]!) < 0)) least = at
    }
    if (least < 0) return
    const entry = heads[least]!
    if (last === undefined || !entry.equals(last)) yield entry
    last = entry
    heads[least] = cursors[least]!.next().value as Buffer | undefined
  }
}

function* entriesOf(table: IndexTable): Generator<Buffer> {
  for (let first = 0; first < table.entries; first += MERGE_READ_ENTRIES) {
    const block = Buffer.from(table.read(first, MERGE_READ_ENTRIES))
    for (let at = 0; at < block.length; at += INDEX_ENTRY_BYTES) yield block.subarray(at, at + INDEX_ENTRY_BYTES)
  }
}

async function writeTable(
  repository: Repository,
  path: string,
  entries: AsyncIterable<Buffer> | Iterable<Buffer>,
): Promise<void> {
  const mac = tableMac(repository)
  await writeAtomically(
    path,
    (async function* () {
      let held: Buffer[] = []
      for await (const entry of entries) {
        mac.update(entry)
        held.push(entry)
        if (held.length < MERGE_READ_ENTRIES) continue
        yield Buffer.concat(held)
        held = []
      }
      yield Buffer.concat(held)
      yield mac.digest()
    })(),
  )
}

async function isAuthentic(repository: Repository, path: string): Promise<boolean> {
  const mac = tableMac(repository)
  let tail = Buffer.alloc(0)
  try {
    for await (const piece of createReadStream(path, { highWaterMark: 1024 * 1024 }) as AsyncIterable<Buffer>) {
      const all = Buffer.concat([tail, piece])
      const body = Math.max(0, all.length - TABLE_MAC_BYTES)
      mac.update(all.subarray(0, body))
      tail = all.subarray(body)
    }
  } catch {
    return false
  }
  return tail.equals(mac.digest())
}

function tableMac(repository: Repository) {
  return createHmac('sha256', repository.ring.nameKey).update('index table\0')
}

async function writeAtomically(path: string, pieces: AsyncIterable<Buffer> | Iterable<Buffer>): Promise<void> {
  const temporary = `${path}.${randomId()}`
  try {
    await writeFile(temporary, pieces, { mode: 0o600 })
    await rename(temporary, path)
  } catch (cause) {
    await rm(temporary, { force: true })
    // What was to be written may be what failed: a damaged index object, say.
    if (cause instanceof Failure) throw cause
    throw new Failure('STORAGE_UNREACHABLE', `cannot write the local index "${path}"`, {
      hint: 'may this user write to the state directory of the configuration, and is there room?',
      cause,
    })
  }
}

async function removeUnused(directory: string, tables: readonly LocalTable[]): Promise<void> {
  const used = new Set(['tables.json', ...tables.map((table) => table.file)])
  for (const name of await readdir(directory)) {
    if (used.has(name)) continue
    const path = join(directory, name)
    const age = await stat(path).then(
      ({ mtimeMs }) => Date.now() - mtimeMs,
      () => 0,
    )
    if (age > UNUSED_TABLE_MS) await rm(path, { force: true })
  }
}
