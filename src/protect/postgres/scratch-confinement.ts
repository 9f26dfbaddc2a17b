import { execFile } from 'node:child_process'
import { mkdir, realpath } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import type { Account, Launcher } from '../../postgres/cluster-process.ts'
import { toolPath, type Installation } from '../../postgres/installation.ts'
import { isRoot } from './durable-file.ts'
import { quoteShell } from './recovery-settings.ts'

// What a scratch server is started through, so that code of the cluster that it restores (a function in an index, say) finds nothing to read or to call.

const execute = promisify(execFile)
const TRY_TIMEOUT_MS = 30_000
const SAID_CHARACTERS_MAX = 200

/** Of the system, what programs need: their libraries, time zones and collations. No accounts, no homes, no configuration, no processes. */
const SYSTEM = [
  '/bin',
  '/sbin',
  '/lib',
  '/lib32',
  '/lib64',
  '/usr/bin',
  '/usr/sbin',
  '/usr/lib',
  '/usr/lib32',
  '/usr/lib64',
  '/usr/libexec',
  '/usr/share',
  '/etc/ld.so.cache',
  '/etc/localtime',
  '/etc/alternatives',
  // Where Debian keeps dictionaries of text search.
  '/var/cache/postgresql',
  '/dev/null',
  '/dev/zero',
  '/dev/urandom',
] as const

/** From the strongest to none. */
const KINDS = ['closed', 'network', 'none'] as const
export type ConfinementKind = (typeof KINDS)[number]

export interface ConfinementOptions {
  readonly installation: Installation
  /** What the server may read, and of it what it may write to. */
  readonly home: string
  readonly writable: readonly string[]
  /** Whom the server runs as: when we are root, else it is ourselves. */
  readonly account: Account
  /** Of address space, for each of its processes. */
  readonly memoryMegabytes?: number | undefined
}

export interface Confinement {
  /**
   * `closed`: network and files of its own: it sees the system's programs, its own, and the scratch. `network`: a network of its own, with nothing in it.
   * `none`: the system allows neither.
   */
  readonly kind: ConfinementKind
  /** Why it is no stronger one; null when there is none. */
  readonly why: string | null
  readonly launcher: Launcher
}

/** The strongest confinement in which `postgres` runs here: each is tried once. Never throws: where nothing else works, there is none. */
export async function findConfinement(options: ConfinementOptions): Promise<Confinement> {
  let why: string | null = null
  for (const kind of KINDS) {
    const launcher = await launcherOf(kind, options)
    const problem: string | null = kind === 'none' ? null : await tryOut(launcher, options)
    if (problem === null) return { kind, why, launcher }
    why ??= problem
  }
  return { kind: 'none', why, launcher: await launcherOf('none', options) }
}

async function launcherOf(kind: ConfinementKind, options: ConfinementOptions): Promise<Launcher> {
  const { account } = options
  const limits = ['ulimit -c 0', ...memoryLimit(options)].join(' && ')
  // Without its own account's change, which whoever starts it makes.
  if (kind === 'none') return { words: shell(`${limits} && exec "$@"`), changesAccount: false }
  const names = kind === 'closed' ? ['--net', '--ipc', '--mount'] : ['--net', '--ipc']
  const unshare = isRoot() ? ['unshare', ...names] : ['unshare', '--user', '--map-current-user', '--keep-caps', ...names]
  const become = isRoot() ? `--reuid=${account.uid} --regid=${account.gid} --clear-groups` : '--ambient-caps=-all'
  // Libraries that are named from where the program lies are not found without /proc.
  const libraries =
    kind === 'closed' ? `env LD_LIBRARY_PATH=${quoteShell(join(dirname(options.installation.binDirectory), 'lib'))} ` : ''
  // The server ends with whoever has started it: a signal that it obeys at once.
  const drop = `exec setpriv ${become} --no-new-privs --inh-caps=-all --bounding-set=-all --pdeathsig=QUIT -- ${libraries}"$@"`
  const steps = kind === 'closed' ? await ownFiles(options) : []
  return { words: [...unshare, '--', ...shell([...steps, `${limits} && ${drop}`].join('\n'))], changesAccount: true }
}

function memoryLimit({ memoryMegabytes }: ConfinementOptions): string[] {
  return memoryMegabytes === undefined ? [] : [`ulimit -v ${memoryMegabytes * 1024}`]
}

function shell(script: string): string[] {
  return ['/bin/sh', '-c', script, 'resus']
}

/**
 * A root directory of its own, in memory, in which only what is named here appears, under the names that it has outside. The old one is covered, not taken
 * away: that an ordinary user's namespace allows, and nobody in it can uncover it.
 */
async function ownFiles({ installation, home, writable }: ConfinementOptions): Promise<string[]> {
  const root = join(home, 'root')
  await mkdir(root, { recursive: true, mode: 0o700 })
  const programs = dirname(installation.binDirectory)
  const real = dirname(await realpath(installation.binDirectory))
  const shown = [...SYSTEM, programs, real, home].map(quoteShell).join(' ')
  const writes = writable.map(quoteShell).join(' ')
  return [
    'set -e',
    `root=${quoteShell(root)}`,
    'mount -n -t tmpfs -o mode=755,size=1m,nosuid,nodev resus "$root"',
    'below() {',
    '  if test -d "$1"; then mkdir -p "$root$1"; else mkdir -p "$root${1%/*}"; test -e "$root$1" || : >"$root$1"; fi',
    '  mount -n --rbind "$1" "$root$1"; mount -n -o "remount,bind,$2" "$root$1"',
    '}',
    `for each in ${shown}; do`,
    '  if test -L "$each" && ! test -e "$root$each"; then mkdir -p "$root${each%/*}"; cp -P "$each" "$root$each"',
    '  elif test -c "$each"; then below "$each" ro,nosuid',
    '  elif test -e "$each"; then below "$each" ro,nosuid,nodev; fi',
    'done',
    `for each in ${writes}; do test ! -e "$each" || below "$each" rw,nosuid,nodev; done`,
    'mkdir "$root/.old"',
    'cd "$root"',
    'pivot_root . .old',
    'mount -n -t tmpfs -o ro,mode=0,size=4k resus /.old',
    'mount -n -o remount,bind,ro /',
    'cd /',
  ]
}

/** Null when the server's program runs so; else what keeps it from running. */
async function tryOut({ words: [first, ...words] }: Launcher, { installation }: ConfinementOptions): Promise<string | null> {
  if (process.platform !== 'linux') return 'only Linux has namespaces'
  const program = toolPath(installation, 'postgres')
  if (program === undefined) return 'there is no server'
  try {
    await execute(first!, [...words, program, '--version'], { timeout: TRY_TIMEOUT_MS, env: SERVER_ENVIRONMENT, cwd: '/' })
    return null
  } catch (error) {
    const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : ''
    return (said === '' && error instanceof Error ? error.message.split('\n')[0]! : said).slice(0, SAID_CHARACTERS_MAX)
  }
}

/** All that a scratch server is told of the environment: ours has secrets. */
export const SERVER_ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: '/usr/bin:/bin:/usr/sbin:/sbin',
  LANG: 'C.UTF-8',
  LC_ALL: 'C.UTF-8',
}
