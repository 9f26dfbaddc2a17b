import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { endCluster, freePort, initCluster, killCluster, startCluster, stopCluster } from '../../src/postgres/cluster-process.ts'
import type { StopMode } from '../../src/postgres/cluster-process.ts'
import { findInstallation, requireInstallation } from '../../src/postgres/installation.ts'
import type { Installation } from '../../src/postgres/installation.ts'
import { makeCluster } from './cluster-template.ts'
import { HANGS_AFTER_MS } from './wait-until.ts'

export interface TestClusterOptions {
  readonly major: number
  readonly settings?: Readonly<Record<string, string>>
  readonly walSegmentMegabytes?: number
  readonly dataChecksums?: boolean
  /** More arguments of `initdb`, given the temporary directory that is the cluster's own. */
  readonly initArguments?: (home: string) => readonly string[]
}

/** A running cluster of a test's own, with the superuser `postgres` and no password. */
export interface TestCluster extends AsyncDisposable {
  readonly directory: string
  readonly port: number
  readonly installation: Installation
  /** For `pg`: the database `postgres` as its superuser, over TCP. */
  readonly connectionString: string
  readonly logFile: string
  /** The directory that holds the data directory, the socket and the log, and is removed at the end. */
  readonly home: string
  start(settings?: Readonly<Record<string, string>>): Promise<void>
  stop(mode?: StopMode): Promise<void>
  /** A power cut. */
  kill(): Promise<void>
}

/** For a test's `skip`: false, or why it cannot run here. */
export async function skipUnlessInstalled(major: number): Promise<string | false> {
  return (await findInstallation(major)) === undefined ? `PostgreSQL ${major} is not installed` : false
}

const TEST_SETTINGS = {
  listen_addresses: '127.0.0.1',
  wal_level: 'replica',
  fsync: 'off',
  shared_buffers: '32MB',
  // Containers often have a /dev/shm too small for the default.
  dynamic_shared_memory_type: 'mmap',
}

/** Makes and starts a cluster in a temporary directory; it is ended and removed when the test ends. */
export async function testCluster(t: TestContext, options: TestClusterOptions): Promise<TestCluster> {
  const { major, walSegmentMegabytes, dataChecksums = true } = options
  const installation = await requireInstallation(major)
  const home = await mkdtemp(join(tmpdir(), `resus-pg${major}-`))
  const directory = join(home, 'data')
  const remove = async () => {
    await endCluster(directory)
    await rm(home, { recursive: true, force: true })
  }
  t.after(remove)
  // The server runs as another account when we are root, and has to pass through.
  await chmod(home, 0o755)
  const init = { installation, dataChecksums, ...(walSegmentMegabytes === undefined ? {} : { walSegmentMegabytes }) }
  if (options.initArguments === undefined) await makeCluster(init, directory)
  else await initCluster({ ...init, directory, sync: false, extraArguments: options.initArguments(home) })
  const port = await freePort()
  const logFile = join(home, 'server.log')
  const start = async (settings: Readonly<Record<string, string>> = {}) => {
    await startCluster({
      installation,
      directory,
      port,
      socketDirectory: join(home, 'socket'),
      logFile,
      settings: { ...TEST_SETTINGS, ...options.settings, ...settings },
      timeoutSeconds: HANGS_AFTER_MS / 1000,
    })
  }
  await start()
  return {
    directory,
    port,
    installation,
    connectionString: `postgres://postgres@127.0.0.1:${port}/postgres`,
    logFile,
    home,
    start,
    stop: (mode = 'fast') => stopCluster({ directory, mode }),
    kill: () => killCluster(directory),
    [Symbol.asyncDispose]: remove,
  }
}
