import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { chown, constants, mkdir, open, readFile, readdir, readlink, realpath } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join, resolve as resolvePath } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { assert } from '../assert.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import type { Installation } from './installation.ts'
import { toolPath } from './installation.ts'
import { ordinaryUser } from './ordinary-user.ts'

const execute = promisify(execFile)

const START_TIMEOUT_SECONDS = 60
const STOP_TIMEOUT_SECONDS = 60
/** Longest wait for killed processes to go; longer means one hangs in the kernel, on a disk for instance. */
const KILL_TIMEOUT_SECONDS = 30
/** The postmaster itself kills after 5 s whoever has not heeded it (SIGKILL_CHILDREN_AFTER_SECS). */
const END_TIMEOUT_SECONDS = 10
const POLL_MS = 20
const LOG_TAIL_BYTES = 4096
/** It has eight short lines. */
const POSTMASTER_FILE_BYTES_MAX = 8192

export interface InitClusterOptions {
  readonly installation: Installation
  readonly directory: string
  /** Name of the superuser; `postgres` unless said. */
  readonly user?: string
  readonly dataChecksums?: boolean
  readonly walSegmentMegabytes?: number
  /** False leaves the new files unflushed, for clusters that may be lost. */
  readonly sync?: boolean
  readonly extraArguments?: readonly string[]
}

/**
 * Makes a new cluster in `directory`, which must be missing or empty. Trusts every local connection (UTF-8, locale C.UTF-8). When
 * we are root, the directory and the cluster belong to `ordinaryUser()`. Throws POSTGRES_MISSING, POSTGRES_FAILED.
 */
export async function initCluster(options: InitClusterOptions): Promise<void> {
  const { installation, directory, user = 'postgres', dataChecksums, walSegmentMegabytes, sync = true } = options
  const program = requireTool(installation, 'initdb')
  await makeServerDirectory(directory)
  await giveToServer(directory)
  const args = ['-D', resolvePath(directory), '-A', 'trust', '-U', user, '--locale=C.UTF-8', '--encoding=UTF8']
  if (walSegmentMegabytes !== undefined) args.push(`--wal-segsize=${walSegmentMegabytes}`)
  if (dataChecksums === true) args.push('--data-checksums')
  // Before 18 there is no such option, and off is the default.
  if (dataChecksums === false && installation.major >= 18) args.push('--no-data-checksums')
  if (!sync) args.push('--no-sync')
  args.push(...(options.extraArguments ?? []))
  try {
    await execute(program, args, serverProcess())
  } catch (error) {
    throw new Failure('POSTGRES_FAILED', `cannot make a cluster in "${directory}": ${toolOutput(error)}`, {
      hint: 'the directory has to be empty, and the account that PostgreSQL runs as has to be able to reach it',
      cause: error,
    })
  }
}

/** An account of the system, by its numbers. */
export interface Account {
  readonly uid: number
  readonly gid: number
}

/** A command that sets limits and then becomes the server: the server's own words are put behind its own. */
export interface Launcher {
  readonly words: readonly string[]
  /** When we are root: it is started as root, and becomes the server's account itself. */
  readonly changesAccount: boolean
}

export interface StartClusterOptions {
  readonly installation: Installation
  readonly directory: string
  readonly port: number
  /** Where the server puts its Unix socket; made when it is missing. At most about 90 bytes long. */
  readonly socketDirectory: string
  /** The server's output is appended here. */
  readonly logFile: string
  /** When we are root: whom the cluster's files belong to, and so the account to run as. `ordinaryUser()` unless said. */
  readonly owner?: Account | undefined
  /** Settings that win over those of the cluster's own files. */
  readonly settings?: Readonly<Record<string, string>>
  /** What it is started through. */
  readonly launcher?: Launcher
  /** All of its environment; by default ours without what would lead it astray. */
  readonly environment?: Readonly<Record<string, string>>
  readonly timeoutSeconds?: number
  readonly signal?: AbortSignal
}

/**
 * Starts the server of a cluster and resolves with its process id when it accepts connections. In recovery those are read-only
 * ones, or none at all with `hot_standby = off`: ready is not yet promoted. The server outlives this process. When it fails, takes
 * too long or the signal aborts, it is gone before this rejects. Throws POSTGRES_MISSING, POSTGRES_FAILED with the end of the
 * server's log, or the signal's reason.
 */
