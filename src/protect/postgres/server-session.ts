import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { Failure, systemErrorCode } from '../../errors.ts'
import { parseLsn, type Lsn } from '../../postgres/lsn.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import type { PostgresComponent } from './component.ts'

const CONNECT_TIMEOUT_MS = 10_000
const OLDEST_MAJOR = 15
const NEWEST_MAJOR = 18
const STATEMENT_SHOWN_MAX = 80
/** "Resu", as the first half of the advisory lock that keeps two backups of one cluster apart. */
const LOCK_CLASS = 0x52657375
const RECORDED_SETTINGS = [
  'wal_level',
  'max_connections',
  'max_worker_processes',
  'max_wal_senders',
  'max_prepared_transactions',
  'max_locks_per_transaction',
  'full_page_writes',
  'synchronous_commit',
  'synchronous_standby_names',
  'archive_mode',
  'lc_collate',
  'lc_ctype',
  'TimeZone',
  'config_file',
  'hba_file',
  'ident_file',
  'unix_socket_directories',
  'external_pid_file',
  'logging_collector',
  'log_directory',
] as const

export type ServerFacts = BackupManifest['server'] & { readonly inRecovery: boolean; readonly timeline: number }

/**
 * One session on the server that is backed up, kept open from `startBackup` to `stopBackup`: when it is lost, the server ends the
 * backup. Close it (`await using`).
 */
export class ServerSession {
  readonly #client: pg.Client
  readonly #component: string
  readonly #signal: AbortSignal | undefined
  #lost: Error | undefined

  private constructor(client: pg.Client, component: string, signal: AbortSignal | undefined) {
    this.#client = client
    this.#component = component
    this.#signal = signal
    client.on('error', (error) => (this.#lost = error))
  }

  /** Its queries end with the signal's reason when it aborts. Throws POSTGRES_UNREACHABLE, SERVER_TOO_OLD. */
  static async connect(component: PostgresComponent, signal?: AbortSignal): Promise<ServerSession> {
    const client = new pg.Client({
      connectionString: component.connection.reveal().toString('utf8'),
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      application_name: 'resus backup',
      keepAlive: true,
    })
    const session = new ServerSession(client, component.name, signal)
    try {
      await client.connect()
    } catch (cause) {
      await client.end().catch(() => undefined)
      const why = cause instanceof Error ? cause.message || systemErrorCode(cause) : String(cause)
      throw new Failure('POSTGRES_UNREACHABLE', `cannot connect to the server of "${component.name}": ${why}`, {
        hint: 'is the server running, and do "connection", pg_hba.conf and the password fit?',
        cause,
      })
    }
    // Settings of a role or database must not decide what we read and how.
    await session.query(
      'set statement_timeout = 0; set idle_session_timeout = 0; set datestyle = iso; set search_path = pg_catalog',
    )
    return session
  }

  /** For looking at how it is protected. */
  get socket(): Socket {
    return this.#client.connection.stream as Socket
  }

  /** Throws POSTGRES_FAILED with the statement that the server refuses, BACKUP_ABORTED when the connection is lost. */
  async query<Row extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> {
    return await this.#ask<Row>(text, values).catch((error: unknown) => {
      throw this.#explain(text, error)
    })
  }

