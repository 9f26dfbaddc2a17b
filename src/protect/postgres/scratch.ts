import { randomBytes } from 'node:crypto'
import { chmod, chown, lstat, mkdir, open, readdir, readFile, realpath, rm, stat, statfs } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { z } from 'zod'
import { assert } from '../../assert.ts'
import { Failure, systemErrorCode } from '../../errors.ts'
import { endCluster, type Account } from '../../postgres/cluster-process.ts'
import { processStart } from '../../postgres/process-start.ts'
import { assertReachable, openTemporaryDirectory } from '../../postgres/staged-runtime.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { isRoot } from './durable-file.ts'
import { endProcessesIn, processesIn } from './scratch-processes.ts'

// Where a backup is restored to be proven or dumped: a directory of our own, which goes when that ends, however it ends.
//
//   <root>/verify-<id>.json     the marker: whose directory it is. Made first, removed last
//   <root>/verify-<id>/         data (the restored cluster), tablespaces, wal and asked (scratch-wal.ts), server.log, and the server's own settings
//   <temporary>/resus-<id>/     the server's socket: a socket's path may have only 107 bytes
//
// A process that is killed leaves them behind. The next one removes what a marker names, if the process that wrote it runs no more.

const MARKER = /^verify-([0-9a-f]{16})\.json$/
const MARKER_BYTES_MAX = 16 * 1024
/** What a dying process still writes (a fetch of WAL) may come between the look into a directory and its removal. */
const REMOVE_TRIES = { maxRetries: 10, retryDelay: 100 }

/** 107 less `/resus-<id>/.s.PGSQL.5432`. */
const SOCKET_HOME_BYTES_MAX = 107 - 37
const UNBORN_MS = 60_000

const ROOM_FOR_WAL_BYTES = 512 * 1024 * 1024
const ROOM_FOR_SEGMENTS = 10

/** What scratch directories are made for: said in the marker. */
const PURPOSES = ['resus verify --by-restore', 'resus dump'] as const

const markerSchema = z.object({
  format: z.literal(1),
  purpose: z.enum(PURPOSES),
  id: z.string().regex(/^[0-9a-f]{16}$/),
  directory: z.string(),
  socketDirectory: z.string(),
  host: z.string(),
  pid: z.int().positive(),
  /** Tells the process from a later one with its number. */
  started: z.string().min(1),
  component: z.string(),
  backup: z.string(),
  at: z.string(),
})
type Marker = z.infer<typeof markerSchema>

export interface ScratchOptions {
  readonly purpose: (typeof PURPOSES)[number]
  /** The directory in which scratch directories are made. */
  readonly root: string
  readonly component: string
  readonly backup: string
  /** Whom the server will run as: when we are root an account of its own, else ours. */
  readonly account: Account
  readonly nowMs: number
}

/** A scratch directory. Disposing of it kills the server in it, and removes it. */
export class ScratchDirectory implements AsyncDisposable {
  readonly #marker: Marker
  readonly #markerPath: string
  readonly account: Account

  private constructor(marker: Marker, markerPath: string, account: Account) {
    this.#marker = marker
    this.#markerPath = markerPath
    this.account = account
  }

  /** Makes one. Throws ARGUMENTS_INVALID when the server's account could not reach it, and what the file system says. */
  static async make(options: ScratchOptions): Promise<ScratchDirectory> {
    const root = await makeRoot(options.root)
    const id = randomBytes(8).toString('hex')
    const started = await processStart(process.pid)
    assert(started !== undefined, 'this process runs')
    const marker: Marker = {
      format: 1,
      purpose: options.purpose,
      id,
      directory: join(root, `verify-${id}`),
      socketDirectory: join(await socketHome(), `resus-${id}`),
      host: hostname(),
      pid: process.pid,
      started,
      component: options.component,
      backup: options.backup,
      at: new Date(options.nowMs).toISOString(),
    }
    const scratch = new ScratchDirectory(marker, join(root, `verify-${id}.json`), options.account)
    try {
      await scratch.#make()
    } catch (error) {
      await scratch[Symbol.asyncDispose]()
      throw error
    }
    return scratch
  }

  get path(): string {
    return this.#marker.directory
  }

