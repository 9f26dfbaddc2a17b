import { z } from 'zod'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { formatLsn, type Lsn } from '../postgres/lsn.ts'
import { keyedName, type KeyRing } from './key-ring.ts'
import { branchPrefix, walComponentPrefix, type BranchPath } from './layout.ts'
import type { Repository } from './repository.ts'
import { damaged, getHead, putObject } from './sealed-object.ts'
import { lsnText } from './wal-note.ts'
import type { CallOptions } from '../storage/storage.ts'

// Branches (docs/format.md, "WAL"): one for each timeline and history of an incarnation; `ordinal` tells apart clusters that
// have the same timeline and history but went different ways.

const BRANCH_OBJECT = 'branch'
/** A cluster that was rolled back more often than this on one timeline is no cluster: something else is wrong. */
const ORDINALS_MAX = 10_000

/** Head of a `branch` object. */
export interface BranchHead {
  readonly timeline: number
  /** Text of the timeline's history file; empty for timeline 1. */
  readonly history: string
  readonly ordinal: number
  readonly systemIdentifier: string
  readonly major: number
  /** Bytes of a WAL segment. */
  readonly segmentSize: number
  /** Where the first receiver of this branch began: the start of a segment. */
  readonly firstLsn: Lsn
  /** ISO 8601, UTC. */
  readonly createdAt: string
}

export interface Branch {
  readonly path: BranchPath
  readonly head: BranchHead
}

/** What makes a branch, but for which of several that share a timeline and history. */
export interface BranchIdentity {
  /** The component's name. */
  readonly component: string
  readonly systemIdentifier: string
  readonly major: number
  readonly timeline: number
  readonly history: string
}

const branchHeadSchema = z.object({
  timeline: z.number().int().positive(),
  history: z.string(),
  ordinal: z.number().int().nonnegative(),
  systemIdentifier: z.string(),
  major: z.number().int(),
  segmentSize: z.number().int().positive(),
  firstLsn: lsnText,
  createdAt: z.string(),
})

/** The head as JSON. */
export function branchHeadJson(head: BranchHead): unknown {
  return { ...head, firstLsn: formatLsn(head.firstLsn) }
}

/** Reads a branch's head from JSON. Throws OBJECT_DAMAGED, naming `name`. */
export function parseBranchHead(name: string, json: unknown): BranchHead {
  const head = branchHeadSchema.safeParse(json)
  if (!head.success) throw damaged(name, `its head is not that of a branch: ${head.error.issues[0]?.message}`)
  return head.data
}

/** The keyed name of a component's folder. */
export function componentFolder(ring: KeyRing, component: string): string {
  return keyedName(ring, 'component', component)
}

/** Where a branch lies. */
export function branchPath(ring: KeyRing, identity: BranchIdentity & { ordinal: number }): BranchPath {
  const incarnation = keyedName(ring, 'incarnation', identity.systemIdentifier, String(identity.major))
  const branch = keyedName(ring, 'branch', incarnation, String(identity.timeline), identity.history, String(identity.ordinal))
  return { component: componentFolder(ring, identity.component), incarnation, branch }
}

/**
 * The branch of a timeline, history and ordinal; made when it is not there. Of two that make it at once one wins, and both get
 * the winner's. Throws what the storage throws.
 */
export async function findOrMakeBranch(
  repository: Repository,
  wanted: BranchIdentity & { ordinal: number; segmentSize: number; firstLsn: Lsn },
  clock: Clock,
  options: CallOptions = {},
): Promise<Branch> {
  const found = await findBranch(repository, wanted, options)
  if (found !== undefined) return found
  const { timeline, history, ordinal, systemIdentifier, major, segmentSize, firstLsn } = wanted
  const createdAt = new Date(clock.now()).toISOString()
  const head = { timeline, history, ordinal, systemIdentifier, major, segmentSize, firstLsn, createdAt }
  const path = branchPath(repository.ring, wanted)
  const object = { kind: 'branch' as const, name: branchKey(path), head: branchHeadJson(head) }
  try {
    await putObject(repository.storage, repository.ring, object, options)
  } catch (error) {
    if (!(error instanceof Failure && error.code === 'OBJECT_EXISTS')) throw error
    return { path, head: await readBranchHead(repository, path, options) }
  }
  return { path, head }
}

/** The branch of a timeline, history and ordinal, if it is there. */
export async function findBranch(
  repository: Repository,
  wanted: BranchIdentity & { ordinal: number },
  options: CallOptions = {},
): Promise<Branch | undefined> {
  const path = branchPath(repository.ring, wanted)
  try {
    return { path, head: await readBranchHead(repository, path, options) }
  } catch (error) {
    if (error instanceof Failure && error.code === 'OBJECT_MISSING') return undefined
    throw error
  }
}

/** Of the branches of one timeline and history the one with the greatest ordinal: the way the cluster went last. */
export async function findNewestBranch(
  repository: Repository,
  identity: BranchIdentity,
  options: CallOptions = {},
): Promise<Branch | undefined> {
  let newest: Branch | undefined
  for (let ordinal = 0; ordinal < ORDINALS_MAX; ordinal += 1) {
    const found = await findBranch(repository, { ...identity, ordinal }, options)
    if (found === undefined) break
    newest = found
  }
  return newest
}

/** All branches of a component, of all its incarnations, by timeline and then ordinal. */
export async function listBranches(repository: Repository, component: string, options: CallOptions = {}): Promise<Branch[]> {
  const folder = componentFolder(repository.ring, component)
  const branches: Branch[] = []
  for await (const { key } of repository.storage.list(walComponentPrefix(folder), options)) {
    const [incarnation, branch, object, ...more] = key.slice(walComponentPrefix(folder).length).split('/')
    if (incarnation === undefined || branch === undefined || object !== BRANCH_OBJECT || more.length > 0) continue
    const path = { component: folder, incarnation, branch }
    branches.push({ path, head: await readBranchHead(repository, path, options) })
  }
  const byTime = (left: Branch, right: Branch) => left.head.createdAt.localeCompare(right.head.createdAt)
  return branches.toSorted(
    (left, right) => left.head.timeline - right.head.timeline || left.head.ordinal - right.head.ordinal || byTime(left, right),
  )
}

/** The name of the object that says what a branch is. */
export function branchKey(path: BranchPath): string {
  return branchPrefix(path) + BRANCH_OBJECT
}

async function readBranchHead(repository: Repository, path: BranchPath, options: CallOptions): Promise<BranchHead> {
  const name = branchKey(path)
  return parseBranchHead(name, await getHead(repository.storage, repository.ring, { kind: 'branch', name }, options))
}