  async #ask<Row extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> {
    if (this.#lost !== undefined) throw this.#aborted(this.#lost)
    try {
      return (await this.#unlessAborted(this.#client.query<Row>(text, values.length > 0 ? values : undefined))).rows
    } catch (cause) {
      if (this.#signal?.aborted === true && cause === this.#signal.reason) throw cause
      if (cause instanceof pg.DatabaseError) throw cause
      throw this.#aborted(cause)
    }
  }

  /** What the server is, for the manifest and for checks. Throws SERVER_TOO_OLD, SERVER_SETTING. */
  async facts(): Promise<ServerFacts> {
    const [row] = await this.#ask<Record<string, string | number | boolean | null>>(FACTS).catch((error: unknown) => {
      throw this.#explainFacts(error)
    })
    const facts = row!
    const major = Math.floor(Number(facts['version_num']) / 10_000)
    if (major < OLDEST_MAJOR) {
      throw new Failure(
        'SERVER_TOO_OLD',
        `the server of "${this.#component}" is PostgreSQL ${major}, Resus needs ${OLDEST_MAJOR} to ${NEWEST_MAJOR}`,
      )
    }
    if (facts['block_size'] !== '8192') {
      throw new Failure(
        'SERVER_SETTING',
        `the server of "${this.#component}" has pages of ${facts['block_size']} bytes, Resus knows 8192`,
      )
    }
    const collations = await this.query<{ version: string }>(
      "select distinct collprovider::text || ' ' || collversion as version from pg_collation where collversion is not null order by 1",
    )
    return {
      version: String(facts['version']),
      major,
      systemIdentifier: String(facts['system_identifier']),
      catalogVersion: Number(facts['catalog_version']),
      controlVersion: Number(facts['control_version']),
      segmentSize: Number(facts['segment_size']),
      dataChecksums: facts['data_checksums'] === 'on',
      dataDirectory: String(facts['data_directory']),
      encoding: String(facts['encoding']),
      libc: facts['libc'] === null ? null : String(facts['libc']),
      collationVersions: collations.map(({ version }) => version),
      preloadLibraries: String(facts['preload']),
      settings: await this.settings(RECORDED_SETTINGS),
      commandLine: await this.#commandLineSettings(),
      versions: null,
      inRecovery: facts['in_recovery'] === true,
      timeline: Number(facts['timeline']),
    }
  }

  /** The values of settings; without those that the server does not have, or does not show us. */
  async settings(names: readonly string[]): Promise<Record<string, string>> {
    const rows = await this.query<{ name: string; setting: string }>(
      'select name, setting from pg_settings where name = any ($1)',
      [names],
    )
    return Object.fromEntries(rows.map(({ name, setting }) => [name, setting]))
  }

