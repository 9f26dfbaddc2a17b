import { readFile, readlink, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Account } from './cluster-process.ts'
import { findUsedDirectories } from './running-clusters.ts'

/** A server that runs on this host, as its own files say. */
export interface LocalServer {
  readonly dataDirectory: string
  readonly major: number
  readonly pid: number
  readonly port: number
  /** Where its Unix socket is; undefined when it has none. */
  readonly socketDirectory: string | undefined
  /** The address at which it listens for TCP; undefined when it does not. */
  readonly address: string | undefined
  /** Whom its files belong to: the account that it runs as. */
  readonly account: Account
}

/**
 * The servers that run on this host and can be seen by this user: root, or the account that they run as. In the order of their ports. Linux only;
 * elsewhere none is found.
 */
export async function findLocalServers(): Promise<LocalServer[]> {
  const used = await findUsedDirectories()
  const directories = used.filter(({ role, isCluster }) => role === 'data directory' && isCluster).map(({ path }) => path)
  const servers = await Promise.all([...new Set(directories)].map(readLocalServer))
  return servers.filter((server) => server !== undefined).toSorted((left, right) => left.port - right.port)
}

/** The server that runs on a data directory; undefined when none does, or its files are closed to us. */
export async function readLocalServer(dataDirectory: string): Promise<LocalServer | undefined> {
  try {
    const [file, version, { uid, gid }] = await Promise.all([
      readFile(join(dataDirectory, 'postmaster.pid'), 'utf8'),
      readFile(join(dataDirectory, 'PG_VERSION'), 'utf8'),
      stat(dataDirectory),
    ])
    const facts = parsePostmasterFile(file)
    if (facts === undefined || !(await worksIn(facts.pid, dataDirectory))) return undefined
    return { dataDirectory, major: Number.parseInt(version, 10), ...facts, account: { uid, gid } }
  } catch {
    // A server that ends while we look, or one that is none of this account's.
    return undefined
  }
}

/** Layout of postmaster.pid: process id, data directory, start time, port, socket directory, address, shared memory, status. */
export function parsePostmasterFile(text: string): Pick<LocalServer, 'pid' | 'port' | 'socketDirectory' | 'address'> | undefined {
  const [pid, , , port, socket = '', address = ''] = text.split('\n').map((line) => line.trim())
  const numbers = { pid: Number(pid), port: Number(port) }
  if (!(numbers.pid > 0) || !(numbers.port > 0)) return undefined
  return { ...numbers, socketDirectory: socket || undefined, address: addressOf(address) }
}

/** What a client on this host connects to. The server writes "*" or the first address that it listens at. */
function addressOf(listened: string): string | undefined {
  if (listened === '') return undefined
  if (['*', 'localhost', '0.0.0.0'].includes(listened)) return '127.0.0.1'
  return listened === '::' ? '::1' : listened
}

async function worksIn(pid: number, dataDirectory: string): Promise<boolean> {
  return (await readlink(`/proc/${pid}/cwd`).catch(() => undefined)) === dataDirectory
}
