import { createHash } from 'node:crypto'
import { basename } from 'node:path'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { parseTimelineHistory } from '../../postgres/timeline-history.ts'
import { WalDecoder } from '../../postgres/wal-decoder.ts'
import { segmentName, segmentStart } from '../../postgres/wal-segment.ts'
import type { Repository } from '../../repository/repository.ts'
import { listSegment, putWal, readNote, readWalBytes, type WalObject } from '../../repository/wal-archive.ts'
import { findNewestBranch, findOrMakeBranch, listBranches, type Branch } from '../../repository/wal-branch.ts'
import {
  parseArchivedName,
  readArchived,
  readArchivedCluster,
  readHistoryBeside,
  SegmentFile,
  type ArchivedCluster,
} from './archived-file.ts'
import { KnownWal } from './known-wal.ts'
import { WalDigest } from './wal-digest.ts'

/** `stored`: now; `there`: the same was durable already; `nothing to store`: the repository needs nothing of it. */
export type PushOutcome = 'stored' | 'there' | 'nothing to store'

export interface PushOptions {
  readonly repository: Repository
  readonly component: { readonly name: string; readonly dataDirectory: string }
  /** What PostgreSQL asks to have archived: %p. */
  readonly path: string
  readonly clock: Clock
  readonly signal: AbortSignal
}

/**
 * Stores what archive_command was given. When it resolves, the file's WAL is durable in the repository. Doing it again is accepted; other
 * bytes at a place that is stored are refused. Throws ARCHIVE_MISMATCH for WAL of another cluster, WAL_CONFLICT, WAL_INVALID,
 * ARGUMENTS_INVALID for what is no WAL file, and what the storage throws.
 */
export async function pushWalFile(options: PushOptions): Promise<PushOutcome> {
  const name = basename(options.path)
  const archived = parseArchivedName(name)
  switch (archived?.kind) {
    case 'segment':
    case 'partial':
      return await pushSegment(options, archived.segment, archived.kind)
    case 'history':
      return await pushHistory(options, archived.timeline)
    case 'label':
      // Of use to who took that backup with another tool. Ours have their labels in their manifests.
      return 'nothing to store'
    case undefined:
      throw new Failure('ARGUMENTS_INVALID', `cannot archive "${name}": it has no name of a WAL file`, {
        hint: 'archive_command = \'resus wal-push --config /path/of/resus.yaml "%p"\'',
      })
    default:
      return archived satisfies never
  }
}

async function pushSegment(options: PushOptions, name: string, kind: 'segment' | 'partial'): Promise<PushOutcome> {
  const { repository, path, signal } = options
  await using file = await SegmentFile.open(path, name)
  await assertOwn(options, file.cluster)
  const { timeline } = file.segment
  const branch = await branchOf(options, file.cluster, {
    timeline,
    history: await readHistoryBeside(path, timeline),
    firstLsn: segmentStart(file.segment),
  })
  const to = kind === 'segment' ? file.segment.sizeBytes : await validBytes(file)
  if (to === 0) return 'nothing to store'
  for (const object of await listSegment(repository, branch, file.segment, { signal })) {
    if ((await agreement(options, { branch, object, file, to })) === 'covered') return 'there'
  }
  const digest = new WalDigest(branch, segmentStart(file.segment))
  for await (const bytes of file.read(0, to)) digest.feed(bytes)
  const description = to === file.segment.sizeBytes ? digest.takeSegment() : digest.takePiece()
  const note = { ...description, acknowledged: null, source: 'push' as const, synchronous: false }
  return await putWal(repository, branch, { note, body: file.read(0, to), signal })
}

/** WAL of another cluster must not get among ours: restored, it would be that cluster's. Throws ARCHIVE_MISMATCH. */
async function assertOwn(options: PushOptions, found: ArchivedCluster): Promise<void> {
  const { component, repository, path, signal } = options
  const own = await readArchivedCluster(component.dataDirectory)
  const show = ({ systemIdentifier, major }: ArchivedCluster) => `system identifier ${systemIdentifier} of PostgreSQL ${major}`
  if (own !== undefined) {
    if (own.systemIdentifier === found.systemIdentifier && own.major === found.major) return
    const what = `cannot archive "${basename(path)}" for "${component.name}": it has ${show(found)}, its data directory ${show(own)}`
    throw new Failure('ARCHIVE_MISMATCH', what, { hint: 'does the archive_command of another server name this configuration?' })
  }
  const known = (await listBranches(repository, component.name, { signal })).some(
    ({ head }) => head.systemIdentifier === found.systemIdentifier && head.major === found.major,
  )
  if (known) return
  const what = `cannot archive "${basename(path)}" for "${component.name}": it has ${show(found)}, of which nothing is kept, and there is no cluster in "${component.dataDirectory}"`
  throw new Failure('ARCHIVE_MISMATCH', what, { hint: 'correct "dataDirectory" in the configuration' })
}

