import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { historyFileName } from '../../postgres/timeline-history.ts'
import type { Repository } from '../../repository/repository.ts'
import { coverage } from '../../repository/wal-archive.ts'
import { findNewestBranch, type Branch } from '../../repository/wal-branch.ts'
import { backupSpool, type PostgresComponent } from './component.ts'
import type { ServerFacts, ServerSession } from './server-session.ts'
import { streamWal } from './stream.ts'

const POLL_MS = 200
/** So long may the WAL of a backup make no progress towards the repository. */
const STALLED_MS = 120_000

/** Sees to it that the WAL of a backup is in the repository. Close it. */
export interface WalGuard extends AsyncDisposable {
  /** Resolves, with the branch, when the repository has all WAL of the range. Throws BACKUP_ABORTED. */
  waitFor(range: { startLsn: Lsn; stopLsn: Lsn }): Promise<Branch>
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
    return { waitFor: (range) => waitForWal(options, range), [Symbol.asyncDispose]: async () => undefined }
  }
  options.onNotice?.('no receiver is running: this backup streams its own WAL')
  return await ownReceiver(options)
}

async function ownReceiver(options: GuardWalOptions): Promise<WalGuard> {
  const { repository, component, clock } = options
  const spoolDirectory = backupSpool(options.stateDirectory, component.name)
  // Only one backup of a cluster runs at a time (the server's lock): what lies here is of a dead one.
  await rm(spoolDirectory, { recursive: true, force: true })
  const stopped = new AbortController()
  const connected = Promise.withResolvers<void>()
  const streaming = streamWal({
    repository,
    component: {
      ...component,
      stream: { ...component.stream, slot: `resus_backup_${options.id.slice(-6)}`, synchronous: false },
    },
    spoolDirectory,
    clock,
    signal: AbortSignal.any([options.signal, stopped.signal]),
    temporarySlot: true,
    onEvent: (event) => {
      if (event.kind === 'connected') connected.resolve()
    },
  })
  // It ends only when it is told to, or fails for good: then whoever waits gets to know.
  const failed = streaming.then(
    () => new Promise<never>(() => undefined),
    (error: unknown) => {
      throw error
    },
  )
  failed.catch(() => undefined)
  await Promise.race([connected.promise, failed])
  return {
    waitFor: (range) => Promise.race([waitForWal(options, range), failed]),
    [Symbol.asyncDispose]: async () => {
      stopped.abort()
      await streaming.catch(() => undefined)
    },
  }
}

async function waitForWal(options: GuardWalOptions, range: { startLsn: Lsn; stopLsn: Lsn }): Promise<Branch> {
  const { repository, component, facts, clock, signal } = options
  const history = await readHistory(component.dataDirectory, facts.timeline)
  const identity = { component: component.name, ...facts, history }
  let reached = -1n
  let progressMs = clock.now()
  for (;;) {
    const branch = await findNewestBranch(repository, identity)
    const covered = branch === undefined ? undefined : await coverage(repository, branch, range.startLsn)
    if (branch !== undefined && covered !== undefined && covered.endLsn >= range.stopLsn) return branch
    if (covered !== undefined && covered.endLsn > reached) {
      reached = covered.endLsn
      progressMs = clock.now()
    }
    if (clock.now() - progressMs > STALLED_MS) throw stalled(range, reached)
    await clock.sleep(POLL_MS, signal)
  }
}

function stalled(range: { startLsn: Lsn; stopLsn: Lsn }, reached: Lsn): Failure {
  const have = reached <= range.startLsn ? 'none of it' : `it up to ${formatLsn(reached)}`
  const what = `the backup needs the WAL from ${formatLsn(range.startLsn)} to ${formatLsn(range.stopLsn)}`
  return new Failure('BACKUP_ABORTED', `${what}; the repository has ${have}, and nothing has come for ${STALLED_MS / 1000} s`, {
    hint: 'is the receiver ("resus stream") alive, and can it reach the storage? What was copied is not copied again',
  })
}

async function readHistory(dataDirectory: string, timeline: number): Promise<string> {
  if (timeline === 1) return ''
  return await readFile(join(dataDirectory, 'pg_wal', historyFileName(timeline)), 'utf8')
}
