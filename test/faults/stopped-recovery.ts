import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseControlFile } from '../../src/postgres/control-file.ts'
import { freePort, startCluster, stopCluster } from '../../src/postgres/cluster-process.ts'
import type { Installation } from '../../src/postgres/installation.ts'

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
  const before = await readFile(logFile, 'utf8').catch(() => '')
  // Without a hot standby a server is ready only once its recovery has ended.
  const started = startRestoredDirectory(restored, { logFile, settings: { hot_standby: 'off' } })
  const failed = await started.then(
    () => undefined,
    (error: unknown) => error,
  )
  await stopCluster({ directory, mode: 'immediate' })
  const log = (await readFile(logFile, 'utf8')).slice(before.length)
  assert.ok(failed !== undefined, `the server has started:\n${log}`)
  assert.match(log, why)
  assert.match(log, /could not restore file|could not locate required checkpoint|terminat/)
  await assertNotPromoted(directory, log)
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
    settings: { listen_addresses: '127.0.0.1', fsync: 'off', shared_buffers: '32MB', ...options.settings },
    timeoutSeconds: 120,
  })
  return port
}

async function assertNotPromoted(directory: string, log: string): Promise<void> {
  assert.doesNotMatch(log, /archive recovery complete|selected new timeline/)
  const control = parseControlFile(await readFile(join(directory, 'global/pg_control')))
  assert.notEqual(control.state, 'in production')
  assert.equal(control.timeline, 1)
}