export async function startCluster(options: StartClusterOptions): Promise<number> {
  const { installation, directory, logFile, timeoutSeconds = START_TIMEOUT_SECONDS, signal } = options
  const program = requireTool(installation, 'postgres')
  await makeServerDirectory(options.socketDirectory, options.owner)
  const log = await open(logFile, 'a', 0o600)
  let server: ChildProcess
  let ended: Promise<string>
  const logStart = (await log.stat()).size
  try {
    // Started directly rather than through pg_ctl, which would put the settings through a shell.
    const { launcher, environment, owner } = options
    const { env, cwd, ...account } = serverProcess(owner)
    const [first, ...words] = [...(launcher?.words ?? []), program, ...serverArguments(options)]
    server = spawn(first!, words, {
      env: environment ?? env,
      cwd,
      ...(launcher?.changesAccount === true ? {} : account),
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    })
    // Before anything is waited for: a server that refuses at once has ended by then.
    ended = endOf(server)
  } finally {
    await log.close()
  }
  server.unref()
  const outcome = await waitUntilReady({ server, ended, directory, timeoutSeconds, signal })
  if (outcome === 'ready' && server.pid !== undefined) return server.pid
  // Not "is its number alive": once it has ended, the number may be a stranger's.
  if (server.pid !== undefined && server.exitCode === null && server.signalCode === null) {
    await killTree(server.pid)
    await ended
  }
  signal?.throwIfAborted()
  const tail = await readTail(logFile, logStart)
  throw new Failure('POSTGRES_FAILED', `cannot start the cluster in "${directory}": ${outcome}\n${tail}`, {
    hint: `the whole log is in "${logFile}"`,
  })
}

function endOf(server: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    server.once('exit', (status, by) => resolve(by === null ? `it ended with status ${status}` : `it was ended by ${by}`))
    server.once('error', (error) => resolve(error.message))
  })
}

export type StopMode = 'smart' | 'fast' | 'immediate'

export interface StopClusterOptions {
  readonly directory: string
  /** `smart` waits for the sessions to end, `fast` ends them, `immediate` leaves recovery to the next start. */
  readonly mode: StopMode
  readonly timeoutSeconds?: number
  readonly signal?: AbortSignal
}

const STOP_SIGNALS = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' } as const satisfies Record<
  StopMode,
  NodeJS.Signals
>

/** Stops the server and waits until it is gone; does nothing when none runs. Throws POSTGRES_FAILED when it does not stop in time. */
export async function stopCluster(options: StopClusterOptions): Promise<void> {
  const { directory, mode, timeoutSeconds = STOP_TIMEOUT_SECONDS, signal } = options
  const pid = await runningPostmaster(directory)
  if (pid === undefined) return
  sendSignal(pid, STOP_SIGNALS[mode])
  const left = await waitUntilGone({ pids: [pid], timeoutSeconds, signal })
  if (left.length === 0) return
  throw new Failure('POSTGRES_FAILED', `cannot stop the cluster in "${directory}": it still runs after ${timeoutSeconds} s`, {
    hint: mode === 'smart' ? 'a smart stop waits for every session to end; try fast' : `see the log of process ${pid}`,
  })
}

/**
 * Ends the server as a power cut would: SIGKILL to the postmaster and everything it started, resolved when all are gone. The
 * cluster stays behind with a stale `postmaster.pid`, which the next start replaces. Does nothing when no server runs.
 */
export async function killCluster(directory: string): Promise<void> {
  const pid = await runningPostmaster(directory)
  if (pid === undefined) return
  const left = await killTree(pid)
  if (left.length === 0) return
  throw new Failure('POSTGRES_FAILED', `cannot kill the cluster in "${directory}": processes ${left.join(', ')} do not end`, {
    hint: 'a process that survives SIGKILL waits in the kernel, usually for a disk',
  })
}

/**
 * Ends a server whose cluster is about to be deleted: at once, and by a kill only when it does not go otherwise. A killed server leaves a segment of
 * shared memory for the next start on its directory to remove (src/backend/port/sysv_shmem.c), and none will come; a system has 4096 (SHMMNI).
 * Does nothing when no server runs. Throws as `killCluster`.
 */
export async function endCluster(directory: string): Promise<void> {
  const pid = await runningPostmaster(directory)
  if (pid === undefined) return
  sendSignal(pid, STOP_SIGNALS.immediate)
  await waitUntilGone({ pids: [pid], timeoutSeconds: END_TIMEOUT_SECONDS, signal: undefined })
  await killCluster(directory)
}

