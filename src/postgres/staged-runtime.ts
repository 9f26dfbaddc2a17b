import { spawn } from 'node:child_process'
import type { Stats } from 'node:fs'
import {
  chmod,
  chown,
  constants,
  copyFile,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readlink,
  rm,
  stat,
  symlink,
} from 'node:fs/promises'
import { constants as systemConstants, tmpdir } from 'node:os'
import { dirname, join, relative, resolve } from 'node:path'
import { assert } from '../assert.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import { ordinaryUser, type OrdinaryUser } from './ordinary-user.ts'

// PostgreSQL refuses to run as root, and its restore_command runs Resus as the server's account. A checkout that only root may
// enter is out of that account's reach: so root works from a copy that everybody may read, as that account.

/** What a copy holds: enough to run every command, every test and the demo. */
const PARTS = [
  'package.json',
  'package-lock.json',
  'resus',
  'README.md',
  'src',
  'hospital',
  'test',
  'bench',
  'docs',
  'deploy',
  'node_modules',
] as const
/** Tools for development only, PostgreSQL's static libraries, what editors read of packages, and the second name of Node's binary. */
const LEFT_OUT =
  /^node_modules\/(?:\.package-lock\.json|typescript|oxlint|oxlint-tsgolint|prettier|@types|@typescript|@oxlint|@oxlint-tsgolint|node\/node_modules|.*\.(?:map|md|d\.[cm]?ts))$|\.a$|^bench\/results$/
/** Why a file cannot get a second name: another file system, one without links, somebody else's file, too many names. */
const UNLINKABLE: readonly (string | undefined)[] = ['EXDEV', 'EPERM', 'EACCES', 'ENOTSUP', 'EOPNOTSUPP', 'EMLINK']
const FORWARDED: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP']
const STAGE_NAME = /^resus-run-(\d+)-/

/**
 * Copies what is needed to run this checkout into `directory`, readable by everybody whatever the umask and the modes of the
 * original; nobody but us may change it. Packages are linked where that will do: they are replaced, never changed in place.
 */
export async function stageRuntime(checkout: string, directory: string): Promise<void> {
  await makeReadableDirectory(directory)
  for (const part of PARTS) {
    const info = await statUnlessGone(join(checkout, part))
    if (info === undefined) continue
    if (info.isDirectory()) await copyTree({ checkout, directory }, part)
    else await copyReadable(join(checkout, part), join(directory, part), info.mode)
  }
}

/**
 * When we are root: runs `entry`, a file of `checkout`, from a staged copy as the ordinary user, with a HOME and TMPDIR of its own
 * that are removed at the end, forwards signals, and gives the exit status. Undefined, at once, when we are an ordinary user.
 */
export async function reexecAsOrdinaryUser(options: {
  readonly checkout: string
  readonly entry: string
  readonly args: readonly string[]
}): Promise<number | undefined> {
  const user = ordinaryUser()
  if (user === undefined) return undefined
  const base = await openTemporaryDirectory()
  await removeAbandonedStages(base)
  const stage = await mkdtemp(join(base, `resus-run-${process.pid}-`))
  try {
    const checkout = join(stage, 'resus')
    await chmod(stage, 0o755)
    await stageRuntime(options.checkout, checkout)
    for (const name of ['home', 'tmp']) await makeDirectoryOf(user, join(stage, name))
    const environment = { HOME: join(stage, 'home'), TMPDIR: join(stage, 'tmp'), USER: user.name, LOGNAME: user.name }
    const entry = join(checkout, relative(options.checkout, options.entry))
    return await runAs(user, [entry, ...options.args], { checkout, environment })
  } finally {
    await rm(stage, { recursive: true, force: true })
  }
}

/** Makes a directory (and what is missing above it) that belongs to `user` alone. */
export async function makeDirectoryOf(user: OrdinaryUser, path: string): Promise<void> {
  await makeReadableDirectory(dirname(path))
  await mkdir(path, { recursive: true })
  await chmod(path, 0o700)
  await chown(path, user.uid, user.gid)
}

/** A directory for temporary files that every account may pass: root's own TMPDIR is often closed to others. */
export async function openTemporaryDirectory(): Promise<string> {
  for (const candidate of [tmpdir(), '/tmp', '/var/tmp']) {
    if (await everybodyMayPass(candidate)) return candidate
  }
  throw new Failure(
    'DATA_DIRECTORY_UNREADABLE',
    `no temporary directory is open to other accounts: looked at "${tmpdir()}", "/tmp"`,
    {
      hint: 'set TMPDIR to a directory that every account may enter, or run this as an ordinary user',
    },
  )
}

