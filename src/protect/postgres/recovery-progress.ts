import { readdir, readFile, readlink, realpath, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure, systemErrorCode } from '../../errors.ts'
import { formatLsn } from '../../postgres/lsn.ts'
import { parseSegmentName, segmentStart } from '../../postgres/wal-segment.ts'
import { RECOVERY_DIRECTORY } from './data-directory.ts'
import type { RecoveryPlan } from './recovery-plan.ts'
import { readPlan } from './wal-get.ts'

/**
 * How far a restored directory is. `writing`: the restore runs, or was interrupted: without pg_control it cannot be started. `ready`: it has not
 * been started, or was stopped before the target. `replaying`: its server reads WAL, or is paused at its target. `recovered`: recovery has ended.
 */
export type RecoveryState = 'writing' | 'ready' | 'replaying' | 'recovered'

export interface RecoveryProgress {
  readonly directory: string
  readonly component: string
  readonly backup: string
  readonly target: string
  readonly timeline: number
  readonly state: RecoveryState
  /** Of the server in it, and null where none runs that we can see. */
  readonly pid: number | null
  /** The segment that is replayed; null when it is not known. */
  readonly segment: string | null
  /** Bytes of WAL in front of that segment, of those that the plan has. */
  readonly walBytesReplayed: number | null
  readonly walBytesTotal: number
  readonly walEndLsn: string
}

/** What is going on in a directory that was restored; asks no server and no repository. Throws ARGUMENTS_INVALID for any other directory. */
export async function readRecoveryProgress(directory: string): Promise<RecoveryProgress> {
  const plan = await readPlanOf(directory)
  const server = await findServer(directory)
  const segment = server?.segment ?? null
  return {
    directory,
    component: plan.component,
    backup: plan.backup,
    target: plan.target,
    timeline: plan.timeline,
    state: await stateOf(directory, server !== undefined),
    pid: server?.pid ?? null,
    segment,
    walBytesReplayed: segment === null ? null : bytesBefore(plan, segment),
    walBytesTotal: plan.stretches.reduce((sum, { from, to }) => sum + Number(to - from), 0),
    walEndLsn: formatLsn(plan.stretches.at(-1)!.to),
  }
}

async function readPlanOf(directory: string): Promise<RecoveryPlan> {
  const path = join(directory, RECOVERY_DIRECTORY, 'plan.json')
  try {
    return await readPlan(path)
  } catch (cause) {
    const code = systemErrorCode(cause)
    if (code === undefined) throw cause
    const hint = 'name the directory that "resus restore --to" was given, as a user who may read it'
    throw new Failure('ARGUMENTS_INVALID', `"${directory}" holds no recovery of ours: cannot read "${path}": ${code}`, {
      hint,
      cause,
    })
  }
}

async function stateOf(directory: string, runs: boolean): Promise<RecoveryState> {
  if (!(await exists(join(directory, 'global/pg_control')))) return 'writing'
  if (!(await exists(join(directory, 'recovery.signal')))) return 'recovered'
  return runs ? 'replaying' : 'ready'
}

/** The server works inside its data directory; its startup process names the segment that it replays, or waits for (xlogrecovery.c: XLogFileRead). */
async function findServer(directory: string): Promise<{ pid: number; segment: string | undefined } | undefined> {
  const real = await realpath(directory)
  let found: { pid: number; segment: string | undefined } | undefined
  for (const name of await readdir('/proc').catch((): string[] => [])) {
    if (!/^\d+$/.test(name)) continue
    if ((await readlink(`/proc/${name}/cwd`).catch(() => undefined)) !== real) continue
    const title = (await readFile(`/proc/${name}/cmdline`, 'latin1').catch(() => '')).replaceAll('\0', ' ')
    if (!/\bpostgres\b/.test(title)) continue
    const segment = /\bstartup (?:recovering|waiting for) ([0-9A-F]{24})\b/.exec(title)?.[1]
    if (segment !== undefined) return { pid: Number(name), segment }
    found ??= { pid: Number(name), segment }
  }
  return found
}

function bytesBefore(plan: RecoveryPlan, name: string): number {
  const segment = parseSegmentName(name, plan.segmentSize)
  if (segment === undefined) return 0
  const lsn = segmentStart(segment)
  let bytes = 0
  for (const { timeline, from, to } of plan.stretches) {
    const end = timeline < segment.timeline || to < lsn ? to : lsn
    if (end > from) bytes += Number(end - from)
    if (timeline === segment.timeline) break
  }
  return bytes
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}
