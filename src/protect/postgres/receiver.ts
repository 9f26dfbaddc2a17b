import { assert } from '../../assert.ts'
import { Failure } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import type { ReplicationConnection } from '../../postgres/replication.ts'
import type { WalMessage, WalStream } from '../../postgres/wal-stream.ts'
import { recordGap } from '../../repository/wal-archive.ts'
import { findOrMakeBranch } from '../../repository/wal-branch.ts'
import { TimedStorage } from '../../storage/timed-storage.ts'
import { Archives } from './archives.ts'
import { drainSpool, type RefusedRange } from './drain.ts'
import { KnownWal } from './known-wal.ts'
import { FIRST_STATE, next, type ReceiverEvent, type ReceiverState } from './receiver-state.ts'
import { Primary } from './primary.ts'
import { watchSlotHolder } from './slot-holder.ts'
import { ensureSlot, namesStandby, remakeSlot, type SlotWanted } from './slot.ts'
import { SpoolIntake } from './spool-intake.ts'
import { Spool, type SpoolWriter } from './spool.ts'
import { cutBatches } from './wal-batches.ts'
import { StorageAlarm } from './storage-alarm.ts'
import type { StreamEvent } from './stream-event.ts'
import type { StreamOptions, StreamResult } from './stream.ts'
import {
  choosePosition,
  positionAt,
  positionFromSpool,
  readKnown,
  readServerHistory,
  type PositionContext,
  type ServerHistory,
  type StreamPosition,
} from './stream-position.ts'

/** Attempts while a slot is busy whose holder is not heard: longer than wal_sender_timeout (60 s), when a server lets go of it. */
const SLOT_BUSY_RETRIES_MAX = 8
const STORAGE_TIMEOUT_MS = 120_000
const MEBIBYTE = 1024 * 1024
/** Repairs of one slot in a row before it is left to the next connection. */
const REPAIRS_MAX = 5
const TARGET_POLL_MS = 100
/** WAL that shares one fsync: large enough for speed, small enough that a spool with room for a segment takes it. */
const BATCH_BYTES_MAX = 4 * 1024 * 1024

/** One receiver of WAL: does what each state of `receiver-state.ts` asks for. */
export class Receiver {
  readonly #options: StreamOptions
  readonly #spool: Spool
  readonly #archives: Archives
  readonly #intake: SpoolIntake
  readonly #primary: Primary
  readonly #storageAlarm: StorageAlarm
  readonly #reached = new AbortController()
  /** Told to stop, or nothing more to do. */
  readonly #stop: AbortSignal
  /** The same, or the archive has failed. */
  #interrupted: AbortSignal
  #connection: ReplicationConnection | undefined
  #server: ServerHistory | undefined
  #position: StreamPosition | undefined
  #writer: SpoolWriter | undefined
  #known: KnownWal | undefined
  #stream: WalStream | undefined
  /** The oldest WAL that the server kept for the slot when this connection began. */
  #restartLsn: Lsn | null = null
  /** Whether a segment that is stored already may be asked for, to be compared: not again when the server has just refused it. */
  #lookBack = true
  #acknowledgedTo: Lsn = 0n
  /** What of the spool the repository does not take; undefined until it was asked. */
  #refused: readonly RefusedRange[] | undefined
  /** Whether this process has held the slot since it looked at the spool. */
  #owned = false
  /** Whether the spool has files that the next acknowledgement makes superfluous. */
  #tidy = false
  #busy = 0
  #lastFailure: Failure | undefined

  private constructor(options: StreamOptions, spool: Spool) {
    this.#options = options
    this.#spool = spool
    this.#stop = AbortSignal.any([options.signal, this.#reached.signal])
    this.#interrupted = this.#stop
    const source = options.temporarySlot === true ? 'backup' : 'stream'
    const onEvent = (event: StreamEvent) => this.#emit(event)
    const archives = new Archives({ ...options, spool, source, onEvent })
    this.#archives = archives
    this.#storageAlarm = new StorageAlarm(options.clock, onEvent)
    this.#intake = new SpoolIntake({ spool, archives, clock: options.clock, stop: this.#stop, onEvent })
    this.#primary = new Primary({ ...options, archives, signal: this.#stop, onEvent })
  }

