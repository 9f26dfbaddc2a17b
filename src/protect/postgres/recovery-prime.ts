import { spawn } from 'node:child_process'
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../../errors.ts'
import { segmentAt, segmentName } from '../../postgres/wal-segment.ts'
import { RECOVERY_DIRECTORY } from './data-directory.ts'
import type { RecoveryPlan } from './recovery-plan.ts'
import { AHEAD_DIRECTORY } from './fetcher-lock.ts'
import { getCommand } from './recovery-settings.ts'

const ERROR_BYTES_MAX = 16 * 1024

export interface PrimeOptions {
  readonly directory: string
  readonly plan: RecoveryPlan
  readonly configPath: string
  /** Whom the data directory belongs to: PostgreSQL will run the command as this user. */
  readonly owner: { readonly uid: number; readonly gid: number }
  readonly signal: AbortSignal
}

/**
 * Runs what the restore_command runs, once, for the first segment, as the user that PostgreSQL will run as. A command that cannot work (a configuration,
 * key or storage that this user may not read) is found now, with its reason, and not in a log when the server stops; and the first segment
 * lies ready when recovery begins. Throws RESTORE_COMMAND_FAILED.
 */
export async function primeRecovery(options: PrimeOptions): Promise<void> {
  const { directory, plan } = options
  const [stretch] = plan.stretches
  const name = segmentName(segmentAt(stretch!.from, stretch!.timeline, plan.segmentSize))
  const fetched = `${RECOVERY_DIRECTORY}/first-segment`
  const command = getCommand(options.configPath).replaceAll('%f', name).replaceAll('%p', fetched).replaceAll('%%', '%')
  const { status, errors } = await runShell(command, options)
  if (status !== 0) {
    await rm(join(directory, fetched), { force: true })
    options.signal.throwIfAborted()
    const who = process.getuid?.() === 0 ? `user ${options.owner.uid}` : 'this user'
    throw new Failure(
      'RESTORE_COMMAND_FAILED',
      `the restore_command does not work for ${who}: ${errors.trim() || `status ${status}`}`,
      {
        hint: 'PostgreSQL will run it as the owner of the data directory: that user must be able to run Resus and to read its configuration, key and storage',
      },
    )
  }
  const ahead = join(directory, RECOVERY_DIRECTORY, AHEAD_DIRECTORY)
  await mkdir(ahead, { recursive: true, mode: 0o700 })
  await rename(join(directory, fetched), join(ahead, name))
}

function runShell(command: string, options: PrimeOptions): Promise<{ status: number | null; errors: string }> {
  const { directory, owner, signal } = options
  // Only root may be somebody else.
  const user = process.getuid?.() === 0 ? { uid: owner.uid, gid: owner.gid } : {}
  return new Promise((resolve, reject) => {
    const child = spawn('/bin/sh', ['-c', command], { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'], ...user })
    const abort = () => child.kill('SIGTERM')
    signal.addEventListener('abort', abort, { once: true })
    let errors = ''
    child.stderr.on('data', (data: Buffer) => {
      if (errors.length < ERROR_BYTES_MAX) errors += data.toString('utf8')
    })
    child.on('error', reject)
    child.on('close', (status) => {
      signal.removeEventListener('abort', abort)
      resolve({ status, errors })
    })
  })
}
