import { chown, open, readFile, writeFile } from 'node:fs/promises'
import { Socket } from 'node:net'
import { join } from 'node:path'
import pg from 'pg'
import type { Clock } from '../../clock.ts'
import { Failure, systemErrorCode } from '../../errors.ts'
import { isRunning, postgresEnvironment, startCluster, stopCluster } from '../../postgres/cluster-process.ts'
import type { Installation } from '../../postgres/installation.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { isRoot } from './durable-file.ts'
import { giveTree } from './scratch-account.ts'
import { findConfinement, SERVER_ENVIRONMENT, type Confinement } from './scratch-confinement.ts'
import { seeIsolation, type IsolationFact } from './scratch-isolation.ts'
import { ALL_SESSION, recoverySettings, SESSION, sessionOptions, settingsOf } from './scratch-settings.ts'
import type { Place, ScratchDirectory } from './scratch.ts'
import type { ScratchWal } from './scratch-wal.ts'

/** Only names the socket: no TCP port is opened. */
const PORT = 5432
const START_TIMEOUT_SECONDS = 300
const STOP_TIMEOUT_SECONDS = 300
/** Longest recovery that is waited for. It has no shorter limit because WAL of days takes hours; a server that ends ends the wait. */
const RECOVERY_LIMIT_MS = 48 * 3600 * 1000
const POLL_MS = 100
const CONNECT_TIMEOUT_MS = 30_000
const CLOSE_TIMEOUT_MS = 2000
const LOG_TAIL_BYTES = 4096
/** Codes with which a server answers that does not accept sessions yet: cannot_connect_now; the rest of a start or a stop. */
const NOT_YET = new Set(['57P03', 'ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE'])
const NO_SUCH_ROLE = '28000'
const NO_SUCH_DATABASE = '3D000'
const NOT_PERMITTED = '42501'
/** disk_full, out_of_memory. */
const OUT_OF_ROOM = new Set(['53100', '53200'])
const FIRST_DATABASES = ['postgres', 'template1'] as const

export interface ScratchServerOptions {
  readonly installation: Installation
  /** Where it was restored to. The log and the server's own settings lie there too. */
  readonly scratch: ScratchDirectory
  /** Of the backup: owner, and settings of the original server without which it would not recover. */
  readonly manifest: Pick<BackupManifest, 'defaults' | 'server'>
  /** Where its WAL comes from. */
  readonly wal: ScratchWal
  /** What must not be within its reach. */
  readonly forbidden: readonly Place[]
  readonly configPath: string
  /** Of address space, for each of its processes. */
  readonly memoryMegabytes?: number | undefined
  /** It has met a limit, which says nothing about the backup: whoever is told aborts the signal. */
  readonly onLimit?: (failure: Failure) => void
  /** Roles that may be there, to ask for a superuser with. */
  readonly roles: readonly string[]
  readonly clock: Clock
  readonly signal: AbortSignal
}

/**
 * The server of a restored cluster, reached by nobody but us: a socket in a directory of mode 0700, no network. It keeps the cluster's own
 * files as they are but for `postgresql.conf`, which it does not read. Whoever starts it stops it; a `ScratchDirectory` kills what is left.
 */
export class ScratchServer {
  readonly #options: ScratchServerOptions
  readonly #confinement: Confinement
  readonly #logFile: string
  #superuser: string | undefined
  #pid = 0

  private constructor(options: ScratchServerOptions, confinement: Confinement) {
    this.#options = options
    this.#confinement = confinement
    this.#logFile = join(options.scratch.path, 'server.log')
  }

