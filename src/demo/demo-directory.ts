import { lstat, mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure, systemErrorCode } from '../errors.ts'
import { endCluster } from '../postgres/cluster-process.ts'

// Everything of a demo lives in one directory. A file marks it: only a directory with this mark is ever cleaned.

const MARK = '.resus-demo'
const KEPT = 'kept-'
/** What runs beside a demo. */
const PROCESSES = ['receiver', 'service', 'activity', 'control-plane'] as const
/** The server's socket lies in it, and a socket's path has 107 bytes at most. */
const PATH_BYTES_MAX = 80

interface Mark {
  readonly pid: number
  readonly keep: boolean
  readonly startedAt: string
}

/** Where the parts of one demo are. */
export interface DemoDirectory {
  readonly root: string
  readonly cluster: string
  readonly socket: string
  readonly serverLog: string
  readonly commandLog: string
  readonly streamLog: string
  readonly controlPlaneLog: string
  readonly acknowledgedLog: string
  /** Of the hospital: its files, and what it was when it opened. */
  readonly hospital: string
  readonly hospitalLog: string
  readonly activityLog: string
  readonly baseline: string
  /** A bundle of evidence, as an auditor gets it. */
  readonly evidence: string
  readonly configuration: string
  readonly passphrase: string
  readonly repository: string
  readonly state: string
}

function parts(root: string): DemoDirectory {
  return {
    root,
    cluster: join(root, 'cluster'),
    socket: join(root, 's'),
    serverLog: join(root, 'server.log'),
    commandLog: join(root, 'commands.log'),
    streamLog: join(root, 'stream.log'),
    controlPlaneLog: join(root, 'control-plane.log'),
    acknowledgedLog: join(root, 'acknowledged.log'),
    hospital: join(root, 'hospital'),
    hospitalLog: join(root, 'hospital.log'),
    activityLog: join(root, 'activity.log'),
    baseline: join(root, 'baseline.json'),
    evidence: join(root, 'evidence'),
    configuration: join(root, 'resus.yaml'),
    passphrase: join(root, 'passphrase'),
    repository: join(root, 'repository'),
    state: join(root, 'state'),
  }
}

/** Throws DIRECTORY_NOT_EMPTY for a directory that holds something and has no mark, and for what is no directory. */
export async function assertUsable(root: string): Promise<void> {
  if (Buffer.byteLength(root) > PATH_BYTES_MAX) {
    throw new Failure(
      'ARGUMENTS_INVALID',
      `the path "${root}" is longer than ${PATH_BYTES_MAX} bytes, which is too long for a socket in it`,
      {
        hint: 'choose a shorter one with --directory',
      },
    )
  }
  const names = await readNames(root)
  if (names.length === 0 || names.includes(MARK)) return
  throw new Failure('DIRECTORY_NOT_EMPTY', `"${root}" holds something that is not of a demo: ${names.slice(0, 3).join(', ')}`, {
    hint: 'name an empty directory, or one of an earlier demo, with --directory',
  })
}

/**
 * Takes the directory for this process: clears what the last demo left, or puts it aside where that was asked for. Throws
 * DIRECTORY_IN_USE when a demo runs in it, and what `assertUsable` throws.
 */
export async function claimDirectory(root: string, options: { keep: boolean }): Promise<DemoDirectory> {
  await assertUsable(root)
  await mkdir(root, { recursive: true, mode: 0o700 })
  const last = await readMark(root)
  if (last !== undefined && (await isDemo(last.pid))) {
    throw new Failure('DIRECTORY_IN_USE', `a demo runs in "${root}" already: process ${last.pid}, since ${last.startedAt}`, {
      hint: 'end it with Ctrl-C there, or give this one another --directory',
    })
  }
  await rm(join(root, MARK), { force: true })
  await writeMark(root, { pid: process.pid, keep: options.keep, startedAt: new Date().toISOString() })
  // A demo that was killed leaves its server and its processes behind.
  await endCluster(join(root, 'cluster'))
  for (const name of PROCESSES) await endProcess(root, name)
  await endCluster(join(root, 'control-plane/store'))
  if (last?.keep === true) await putAside(root, last)
  else await clear(root)
  const directory = parts(root)
  await mkdir(directory.socket, { mode: 0o700 })
  return directory
}

/** Notes a process that runs beside the demo, so that the next one can end it should this one be killed. */
export async function noteProcess(directory: DemoDirectory, name: (typeof PROCESSES)[number], pid: number): Promise<void> {
  await writeFile(join(directory.root, `${name}.pid`), String(pid))
}

/** Of two demos that come at once, one makes the mark. */
async function writeMark(root: string, mark: Mark): Promise<void> {
  try {
    const file = await open(join(root, MARK), 'wx', 0o600)
    await file.writeFile(JSON.stringify(mark))
    await file.close()
  } catch (cause) {
    if (systemErrorCode(cause) !== 'EEXIST') throw cause
    throw new Failure('DIRECTORY_IN_USE', `another demo has just begun in "${root}"`, {
      hint: 'give this one another --directory',
      cause,
    })
  }
}

async function readMark(root: string): Promise<Mark | undefined> {
  const text = await readUnlessGone(join(root, MARK))
  if (text === undefined || text === '') return undefined
  const { pid, keep, startedAt } = JSON.parse(text) as Partial<Mark>
  return { pid: Number(pid), keep: keep === true, startedAt: String(startedAt) }
}

async function clear(root: string): Promise<void> {
  for (const name of await readNames(root)) {
    if (name !== MARK && !name.startsWith(KEPT)) await rm(join(root, name), { recursive: true, force: true })
  }
}

async function putAside(root: string, mark: Mark): Promise<void> {
  const aside = join(root, KEPT + mark.startedAt.replaceAll(/[:.]/g, '-'))
  await mkdir(aside, { mode: 0o700 })
  for (const name of await readNames(root)) {
    if (name !== MARK && !name.startsWith(KEPT)) await rename(join(root, name), join(aside, name))
  }
}

async function endProcess(root: string, name: (typeof PROCESSES)[number]): Promise<void> {
  const pid = Number((await readUnlessGone(join(root, `${name}.pid`))) ?? 0)
  // The number may belong to a stranger by now: ours has a path below this directory among its arguments.
  if (pid > 0 && (await commandLine(pid))?.includes(`${root}/`) === true) process.kill(pid, 'SIGKILL')
}

async function isDemo(pid: number): Promise<boolean> {
  if (!(pid > 0) || pid === process.pid) return false
  const line = await commandLine(pid)
  if (line !== undefined) return line.includes('demo/main.ts')
  if (process.platform === 'linux') return false
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Undefined when there is no such process, and where the system does not tell. */
async function commandLine(pid: number): Promise<string | undefined> {
  return await readUnlessGone(`/proc/${pid}/cmdline`)
}

async function readUnlessGone(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(systemErrorCode(error) ?? '')) return undefined
    throw error
  }
}

/** Names in a directory; none when it is missing. A link or a file in its place is refused: it would lead us elsewhere. */
async function readNames(root: string): Promise<string[]> {
  try {
    if ((await lstat(root)).isDirectory()) return await readdir(root)
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return []
    throw error
  }
  throw new Failure('DIRECTORY_NOT_EMPTY', `"${root}" is not a directory`, { hint: 'name another with --directory' })
}
