import { assert } from '../../assert.ts'
import { Failure } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { ReplicationConnection } from '../../postgres/replication.ts'
import type { WalMessage, WalStream } from '../../postgres/wal-stream.ts'
import { recordGap } from '../../repository/wal-archive.ts'
import { findOrMakeBranch } from '../../repository/wal-branch.ts'
import { Archives } from './archives.ts'
import { drainSpool } from './drain.ts'
import { KnownWal } from './known-wal.ts'
import { FIRST_STATE, next, type ReceiverEvent, type ReceiverState } from './receiver-state.ts'
import { sleepUnlessAborted } from './sleep.ts'
import { cutBatches } from './wal-batches.ts'
import { DEFAULT_SPOOL_BYTES_MAX, Spool, type SpoolWriter } from './spool.ts'
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

/** Longer than wal_sender_timeout (60 s), after which a server lets go of the slot of a receiver that it lost sight of. */
const SLOT_BUSY_RETRIES_MAX = 14
/** Repairs of one slot in a row before it is left to the next connection. */
const REPAIRS_MAX = 5
const SPOOL_RETRY_MS_FIRST = 250
const SPOOL_RETRY_MS_MAX = 15_000
const SPOOL_FULL_ALARM_MS = 10_000
const TARGET_POLL_MS = 100
/** WAL that shares one fsync: large enough for speed, small enough that a spool with room for a segment takes it. */
const BATCH_BYTES_MAX = 4 * 1024 * 1024