/** Whether a server runs on this data directory. A stale `postmaster.pid`, left by a crash, is not taken for one. */
export async function isRunning(directory: string): Promise<boolean> {
  return (await runningPostmaster(directory)) !== undefined
}

/** A TCP port of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  assert(typeof address === 'object' && address !== null, 'a listening TCP server has an address')
  await new Promise((resolve) => server.close(resolve))
  return address.port
}

function requireTool(installation: Installation, tool: string): string {
  const path = toolPath(installation, tool)
  if (path !== undefined) return path
  throw new Failure('POSTGRES_MISSING', `PostgreSQL ${installation.major} in "${installation.binDirectory}" has no ${tool}`, {
    hint: `install the server of PostgreSQL ${installation.major}`,
  })
}

/** Undefined when we are an ordinary user, who can be nobody else. */
function serverAccount(owner: Account | undefined): Account | undefined {
  return process.getuid?.() === 0 ? (owner ?? ordinaryUser()) : undefined
}

/** What PostgreSQL's programs are given: they must not be led to another server by the PG* variables of whoever called us. */
export function postgresEnvironment(): Record<string, string> {
  const kept = Object.entries(process.env).filter(([name]) => !/^(PG|LC_|LANG)/.test(name))
  return { ...(Object.fromEntries(kept) as Record<string, string>), LANG: 'C.UTF-8', LC_ALL: 'C.UTF-8' }
}

/** PostgreSQL refuses root. */
function serverProcess(owner?: Account): { env: NodeJS.ProcessEnv; cwd: string; uid?: number; gid?: number } {
  const env = postgresEnvironment()
  const user = serverAccount(owner)
  // Our own working directory may be closed to that account.
  return user === undefined ? { env, cwd: '/' } : { env, cwd: '/', uid: user.uid, gid: user.gid }
}

/** What is made belongs to the server; what was there (`/tmp`, say) is left as it is. */
async function makeServerDirectory(directory: string, owner?: Account): Promise<void> {
  const path = resolvePath(directory)
  const first = await mkdir(path, { recursive: true, mode: 0o700 })
  if (first === undefined) return
  for (let made = path; made.length >= first.length; made = dirname(made)) await giveToServer(made, owner)
}

async function giveToServer(path: string, owner?: Account): Promise<void> {
  const user = serverAccount(owner)
  if (user !== undefined) await chown(path, user.uid, user.gid)
}

function serverArguments(options: StartClusterOptions): string[] {
  const settings = {
    ...options.settings,
    port: String(options.port),
    // The value is a list: quoted, so that a comma or a space in the path does not split it.
    unix_socket_directories: `"${resolvePath(options.socketDirectory).replaceAll('"', '""')}"`,
  }
  return [
    '-D',
    resolvePath(options.directory),
    ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
  ]
}

interface Readiness {
  readonly server: ChildProcess
  readonly ended: Promise<string>
  readonly directory: string
  readonly timeoutSeconds: number
  readonly signal: AbortSignal | undefined
}

/** `ready`, or what went wrong. */
async function waitUntilReady({ server, ended, directory, timeoutSeconds, signal }: Readiness): Promise<string> {
  const deadline = performance.now() + timeoutSeconds * 1000
  while (performance.now() < deadline) {
    if (signal?.aborted === true) return 'aborted'
    const end = await Promise.race([ended, delay(POLL_MS)])
    if (end !== undefined) return end
    const file = await readPostmasterFile(directory)
    // The file of a crashed predecessor stays until the new postmaster replaces it: believe only our own process's.
    if (file?.pid === server.pid && (file?.status === 'ready' || file?.status === 'standby')) return 'ready'
  }
  return `it accepts no connections after ${timeoutSeconds} s`
}

/** Layout of postmaster.pid: process id, data directory, start time, port, socket directory, address, shared memory, status. */
async function readPostmasterFile(directory: string): Promise<{ pid: number; status: string } | undefined> {
  try {
    const lines = (await readBeginning(join(directory, 'postmaster.pid'))).split('\n')
    const pid = Number(lines[0])
    return Number.isSafeInteger(pid) && pid > 0 ? { pid, status: lines[7]?.trim() ?? '' } : undefined
  } catch (error) {
    // A link is none of PostgreSQL's.
    const code = systemErrorCode(error)
    if (code === 'ENOENT' || code === 'ELOOP') return undefined
    throw error
  }
}