async function branchOf(
  options: PushOptions,
  cluster: ArchivedCluster,
  wanted: { timeline: number; history: string; firstLsn: bigint },
): Promise<Branch> {
  const { repository, component, clock, signal } = options
  const identity = { component: component.name, systemIdentifier: cluster.systemIdentifier, major: cluster.major, ...wanted }
  const { segmentSize } = cluster
  const branch =
    (await findNewestBranch(repository, identity, { signal })) ??
    (await findOrMakeBranch(repository, { ...identity, ordinal: 0, segmentSize }, clock, { signal }))
  if (branch.head.segmentSize === segmentSize) return branch
  const what = `cannot archive "${basename(options.path)}": segments have ${segmentSize} bytes, those that are kept of its timeline ${branch.head.segmentSize}`
  throw new Failure('ARCHIVE_MISMATCH', what, {
    hint: 'was pg_resetwal run? What follows is another cluster: take a backup under a new name',
  })
}

/** How much of a partial segment is WAL: up to its first record that is not whole. What follows was never part of this timeline. */
async function validBytes(file: SegmentFile): Promise<number> {
  const { segment, cluster } = file
  const start = segmentStart(segment)
  const decoder = new WalDecoder({
    startLsn: start,
    segmentSizeBytes: segment.sizeBytes,
    timeline: segment.timeline,
    systemIdentifier: BigInt(cluster.systemIdentifier),
    checkCrc: true,
  })
  for await (const bytes of file.read()) decoder.feed(decoder.position, bytes)
  return Number((decoder.ended?.lsn ?? decoder.position) - start)
}

/** Holds a stored stretch of the segment against the file's [0, to), as far as they overlap. Throws WAL_CONFLICT. */
async function agreement(
  options: PushOptions,
  held: { branch: Branch; object: WalObject; file: SegmentFile; to: number },
): Promise<'covered' | 'agrees'> {
  const { repository, signal } = options
  const { branch, object, file, to } = held
  if (object.from >= to) return 'agrees'
  if (object.to > to) {
    await using known = new ComparedWal(readWalBytes(repository, branch, object, { signal }), {
      from: BigInt(object.from),
      to: BigInt(to),
    })
    for await (const bytes of file.read(object.from, to)) if (!(await known.agrees(bytes))) throw conflict(file, object)
    return object.from === 0 ? 'covered' : 'agrees'
  }
  const note = await readNote(repository, branch, object, { signal })
  const hash = createHash('sha256')
  for await (const bytes of file.read(object.from, object.to)) hash.update(bytes)
  if (hash.digest('hex') !== note.sha256) throw conflict(file, object)
  return object.from === 0 && object.to === to ? 'covered' : 'agrees'
}

class ComparedWal extends KnownWal implements AsyncDisposable {
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

function conflict(file: SegmentFile, { from, to }: WalObject): Failure {
  const name = segmentName(file.segment)
  return new Failure('WAL_CONFLICT', `cannot archive segment ${name}: other bytes are stored at [${from}, ${to}) of it`, {
    hint: 'the cluster went another way than the one that was archived (rolled back, perhaps): nothing was overwritten',
  })
}

/** The history is what tells a branch from others: it is kept in the branch's own object. */
async function pushHistory(options: PushOptions, timeline: number): Promise<PushOutcome> {
  const { repository, component, path, signal } = options
  const history = (await readArchived(path)).toString('utf8')
  const last = parseTimelineHistory(timeline, history).at(-1)
  const cluster = await readArchivedCluster(component.dataDirectory)
  if (cluster === undefined || last === undefined) {
    const why = last === undefined ? 'it names no timeline' : `there is no cluster in "${component.dataDirectory}"`
    throw new Failure('ARCHIVE_MISMATCH', `cannot archive "${basename(path)}": ${why}`, {
      hint: 'correct "dataDirectory" in the configuration',
    })
  }
  const identity = {
    component: component.name,
    systemIdentifier: cluster.systemIdentifier,
    major: cluster.major,
    timeline,
    history,
  }
  if ((await findNewestBranch(repository, identity, { signal })) !== undefined) return 'there'
  await branchOf(options, cluster, { timeline, history, firstLsn: last.endLsn - (last.endLsn % BigInt(cluster.segmentSize)) })
  return 'stored'
}
