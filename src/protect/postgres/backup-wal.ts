import { readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { historyFileName } from '../../postgres/timeline-history.ts'
import type { Repository } from '../../repository/repository.ts'
import { coverageOf } from '../../repository/wal-archive.ts'
import { findNewestBranch, type Branch } from '../../repository/wal-branch.ts'
import { backupSpools, type PostgresComponent } from './component.ts'
import type { ServerFacts, ServerSession } from './server-session.ts'
import { waitForEvent } from './sleep.ts'
import { listDirectory } from './spool-branch.ts'
import { streamWal } from './stream.ts'
import type { StreamEvent } from './stream-event.ts'

const POLL_MS = 200
/** So long may the WAL of a backup make no progress towards the repository. */
const STALLED_MS = 120_000
/** A backup's receiver begins a file with each segment: what has not changed for so long is a dead one's. */
const DEAD_SPOOL_MS = 24 * 60 * 60 * 1000
/** Of the server that is backed up, whatever it is in its cluster; nobody waits for what it acknowledges. */
const OWN_STREAM = { synchronous: false, acknowledge: 'spool' as const, hosts: [] }

export interface WalOfBackup {
  readonly startLsn: Lsn
  readonly stopLsn: Lsn
  /** The timeline on which the backup began. */
  readonly timeline: number
}

/** Sees to it that the WAL of a backup is in the repository. Close it. */
export interface WalGuard extends AsyncDisposable {
  /** Resolves, with the branch, when the repository has all WAL of the backup. Throws BACKUP_ABORTED. */
  waitFor(wal: WalOfBackup): Promise<Branch>
}

export interface GuardWalOptions {
  readonly repository: Repository
  readonly component: PostgresComponent
  readonly stateDirectory: string
  readonly server: ServerSession
  readonly facts: ServerFacts
  /** The backup's id. */
  readonly id: string
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onNotice?: (text: string) => void
}

/**
 * Trusts the receiver that streams through the component's slot, when there is one; else streams the backup's WAL itself, through a
 * temporary slot that the server drops with our connection.
 */
export async function guardWal(options: GuardWalOptions): Promise<WalGuard> {
  const { component, server } = options
  if (await server.slotActive(component.stream.slot)) {
    return { waitFor: (wal) => waitForReceiver(options, wal), [Symbol.asyncDispose]: async () => undefined }
  }
  options.onNotice?.('no receiver is running: this backup streams its own WAL')
  return await ownReceiver(options)
}

/** How far the WAL of a backup has come. `branch` is known only when a receiver has acknowledged all of it, to this very server. */
interface Reached {
  readonly branch: Branch | undefined
  readonly lsn: Lsn
  /** Resolves when the repository has more, where somebody tells. */
  readonly news?: Promise<void>
}

/**
 * That a branch has WAL up to the backup's end says nothing yet: a server that was rolled back (a virtual machine, say) writes positions
 * again that are stored already, with other bytes. Its receiver has compared what it acknowledges, and begun another branch before.
 */
async function waitForReceiver(options: GuardWalOptions, wal: WalOfBackup): Promise<Branch> {
  const { repository, component, facts, server } = options
  const history = await readHistory(component.dataDirectory, wal.timeline)
  const identity = { ...facts, component: component.name, timeline: wal.timeline, history }
  return await waitForWal(options, wal, async () => {
    const lsn = (await server.slotPosition(component.stream.slot)) ?? 0n
    return { lsn, branch: lsn < wal.stopLsn ? undefined : await findNewestBranch(repository, identity) }
  })
}

async function ownReceiver(options: GuardWalOptions): Promise<WalGuard> {
  const { signal } = options
  const stopped = new AbortController()
  const connected = Promise.withResolvers<void>()
  let reached: Reached = { branch: undefined, lsn: 0n }
  let trouble = 'it has not answered'
  let news = Promise.withResolvers<void>()
  const spools = backupSpools(options.stateDirectory, options.component.name)
  await removeDeadSpools(spools, options.clock)
  const spoolDirectory = join(spools, options.id)
  const onEvent = (event: StreamEvent) => {
    if (event.kind === 'connected') connected.resolve()
    if (event.kind === 'acknowledged') reached = { branch: event.branch, lsn: event.lsn }
    if (event.kind === 'archived') news.resolve()
    if (event.kind === 'disconnected') trouble = `${event.code}: ${event.message}`
    if (event.kind === 'alarm' && event.attempts === 1) options.onNotice?.(`alarm ${event.code}: ${event.message}`)
  }
  const { repository, component, clock } = options
  const stream = { ...component.stream, ...OWN_STREAM, slot: `resus_backup_${options.id.slice(-6)}` }
  const streaming = streamWal({
    repository,
    component: { ...component, stream },
    spoolDirectory,
    clock,
    signal: AbortSignal.any([signal, stopped.signal]),
    temporarySlot: true,
    onEvent,
  })
  const dispose = async () => {
    stopped.abort()
    await streaming.catch(() => undefined)
    // A backup that is done has its WAL in the repository, and one that was given up needs none.
    await rm(spoolDirectory, { recursive: true, force: true })
  }
  // It ends only when it is told to, or fails for good: then whoever waits gets to know.
  const ended = streaming.then(() => signal.throwIfAborted())
  ended.catch(() => undefined)
  try {
    await Promise.race([connected.promise, ended, connectTimeout(options, stopped.signal, () => trouble)])
  } catch (error) {
    await dispose()
    signal.throwIfAborted()
    throw error
  }
  signal.throwIfAborted()
  const waitFor = (wal: WalOfBackup) =>
    waitForWal(options, wal, async () => {
      news = Promise.withResolvers()
      return { ...ownReached(reached, wal), news: news.promise }
    })
  return { waitFor: (wal) => Promise.race([waitFor(wal), ended.then(neverEnds)]), [Symbol.asyncDispose]: dispose }
}

/**
 * What dead backups left. Another one may be alive: the server's lock keeps two backups apart in one database only, and the connections of
 * two configurations may lead to two.
 */
async function removeDeadSpools(spools: string, clock: Clock): Promise<void> {
  for (const name of await listDirectory(spools)) {
    const path = join(spools, name)
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }))
    if (clock.now() - mtimeMs > DEAD_SPOOL_MS) await rm(path, { recursive: true, force: true })
  }
}

