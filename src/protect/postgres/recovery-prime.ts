import { spawn } from 'node:child_process'
import { chmod, lchown, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { Failure, type FailureCode } from '../../errors.ts'
import { segmentAt, segmentName } from '../../postgres/wal-segment.ts'
import { RECOVERY_DIRECTORY } from './data-directory.ts'
import type { RecoveryPlan } from './recovery-plan.ts'
import { isRoot } from './durable-file.ts'
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
 * lies ready when recovery begins, with some of what follows it. Throws RESTORE_COMMAND_FAILED, or what the command itself found wrong with the repository.
 */
export async function primeRecovery(options: PrimeOptions): Promise<void> {
  const { directory, plan } = options
  const [stretch] = plan.stretches
  const name = segmentName(segmentAt(stretch!.from, stretch!.timeline, plan.segmentSize))
  const fetched = `${RECOVERY_DIRECTORY}/first-segment`
  const words = getCommand(options.configPath, ['--json', '--first'])
  const get = words.replaceAll('%f', name).replaceAll('%p', fetched).replaceAll('%%', '%')
  const ahead = `${RECOVERY_DIRECTORY}/${AHEAD_DIRECTORY}`
  // All by the server's user, so that root moves nothing where that user can put a link.
  const command = `( ${get} ) || exit $?; mkdir -p -m 700 ${ahead} && mv -f ${fetched} ${ahead}/${name}`
  // That user has to come through, and nobody else: files may be readable for all that only this directory keeps from them.
  if (isRoot()) {
    await lchown(directory, 0, options.owner.gid)
    await chmod(directory, 0o710)
  }
  const ended = await runShell(command, options)
  if (ended.status === 0) return
  await rm(join(directory, fetched), { force: true })
  options.signal.throwIfAborted()
  throw explainRefusal(ended, options.owner)
}

/** What says that the repository is at fault, and not that this user may not do something. */
const OF_THE_REPOSITORY = new Set<FailureCode>([
  'OBJECT_DAMAGED',
  'OBJECT_MISSING',
  'BLOB_MISSING',
  'WAL_GAP',
  'WAL_INVALID',
  'REPOSITORY_TOO_NEW',
])

const reportSchema = z.object({ error: z.object({ code: z.string(), message: z.string(), hint: z.string().nullable() }) })

/** A failure of the command, from what it printed: its own where that tells of the repository, else that it does not work for this user, and why. */
export function explainRefusal(ended: Ended, owner: { readonly uid: number }): Failure {
  const who = isRoot() ? `user ${owner.uid}` : 'this user'
  const said = reportOf(ended.output)
  const code = [...OF_THE_REPOSITORY].find((each) => each === said?.code)
  if (said !== undefined && code !== undefined) {
    return new Failure(
      code,
      `the first WAL of the recovery cannot be had: ${said.message}`,
      said.hint === null ? {} : { hint: said.hint },
    )
  }
  const why = said === undefined ? ended.errors.trim() || `status ${ended.status}` : `${said.message} (${said.code})`
  return new Failure('RESTORE_COMMAND_FAILED', `the restore_command does not work for ${who}: ${why}`, {
    hint: 'PostgreSQL will run it as the owner of the data directory: that user must be able to run Resus and to read its configuration, key and storage',
  })
}

function reportOf(output: string): z.infer<typeof reportSchema>['error'] | undefined {
  try {
    return reportSchema.parse(JSON.parse(output)).error
  } catch {
    // It was not Resus that ended, or not in good order.
    return undefined
  }
}

/** How a command ended, and what it printed. */
export interface Ended {
  readonly status: number | null
  readonly output: string
  readonly errors: string
}

function runShell(command: string, options: PrimeOptions): Promise<Ended> {
  const { directory, owner, signal } = options
  // Only root may be somebody else.
  const user = process.getuid?.() === 0 ? { uid: owner.uid, gid: owner.gid } : {}
  return new Promise((resolve, reject) => {
    const child = spawn('/bin/sh', ['-c', command], { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'], ...user })
    const abort = () => child.kill('SIGTERM')
    signal.addEventListener('abort', abort, { once: true })
    let output = ''
    let errors = ''
    child.stdout.on('data', (data: Buffer) => {
      if (output.length < ERROR_BYTES_MAX) output += data.toString('utf8')
    })
    child.stderr.on('data', (data: Buffer) => {
      if (errors.length < ERROR_BYTES_MAX) errors += data.toString('utf8')
    })
    child.on('error', reject)
    child.on('close', (status) => {
      signal.removeEventListener('abort', abort)
      resolve({ status, output, errors })
    })
  })
}
