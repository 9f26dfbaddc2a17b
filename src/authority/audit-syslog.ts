import { once } from 'node:events'
import { isIP } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { connect, type TLSSocket } from 'node:tls'
import { entriesBehind, newestEntry, readMark, writeMark } from '../catalog/audit-entries.ts'
import type { Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { wholeEntry, type AuditOutcome, type ChainedText } from './audit-entry.ts'

// Sends the trail on: RFC 5424 messages over TLS with octet counting (RFC 5425).
//
//   frame: length of the message in bytes, in decimal ‖ ' ' ‖ message
//   message: <priority>1 time host resus - action - {entry as JSON}

/** Facility 13, log audit. */
const FACILITY = 13
const SEVERITIES: Readonly<Record<AuditOutcome, number>> = { done: 6, refused: 4, failed: 3 }
const BATCH = 100
const BATCHES_AT_ONCE = 50
/** To connect, to take a batch, and to close in good order. */
const TIMEOUT_MS = 20_000
/** Between our last byte and our end. */
const PAUSE_MS = 100
const LATE_MS = 5 * 60_000
const MESSAGE_ID_CHARACTERS = 32

export interface SyslogTarget {
  readonly host: string
  readonly port: number
  /** Certificates (PEM) that are trusted instead of the public ones. */
  readonly ca?: Buffer | undefined
}

/** Sends each entry once at least, in order, and remembers in the store how far it is. */
export class AuditSyslog {
  readonly #store: Store
  readonly #clock: Clock
  readonly #target: () => Promise<SyslogTarget>
  readonly #name: string
  readonly #pauseMs: number
  /** Since when nothing was taken that was to be. */
  #behindSinceMs: number | undefined
  #problem: string | null = null

  constructor(options: {
    readonly store: Store
    readonly clock: Clock
    readonly host: string
    readonly port: number
    /** Read anew for each connection: a certificate may have been renewed. */
    readonly readCa: () => Promise<Buffer | undefined>
    readonly pauseMs?: number
  }) {
    const { store, clock, host, port, readCa } = options
    this.#pauseMs = options.pauseMs ?? PAUSE_MS
    this.#store = store
    this.#clock = clock
    this.#name = `syslog:${host}:${port}`
    this.#target = async () => ({ host, port, ca: await readCa() })
  }

  /** Why entries wait for five minutes and more; null when they do not. */
  get late(): string | null {
    if (this.#behindSinceMs === undefined) return null
    const lateMs = this.#clock.now() - this.#behindSinceMs
    const why = this.#problem === null ? '' : `: ${this.#problem}`
    return lateMs < LATE_MS
      ? null
      : `the receiver of syslog has taken no entry of the trail for ${Math.floor(lateMs / 60_000)} min${why}`
  }

  /** Sends what is new, until all is sent or the receiver does not take it: the next look tries again. Throws what the store throws. */
  async look(signal: AbortSignal): Promise<void> {
    for (let batch = 0; batch < BATCHES_AT_ONCE && !signal.aborted; batch += 1) {
      const seq = (await readMark(this.#store.sql, this.#name)) ?? 0
      const rows = await entriesBehind(this.#store.sql, seq, BATCH)
      const last = rows.at(-1)
      if (last === undefined) {
        this.#behindSinceMs = undefined
        return
      }
      this.#behindSinceMs ??= this.#clock.now()
      try {
        await sendFrames(await this.#target(), { frames: rows.map(frameOf), pauseMs: this.#pauseMs, signal })
      } catch (error) {
        this.#problem = error instanceof Error ? error.message : String(error)
        return
      }
      this.#problem = null
      await writeMark(this.#store.sql, { target: this.#name, seq: last.seq, at: new Date(this.#clock.now()) })
      this.#behindSinceMs = (await newestEntry(this.#store.sql))?.seq === last.seq ? undefined : this.#clock.now()
    }
  }
}

interface Sending {
  readonly frames: readonly Buffer[]
  readonly pauseMs: number
  readonly signal: AbortSignal
}

/** One entry, as it goes over the wire. */
export function frameOf(row: ChainedText): Buffer {
  const entry = wholeEntry(row)
  const priority = 8 * FACILITY + SEVERITIES[entry.outcome]
  const header = [
    `<${priority}>1`,
    entry.at,
    printable(entry.node, 255),
    'resus',
    '-',
    printable(entry.action, MESSAGE_ID_CHARACTERS),
    '-',
  ]
  const message = Buffer.from(`${header.join(' ')} ${JSON.stringify(entry)}`)
  return Buffer.concat([Buffer.from(`${message.length} `), message])
}

/**
 * Sends frames on a connection of their own. The protocol has no word for "taken": they are, when the receiver has closed in good order behind the end of what we sent, which it
 * can only do when it has read all of it.
 */
async function sendFrames({ host, port, ca }: SyslogTarget, { frames, pauseMs, signal }: Sending): Promise<void> {
  const until = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)])
  const socket = connect({
    host,
    port,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.2',
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...(ca === undefined ? {} : { ca }),
  })
  // What comes behind the first is of no use.
  socket.on('error', () => undefined)
  try {
    await once(socket, 'secureConnect', { signal: until })
    await exchange(socket, { frames, pauseMs, signal: until })
  } catch (error) {
    if (until.aborted && !signal.aborted) throw new Error(`it has taken nothing for ${TIMEOUT_MS / 1000} s`, { cause: error })
    throw error
  } finally {
    socket.destroy()
  }
}

/** Sends all, and then ends. Throws when the other side ends before that, or breaks off. */
async function exchange(socket: TLSSocket, { frames, pauseMs, signal }: Sending): Promise<void> {
  let haveEnded = false
  let isInOrder = false
  // What it says nobody reads; but its end is only seen by who reads.
  socket.resume()
  socket.on('end', () => {
    isInOrder = haveEnded
  })
  const closed = once(socket, 'close', { signal })
  const sent = (async () => {
    await new Promise<void>((resolve) => socket.write(Buffer.concat(frames), () => resolve()))
    // The end of one that closes by itself, whatever we send, is there before ours.
    await delay(pauseMs, undefined, { signal })
    haveEnded = true
    socket.end()
  })()
  await Promise.all([closed, sent])
  if (!isInOrder) throw new Error('it has closed the connection before it had taken all')
}

/** As RFC 5424 wants names: visible ASCII. */
function printable(text: string, characters: number): string {
  return text.replaceAll(/[^\x21-\x7e]/g, '-').slice(0, characters) || '-'
}
