import type pg from 'pg'
import { z } from 'zod'
import { assert } from '../assert.ts'
import { Failure } from '../errors.ts'
import { parseLsn, type Lsn } from './lsn.ts'
import { msToMicros } from './timestamp.ts'

// The stream of WAL inside CopyBoth. Messages, big-endian:
//
//   server: 'w' ‖ u64 LSN of the first byte ‖ u64 end of WAL on the server ‖ u64 time ‖ bytes
//           'k' ‖ u64 end of WAL on the server ‖ u64 time ‖ u8 reply asked for
//   client: 'r' ‖ u64 written ‖ u64 flushed ‖ u64 applied ‖ u64 time ‖ u8 reply asked for
//
// At the end of a timeline the server sends CopyDone; we answer with CopyDone, and get a row (next timeline, its first LSN).

const WAL_MESSAGE = 0x77
const KEEPALIVE_MESSAGE = 0x6b
const STATUS_MESSAGE = 0x72
const WAL_HEADER_BYTES = 25
const STATUS_BYTES = 34
/** Held in memory before the socket is paused; it is read again when half of it has been taken. */
const HELD_BYTES_MAX = 16 * 1024 * 1024
/** How often the server hears of us unasked, whatever the consumer does: well below wal_sender_timeout (60 s). */
const STATUS_INTERVAL_MS = 5000
/** A server that is asked every 5 s and says nothing for this long is gone, though no socket may have told. */
const SILENCE_MAX_MS = 30_000
const STOP_TIMEOUT_MS = 5000

export interface WalMessage {
  readonly lsn: Lsn
  readonly bytes: Buffer
}

export interface ReceiverStatus {
  readonly written: Lsn
  readonly flushed: Lsn
  readonly applied: Lsn
  readonly replyRequested?: boolean
}

/** How a stream ended: at a switch to the next timeline, or because we asked. */
export type StreamEnd = { readonly kind: 'switch'; readonly timeline: number; readonly lsn: Lsn } | { readonly kind: 'stopped' }

/** What pg's connection can do beyond its types. */
type CopyConnection = pg.Connection & { sendCopyFromChunk(chunk: Buffer): void; endCopyFrom(): void }

/**
 * WAL as it comes. Keepalives are answered at once, and a status goes out every 5 s, while the consumer is busy, too. When 16 MiB
 * wait to be taken, the socket is paused.
 */
export class WalStream {
  readonly #connection: CopyConnection
  #held: WalMessage[] = []
  #heldBytes = 0
  #walEnd: Lsn = 0n
  #status: ReceiverStatus = { written: 0n, flushed: 0n, applied: 0n }
  #lastHeard = performance.now()
  #timer: NodeJS.Timeout | undefined
  #end: StreamEnd | undefined
  #failure: Error | undefined
  #copying = false
  #wake = Promise.withResolvers<void>()

