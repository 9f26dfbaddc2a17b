import assert from 'node:assert/strict'
import { readFile, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Failure } from '../../src/errors.ts'
import { parseControlFile } from '../../src/postgres/control-file.ts'
import { freePort, isRunning, startCluster, stopCluster } from '../../src/postgres/cluster-process.ts'
import type { Installation } from '../../src/postgres/installation.ts'
import { AHEAD_DIRECTORY, LAST_DIRECTORY } from '../../src/protect/postgres/fetcher-lock.ts'
import type { RestoreReport } from '../../src/protect/postgres/restore.ts'
import { HANGS_AFTER_MS } from '../services/wait-until.ts'

const POLL_MS = 20
const OPENED = /archive recovery complete|selected new timeline|ready to accept connections/

export interface RestoredDirectory {
  readonly directory: string
  readonly installation: Installation
  /** For the socket. */
  readonly home: string
}

/**
 * Starts a restored cluster and proves that its recovery stops: the server ends without having promoted, and its log says why. Gives what
 * this start wrote to the log.
 */
export async function assertRecoveryStops(restored: RestoredDirectory, why: RegExp): Promise<string> {
  const { directory } = restored
  const logFile = `${directory}.stopped.log`
  const control = await readFile(join(directory, 'global/pg_control'))
  const before = (await readFile(logFile, 'utf8').catch(() => '')).length
  const readLog = async () => (await readFile(logFile, 'utf8')).slice(before)
  try {
    await startRestoredDirectory(restored, { logFile })
    // A server that recovers counts as started: wait until it has ended, or opened.
    for (const begun = performance.now(); await isRunning(directory); await delay(POLL_MS)) {
      assert.doesNotMatch(await readLog(), OPENED)
      assert.ok(performance.now() - begun < HANGS_AFTER_MS, `recovery has neither ended nor stopped:\n${await readLog()}`)
    }
  } catch (error) {
    if (!(error instanceof Failure && error.code === 'POSTGRES_FAILED')) throw error
  } finally {
    await stopCluster({ directory, mode: 'immediate' })
  }
  const log = await readLog()
  assert.match(log, why)
  assert.match(log, /FATAL: {2}could not restore file/)
  assert.doesNotMatch(log, OPENED)
  // A recovery that stopped at once has not written its control file yet: then it is the backup's.
  const after = await readFile(join(directory, 'global/pg_control'))
  if (!after.equals(control)) assert.equal(parseControlFile(after).state, 'in archive recovery')
  assert.equal(parseControlFile(after).timeline, parseControlFile(control).timeline)
  return log
}

/** Starts the server on a directory; resolves when it accepts connections. */
export async function startRestoredDirectory(
  restored: RestoredDirectory,
  options: { logFile: string; settings?: Readonly<Record<string, string>> },
): Promise<number> {
  const port = await freePort()
  await startCluster({
    installation: restored.installation,
    directory: restored.directory,
    port,
    socketDirectory: join(restored.home, 's'),
    logFile: options.logFile,
    settings: {
      listen_addresses: '127.0.0.1',
      fsync: 'off',
      shared_buffers: '32MB',
      dynamic_shared_memory_type: 'mmap',
      ...options.settings,
    },
    timeoutSeconds: HANGS_AFTER_MS / 1000,
  })
  return port
}

/** Takes away what was fetched ahead of a recovery: as if it had begun with nothing, it needs the repository for each segment. */
export async function emptyAhead(report: RestoreReport): Promise<void> {
  for (const name of [AHEAD_DIRECTORY, LAST_DIRECTORY])
    await rm(join(dirname(report.plan), name), { recursive: true, force: true })
}