  /** What the server was started with, but for where its files are and where it listens: that is for whoever starts a restored one to say. */
  async #commandLineSettings(): Promise<Record<string, string>> {
    const rows = await this.query<{ name: string; setting: string }>(
      `select name, setting from pg_settings where source = 'command line' and setting is not null
        and name !~ '_(file|dir|directory|directories)$' and name !~ '^(port|listen_addresses|unix_socket_.*|cluster_name)$' order by name`,
    )
    return Object.fromEntries(rows.map(({ name, setting }) => [name, setting]))
  }

  /** Keeps other backups of this cluster away, for as long as the session lives. Throws BACKUP_RUNNING. */
  async lock(): Promise<void> {
    const [row] = await this.query<{ locked: boolean }>('select pg_try_advisory_lock($1, 1) as locked', [LOCK_CLASS])
    if (row?.locked === true) return
    throw new Failure('BACKUP_RUNNING', `a backup of "${this.#component}" is running already`, {
      hint: 'wait for it to end; if its process is gone, its session ends with it',
    })
  }

  /** Throws POSTGRES_FAILED when the server cannot, for its files or its disk, and SERVER_SETTING when our role may not. */
  async startBackup(label: string): Promise<Lsn> {
    const text = 'select pg_backup_start($1, fast => true)::text as lsn'
    const [row] = await this.#ask<{ lsn: string }>(text, [label]).catch((error: unknown) => {
      throw this.#explainBackup(error)
    })
    return parseLsn(row!.lsn)
  }

  /** Ends the backup on the server; waiting for the archive is ours. Time is the server's, in ISO 8601. */
  async stopBackup(): Promise<{ stopLsn: Lsn; label: string; tablespaceMap: string; time: string }> {
    const [row] = await this.#ask<{ lsn: string; labelfile: string; spcmapfile: string; time: Date }>(
      'select lsn::text, labelfile, spcmapfile, clock_timestamp() as time from pg_backup_stop(wait_for_archive => false)',
    ).catch((error: unknown) => {
      throw this.#explainBackup(error)
    })
    const { lsn, labelfile, spcmapfile, time } = row!
    return { stopLsn: parseLsn(lsn), label: labelfile, tablespaceMap: spcmapfile, time: time.toISOString() }
  }

  /** Whether a receiver streams through a slot right now. */
  async slotActive(slot: string): Promise<boolean> {
    const rows = await this.query<{ active: boolean }>('select active from pg_replication_slots where slot_name = $1', [slot])
    return rows[0]?.active === true
  }

  /** What a receiver has acknowledged to this server through a physical slot; null when there is no such slot, or it has lost WAL. */
  async slotPosition(slot: string): Promise<Lsn | null> {
    const text = 'select restart_lsn::text as lsn from pg_replication_slots where slot_name = $1'
    const [row] = await this.query<{ lsn: string | null }>(text, [slot])
    return typeof row?.lsn === 'string' ? parseLsn(row.lsn) : null
  }

  /** A backup's start may rightly take long: no time limit ends a query, but whoever runs it may. */
  async #unlessAborted<T>(work: Promise<T>): Promise<T> {
    const signal = this.#signal
    if (signal === undefined) return await work
    signal.throwIfAborted()
    const aborted = Promise.withResolvers<never>()
    const abort = () => aborted.reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    try {
      return await Promise.race([work, aborted.promise])
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = this.#client.end().catch(() => undefined)
    // A server that does not answer must not keep us: the socket dies with the process.
    await Promise.race([ended, delay(2000, undefined, { ref: false })])
  }

  #explain(text: string, error: unknown): unknown {
    if (!(error instanceof pg.DatabaseError)) return error
    const statement = text.replace(/\s+/g, ' ').trim().slice(0, STATEMENT_SHOWN_MAX)
    return new Failure('POSTGRES_FAILED', `the server of "${this.#component}" does not answer "${statement}": ${error.message}`, {
      hint: "read the server's log",
      cause: error,
    })
  }

  #explainBackup(error: unknown): unknown {
    if (!(error instanceof pg.DatabaseError)) return error
    const text = `the server of "${this.#component}" does not let a backup begin or end: ${error.message}`
    if (error.code === '42501') {
      const hint = 'grant our role execute on pg_backup_start and pg_backup_stop: "resus init --sql-only" shows how'
      return new Failure('SERVER_SETTING', text, { hint, cause: error })
    }
    const hint = "read the server's log: a checkpoint fails when its disk is full or a file of it cannot be written"
    return new Failure('POSTGRES_FAILED', text, { hint, cause: error })
  }

  /** Some settings are shown to nobody but superusers and those who were given that right. */
  #explainFacts(error: unknown): unknown {
    if (!(error instanceof pg.DatabaseError) || error.code !== '42501') return this.#explain(FACTS, error)
    return new Failure(
      'SERVER_SETTING',
      `the server of "${this.#component}" does not show its settings to us: ${error.message}`,
      {
        hint: 'grant pg_monitor (or pg_read_all_settings) to the role that Resus connects as',
        cause: error,
      },
    )
  }

  #aborted(cause: unknown): Failure {
    const why = cause instanceof Error ? cause.message : String(cause)
    return new Failure('BACKUP_ABORTED', `the connection to the server of "${this.#component}" was lost: ${why}`, {
      hint: 'the server ends a backup whose session ends; run it again: what is stored already is not stored twice',
      cause,
    })
  }
}

const FACTS = `
  select current_setting('server_version') as version, current_setting('server_version_num') as version_num,
    current_setting('block_size') as block_size, current_setting('data_checksums') as data_checksums,
    current_setting('data_directory') as data_directory, current_setting('shared_preload_libraries') as preload,
    s.system_identifier::text, s.catalog_version_no as catalog_version, s.pg_control_version as control_version,
    i.bytes_per_wal_segment as segment_size, c.timeline_id as timeline, pg_is_in_recovery() as in_recovery,
    (select pg_encoding_to_char(encoding) from pg_database where datname = current_database()) as encoding,
    (select datcollversion from pg_database where datname = current_database()) as libc
  from pg_control_system() s, pg_control_init() i, pg_control_checkpoint() c`