/** Throws ARGUMENTS_INVALID when other accounts cannot come to a directory. */
export async function assertReachable(directory: string): Promise<void> {
  if (await everybodyMayPass(directory)) return
  throw new Failure(
    'ARGUMENTS_INVALID',
    `"${directory}" cannot be entered by other accounts, and PostgreSQL does not run as root`,
    {
      hint: 'choose a directory that every account may pass, or run this as an ordinary user',
    },
  )
}

async function runAs(
  user: OrdinaryUser,
  args: readonly string[],
  place: { checkout: string; environment: Readonly<Record<string, string>> },
): Promise<number> {
  const child = spawn(join(place.checkout, 'node_modules/node/bin/node'), args, {
    cwd: place.checkout,
    env: { ...process.env, ...place.environment },
    uid: user.uid,
    gid: user.gid,
    stdio: 'inherit',
  })
  const forward = (signal: NodeJS.Signals) => void child.kill(signal)
  for (const signal of FORWARDED) process.on(signal, forward)
  try {
    return await new Promise<number>((settle, reject) => {
      child.once('error', reject)
      child.once('exit', (status, signal) => settle(status ?? 128 + (signal === null ? 0 : systemConstants.signals[signal])))
    })
  } finally {
    for (const signal of FORWARDED) process.off(signal, forward)
  }
}

async function copyTree(roots: { checkout: string; directory: string }, path: string): Promise<void> {
  await makeReadableDirectory(join(roots.directory, path))
  const entries = await readdir(join(roots.checkout, path), { withFileTypes: true })
  // A directory at a time: no more calls at once than it has entries.
  await Promise.all(
    entries.map(async (entry) => {
      const below = `${path}/${entry.name}`
      if (LEFT_OUT.test(below)) return
      const from = join(roots.checkout, below)
      const to = join(roots.directory, below)
      if (entry.isDirectory()) await copyTree(roots, below)
      else if (entry.isSymbolicLink()) await symlink(await readlink(from), to)
      else if (entry.isFile()) await linkOrCopy(from, to, await lstat(from))
    }),
  )
}

/** A package's file that is ours and readable as it is gets another name, which costs nothing; everything else is copied. */
async function linkOrCopy(from: string, to: string, info: Stats): Promise<void> {
  const asItHasToBe = [0o644, 0o755].includes(info.mode & 0o7777) && info.uid === process.getuid?.()
  if (!asItHasToBe || !from.includes('/node_modules/')) return await copyReadable(from, to, info.mode)
  try {
    await link(from, to)
  } catch (error) {
    if (!UNLINKABLE.includes(systemErrorCode(error))) throw error
    await copyReadable(from, to, info.mode)
  }
}

async function copyReadable(from: string, to: string, mode: number): Promise<void> {
  await copyFile(from, to, constants.COPYFILE_FICLONE)
  const runnable = (mode & 0o100) !== 0 ? 0o755 : 0o644
  if ((mode & 0o777) !== runnable || process.umask() !== 0) await chmod(to, runnable)
}

async function makeReadableDirectory(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true })
  // What was there keeps its mode; what was made must be passable whatever the umask.
  if (first === undefined) return
  for (let made = resolve(path); made.length >= first.length; made = dirname(made)) await chmod(made, 0o755)
}

async function everybodyMayPass(directory: string): Promise<boolean> {
  for (let at = resolve(directory); ; at = dirname(at)) {
    const info = await statUnlessGone(at)
    if (info === undefined || !info.isDirectory() || (info.mode & 0o001) === 0) return false
    if (at === dirname(at)) return true
  }
}

/** A stage whose process was killed stays behind: it is ours to remove when nobody of that number runs. */
async function removeAbandonedStages(base: string): Promise<void> {
  for (const name of await readdir(base)) {
    const pid = Number(STAGE_NAME.exec(name)?.[1] ?? 0)
    if (pid === 0 || isAlive(pid)) continue
    const info = await statUnlessGone(join(base, name))
    if (info !== undefined && info.uid === process.getuid?.()) await rm(join(base, name), { recursive: true, force: true })
  }
}

function isAlive(pid: number): boolean {
  assert(pid > 0, 'a process is named by a positive number')
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return systemErrorCode(error) !== 'ESRCH'
  }
}

async function statUnlessGone(path: string) {
  try {
    return await stat(path)
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}
