import { hash } from 'node:crypto'
import { z } from 'zod'
import { assert } from '../assert.ts'
import type { BlobKind } from './blob.ts'
import type { BlobReader } from './blob-reader.ts'
import { damaged } from './sealed-object.ts'

// The tree of a manifest (docs/format.md, "Backups"): a search tree over paths whose nodes end where the hash of a path says so.

const LEAF_DIVISOR = 64
const NODE_DIVISOR = 32
const NODE_ENTRIES_MAX = 512
const LEVELS_MAX = 12

const identity = z.string().transform((text): Buffer => Buffer.from(text, 'base64url'))

const entrySchema = z.object({
  p: z.string(),
  t: z.enum(['f', 'd', 'l']),
  m: z.number().int().optional(),
  u: z.number().int().optional(),
  g: z.number().int().optional(),
  s: z.number().int().nonnegative().optional(),
  c: identity.optional(),
  r: z.array(identity).optional(),
  l: z.string().optional(),
})
const leafSchema = z.array(entrySchema)
const nodeSchema = z.array(
  z.object({ first: z.string(), id: identity, kind: z.union([z.literal(5), z.literal(6)]), entries: z.number().int() }),
)
type NodeChild = z.infer<typeof nodeSchema>[number]

/** What owner and mode an entry has when it does not say. */
export interface TreeDefaults {
  readonly fileMode: number
  readonly directoryMode: number
  readonly uid: number
  readonly gid: number
}

interface EntryCommon {
  /** Relative to the component's root, with slashes. */
  readonly path: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

export type FileContent =
  | { readonly kind: 'empty' }
  | { readonly kind: 'chunk'; readonly identity: Buffer }
  /** Identities of `regions` blobs, each the next 128 regions. */
  | { readonly kind: 'regions'; readonly parts: readonly Buffer[] }

export type TreeEntry =
  | (EntryCommon & { readonly kind: 'file'; readonly sizeBytes: number; readonly content: FileContent })
  | (EntryCommon & { readonly kind: 'directory' })
  | (EntryCommon & { readonly kind: 'link'; readonly target: string })

export type StoreBlob = (kind: BlobKind, content: Buffer) => Promise<Buffer>

interface Level {
  /** Of level 0, encoded entries; above, children. */
  items: unknown[]
  first: string
  entries: number
}

/** Builds a tree from entries that come in the order of their paths. Holds one open node for each level. */
export class TreeWriter {
  readonly #store: StoreBlob
  readonly #defaults: TreeDefaults
  readonly #levels: Level[] = [newLevel()]
  #lastPath: string | undefined
  entries = 0

  constructor(store: StoreBlob, defaults: TreeDefaults) {
    this.#store = store
    this.#defaults = defaults
  }