function ownReached({ branch, lsn }: Reached, wal: WalOfBackup): Reached {
  const isThere = lsn >= wal.stopLsn && branch?.head.timeline === wal.timeline
  return { lsn, branch: isThere ? branch : undefined }
}

/** A receiver tries for ever; a backup has not begun yet, and must not wait for ever for what pg_hba.conf or max_wal_senders forbid. */
async function connectTimeout(options: GuardWalOptions, stopped: AbortSignal, trouble: () => string): Promise<never> {
  await options.clock.sleep(STALLED_MS, AbortSignal.any([options.signal, stopped]))
  const what = `cannot stream the WAL of the backup: no replication connection within ${STALLED_MS / 1000} s; ${trouble()}`
  throw new Failure('BACKUP_ABORTED', what, {
    hint: 'does pg_hba.conf allow replication to this user, and are max_wal_senders and max_replication_slots large enough?',
  })
}

async function waitForWal(options: GuardWalOptions, wal: WalOfBackup, look: () => Promise<Reached>): Promise<Branch> {
  const { repository, clock, signal } = options
  let reached = -1n
  let coveredTo = wal.startLsn
  let progressMs = clock.now()
  for (;;) {
    const { branch, lsn, news } = await look()
    if (branch !== undefined) {
      const range = { from: coveredTo, to: wal.stopLsn }
      coveredTo = (await coverageOf(repository, branch, range, { signal })).endLsn
      if (coveredTo >= wal.stopLsn) return branch
    }
    const now = branch !== undefined || lsn < wal.startLsn ? coveredTo : lsn
    if (now !== reached) {
      reached = now
      progressMs = clock.now()
    }
    if (clock.now() - progressMs > STALLED_MS) throw stalled(wal, reached)
    await waitForEvent(news ?? neverEnds(), { clock, ms: POLL_MS, signal })
    signal.throwIfAborted()
  }
}

function stalled(wal: WalOfBackup, reached: Lsn): Failure {
  const have = reached <= wal.startLsn ? 'none of it' : `it up to ${formatLsn(reached)}`
  const what = `the backup needs the WAL from ${formatLsn(wal.startLsn)} to ${formatLsn(wal.stopLsn)} of timeline ${wal.timeline}`
  return new Failure(
    'BACKUP_ABORTED',
    `${what}; the receiver or the repository has ${have}, and nothing has come for ${STALLED_MS / 1000} s`,
    {
      hint: 'is the receiver ("resus stream") alive, and can it reach the storage? What was copied is not copied again',
    },
  )
}

function neverEnds(): Promise<never> {
  return new Promise(() => undefined)
}

async function readHistory(dataDirectory: string, timeline: number): Promise<string> {
  if (timeline === 1) return ''
  return await readFile(join(dataDirectory, 'pg_wal', historyFileName(timeline)), 'utf8')
}