  static async open(given: StreamOptions): Promise<Receiver> {
    const storage = new TimedStorage(given.repository.storage, given.storageTimeoutMs ?? STORAGE_TIMEOUT_MS)
    const options = { ...given, repository: { ...given.repository, storage } }
    const { spoolDirectory: directory, component, repository } = options
    const bytesMax = options.spoolBytesMax ?? component.stream.spoolMegabytesMax * MEBIBYTE
    const onSetAside = (path: string) => {
      const message = `a damaged spool file was set aside as "${path}": the repository has its whole segment`
      options.onEvent?.({ kind: 'alarm', code: 'SPOOL_DAMAGED', message, attempts: 1 })
    }
    const { ring } = repository
    return new Receiver(options, await Spool.open({ directory, component: component.name, ring, bytesMax, onSetAside }))
  }

  async run(): Promise<StreamResult> {
    const poll = setInterval(() => this.#checkTarget(), TARGET_POLL_MS)
    try {
      let state = FIRST_STATE
      while (state.kind !== 'stopped') {
        const after = next(state, await this.#step(state))
        if (after.kind !== state.kind) await this.#leave(state, after)
        state = after
      }
    } finally {
      clearInterval(poll)
      await this.#primary[Symbol.asyncDispose]()
      await this.#disconnect()
      await this.#archives.abort()
    }
    this.#emit({ kind: 'stopped' })
    return { branch: this.#position?.branch, ...this.#archives.progress }
  }

  async #step(state: ReceiverState): Promise<ReceiverEvent> {
    if (state.kind === 'stopping') return await this.#finish()
    if (this.#stop.aborted) return { kind: 'stop' }
    try {
      return await this.#work(state)
    } catch (error) {
      if (this.#stop.aborted) return { kind: 'stop' }
      const { aborted: superseded, reason } = this.#primary.superseded
      return await this.#judge(this.#takeArchiveFailure() ?? (superseded ? (reason as unknown) : error), state)
    }
  }

  /** What an archive has not stored is archived by nobody now: the spool is looked at again, as after a restart. */
  #takeArchiveFailure(): unknown {
    const failure = this.#archives.takeFailure()
    if (failure !== undefined) this.#owned = false
    return failure
  }

  async #work(state: ReceiverState): Promise<ReceiverEvent> {
    switch (state.kind) {
      case 'connecting':
        await this.#connect()
        return { kind: 'connected' }
      case 'positioning':
        await this.#choosePosition()
        return { kind: 'positioned' }
      case 'streaming':
        return await this.#receive()
      case 'switching':
        return await this.#switchTimeline(state)
      case 'repairing':
        await this.#repair(state.attempt)
        return { kind: 'repaired' }
      case 'waiting':
        await this.#options.clock.sleep(state.ms, this.#stop)
        return { kind: 'waited' }
      case 'stopping':
      case 'stopped':
        return { kind: 'ended' }
      default:
        return state satisfies never
    }
  }

  /** What a failure means: lost WAL, another attempt, or the end. */
  async #judge(error: unknown, state: ReceiverState): Promise<ReceiverEvent> {
    if (!(error instanceof Failure) || error.exitStatus === 2) throw error
    if (error.code === 'SLOT_LOST' && state.kind === 'streaming') {
      if (this.#position?.looksBack !== true) return { kind: 'walLost' }
      // What it was to be compared with is all that is lost. Without it, the slot shows whether more is.
      this.#lookBack = false
    }
    if (error.code === 'SLOT_BUSY') await this.#waitForSlot(error)
    this.#lastFailure = error
    return this.#stop.aborted ? { kind: 'stop' } : { kind: 'failed' }
  }

  /** Returns when it is worth another attempt. Throws SLOT_BUSY when the slot's holder lives, or never lets go. */
  async #waitForSlot(failure: Failure): Promise<void> {
    if (this.#busy++ >= SLOT_BUSY_RETRIES_MAX) throw failure
    const { clock, component } = this.#options
    const { connectionString } = this.#primary
    try {
      await watchSlotHolder({ connectionString, slot: component.stream.slot, clock, signal: this.#stop })
    } catch (error) {
      if (!this.#stop.aborted) throw error
    }
  }

  /** Whatever ends the flow: what came goes to the repository at once. */
  async #leave(state: ReceiverState, after: ReceiverState): Promise<void> {
    if (state.kind === 'streaming') {
      this.#archives.flush()
      await this.#endStream()
    }
    if (after.kind !== 'waiting') return
    await this.#disconnect()
    const failure = this.#lastFailure ?? new Failure('POSTGRES_UNREACHABLE', 'the connection was lost')
    const { code, message } = failure
    this.#storageAlarm.note(failure, after.attempt)
    this.#emit({ kind: 'disconnected', code, message, retryInMs: after.ms })
  }

  async #connect(): Promise<void> {
    await this.#disconnect()
    this.#connection = await this.#primary.connect()
  }

  async #disconnect(): Promise<void> {
    const connection = this.#connection
    this.#connection = undefined
    await connection?.close()
  }

  async #choosePosition(): Promise<void> {
    const connection = this.#connected()
    const server = await readServerHistory(connection)
    this.#server = server
    this.#primary.setServer(server)
    await this.#checkSynchronous(connection)
    const restartLsn = await ensureSlot(connection, this.#slot)
    const current = this.#archives.current
    const spooledTo = current === undefined ? undefined : this.#spool.ranges(current).at(-1)?.to
    // A slot that is ahead of us was used by another receiver meanwhile, perhaps with this same spool.
    if (spooledTo !== undefined && restartLsn !== null && restartLsn > spooledTo) this.#owned = false
    if (!this.#owned) await this.#takeOver()
    this.#restartLsn = restartLsn
    const position = await this.#findPosition(server, restartLsn)
    const { branch, startLsn, knownTo } = position
    this.#position = position
    // Nobody counts on the WAL of a backup before the repository has it.
    this.#writer = await this.#spool.startWriting(branch, startLsn, this.#spoolIsAcknowledged && !this.#slot.temporary)
    this.#acknowledgedTo = 0n
    const known = { from: startLsn, to: knownTo }
    this.#known = knownTo > startLsn ? new KnownWal(readKnown(this.#context(), branch, known), known) : undefined
    this.#tidy = this.#known === undefined
  }

  async #findPosition(server: ServerHistory, restartLsn: Lsn | null): Promise<StreamPosition> {
    const current = this.#archives.current
    const fromSpool = current === undefined ? undefined : positionFromSpool(this.#context(), current, server)
    if (fromSpool !== undefined) return fromSpool
    const { startLsn } = this.#options
    if (startLsn !== undefined && (this.#position === undefined || !this.#lookBack)) {
      const { history, identity } = server
      return await positionAt(this.#context(), { server, timeline: identity.timeline, history, beginLsn: startLsn })
    }
    return await choosePosition(this.#context(), this.#connected(), { server, restartLsn })
  }

  /**
   * Until this process has held the slot, another receiver may be writing to the same spool: nothing that was seen of it is
   * believed the next time. What is in it goes to the repository before anything is streamed.
   */
  async #takeOver(): Promise<void> {
    this.#archives.end('kept')
    await this.#drain()
    await this.#spool.rescan()
  }

  /** Gives how many stretches were stored. What is refused stays in the spool, for people to look at; streaming does not wait for them. */
  async #drain(): Promise<number> {
    const { repository, spoolDirectory, component, clock } = this.#options
    const drain = { repository, spoolDirectory, component: component.name, clock, signal: this.#stop }
    const { damaged, stored, refused } = await drainSpool(drain)
    for (const path of damaged) {
      this.#alarm(new Failure('SPOOL_DAMAGED', `spool file "${path}" was damaged after it was written`), 1)
    }
    for (const { failure } of refused) this.#alarm(failure, 1)
    this.#refused = refused
    return stored.length
  }

  async #checkSynchronous(connection: ReplicationConnection): Promise<void> {
    const { slot, synchronous } = this.#options.component.stream
    const names = await connection.showSetting('synchronous_standby_names')
    const counted = namesStandby(names, slot)
    this.#archives.synchronous = counted
    if (!synchronous || counted) return
    const what = `the server does not wait for this receiver: synchronous_standby_names is "${names}" and does not name "${slot}"`
    this.#alarm(new Failure('SERVER_SETTING', what), 1)
  }

  /** All that has come, in batches that share one fsync each. */
  async #receive(): Promise<ReceiverEvent> {
    const stream = (this.#stream ??= await this.#startStream())
    const messages = await stream.takeMessages(this.#interrupted)
    if (messages.length === 0) {
      const { end } = stream
      if (end?.kind === 'switch') return { kind: 'timelineEnded', timeline: end.timeline, lsn: end.lsn }
      throw new Failure('POSTGRES_UNREACHABLE', 'the server has ended the stream')
    }
    for (const batch of cutBatches(messages, Math.min(BATCH_BYTES_MAX, this.#position!.branch.head.segmentSize))) {
      if (!(await this.#keep(stream, batch))) return await this.#diverge()
    }
    return { kind: 'acknowledged' }
  }

  /** Makes a batch durable, then acknowledges it. False when it is not what is stored at its place: then nothing of it was kept. */
  async #keep(stream: WalStream, batch: readonly WalMessage[]): Promise<boolean> {
    const writer = this.#writer!
    for (const { bytes } of batch) {
      if (!(await this.#agrees(bytes))) return false
    }
    const length = batch.reduce((sum, { bytes }) => sum + bytes.length, 0)
    await this.#intake.waitForRoom(length, this.#position!.branch.head.segmentSize)
    for (const { lsn, bytes } of batch) writer.append(lsn, bytes)
    await this.#intake.sync(writer)
    this.#archives.setDurable(writer.durableLsn)
    this.#acknowledge(stream, writer)
    this.#lookBack = true
    if (this.#tidy) await this.#tidySpool(writer.durableLsn)
    this.#checkTarget()
    return true
  }

  /**
   * Tells the server what is safe. `written` is no more than `flushed`: a commit with synchronous_commit = remote_write would wait
   * for less otherwise.
   */
  #acknowledge(stream: WalStream, writer: SpoolWriter): void {
    const { durableLsn } = writer
    // What the repository has of this branch was compared with what this server sent only up to here.
    const { safeTo } = this.#archives
    const lsn = this.#spoolIsAcknowledged || safeTo > durableLsn ? durableLsn : safeTo
    if (lsn <= this.#acknowledgedTo) return
    this.#acknowledgedTo = lsn
    stream.sendStatus({ written: lsn, flushed: lsn, applied: 0n })
    this.#emit({ kind: 'acknowledged', branch: this.#position!.branch, lsn })
  }

  get #spoolIsAcknowledged(): boolean {
    return this.#options.component.stream.acknowledge === 'spool'
  }

  /** Once all that was stored has been compared, the files of earlier connections and processes hold nothing that is needed. */
  async #tidySpool(durableLsn: Lsn): Promise<void> {
    const { branch, startLsn } = this.#position!
    this.#tidy = false
    // Files that may not be on disk yet must not take the place of files that are.
    if (this.#spoolIsAcknowledged) await this.#spool.deleteCovered(branch, { from: startLsn, to: durableLsn })
    if (this.#refused !== undefined) await this.#spool.deleteEarlier(this.#refused)
  }

  async #startStream(): Promise<WalStream> {
    const { branch, startLsn } = this.#position!
    const { slot } = this.#options.component.stream
    const stream = await this.#connected().startPhysical({ slot, lsn: startLsn, timeline: branch.head.timeline })
    this.#busy = 0
    // We hold the slot now. Whoever had it before may have written until a moment ago.
    if (!this.#owned && (await this.#drain()) > 0) {
      await stream.stop()
      throw new Failure('SLOT_BUSY', `another receiver used the slot "${slot}" until now: looking again at what it left`)
    }
    this.#owned = true
    this.#archives.begin(this.#position!)
    this.#interrupted = AbortSignal.any([this.#stop, this.#archives.failed, this.#primary.superseded])
    this.#storageAlarm.end()
    this.#emit({ kind: 'connected', branch, startLsn, serverLsn: this.#server!.identity.position })
    return stream
  }

  async #endStream(): Promise<void> {
    await this.#stream?.stop()
    this.#stream = undefined
    await this.#writer?.close()
    this.#writer = undefined
    // A connection that was lost before it brought anything new must not leave a file each time.
    if (this.#known !== undefined) await this.#spool.deleteRedundant(this.#position!.branch)
    await this.#known?.close()
    this.#known = undefined
  }

  /** Whether the bytes are those that are stored; what cannot be read cannot be compared, and must not stop the stream. */
  async #agrees(bytes: Buffer): Promise<boolean> {
    const known = this.#known
    if (known === undefined) return true
    try {
      const agrees = await known.agrees(bytes)
      if (!agrees || !known.done) return agrees
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#alarm(error, 1)
    }
    this.#known = undefined
    this.#tidy = true
    await known.close()
    return true
  }

  /**
   * The server sends other bytes than are stored: it gets the next branch. That begins with the oldest WAL that the server has kept for
   * the slot: commits between the place where it left the old way and the one where that was noticed count as acknowledged, too.
   */
  async #diverge(): Promise<ReceiverEvent> {
    const { branch: from, startLsn } = this.#position!
    const { clock, component, repository } = this.#options
    const oldest = this.#restartLsn === null || this.#restartLsn > startLsn ? startLsn : this.#restartLsn
    const firstLsn = oldest - (oldest % BigInt(from.head.segmentSize))
    const wanted = { ...from.head, component: component.name, ordinal: from.head.ordinal + 1, firstLsn }
    const branch = await findOrMakeBranch(repository, wanted, clock, { signal: this.#stop })
    this.#emit({ kind: 'diverged', from, branch, lsn: firstLsn })
    this.#archives.end('kept')
    await this.#endStream()
    await this.#connect()
    return { kind: 'diverged' }
  }

  async #switchTimeline(to: { timeline: number; lsn: Lsn }): Promise<ReceiverEvent> {
    this.#emit({ kind: 'switched', branch: this.#position!.branch, timeline: to.timeline, lsn: to.lsn })
    this.#archives.end('complete')
    return { kind: 'switched' }
  }

  /** First a new slot: the WAL may still be there. If it is not, the gap is recorded, and the stream goes on behind it. */
  async #repair(attempt: number): Promise<void> {
    const { branch, startLsn, knownTo } = this.#position!
    await this.#connect()
    const restartLsn = await remakeSlot(this.#connected(), this.#slot)
    if (attempt === 1) return
    const size = BigInt(branch.head.segmentSize)
    const to = restartLsn === null ? null : restartLsn - (restartLsn % size)
    const from = knownTo > startLsn ? knownTo : startLsn
    if (attempt > REPAIRS_MAX || to === null || to <= from) {
      throw new Failure('POSTGRES_FAILED', `the server refuses WAL from ${formatLsn(startLsn)} on, though it should have it`)
    }
    const { clock, repository } = this.#options
    const at = new Date(clock.now()).toISOString()
    this.#archives.end('kept')
    await recordGap(repository, branch, { from, to, why: 'the server no longer had it', at }, { signal: this.#stop })
    this.#emit({ kind: 'gap', branch, from, to })
  }

  async #finish(): Promise<ReceiverEvent> {
    await this.#endStream()
    await this.#disconnect()
    // A backup that was given up needs none of its WAL, and one that is done has it.
    if (this.#options.temporarySlot !== true) await this.#archives.finish()
    return { kind: 'ended' }
  }

  /** Ends the stream when what it was started for is in the repository; hurries when it is in the spool. */
  #checkTarget(): void {
    const { stopWhenArchived } = this.#options
    const target = typeof stopWhenArchived === 'function' ? stopWhenArchived() : stopWhenArchived
    if (target === undefined || target === null) return
    const { archivedTo, durableLsn } = this.#archives.progress
    if (archivedTo >= target) this.#reached.abort()
    else if (durableLsn >= target) this.#archives.flush()
  }

  get #slot(): SlotWanted {
    return { slot: this.#options.component.stream.slot, temporary: this.#options.temporarySlot === true }
  }

  #connected(): ReplicationConnection {
    assert(this.#connection !== undefined, 'this state has a connection')
    return this.#connection
  }

  #context(): PositionContext {
    const { repository, component, clock } = this.#options
    return { repository, spool: this.#spool, component: component.name, clock, signal: this.#stop, lookBack: this.#lookBack }
  }

  #alarm(failure: Failure, attempts: number): void {
    this.#emit({ kind: 'alarm', code: failure.code, message: failure.message, attempts })
  }

  #emit(event: StreamEvent): void {
    this.#options.onEvent?.(event)
    if (event.kind !== 'archived') return
    if (this.#stream !== undefined && this.#writer !== undefined) this.#acknowledge(this.#stream, this.#writer)
    this.#checkTarget()
  }
}
