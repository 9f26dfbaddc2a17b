import { chown, open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import type { Clock } from '../../clock.ts'
import { Failure, systemErrorCode } from '../../errors.ts'
import { isRunning, postgresEnvironment, startCluster, stopCluster } from '../../postgres/cluster-process.ts'
import type { Installation } from '../../postgres/installation.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import type { ScratchDirectory } from './scratch.ts'

/** Only names the socket: no TCP port is opened. */
const PORT = 5432
const START_TIMEOUT_SECONDS = 300
const STOP_TIMEOUT_SECONDS = 300
/** Longest recovery that is waited for. It has no shorter limit because WAL of days takes hours; a server that ends ends the wait. */
const RECOVERY_LIMIT_MS = 48 * 3600 * 1000
const POLL_MS = 100
const CONNECT_TIMEOUT_MS = 30_000
const LOG_TAIL_BYTES = 4096
/** Codes with which a server answers that does not accept sessions yet: cannot_connect_now; the rest of a start or a stop. */
const NOT_YET = new Set(['57P03', 'ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE'])
const NO_SUCH_ROLE = '28000'
const NO_SUCH_DATABASE = '3D000'
const NOT_PERMITTED = '42501'
const FIRST_DATABASES = ['postgres', 'template1'] as const

/**
 * Settings on the command line, which win over `postgresql.conf` and `postgresql.auto.conf`. The server's main configuration file is an
 * empty one of ours, so that only ALTER SYSTEM's file and these count. They keep it from acting on anything outside (commands, archive, other servers, network),
 * from running the cluster's own libraries, and from passing over damage.
 */
const HARMLESS: Readonly<Record<string, string>> = {
  listen_addresses: '',
  unix_socket_permissions: '0700',
  unix_socket_group: '',
  ssl: 'off',
  bonjour: 'off',
  cluster_name: 'resus verify',
  external_pid_file: '',
  // What the cluster would load or run.
  shared_preload_libraries: '',
  session_preload_libraries: '',
  local_preload_libraries: '',
  dynamic_library_path: '$libdir',
  jit: 'off',
  archive_cleanup_command: '',
  recovery_end_command: '',
  archive_mode: 'off',
  archive_command: '',
  archive_library: '',
  ssl_passphrase_command: '',
  // Whom it would call, or wait for.
  primary_conninfo: '',
  primary_slot_name: '',
  synchronous_standby_names: '',
  max_logical_replication_workers: '0',
  recovery_min_apply_delay: '0',
  autovacuum: 'off',
  // What would hide damage.
  ignore_checksum_failure: 'off',
  zero_damaged_pages: 'off',
  ignore_invalid_pages: 'off',
  ignore_system_indexes: 'off',
  // Its log is ours, and goes with it.
  logging_collector: 'off',
  log_destination: 'stderr',
  log_statement: 'none',
  log_min_duration_statement: '-1',
  log_min_error_statement: 'panic',
  log_parameter_max_length_on_error: '0',
  log_line_prefix: '%m [%p] ',
  lc_messages: 'C',
  // It is thrown away: it need not survive a power cut, nor take the host's memory.
  fsync: 'off',
  full_page_writes: 'off',
  restart_after_crash: 'off',
  hot_standby: 'off',
  shared_buffers: '128MB',
  huge_pages: 'off',
  dynamic_shared_memory_type: 'mmap',
  max_parallel_workers: '0',
}

/** The same for each session: there they win over what ALTER ROLE and ALTER DATABASE have set. */
const SESSION: Readonly<Record<string, string>> = {
  local_preload_libraries: '',
  search_path: 'pg_catalog',
  statement_timeout: '0',
  lock_timeout: '0',
  default_transaction_read_only: 'off',
  default_tablespace: '',
  row_security: 'off',
}
/** Only a superuser may set these. */
const SUPERUSER_SESSION: Readonly<Record<string, string>> = {
  session_preload_libraries: '',
  session_replication_role: 'replica',
  ignore_checksum_failure: 'off',
  zero_damaged_pages: 'off',
}

const ALL_SESSION = { ...SESSION, ...SUPERUSER_SESSION }

export interface ScratchServerOptions {
  readonly installation: Installation
  /** Where it was restored to. The log and the server's own settings lie there too. */
  readonly scratch: ScratchDirectory
  /** Of the backup: owner, and settings of the original server without which it would not recover. */
  readonly manifest: Pick<BackupManifest, 'defaults' | 'server'>
  /** Roles that may be there, to ask for a superuser with. */
  readonly roles: readonly string[]
  readonly clock: Clock
  readonly signal: AbortSignal
}

/** Recovery refuses to run with fewer prepared transactions than are open; the sizes must each hold two segments. */
function recoverySettings({ settings, segmentSize }: BackupManifest['server']): Record<string, string> {
  const segmentMegabytes = segmentSize / 1024 ** 2
  const kept = ['max_prepared_transactions', 'max_locks_per_transaction'].flatMap((name) => {
    const value = settings[name]
    return value === undefined ? [] : [[name, value] as const]
  })
  return {
    ...Object.fromEntries(kept),
    min_wal_size: `${Math.max(80, 2 * segmentMegabytes)}MB`,
    max_wal_size: `${Math.max(512, 4 * segmentMegabytes)}MB`,
  }
}

/**
 * The server of a restored cluster, reached by nobody but us: a socket in a directory of mode 0700, no network. It keeps the cluster's own
 * files as they are but for `postgresql.conf`, which it does not read. Whoever starts it stops it; a `ScratchDirectory` kills what is left.
 */
export class ScratchServer {
  readonly #options: ScratchServerOptions
  readonly #logFile: string
  #superuser: string | undefined

  private constructor(options: ScratchServerOptions) {
    this.#options = options
    this.#logFile = join(options.scratch.path, 'server.log')
  }

  /** Starts it and waits until recovery has ended. Throws POSTGRES_FAILED with the end of its log, DISK_FULL, the signal's reason. */
  static async recover(options: ScratchServerOptions): Promise<ScratchServer> {
    const server = new ScratchServer(options)
    const { installation, manifest, scratch, signal } = options
    const { dataDirectory: directory, socketDirectory, path: home } = scratch
    const owner = manifest.defaults
    const ownFiles = { config_file: join(home, 'postgresql.conf'), hba_file: join(home, 'pg_hba.conf') }
    const files = { ...ownFiles, ident_file: join(home, 'pg_ident.conf') }
    await writeFile(files.config_file, '# The settings are on the command line.\n', { mode: 0o600 })
    // Whoever reaches the socket is let in: its directory's mode is what keeps others out. No replication.
    await writeFile(files.hba_file, 'local all all trust\n', { mode: 0o600 })
    await writeFile(files.ident_file, '', { mode: 0o600 })
    if (process.getuid?.() === 0) for (const path of Object.values(files)) await chown(path, owner.uid, owner.gid)
    // From 17 on event triggers can be turned off as a whole; from 18 on extensions may lie elsewhere.
    const settings = {
      ...HARMLESS,
      ...(installation.major >= 17 ? { event_triggers: 'off' } : {}),
      ...(installation.major >= 18 ? { extension_control_path: '$system' } : {}),
      ...recoverySettings(manifest.server),
      ...files,
    }
    try {
      await startCluster({
        installation,
        directory,
        socketDirectory,
        owner,
        signal,
        settings,
        port: PORT,
        logFile: server.#logFile,
        timeoutSeconds: START_TIMEOUT_SECONDS,
      })
      await server.#waitForRecovery()
    } catch (error) {
      await server.#assertRoom()
      throw error
    }
    return server
  }

  get major(): number {
    return this.#options.installation.major
  }

  get logFile(): string {
    return this.#logFile
  }

  /** Connects as a superuser, works, and closes; the session ends at once when the signal aborts. What the server says is thrown as it comes. */
  async session<T>(database: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
    this.#superuser ??= await this.#findSuperuser()
    return await this.#connected({ database, user: this.#superuser, settings: ALL_SESSION }, work)
  }

  /** Connects as a role that is no superuser, works, and closes: the session is its own, and its transactions are read-only. */
  async sessionAs<T>(user: string, database: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
    return await this.#connected({ database, user, settings: { ...SESSION, default_transaction_read_only: 'on' } }, work)
  }

  /** As `session`, in a database that surely is there. */
  async anySession<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    const [first, second] = FIRST_DATABASES
    try {
      return await this.session(first, work)
    } catch (error) {
      if (!(error instanceof pg.DatabaseError) || error.code !== NO_SUCH_DATABASE) throw error
      return await this.session(second, work)
    }
  }

  /** What PostgreSQL's own programs take to connect as a superuser, as our sessions do. They have their own search path. */
  async toolEnvironment(database: string | null): Promise<Record<string, string>> {
    this.#superuser ??= await this.#findSuperuser()
    const { search_path: _, ...settings } = ALL_SESSION
    return {
      ...postgresEnvironment(),
      PGHOST: this.#options.scratch.socketDirectory,
      PGPORT: String(PORT),
      PGUSER: this.#superuser,
      PGOPTIONS: this.#sessionOptions(settings),
      ...(database === null ? {} : { PGDATABASE: database }),
    }
  }

  /** Stops it in good order. Throws POSTGRES_FAILED. */
  async stop(): Promise<void> {
    const { dataDirectory: directory } = this.#options.scratch
    if (!(await isRunning(directory))) throw await this.#failed('the server had ended before it was stopped')
    await stopCluster({ directory, mode: 'fast', timeoutSeconds: STOP_TIMEOUT_SECONDS })
    await this.#assertRoom()
  }

  async #waitForRecovery(): Promise<void> {
    const { scratch, clock, signal } = this.#options
    const deadline = performance.now() + RECOVERY_LIMIT_MS
    while (performance.now() < deadline) {
      if (await this.#accepts()) return
      if (!(await isRunning(scratch.dataDirectory))) throw await this.#failed('recovery ended without reaching its target')
      await clock.sleep(POLL_MS, signal)
    }
    throw await this.#failed(`recovery did not end in ${RECOVERY_LIMIT_MS / 3_600_000} hours`)
  }

  /** Any answer but "not yet" is that of a server whose recovery has ended; a role that is not there is told after that. */
  async #accepts(): Promise<boolean> {
    try {
      await this.#connected({ database: FIRST_DATABASES[0], user: this.#roles[0]!, settings: ALL_SESSION }, async () => undefined)
      return true
    } catch (error) {
      this.#options.signal.throwIfAborted()
      const code = error instanceof pg.DatabaseError ? error.code : systemErrorCode(error)
      if (code !== undefined && NOT_YET.has(code)) return false
      return error instanceof pg.DatabaseError
    }
  }

  get #roles(): readonly string[] {
    return [...new Set(['postgres', ...this.#options.roles])]
  }

  /** By the roles that may be there: one of them tells who is a superuser. Throws NOT_VERIFIED when none of them is there. */
  async #findSuperuser(): Promise<string> {
    for (const database of FIRST_DATABASES) {
      for (const user of this.#roles) {
        const found = await this.#askForSuperuser(database, user)
        if (found !== undefined) return found
      }
    }
    throw new Failure('NOT_VERIFIED', `the restored cluster has no role ${this.#roles.map((role) => `"${role}"`).join(', ')}`, {
      hint: 'name a role that it has in the connection of the component',
    })
  }

  async #askForSuperuser(database: string, user: string): Promise<string | undefined> {
    for (const settings of [ALL_SESSION, SESSION]) {
      try {
        return await this.#connected({ database, user, settings }, async (client) => {
          const { rows } = await client.query<{ name: string }>(
            'select rolname::text as name from pg_roles where rolsuper and rolcanlogin order by oid limit 1',
          )
          return rows[0]?.name
        })
      } catch (error) {
        if (!(error instanceof pg.DatabaseError)) throw error
        if (error.code === NOT_PERMITTED) continue
        if (error.code === NO_SUCH_ROLE || error.code === NO_SUCH_DATABASE) return undefined
        throw error
      }
    }
    return undefined
  }

  #sessionOptions(settings: Readonly<Record<string, string>>): string {
    return Object.entries({ ...settings, ...(this.major >= 17 ? { transaction_timeout: '0' } : {}) })
      .map(([name, value]) => `-c ${name}=${value}`)
      .join(' ')
  }

  async #connected<T>(
    to: { database: string; user: string; settings: Readonly<Record<string, string>> },
    work: (client: pg.Client) => Promise<T>,
  ): Promise<T> {
    const { scratch, signal } = this.#options
    signal.throwIfAborted()
    const client = new pg.Client({
      host: scratch.socketDirectory,
      port: PORT,
      user: to.user,
      database: to.database,
      application_name: 'resus verify',
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      options: this.#sessionOptions(to.settings),
    })
    client.on('error', () => undefined)
    const close = () => void client.end().catch(() => undefined)
    signal.addEventListener('abort', close, { once: true })
    try {
      await client.connect()
      return await work(client)
    } catch (error) {
      signal.throwIfAborted()
      throw error
    } finally {
      signal.removeEventListener('abort', close)
      await client.end().catch(() => undefined)
    }
  }

  async #failed(what: string): Promise<Failure> {
    await this.#assertRoom()
    return new Failure('POSTGRES_FAILED', `${what}:\n${await this.#logTail()}`, {
      hint: '"resus verify" by reading says which objects are damaged',
    })
  }

  /** A disk that is full says nothing about the backup. */
  async #assertRoom(): Promise<void> {
    const log = await readFile(this.#logFile, 'utf8').catch(() => '')
    if (!/No space left on device|Disk quota exceeded/.test(log)) return
    throw new Failure('DISK_FULL', `the restored cluster in "${this.#options.scratch.dataDirectory}" ran out of room`, {
      hint: 'make room, or name a directory on another disk (--scratch), and verify again',
    })
  }

  async #logTail(): Promise<string> {
    const file = await open(this.#logFile, 'r')
    try {
      const { size } = await file.stat()
      const { buffer, bytesRead } = await file.read(
        Buffer.alloc(LOG_TAIL_BYTES),
        0,
        LOG_TAIL_BYTES,
        Math.max(0, size - LOG_TAIL_BYTES),
      )
      return buffer.toString('utf8', 0, bytesRead).trimEnd()
    } finally {
      await file.close()
    }
  }
}
