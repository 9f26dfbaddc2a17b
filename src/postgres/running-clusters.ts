import { readdir, readFile, readlink, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'

/** A directory that the cluster of a running server uses. */
export interface UsedDirectory {
  readonly path: string
  /** Of the server, or of one of its processes. */
  readonly pid: number
  /** `data directory`, `tablespace`, `WAL directory` */
  readonly role: string
  /** Whether what lies in it, or what it lies in, is in use as well: not of a working directory that looks like no cluster. */
  readonly isCluster: boolean
}

const SERVER_NAMES = new Set(['postgres', 'postmaster'])

/**
 * The directories of all clusters whose servers run on this host and can be seen by this user: a server works inside its data directory. Linux
 * only; elsewhere the system does not tell, and none is found.
 */
export async function findUsedDirectories(): Promise<UsedDirectory[]> {
  const pids = await readdir('/proc').catch((): string[] => [])
  const seen = new Set<string>()
  const used: UsedDirectory[] = []
  for (const name of pids) {
    if (!/^\d+$/.test(name) || !(await isServer(name))) continue
    const dataDirectory = await workingDirectory(name)
    if (dataDirectory === undefined || seen.has(dataDirectory)) continue
    seen.add(dataDirectory)
    used.push(...(await directoriesOf(dataDirectory, Number(name))))
  }
  return used
}

/** The first of the used directories that a place is, lies in, or holds. The place need not be there. */
export async function findUse(place: string, used: readonly UsedDirectory[]): Promise<UsedDirectory | undefined> {
  const real = await realPlace(place)
  return used.find(({ path, isCluster }) => path === real || (isCluster && (isWithin(path, real) || isWithin(real, path))))
}

/** Where a path leads to, as far as it is there. */
export async function realPlace(path: string): Promise<string> {
  const absolute = resolve(path)
  try {
    return await realpath(absolute)
  } catch {
    const parent = dirname(absolute)
    return parent === absolute ? absolute : join(await realPlace(parent), basename(absolute))
  }
}

async function isServer(pid: string): Promise<boolean> {
  const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')
  return SERVER_NAMES.has(name.trim())
}

/** Undefined where it is closed to us, or is a path in a container that means something else here. */
async function workingDirectory(pid: string): Promise<string | undefined> {
  try {
    const path = await readlink(`/proc/${pid}/cwd`)
    const [there, here] = await Promise.all([stat(`/proc/${pid}/cwd`), stat(path)])
    return there.dev === here.dev && there.ino === here.ino ? path : undefined
  } catch {
    return undefined
  }
}

async function directoriesOf(dataDirectory: string, pid: number): Promise<UsedDirectory[]> {
  // `postgres --version` and its like work anywhere; a server whose files were deleted still works in its directory.
  const isCluster = (await exists(join(dataDirectory, 'postmaster.pid'))) || (await exists(join(dataDirectory, 'global')))
  const used: UsedDirectory[] = [{ path: dataDirectory, pid, role: 'data directory', isCluster }]
  const links = [{ path: join(dataDirectory, 'pg_wal'), role: 'WAL directory' }]
  for (const oid of await readdir(join(dataDirectory, 'pg_tblspc')).catch((): string[] => [])) {
    links.push({ path: join(dataDirectory, 'pg_tblspc', oid), role: 'tablespace' })
  }
  for (const link of links) {
    const path = await realpath(link.path).catch(() => undefined)
    if (path !== undefined && !isWithin(dataDirectory, path)) used.push({ path, pid, role: link.role, isCluster: true })
  }
  return used
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}

function isWithin(directory: string, path: string): boolean {
  return path === directory || path.startsWith(directory.endsWith('/') ? directory : `${directory}/`)
}
