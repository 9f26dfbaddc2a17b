import type { Clock } from '../../clock.ts'
import type { Lsn } from '../../postgres/lsn.ts'
import type { Repository } from '../../repository/repository.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import type { PostgresComponent } from './component.ts'
import { Receiver } from './receiver.ts'
import type { StreamEvent } from './stream-event.ts'

export interface StreamOptions {
  readonly repository: Repository
  /** The slot's name is our application_name, too: what `synchronous_standby_names` has to name. */
  readonly component: Pick<PostgresComponent, 'name' | 'connection' | 'stream'>
  /** Of this receiver alone. */
  readonly spoolDirectory: string
  readonly clock: Clock
  /** Ends the stream in good order: what is held goes to the repository, the slot stays. */
  readonly signal: AbortSignal
  /** Called at once, between two steps of the receiver: it must return soon and not throw. */
  readonly onEvent?: (event: StreamEvent) => void
  /** For a backup's own WAL: a slot that goes with the connection, and notes that say `backup`. */
  readonly temporarySlot?: boolean
  /** Begin with the segment of this LSN, whatever is stored. */
  readonly startLsn?: Lsn
  /** End when the repository has everything before this LSN; a function is asked again and again while it gives null. */
  readonly stopWhenArchived?: Lsn | (() => Lsn | null)
  /** Of the spool, in bytes, instead of the component's; when it is full, nothing more is read. */
  readonly spoolBytesMax?: number
  /** A call of the storage, or a piece of a long one, that takes longer counts as stalled, and is tried again. */
  readonly storageTimeoutMs?: number
  /** How often the members of `hosts` that are not streamed from are looked at. */
  readonly membersEveryMs?: number
}

export interface StreamResult {
  /** The branch that was streamed last; undefined when it never came to that. */
  readonly branch: Branch | undefined
  /** Everything before this LSN is durable in the spool or the repository. */
  readonly durableLsn: Lsn
  /** Everything before this LSN is in the repository. */
  readonly archivedTo: Lsn
}

/**
 * Streams a cluster's WAL: each byte is durable in the spool before it is acknowledged to the server, and goes from there to the
 * repository, as whole segments and, for the segment at hand, as pieces. With `acknowledge: repository` it is acknowledged only when the
 * repository has it; the spool then only hands it on. Goes on through restarts of the server, lost networks and
 * storages that are away, until the signal aborts or `stopWhenArchived` is reached; and after being killed at any instant, when
 * started again. What can only be a mistake ends it: SLOT_BUSY (another receiver lives), KEY_WRONG, SERVER_TOO_OLD, ARGUMENTS_INVALID.
 *
 * What the power going out leaves, step by step (`Receiver` does them, `receiver-state.ts` says which comes after which):
 *
 * 1. bytes were received, not yet in the spool: nobody was told, the server still has them and sends them again;
 * 2. a frame is half in the spool: it does not open, the spool ends before it, the server sends it again;
 * 3. the spool is synced, the server not told: it sends again what we have; the bytes are compared, and agree;
 * 4. the server was told: it may forget them, and a commit may have returned. They are in the spool; the next start, or a restore on
 *    this host, puts them into the repository first. Only the loss of this host's disk, too, would lose what came since the last piece;
 * 5. an object is half put: it does not exist (the storage's promise), and is put again from the spool;
 * 6. the object is there, its spool file too: the put is done again and finds the same bytes there; then the file is deleted.
 */
export async function streamWal(options: StreamOptions): Promise<StreamResult> {
  const receiver = await Receiver.open(options)
  return await receiver.run()
}