/** One receiver of WAL: does what each state of `receiver-state.ts` asks for. */
export class Receiver {
  readonly #options: StreamOptions
  readonly #spool: Spool
  readonly #archives: Archives
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
  #drained = false
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
    this.#archives = new Archives({ ...options, spool, source, onEvent: (event) => this.#emit(event) })
  }

  static async open(options: StreamOptions): Promise<Receiver> {
    const { spoolDirectory: directory, component, repository } = options
    const bytesMax = options.spoolBytesMax ?? DEFAULT_SPOOL_BYTES_MAX
    return new Receiver(options, await Spool.open({ directory, component: component.name, ring: repository.ring, bytesMax }))
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
      return this.#judge(this.#archives.takeFailure() ?? error, state)
    }
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
  #judge(error: unknown, state: ReceiverState): ReceiverEvent {
    if (!(error instanceof Failure) || error.exitStatus === 2) throw error
    if (error.code === 'SLOT_LOST' && state.kind === 'streaming') return { kind: 'walLost' }
    if (error.code === 'SLOT_BUSY' && this.#busy++ >= (this.#options.slotBusyRetriesMax ?? SLOT_BUSY_RETRIES_MAX)) throw error
    this.#lastFailure = error
    return { kind: 'failed' }
  }

  /** Whatever ends the flow: what came goes to the repository at once. */
  async #leave(state: ReceiverState, after: ReceiverState): Promise<void> {
    if (state.kind === 'streaming') {
      this.#archives.flush()
      await this.#endStream()
    }
    if (after.kind !== 'waiting') return
    await this.#disconnect()
    const { code, message } = this.#lastFailure ?? new Failure('POSTGRES_UNREACHABLE', 'the connection was lost')
    this.#emit({ kind: 'disconnected', code, message, retryInMs: after.ms })
  }

  async #connect(): Promise<void> {
    const { component } = this.#options
    await this.#disconnect()
    this.#connection = await ReplicationConnection.connect({
      connectionString: component.connection.reveal().toString(),
      applicationName: component.stream.slot,
      signal: this.#stop,
    })
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
    await this.#checkSynchronous(connection)
    const restartLsn = await this.#ensureSlot(connection)
    const current = this.#archives.current
    const spooledTo = current === undefined ? undefined : this.#spool.ranges(current).at(-1)?.to
    // A slot that is ahead of us was used by another receiver meanwhile, perhaps with this same spool.
    if (spooledTo !== undefined && restartLsn !== null && restartLsn > spooledTo) this.#owned = false
    if (!this.#owned) await this.#takeOver()
    const position = await this.#findPosition(server, restartLsn)
    const { branch, startLsn, knownTo } = position
    this.#position = position
    this.#writer = await this.#spool.startWriting(branch, startLsn)
    const known = { from: startLsn, to: knownTo }
    this.#known = knownTo > startLsn ? new KnownWal(readKnown(this.#context(), branch, known), known) : undefined
    this.#tidy = this.#known === undefined
  }

  async #findPosition(server: ServerHistory, restartLsn: Lsn | null): Promise<StreamPosition> {
    const current = this.#archives.current
    const fromSpool = current === undefined ? undefined : positionFromSpool(this.#spool, current, server)
    if (fromSpool !== undefined) return fromSpool
    const { startLsn } = this.#options
    if (startLsn !== undefined && this.#position === undefined) {
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

  /** Gives how many stretches were stored. */
  async #drain(): Promise<number> {
    const { repository, spoolDirectory, component, clock } = this.#options
    try {
      const drain = { repository, spoolDirectory, component: component.name, clock, signal: this.#stop }
      const { damaged, stored } = await drainSpool(drain)
      for (const path of damaged) {
        this.#alarm(new Failure('SPOOL_DAMAGED', `spool file "${path}" was damaged after it was written`), 1)
      }
      this.#drained = true
      return stored.length
    } catch (error) {
      if (!(error instanceof Failure && error.code === 'WAL_CONFLICT')) throw error
      // The spool is kept as it is, for people to look at; streaming must not wait for them.
      this.#alarm(error, 1)
      this.#drained = false
      return 0
    }
  }

  /** The slot, made if it is not there; gives the oldest WAL that the server keeps for it. */
  async #ensureSlot(connection: ReplicationConnection): Promise<Lsn | null> {
    const { slot } = this.#options.component.stream
    const there = await connection.readSlot(slot)
    if (there !== undefined) return there.restartLsn
    await connection.createPhysicalSlot(slot, { temporary: this.#options.temporarySlot === true, reserveWal: true })
    return (await connection.readSlot(slot))?.restartLsn ?? null
  }

  async #checkSynchronous(connection: ReplicationConnection): Promise<void> {
    const { slot, synchronous } = this.#options.component.stream
    const names = await connection.showSetting('synchronous_standby_names')
    const counted = names.split(/[\s,()"]+/).some((name) => name === '*' || name.toLowerCase() === slot)
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
    await this.#waitForRoom(batch)
    for (const { lsn, bytes } of batch) writer.append(lsn, bytes)
    await this.#syncSpool(writer)
    const lsn = writer.durableLsn
    stream.sendStatus({ written: lsn, flushed: lsn, applied: 0n })
    this.#archives.setDurable(lsn)
    this.#emit({ kind: 'acknowledged', branch: this.#position!.branch, lsn })
    if (this.#tidy) await this.#tidySpool(lsn)
    this.#checkTarget()
    return true
  }

  /** Once all that was stored has been compared, the files of earlier connections and processes hold nothing that is needed. */
  async #tidySpool(durableLsn: Lsn): Promise<void> {
    const { branch, startLsn } = this.#position!
    this.#tidy = false
    await this.#spool.deleteCovered(branch, { from: startLsn, to: durableLsn })
    if (this.#drained) await this.#spool.deleteEarlier()
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
    this.#interrupted = AbortSignal.any([this.#stop, this.#archives.failed])
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

  /** The server sends other bytes than are stored: it gets the next branch. */
  async #diverge(): Promise<ReceiverEvent> {
    const { branch: from, startLsn } = this.#position!
    const { clock, component, repository } = this.#options
    const wanted = { ...from.head, component: component.name, ordinal: from.head.ordinal + 1, firstLsn: startLsn }
    const branch = await findOrMakeBranch(repository, wanted, clock, { signal: this.#stop })
    this.#emit({ kind: 'diverged', from, branch, lsn: startLsn })
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
    const connection = this.#connected()
    const { slot } = this.#options.component.stream
    if (this.#options.temporarySlot !== true && (await connection.readSlot(slot)) !== undefined) await connection.dropSlot(slot)
    const restartLsn = await this.#ensureSlot(connection)
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

  async #waitForRoom(messages: readonly WalMessage[]): Promise<void> {
    const bytes = messages.reduce((sum, message) => sum + message.bytes.length, 0)
    const { segmentSize } = this.#position!.branch.head
    let attempts = 0
    while (!this.#spool.hasRoomFor(bytes, segmentSize)) {
      this.#stop.throwIfAborted()
      attempts += 1
      this.#alarm(
        new Failure('SPOOL_FULL', 'the spool is full: nothing more is acknowledged until the storage takes some'),
        attempts,
      )
      await this.#spool.waitForRoom(
        this.#options.clock,
        SPOOL_FULL_ALARM_MS,
        AbortSignal.any([this.#stop, this.#archives.failed]),
      )
      this.#archives.failed.throwIfAborted()
    }
    if (attempts > 0) this.#emit({ kind: 'cleared', code: 'SPOOL_FULL' })
  }

  /** Until it is durable. While it is not, nothing is acknowledged, and the server waits or keeps its WAL. */
  async #syncSpool(writer: SpoolWriter): Promise<void> {
    for (let attempts = 0; ; attempts += 1) {
      try {
        await writer.sync()
        if (attempts > 0) this.#emit({ kind: 'cleared', code: 'SPOOL_UNWRITABLE' })
        return
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        this.#alarm(error, attempts + 1)
      }
      const ms = Math.min(SPOOL_RETRY_MS_MAX, SPOOL_RETRY_MS_FIRST * 2 ** Math.min(attempts, 16))
      await sleepUnlessAborted(this.#options.clock, ms, this.#stop)
      this.#stop.throwIfAborted()
    }
  }

  async #finish(): Promise<ReceiverEvent> {
    await this.#endStream()
    await this.#disconnect()
    await this.#archives.finish()
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

  #connected(): ReplicationConnection {
    assert(this.#connection !== undefined, 'this state has a connection')
    return this.#connection
  }

  #context(): PositionContext {
    const { repository, component, clock } = this.#options
    return { repository, spool: this.#spool, component: component.name, clock, signal: this.#stop }
  }

  #alarm(failure: Failure, attempts: number): void {
    this.#emit({ kind: 'alarm', code: failure.code, message: failure.message, attempts })
  }

  #emit(event: StreamEvent): void {
    this.#options.onEvent?.(event)
    if (event.kind === 'archived') this.#checkTarget()
  }
}
