import { existsSync } from 'node:fs'
import { appendFile, chmod, chown, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { initCluster, isRunning, startCluster, stopCluster } from '../postgres/cluster-process.ts'
import { requireInstallation } from '../postgres/installation.ts'
import { ordinaryUser } from '../postgres/ordinary-user.ts'
import { assertReachable } from '../postgres/staged-runtime.ts'

const MAJOR = 18
/** Only names the socket. */
const PORT = 5432
/** `sockaddr_un` takes 107 bytes, with the name that PostgreSQL adds. */
const SOCKET_PATH_MAX = 85
const SETTINGS = {
  listen_addresses: '',
  max_connections: '60',
  shared_buffers: '64MB',
  // Containers often have a /dev/shm that is too small for the default.
  dynamic_shared_memory_type: 'mmap',
  timezone: 'UTC',
  log_timezone: 'UTC',
  jit: 'off',
}

/** The store's own server, at work. */
export interface EmbeddedStore extends AsyncDisposable {
  readonly connectionString: string
  /** Starts it again when it has ended, as by a lack of memory. */
  ensureRunning(signal?: AbortSignal): Promise<void>
}

/**
 * Starts the store's own PostgreSQL in `<state>/store`, made at the first start. It listens on a Unix socket in a directory that only its account enters. One
 * that a killed predecessor left running is taken over. Throws POSTGRES_MISSING, POSTGRES_FAILED, and as root ARGUMENTS_INVALID for a
 * directory that PostgreSQL's account cannot come to.
 */
export async function startEmbeddedStore(state: string, signal?: AbortSignal): Promise<EmbeddedStore> {
  const installation = await requireInstallation(MAJOR)
  const directory = join(state, 'store')
  if (ordinaryUser() !== undefined) await assertReachable(state)
  const socket = await socketDirectory(state)
  if (!existsSync(join(directory, 'PG_VERSION'))) {
    // What a start that was killed while it made the cluster has left: nothing is in it yet.
    await rm(directory, { recursive: true, force: true })
    const unfinished = `${directory}.new`
    await rm(unfinished, { recursive: true, force: true })
    await initCluster({ installation, directory: unfinished, dataChecksums: true })
    await rename(unfinished, directory)
  }
  const logFile = join(state, 'store.log')
  await appendFile(logFile, '')
  await chmod(logFile, 0o600)
  const ensureRunning = async (until?: AbortSignal): Promise<void> => {
    if (await isRunning(directory)) return
    const more = until === undefined ? {} : { signal: until }
    await startCluster({ installation, directory, port: PORT, socketDirectory: socket, logFile, settings: SETTINGS, ...more })
  }
  await ensureRunning(signal)
  return {
    connectionString: connectionBy(socket),
    ensureRunning,
    [Symbol.asyncDispose]: async () => stopCluster({ directory, mode: 'fast' }),
  }
}

/** How to connect to the store that a server keeps in this state directory; undefined where there is none. It may not be running. */
export async function embeddedConnection(state: string): Promise<string | undefined> {
  if (!existsSync(join(state, 'store', 'PG_VERSION'))) return undefined
  const beside = join(state, 'store.socket')
  const kept = await readFile(join(state, 'store.socket-directory'), 'utf8').catch(() => undefined)
  return connectionBy(Buffer.byteLength(beside) <= SOCKET_PATH_MAX ? beside : (kept ?? beside))
}

function connectionBy(socket: string): string {
  return `postgres://postgres@/postgres?host=${encodeURIComponent(socket)}&port=${PORT}`
}

/** Beside the cluster, or where the path is short enough for a socket: always the same, so that a server that still runs is found. */
async function socketDirectory(state: string): Promise<string> {
  const beside = join(state, 'store.socket')
  if (Buffer.byteLength(beside) <= SOCKET_PATH_MAX) return beside
  const known = join(state, 'store.socket-directory')
  const kept = await readFile(known, 'utf8').catch(() => undefined)
  if (kept !== undefined && existsSync(kept)) return kept
  const base = Buffer.byteLength(tmpdir()) < SOCKET_PATH_MAX - 20 ? tmpdir() : '/tmp'
  const made = await mkdtemp(join(base, 'resus-store-'))
  const user = ordinaryUser()
  if (user !== undefined) await chown(made, user.uid, user.gid)
  await writeFile(known, made, { mode: 0o600 })
  return made
}