  get dataDirectory(): string {
    return dataDirectory(this.#marker)
  }

  /** Below it tablespaces are restored. */
  get tablespaceDirectory(): string {
    return join(this.path, 'tablespaces')
  }

  get socketDirectory(): string {
    return this.#marker.socketDirectory
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await removeMarked(this.#marker, this.#markerPath)
  }

  /** What of it is still there, looked for after it was disposed of: nothing, unless something is wrong. Namespaces and their mounts go with their last process. */
  async remains(): Promise<string[]> {
    const paths = [this.path, this.socketDirectory, this.#markerPath]
    const there = await Promise.all(paths.map(isThere))
    const processes = await processesIn(this.path)
    return [...processes.map((pid) => `process ${pid}`), ...paths.filter((_, index) => there[index])]
  }

  async #make(): Promise<void> {
    const { account } = this
    const file = await open(this.#markerPath, 'wx', 0o600)
    try {
      await file.writeFile(JSON.stringify(this.#marker, null, 2))
      await file.sync()
    } finally {
      await file.close()
    }
    for (const path of [this.path, this.socketDirectory]) await mkdir(path, { mode: 0o700 })
    // Whatever the umask: the server's socket trusts whoever reaches it.
    await chmod(this.socketDirectory, 0o700)
    // The server's account passes through the other one, and must not exchange what we write there.
    await chmod(this.path, isRoot() ? 0o710 : 0o700)
    if (!isRoot()) return
    await chown(this.socketDirectory, account.uid, account.gid)
    await chown(this.path, 0, account.gid)
  }
}

/**
 * Removes what dead verifications and dumps left: only what a marker names that is valid, of this host and this user, beside the directory that it
 * names, and whose process runs no more. Says what it removed, and what it left alone and why.
 */
export async function removeAbandoned(root: string): Promise<string[]> {
  const notices: string[] = []
  const real = await realpath(root).catch(() => undefined)
  if (real === undefined) return notices
  for (const name of await readdir(real)) {
    if (!MARKER.test(name)) continue
    const path = join(real, name)
    if (await isUnborn(path)) {
      await rm(path, { force: true })
      continue
    }
    const marker = await readMarker(path)
    const kept = marker === undefined ? 'its marker is not as we write it' : await reasonToKeep(marker, path)
    if (kept === 'in use') continue
    if (marker === undefined || kept !== undefined) {
      notices.push(`"${path}" is left alone: ${kept}`)
      continue
    }
    await removeMarked(marker, path)
    notices.push(`removed "${marker.directory}", which a "${marker.purpose}" that was killed had left`)
  }
  return notices
}

export interface Place {
  readonly path: string
  readonly what: string
}

/**
 * Refuses a root inside (or equal to) one of these places, or inside any data directory or tablespace of PostgreSQL: what is made and
 * removed there must never be near a cluster. Throws ARGUMENTS_INVALID.
 */
export async function assertOutside(root: string, places: readonly Place[]): Promise<void> {
  const existing = await realpath(await nearestExisting(root))
  const refuse = (what: string): never => {
    throw new Failure('ARGUMENTS_INVALID', `cannot use "${root}" as scratch directory: it is inside ${what}`, {
      hint: 'name another directory: --scratch /var/tmp/resus',
    })
  }
  for (const { path, what } of places) {
    const real = await realpath(path).catch(() => resolve(path))
    if (isInside(real, existing) || isInside(resolve(path), resolve(root))) refuse(`${what}, "${path}"`)
  }
  for (let at = existing; ; at = dirname(at)) {
    const isCluster = (await isThere(join(at, 'PG_VERSION'))) && (await isThere(join(at, 'global')))
    if (isCluster) refuse(`the data directory "${at}"`)
    if (/^PG_\d+_\d+$/.test(basename(at))) refuse(`the tablespace "${dirname(at)}"`)
    if (at === dirname(at)) return
  }
}

/** The room that a restored copy needs: its files, the WAL that is fetched ahead and replayed, and what is written in it. */
export function scratchBytes({ totals, server }: BackupManifest): number {
  return totals.bytes + ROOM_FOR_WAL_BYTES + ROOM_FOR_SEGMENTS * server.segmentSize
}

/** Throws DISK_FULL when fewer bytes are free where the root is, or will be. */
export async function assertScratchRoom(root: string, neededBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(await nearestExisting(root))
  if (bavail * bsize >= neededBytes) return
  const mib = (bytes: number) => `${Math.round(bytes / 1024 ** 2)} MiB`
  throw new Failure(
    'DISK_FULL',
    `there is no room to restore into "${root}": ${mib(bavail * bsize)} are free, ${mib(neededBytes)} are needed`,
    { hint: 'make room, or name a directory on another disk (--scratch); nothing was written' },
  )
}

async function makeRoot(root: string): Promise<string> {
  const path = resolve(root)
  // Before anything is made.
  if (isRoot()) await assertReachable(await nearestExisting(path))
  const first = await mkdir(path, { recursive: true, mode: 0o700 })
  // The server's account has to pass; what is in it is closed by its own mode.
  const made = isRoot() && first !== undefined
  for (let at = path; made && at.length >= first.length; at = dirname(at)) await chmod(at, 0o711)
  return await realpath(path)
}

/** Where a socket's path stays short enough; when we are root, also where the server's account can come to it. */
async function socketHome(): Promise<string> {
  if (isRoot()) return await realpath(await openTemporaryDirectory())
  const temporary = await realpath(tmpdir())
  return Buffer.byteLength(temporary) <= SOCKET_HOME_BYTES_MAX ? temporary : '/tmp'
}

/** Killed before the marker had a byte: there is no directory to it yet. One that is being made is a moment old. */
async function isUnborn(path: string): Promise<boolean> {
  const info = await lstat(path).catch(() => undefined)
  if (info === undefined || !info.isFile() || info.size > 0 || Date.now() - info.mtimeMs < UNBORN_MS) return false
  return !(await isThere(path.replace(/\.json$/, '')))
}

/** Undefined when it is none of ours, or torn. */
async function readMarker(path: string): Promise<Marker | undefined> {
  const info = await lstat(path).catch(() => undefined)
  if (info === undefined || !info.isFile() || info.size > MARKER_BYTES_MAX) return undefined
  if (process.getuid !== undefined && info.uid !== process.getuid()) return undefined
  try {
    const marker = markerSchema.safeParse(JSON.parse(await readFile(path, 'utf8')))
    return marker.data
  } catch {
    return undefined
  }
}

/** Why a marked directory must not be removed; undefined when it may be. */
async function reasonToKeep(marker: Marker, path: string): Promise<string | undefined> {
  const { id, directory, socketDirectory, host, pid } = marker
  const fits = path === join(dirname(path), `verify-${id}.json`) && directory === join(dirname(path), `verify-${id}`)
  if (!fits || basename(socketDirectory) !== `resus-${id}`) return 'its marker is of another place; it was moved or copied'
  if (host !== hostname()) return `it was made on the host "${host}"; remove it when no verification runs there`
  if ((await processStart(pid)) === marker.started) return 'in use'
  for (const each of [directory, socketDirectory]) {
    const info = await lstat(each).catch(() => undefined)
    if (info !== undefined && !info.isDirectory()) return `"${each}" is no directory`
  }
  return undefined
}

/** The marker goes last: until then the next run finds the rest. */
async function removeMarked(marker: Marker, markerPath: string): Promise<void> {
  await endCluster(dataDirectory(marker)).catch((error: unknown) => {
    if (systemErrorCode(error) !== 'ENOENT') throw error
  })
  await endProcessesIn(marker.directory)
  await rm(marker.directory, { recursive: true, force: true, ...REMOVE_TRIES })
  await rm(marker.socketDirectory, { recursive: true, force: true, ...REMOVE_TRIES })
  await rm(markerPath, { force: true })
}

function dataDirectory(marker: Marker): string {
  return join(marker.directory, 'data')
}

export async function nearestExisting(path: string): Promise<string> {
  let at = resolve(path)
  while (!(await isThere(at))) at = dirname(at)
  return at
}

function isInside(outer: string, inner: string): boolean {
  const path = relative(outer, inner)
  return path === '' || (path !== '..' && !path.startsWith('../'))
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}