  constructor(connection: pg.Connection) {
    assert(isCopyConnection(connection), 'pg has the methods for copying that it was pinned for')
    this.#connection = connection
    connection.on('copyData', this.#onCopyData)
    connection.on('copyDone', this.#onCopyDone)
    connection.on('replicationStart', this.#onStart)
  }

  /** How far the server's WAL reached when it was heard last. */
  get walEnd(): Lsn {
    return this.#walEnd
  }

  /** Resolves when the server has begun to stream; rejects when it refuses. `command` is the whole command, until the stream ends. */
  async start(command: Promise<readonly unknown[]>): Promise<void> {
    void command.then(
      (rows) => this.#finish(rows),
      (error: unknown) => this.#fail(error instanceof Error ? error : new Error(String(error))),
    )
    while (!this.#copying && this.#failure === undefined && this.#end === undefined) await this.#waitForNews()
    if (this.#failure !== undefined) throw this.#failure
  }

  /**
   * All that has come and was not taken yet, waiting until there is something; none when the stream has ended: see `end`. Throws
   * what ended the stream, after all that had come was taken; or the signal's reason.
   */
  async takeMessages(signal?: AbortSignal): Promise<readonly WalMessage[]> {
    const abort = () => this.#wake.resolve()
    signal?.addEventListener('abort', abort, { once: true })
    try {
      while (this.#held.length === 0 && this.#end === undefined && this.#failure === undefined) {
        signal?.throwIfAborted()
        await this.#waitForNews()
      }
    } finally {
      signal?.removeEventListener('abort', abort)
    }
    if (this.#held.length === 0 && this.#failure !== undefined) throw this.#failure
    const taken = this.#held
    this.#held = []
    this.#heldBytes = 0
    if (this.#connection.stream.isPaused()) {
      // What the server sent meanwhile is still in the socket: it was not silent.
      this.#lastHeard = performance.now()
      this.#connection.stream.resume()
    }
    return taken
  }

  /** How the stream ended; undefined while it has not. */
  get end(): StreamEnd | undefined {
    return this.#end
  }

  /** Tells the server how far we are. It is repeated every 5 s until the next one. */
  sendStatus(status: ReceiverStatus): void {
    this.#status = status
    if (!this.#copying) return
    const message = Buffer.alloc(STATUS_BYTES)
    message[0] = STATUS_MESSAGE
    message.writeBigUInt64BE(status.written, 1)
    message.writeBigUInt64BE(status.flushed, 9)
    message.writeBigUInt64BE(status.applied, 17)
    message.writeBigUInt64BE(msToMicros(Date.now()), 25)
    message[33] = status.replyRequested === true ? 1 : 0
    this.#connection.sendCopyFromChunk(message)
  }

  /** Ends the stream in good order, so that the server lets go of the slot at once. Whatever still comes is dropped. Never throws. */
  async stop(): Promise<void> {
    if (!this.#copying) return
    this.sendStatus(this.#status)
    this.#copying = false
    this.#connection.endCopyFrom()
    this.#connection.stream.resume()
    const timeout = setTimeout(() => this.#fail(new Error('the server did not end the stream')), STOP_TIMEOUT_MS)
    while (this.#end === undefined && this.#failure === undefined) {
      this.#held = []
      await this.#waitForNews()
    }
    clearTimeout(timeout)
  }

  /** Lets go of timers and listeners; the connection stays as it is. */
  close(): void {
    clearInterval(this.#timer)
    this.#copying = false
    this.#connection.off('copyData', this.#onCopyData)
    this.#connection.off('copyDone', this.#onCopyDone)
    this.#connection.off('replicationStart', this.#onStart)
  }

  readonly #onStart = () => {
    this.#copying = true
    this.#lastHeard = performance.now()
    this.#timer = setInterval(() => this.#tick(), STATUS_INTERVAL_MS)
    this.#news()
  }

  readonly #onCopyData = (message: unknown) => {
    const chunk = copyDataChunk(message)
    this.#lastHeard = performance.now()
    if (chunk[0] === WAL_MESSAGE) this.#hold(chunk)
    else if (chunk[0] === KEEPALIVE_MESSAGE) {
      this.#walEnd = chunk.readBigUInt64BE(1)
      if (chunk[17] === 1) this.sendStatus({ ...this.#status, replyRequested: false })
      this.#news()
    }
  }

  readonly #onCopyDone = () => {
    if (this.#copying) this.#connection.endCopyFrom()
    this.#copying = false
  }

  #hold(chunk: Buffer): void {
    this.#walEnd = chunk.readBigUInt64BE(9)
    // A copy: pg moves what is left of its buffer to the front when more arrives.
    const bytes = Buffer.from(chunk.subarray(WAL_HEADER_BYTES))
    this.#held.push({ lsn: chunk.readBigUInt64BE(1), bytes })
    this.#heldBytes += bytes.length
    if (this.#heldBytes > HELD_BYTES_MAX) this.#connection.stream.pause()
    this.#news()
  }

  #tick(): void {
    const silentMs = performance.now() - this.#lastHeard
    if (silentMs > SILENCE_MAX_MS && !this.#connection.stream.isPaused()) {
      this.#connection.stream.destroy()
      this.#fail(new Failure('POSTGRES_UNREACHABLE', `the server has said nothing for ${Math.round(silentMs / 1000)} s`))
      return
    }
    this.sendStatus({ ...this.#status, replyRequested: silentMs > STATUS_INTERVAL_MS })
  }

  #finish(rows: readonly unknown[]): void {
    const next = z.object({ next_tli: z.coerce.number().int(), next_tli_startpos: z.string() }).safeParse(rows[0])
    this.#end = next.success
      ? { kind: 'switch', timeline: next.data.next_tli, lsn: parseLsn(next.data.next_tli_startpos) }
      : { kind: 'stopped' }
    this.close()
    this.#news()
  }

  #fail(error: Error): void {
    this.#failure ??= error
    this.close()
    this.#news()
  }

  #news(): void {
    this.#wake.resolve()
  }

  async #waitForNews(): Promise<void> {
    await this.#wake.promise
    this.#wake = Promise.withResolvers<void>()
  }
}

function isCopyConnection(connection: pg.Connection): connection is CopyConnection {
  return 'sendCopyFromChunk' in connection && 'endCopyFrom' in connection
}

function copyDataChunk(message: unknown): Buffer {
  assert(typeof message === 'object' && message !== null && 'chunk' in message, 'a copyData event has a chunk')
  assert(Buffer.isBuffer(message.chunk), 'the chunk of a copyData event is a Buffer')
  return message.chunk
}