/** Code of a cluster that is not trusted may put a link, or a file without an end, in its place. */
async function readBeginning(path: string): Promise<string> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(POSTMASTER_FILE_BYTES_MAX), 0, POSTMASTER_FILE_BYTES_MAX, 0)
  return buffer.toString('utf8', 0, bytesRead)
}

async function runningPostmaster(directory: string): Promise<number | undefined> {
  const file = await readPostmasterFile(directory)
  if (file === undefined || !(await isAlive(file.pid))) return undefined
  // After a crash the number may belong to a stranger, whom we must not kill: a postmaster works inside its data directory.
  const workingDirectory = await readWorkingDirectory(file.pid)
  if (workingDirectory !== undefined && workingDirectory !== (await realpath(directory))) return undefined
  return file.pid
}

/** Undefined where the system does not tell (macOS). */
async function readWorkingDirectory(pid: number): Promise<string | undefined> {
  try {
    return await readlink(`/proc/${pid}/cwd`)
  } catch {
    return undefined
  }
}

/** Kills a process and all that it started; resolves with those that did not go. */
async function killTree(pid: number): Promise<readonly number[]> {
  // Stopped first, so that no child is born between the list and the kill.
  sendSignal(pid, 'SIGSTOP')
  const pids = [pid, ...descendants(await listProcesses(), pid)]
  for (const each of pids) sendSignal(each, 'SIGKILL')
  return waitUntilGone({ pids, timeoutSeconds: KILL_TIMEOUT_SECONDS, signal: undefined })
}

interface ProcessEntry {
  readonly pid: number
  readonly parent: number
}

async function listProcesses(): Promise<readonly ProcessEntry[]> {
  if (process.platform !== 'linux') {
    const { stdout } = await execute('ps', ['-axo', 'pid=,ppid='])
    return stdout
      .split('\n')
      .map((line) => line.trim().split(/\s+/).map(Number))
      .map(([pid = 0, parent = 0]) => ({ pid, parent }))
  }
  const names = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const stats = await Promise.all(names.map(async (name) => ({ pid: Number(name), stat: await readProcessStat(Number(name)) })))
  return stats.flatMap(({ pid, stat }) => (stat === undefined ? [] : [{ pid, parent: stat.parent }]))
}

function descendants(entries: readonly ProcessEntry[], ancestor: number): readonly number[] {
  const found = [ancestor]
  for (const parent of found) found.push(...entries.filter((entry) => entry.parent === parent).map((entry) => entry.pid))
  return found.slice(1)
}

/** `pid (name) state ppid ...`; the name may hold spaces and brackets. Undefined when there is no such process. */
async function readProcessStat(pid: number): Promise<{ state: string; parent: number } | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8')
    const [state = '', parent] = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return { state, parent: Number(parent) }
  } catch {
    return undefined
  }
}

/** A zombie is gone: it holds no file and no memory, and only waits for a parent to ask for its status. */
async function isAlive(pid: number): Promise<boolean> {
  if (process.platform !== 'linux') return sendSignal(pid, 0)
  const stat = await readProcessStat(pid)
  return stat !== undefined && stat.state !== 'Z' && stat.state !== 'X'
}

/** False when there is no such process. */
function sendSignal(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal)
  } catch (error) {
    if (systemErrorCode(error) === 'ESRCH') return false
    throw error
  }
}

interface Wait {
  readonly pids: readonly number[]
  readonly timeoutSeconds: number
  readonly signal: AbortSignal | undefined
}

/** Those that are still there at the end; none when all have gone in time. */
async function waitUntilGone({ pids, timeoutSeconds, signal }: Wait): Promise<readonly number[]> {
  const deadline = performance.now() + timeoutSeconds * 1000
  for (;;) {
    const alive = await Promise.all(pids.map(isAlive))
    const left = pids.filter((_, index) => alive[index] === true)
    if (left.length === 0 || performance.now() > deadline) return left
    await delay(POLL_MS, undefined, signal === undefined ? {} : { signal })
  }
}

async function readTail(path: string, from: number): Promise<string> {
  const file = await open(path, 'r')
  try {
    const { size } = await file.stat()
    const at = Math.max(from, size - LOG_TAIL_BYTES)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(LOG_TAIL_BYTES), 0, LOG_TAIL_BYTES, at)
    return buffer.toString('utf8', 0, bytesRead).trimEnd()
  } finally {
    await file.close()
  }
}

function toolOutput(error: unknown): string {
  if (error instanceof Error && 'stderr' in error && typeof error.stderr === 'string') return error.stderr.trim()
  return String(error)
}