  async add(entry: TreeEntry): Promise<void> {
    assert(this.#lastPath === undefined || comparePaths(this.#lastPath, entry.path) < 0, `"${entry.path}" comes in order`)
    this.#lastPath = entry.path
    this.entries += 1
    await this.#append(0, { item: encodeEntry(entry, this.#defaults), first: entry.path, entries: 1 })
  }

  /** Ends all nodes and gives the identity and kind of the root. */
  async finish(): Promise<{ identity: Buffer; kind: 5 | 6 }> {
    for (let depth = 0; ; depth++) {
      const level = this.#levels[depth]
      assert(level !== undefined && depth < LEVELS_MAX, 'a tree ends in a root')
      const isTop = depth === this.#levels.length - 1
      const [only] = level.items
      if (isTop && depth > 0 && level.items.length === 1) {
        const child = only as { id: string; kind: 5 | 6 }
        return { identity: Buffer.from(child.id, 'base64url'), kind: child.kind }
      }
      if (level.items.length > 0 || isTop) await this.#endNode(depth)
    }
  }

  async #append(depth: number, node: { item: unknown; first: string; entries: number }): Promise<void> {
    const level = (this.#levels[depth] ??= newLevel())
    if (level.items.length === 0) level.first = node.first
    level.items.push(node.item)
    level.entries += node.entries
    const divisor = depth === 0 ? LEAF_DIVISOR : NODE_DIVISOR
    if (endsNode(node.first, divisor) || level.items.length >= NODE_ENTRIES_MAX) await this.#endNode(depth)
  }

  async #endNode(depth: number): Promise<void> {
    const { items, first, entries } = this.#levels[depth]!
    this.#levels[depth] = newLevel()
    const kind = depth === 0 ? 5 : 6
    const id = await this.#store(kind === 5 ? 'leaf' : 'node', Buffer.from(JSON.stringify(items)))
    await this.#append(depth + 1, { item: { first, id: id.toString('base64url'), kind, entries }, first, entries })
  }
}

/** All entries of a tree, in the order of their paths. Throws what `BlobReader.read` throws. */
export async function* walkTree(
  reader: BlobReader,
  root: { identity: Buffer; kind: 5 | 6 },
  defaults: TreeDefaults,
): AsyncGenerator<TreeEntry> {
  if (root.kind === 5) {
    yield* await readTreeLeaf(reader, root.identity, defaults)
    return
  }
  for (const child of await readNode(reader, root.identity)) {
    yield* walkTree(reader, { identity: child.id, kind: child.kind }, defaults)
  }
}

/** The order of paths: that of their UTF-8 bytes. */
export function comparePaths(left: string, right: string): number {
  return Buffer.compare(Buffer.from(left), Buffer.from(right))
}

/** The entries of one leaf. */
export async function readTreeLeaf(reader: BlobReader, id: Buffer, defaults: TreeDefaults): Promise<TreeEntry[]> {
  const leaf = await reader.read(id, 'leaf', 'the manifest')
  return leafSchema.parse(JSON.parse(leaf.toString('utf8'))).map((entry) => decodeEntry(entry, defaults))
}

/** The children of one inner node. */
export async function readNode(reader: BlobReader, id: Buffer): Promise<NodeChild[]> {
  const node = await reader.read(id, 'node', 'the manifest')
  return nodeSchema.parse(JSON.parse(node.toString('utf8')))
}

function newLevel(): Level {
  return { items: [], first: '', entries: 0 }
}

function endsNode(path: string, divisor: number): boolean {
  return hash('sha256', path, 'buffer').readUInt32LE(0) % divisor === 0
}

function encodeEntry(entry: TreeEntry, defaults: TreeDefaults) {
  const mode = entry.kind === 'directory' ? defaults.directoryMode : defaults.fileMode
  const common = {
    p: entry.path,
    ...(entry.mode === mode ? {} : { m: entry.mode }),
    ...(entry.uid === defaults.uid ? {} : { u: entry.uid }),
    ...(entry.gid === defaults.gid ? {} : { g: entry.gid }),
  }
  if (entry.kind === 'directory') return { ...common, t: 'd' }
  if (entry.kind === 'link') return { ...common, t: 'l', l: entry.target }
  return { ...common, t: 'f', s: entry.sizeBytes, ...encodeContent(entry.content) }
}

function encodeContent(content: FileContent) {
  switch (content.kind) {
    case 'empty':
      return {}
    case 'chunk':
      return { c: content.identity.toString('base64url') }
    case 'regions':
      return { r: content.parts.map((part) => part.toString('base64url')) }
    default:
      return content satisfies never
  }
}

/** A path that leads out of the component's root would let whoever may write backups write anywhere where one is restored. */
function assertInside(path: string): void {
  const outside = path.split('/').some((name) => name === '' || name === '.' || name === '..') || path.includes('\0')
  if (outside) throw damaged('the manifest', `it has the path ${JSON.stringify(path)}, which does not lie in the component`)
}

function decodeEntry(entry: z.infer<typeof entrySchema>, defaults: TreeDefaults): TreeEntry {
  assertInside(entry.p)
  const common = {
    path: entry.p,
    mode: entry.m ?? (entry.t === 'd' ? defaults.directoryMode : defaults.fileMode),
    uid: entry.u ?? defaults.uid,
    gid: entry.g ?? defaults.gid,
  }
  if (entry.t === 'd') return { ...common, kind: 'directory' }
  if (entry.t === 'l') return { ...common, kind: 'link', target: entry.l ?? '' }
  const sizeBytes = entry.s ?? 0
  if (entry.r !== undefined) return { ...common, kind: 'file', sizeBytes, content: { kind: 'regions', parts: entry.r } }
  if (entry.c !== undefined) return { ...common, kind: 'file', sizeBytes, content: { kind: 'chunk', identity: entry.c } }
  assert(sizeBytes === 0, `a file of ${sizeBytes} bytes ("${entry.p}") has content`)
  return { ...common, kind: 'file', sizeBytes, content: { kind: 'empty' } }
}