  /** Starts it and waits until recovery has ended. Throws POSTGRES_FAILED with the end of its log, DISK_FULL, what its WAL cannot be had for, the signal's reason. */
  static async recover(options: ScratchServerOptions): Promise<ScratchServer> {
    const { installation, manifest, scratch, wal, signal } = options
    const { dataDirectory: directory, socketDirectory, account } = scratch
    // Before any of its code runs: later it might lead us elsewhere.
    if (isRoot()) for (const path of [directory, scratch.tablespaceDirectory]) await giveTree(path, account)
    const files = await writeOwnFiles(scratch)
    const writable = [directory, scratch.tablespaceDirectory, wal.asked, socketDirectory]
    const confinement = await findConfinement({ ...options, home: scratch.path, writable, account })
    const server = new ScratchServer(options, confinement)
    const settings = {
      ...settingsOf(installation.major),
      ...recoverySettings(manifest.server),
      ...files,
      restore_command: wal.command,
    }
    try {
      server.#pid = await startCluster({
        installation,
        directory,
        socketDirectory,
        owner: account,
        signal,
        settings,
        launcher: confinement.launcher,
        environment: SERVER_ENVIRONMENT,
        port: PORT,
        logFile: server.#logFile,
        timeoutSeconds: START_TIMEOUT_SECONDS,
      })
      await server.#waitForRecovery()
    } catch (error) {
      signal.throwIfAborted()
      if (wal.problem !== undefined) throw wal.problem
      await server.#assertRoom()
      throw error
    }
    return server
  }

  /** What it is kept from, as it is seen while it runs. */
  async isolation(limits: string): Promise<IsolationFact[]> {
    const { scratch, manifest, forbidden, configPath } = this.#options
    const wanted = settingsOf(this.major)
    const found = await this.anySession(async (client) => {
      const text = 'select name, pg_catalog.current_setting(name) as value from pg_catalog.pg_settings where name = any($1)'
      const { rows } = await client.query<{ name: string; value: string }>(text, [Object.keys(wanted)])
      return Object.fromEntries(rows.map(({ name, value }) => [name, value]))
    })
    return await seeIsolation({
      pid: this.#pid,
      confinement: this.#confinement,
      socketDirectory: scratch.socketDirectory,
      owner: manifest.defaults,
      account: scratch.account,
      forbidden: [...forbidden.map(({ path }) => path), configPath],
      wanted,
      found,
      limits,
    })
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
      PGOPTIONS: sessionOptions(this.major, settings),
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

  async #connected<T>(
    to: { database: string; user: string; settings: Readonly<Record<string, string>> },
    work: (client: pg.Client) => Promise<T>,
  ): Promise<T> {
    const { scratch, signal, clock } = this.#options
    signal.throwIfAborted()
    const socket = new Socket()
    const client = new pg.Client({
      host: scratch.socketDirectory,
      port: PORT,
      user: to.user,
      database: to.database,
      application_name: 'resus verify',
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      options: sessionOptions(this.major, to.settings),
      stream: () => socket,
    })
    client.on('error', () => undefined)
    const close = () => void socket.destroy()
    signal.addEventListener('abort', close, { once: true })
    try {
      await client.connect()
      return await work(client)
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof pg.DatabaseError && OUT_OF_ROOM.has(error.code ?? '')) throw this.#limited(error.message)
      throw error
    } finally {
      signal.removeEventListener('abort', close)
      // A program that code of the cluster has started may hold the other end open for ever (before 16 it inherits it).
      const ended = new AbortController()
      const late = clock.sleep(CLOSE_TIMEOUT_MS, ended.signal).catch(() => undefined)
      await Promise.race([client.end().catch(() => undefined), late])
      ended.abort()
      socket.destroy()
    }
  }

  async #failed(what: string): Promise<Failure> {
    await this.#assertRoom()
    return new Failure('POSTGRES_FAILED', `${what}:\n${await this.#logTail()}`, {
      hint: '"resus verify" by reading says which objects are damaged',
    })
  }

  /** A disk that is full, or a limit of memory, says nothing about the backup. */
  async #assertRoom(): Promise<void> {
    const log = await readFile(this.#logFile, 'utf8').catch(() => '')
    const said =
      /.*(?:No space left on device|Disk quota exceeded|out of memory|Cannot allocate memory|failed to map segment).*/.exec(log)
    if (said !== null) throw this.#limited(said[0])
  }

  #limited(said: string): Failure {
    const { scratch, memoryMegabytes, onLimit } = this.#options
    const isDisk = /No space left|quota/.test(said)
    const failure = isDisk
      ? new Failure('DISK_FULL', `the restored cluster in "${scratch.dataDirectory}" ran out of room`, {
          hint: 'make room, or name a directory on another disk (--scratch), and verify again',
        })
      : new Failure(
          'MEMORY_SHORT',
          `the restored server ran out of memory${memoryMegabytes === undefined ? '' : `, of which each process may have ${memoryMegabytes} MiB`}: ${said.trim()}`,
          {
            hint: 'give it more (drills.memoryMegabytes), or drill on a machine that has more',
          },
        )
    onLimit?.(failure)
    return failure
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

/** The server's own configuration, which takes the place of the cluster's. */
async function writeOwnFiles({ path, account }: ScratchDirectory): Promise<Record<string, string>> {
  const files = {
    config_file: join(path, 'postgresql.conf'),
    hba_file: join(path, 'pg_hba.conf'),
    ident_file: join(path, 'pg_ident.conf'),
  }
  await writeFile(files.config_file, '# The settings are on the command line.\n', { mode: 0o600 })
  // Whoever reaches the socket is let in: its directory's mode is what keeps others out. No replication.
  await writeFile(files.hba_file, 'local all all trust\n', { mode: 0o600 })
  await writeFile(files.ident_file, '', { mode: 0o600 })
  if (isRoot()) for (const each of Object.values(files)) await chown(each, account.uid, account.gid)
  return files
}
