import pg from 'pg'
import { z } from 'zod'
import { Failure, systemErrorCode } from '../errors.ts'
import { formatLsn, parseLsn, type Lsn } from './lsn.ts'
import { WalStream } from './wal-stream.ts'

// PostgreSQL's streaming replication protocol, through pg. What a replication connection does is not part of pg's documented
// interface (the events copyData, copyDone, the connection's stream): it is used in this file and wal-stream.ts alone, and pg is pinned.

const CONNECT_TIMEOUT_MS = 15_000
const CLOSE_TIMEOUT_MS = 2000
/** None of our commands waits for anything on the server: one that is not answered by then will not be. */
const COMMAND_TIMEOUT_MS = 30_000
const KEEPALIVE_DELAY_MS = 10_000
const SLOT_NAME = /^[a-z0-9_]{1,63}$/

export interface ReplicationOptions {
  readonly connectionString: string
  /** What the server shows in pg_stat_replication, and what `synchronous_standby_names` has to name. */
  readonly applicationName: string
  /** Of connecting. */
  readonly timeoutMs?: number
  /** Ends connecting, and a command that is under way, at once. A stream is ended by its `stop`. */
  readonly signal?: AbortSignal
  readonly commandTimeoutMs?: number
}

/** What a server says of itself. `position` is how far its WAL is flushed (on a standby: received). */
export interface ServerIdentity {
  readonly systemIdentifier: string
  readonly timeline: number
  readonly position: Lsn
}

export interface SlotState {
  /** The oldest WAL that the server keeps for the slot; null before any was reserved, or when the slot was invalidated. */
  readonly restartLsn: Lsn | null
}

const identityRow = z.object({ systemid: z.string(), timeline: z.coerce.number().int().positive(), xlogpos: z.string() })
const slotRow = z.object({ slot_type: z.string().nullable(), restart_lsn: z.string().nullable() })
const historyRow = z.object({ content: z.union([z.string(), z.instanceof(Buffer)]) })

/**
 * One replication connection, which does one thing at a time: a command, or a stream of WAL. Every method throws
 * POSTGRES_UNREACHABLE when the connection is lost, SLOT_BUSY, SLOT_LOST, or POSTGRES_FAILED with what the server said.
 */
export class ReplicationConnection implements AsyncDisposable {
  readonly #client: pg.Client
  readonly #signal: AbortSignal | undefined
  readonly #commandTimeoutMs: number
  #stream: WalStream | undefined

  private constructor(client: pg.Client, options: ReplicationOptions) {
    this.#client = client
    this.#signal = options.signal
    this.#commandTimeoutMs = options.commandTimeoutMs ?? COMMAND_TIMEOUT_MS
  }

  /** Connects. Throws POSTGRES_UNREACHABLE, or the signal's reason. The caller closes it. */
  static async connect(options: ReplicationOptions): Promise<ReplicationConnection> {
    const { signal } = options
    signal?.throwIfAborted()
    const settings = {
      connectionString: options.connectionString,
      application_name: options.applicationName,
      replication: 'true',
      connectionTimeoutMillis: options.timeoutMs ?? CONNECT_TIMEOUT_MS,
      keepAlive: true,
      keepAliveInitialDelayMillis: KEEPALIVE_DELAY_MS,
    }
    const client = new pg.Client(settings)
    // The failure itself reaches whoever waits for a command or for WAL; an event without a listener would end the process.
    client.on('error', () => undefined)
    const abort = () => client.connection.stream.destroy()
    signal?.addEventListener('abort', abort, { once: true })
    try {
      await client.connect()
    } catch (cause) {
      client.connection.stream.destroy()
      signal?.throwIfAborted()
      throw serverFailure('cannot connect for replication', cause)
    } finally {
      signal?.removeEventListener('abort', abort)
    }
    return new ReplicationConnection(client, options)
  }

  /** Whether it is a standby, which takes no writes. */
  async inRecovery(): Promise<boolean> {
    return (await this.showSetting('in_hot_standby')) === 'on'
  }

  async identifySystem(): Promise<ServerIdentity> {
    const row = await this.#row(identityRow, 'IDENTIFY_SYSTEM')
    return { systemIdentifier: row.systemid, timeline: row.timeline, position: parseLsn(row.xlogpos) }
  }

  /** The major version, and the size of a WAL segment in bytes. */
  async readVersion(): Promise<{ major: number; segmentSize: number }> {
    const version = Number(await this.showSetting('server_version_num'))
    return { major: Math.floor(version / 10_000), segmentSize: parseSize(await this.showSetting('wal_segment_size')) }
  }

  async showSetting(name: string): Promise<string> {
    const row = await this.#row(z.record(z.string(), z.string()), `SHOW ${name}`)
    return Object.values(row)[0] ?? ''
  }

  /** The text of a timeline's history file; empty for timeline 1, which has none. */
  async readTimelineHistory(timeline: number): Promise<string> {
    if (timeline === 1) return ''
    return (await this.#row(historyRow, `TIMELINE_HISTORY ${timeline}`)).content.toString()
  }

  /** Makes a slot that keeps WAL from the last checkpoint on. A temporary one goes with this connection. Throws POSTGRES_FAILED if it exists. */
  async createPhysicalSlot(name: string, options: { temporary: boolean; reserveWal: boolean }): Promise<void> {
    const temporary = options.temporary ? ' TEMPORARY' : ''
    const reserve = options.reserveWal ? ' RESERVE_WAL' : ''
    await this.#command(`CREATE_REPLICATION_SLOT ${slotName(name)}${temporary} PHYSICAL${reserve}`)
  }

  /** A physical slot, if there is one of this name. Throws POSTGRES_FAILED when it is a logical one. PostgreSQL 15 and later. */
  async readSlot(name: string): Promise<SlotState | undefined> {
    const row = await this.#row(slotRow, `READ_REPLICATION_SLOT ${slotName(name)}`)
    if (row.slot_type === null) return undefined
    return { restartLsn: row.restart_lsn === null ? null : parseLsn(row.restart_lsn) }
  }

  /** Removes a slot that nobody uses. Throws SLOT_BUSY. */
  async dropSlot(name: string): Promise<void> {
    await this.#command(`DROP_REPLICATION_SLOT ${slotName(name)}`)
  }

  /**
   * Starts to stream WAL. The stream listens before the command is sent: nothing that the server sends is missed. Throws
   * SLOT_BUSY with the process that uses it, SLOT_LOST when the slot or its WAL is gone (which may also come later, from the stream).
   */
  async startPhysical(start: { slot: string; lsn: Lsn; timeline: number }): Promise<WalStream> {
    const command = `START_REPLICATION SLOT ${slotName(start.slot)} PHYSICAL ${formatLsn(start.lsn)} TIMELINE ${start.timeline}`
    this.#stream = new WalStream(this.#client.connection)
    await this.#withTimeout(this.#stream.start(this.#query(command)))
    return this.#stream
  }

  async close(): Promise<void> {
    this.#stream?.close()
    // A network that went silent would never answer our goodbye.
    const timeout = setTimeout(() => this.#client.connection.stream.destroy(), CLOSE_TIMEOUT_MS)
    await this.#client.end()
    clearTimeout(timeout)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #row<T>(schema: z.ZodType<T>, command: string): Promise<T> {
    const [row] = await this.#command(command)
    const parsed = schema.safeParse(row)
    if (parsed.success) return parsed.data
    throw new Failure('POSTGRES_FAILED', `"${command}" was answered with something else than PostgreSQL 15 and later answer`, {
      hint: 'is this a PostgreSQL server, of version 15 or later?',
    })
  }

  async #command(command: string): Promise<readonly unknown[]> {
    return await this.#withTimeout(this.#query(command))
  }

  /** A server that is frozen keeps its connections, and says nothing: without this nothing would end the wait, not even a signal. */
  async #withTimeout<T>(work: Promise<T>): Promise<T> {
    const seconds = this.#commandTimeoutMs / 1000
    const giveUp = () => this.#client.connection.stream.destroy(new Error(`the server has not answered within ${seconds} s`))
    const timeout = setTimeout(giveUp, this.#commandTimeoutMs)
    const cut = () => this.#client.connection.stream.destroy()
    this.#signal?.addEventListener('abort', cut, { once: true })
    try {
      return await work
    } finally {
      clearTimeout(timeout)
      this.#signal?.removeEventListener('abort', cut)
    }
  }

  /** The rows of a command's last result that has any. */
  async #query(command: string): Promise<readonly unknown[]> {
    try {
      const results: unknown = await this.#client.query(command)
      return rowsOf(results)
    } catch (cause) {
      throw serverFailure(`"${command}" failed`, cause)
    }
  }
}

/** What the server or the connection said, as a failure of ours. */
export function serverFailure(action: string, cause: unknown): Failure {
  if (cause instanceof Failure) return cause
  const message = cause instanceof Error ? cause.message : String(cause)
  const code = systemErrorCode(cause) ?? ''
  const text = `${action}: ${message || code}`
  const busy = /slot "([^"]+)" is active for PID (\d+)/.exec(message)
  if (busy !== null) {
    return new Failure('SLOT_BUSY', `replication slot "${busy[1]}" is in use by process ${busy[2]} of the server`, {
      hint: 'another receiver streams from it: stop that one, or give this one a slot of its own',
      cause,
    })
  }
  if (/has already been removed|can no longer (access|get changes)|slot "[^"]+" does not exist/.test(message)) {
    return new Failure('SLOT_LOST', text, {
      hint: 'WAL that was not received may be gone from the server: raise max_slot_wal_keep_size, and take a backup',
      cause,
    })
  }
  // Classes of SQLSTATE: 08 connection, 57 operator intervention, 53 resources, 28 authorization. What has none was not said by the server.
  if (/^[0-9A-Z]{5}$/.test(code) && !/^(08|57|53|28)/.test(code)) return new Failure('POSTGRES_FAILED', text, { cause })
  return new Failure('POSTGRES_UNREACHABLE', text, {
    hint: 'is the server running, and does pg_hba.conf allow replication?',
    cause,
  })
}

function slotName(name: string): string {
  if (SLOT_NAME.test(name)) return name
  throw new Failure('ARGUMENTS_INVALID', `"${name}" cannot be the name of a replication slot`, {
    hint: 'a name has 1 to 63 lower-case letters, digits and underscores',
  })
}

function rowsOf(results: unknown): readonly unknown[] {
  const list: readonly unknown[] = Array.isArray(results) ? results : [results]
  const rows = list.map((result) => z.object({ rows: z.array(z.unknown()) }).parse(result).rows)
  return rows.findLast((each) => each.length > 0) ?? []
}

function parseSize(text: string): number {
  const match = /^(\d+)(kB|MB|GB)?$/.exec(text)
  const units = { kB: 1024, MB: 1024 ** 2, GB: 1024 ** 3 }
  if (match === null) throw new Failure('POSTGRES_FAILED', `the server says "${text}" where a size was expected`)
  return Number(match[1]) * (match[2] === undefined ? 1 : units[match[2] as keyof typeof units])
}
