import type { Clock } from '../../clock.ts'
import { Failure, systemErrorCode } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { microsToMs } from '../../postgres/timestamp.ts'
import { listBackups, readManifest, type BackupManifest } from '../../repository/backups.ts'
import type { Repository } from '../../repository/repository.ts'
import { judgeBackup, listVerdicts, newestProvenBackup, type Standing, type Verdict } from '../../repository/verdicts.ts'
import { coverage, listGaps, readNote, type WalObject } from '../../repository/wal-archive.ts'
import { listBranches, type Branch } from '../../repository/wal-branch.ts'
import type { PostgresComponent, Tier } from './component.ts'
import { listMembers, type Member } from './members.ts'
import { Secret } from '../../secret.ts'
import { ServerSession } from './server-session.ts'
import { damagedSpoolFiles } from './spool-supply.ts'

/** What is kept of a component, and whether it can be believed. An age is the age of a backup; it says nothing of what would be lost. */
export interface PostgresStatus {
  readonly component: string
  readonly tier: Tier
  /** By a restore, of the newest backup, unexpired; else "not proven". Reading back proves no recovery. */
  readonly verdict: Verdict['verdict']
  /** Why not, where a verdict says so; verdicts that are damaged. */
  readonly verdictRemarks: readonly string[]
  /** The newest backup that a restore has proven, and until when that holds; null when there is none. */
  readonly proven: ProvenStatus | null
  /** Those that can be read. */
  readonly backups: number
  /** What is wrong with manifests that cannot be read: none of them counts above, the newest included. */
  readonly damagedBackups: readonly string[]
  readonly newestBackup: {
    readonly id: string
    readonly type: string
    readonly finishedAt: string
    readonly ageSeconds: number
  } | null
  readonly wal: WalStatus | null
  readonly receiver: ReceiverStatus
  /** What is wrong with the receiver's spool on this host: files that are damaged, or a spool that cannot be read. */
  readonly spoolProblems: readonly string[]
}

/** A proof, as it was found. `current`: it holds now. */
export interface ProvenStatus {
  readonly backup: string
  readonly target: Verdict['target']
  readonly reachedLsn: string | null
  readonly at: string
  readonly expires: string
  readonly current: boolean
  /** All that it took: restoring, recovering, and every check. */
  readonly seconds: number
  /** Checks that could not be made, on that machine or of that cluster. */
  readonly notProven: readonly string[]
}

/** The newest branch's WAL: without a gap up to `keptUpTo`; the newest commit noted in it was at `lastCommitAt`. */
export interface WalStatus {
  readonly timeline: number
  readonly keptFrom: string
  readonly keptUpTo: string
  readonly lastCommitAt: string | null
  readonly gaps: number
}

/** What the server says of our slot. Undefined fields: there is no such slot, or no server to ask. */
export interface ReceiverStatus {
  readonly slot: string
  readonly active: boolean
  readonly synchronous: boolean
  /** Every commit waits for this receiver and its disk, unless a session says otherwise (`synchronous_commit`); as one of a quorum it may not. */
  readonly awaited: boolean
  readonly behindBytes: number | null
  readonly problem: string | null
}

/** A stretch of WAL may hold no commit; so many are looked at from the end. */
const NOTES_READ_MAX = 20

/** What is known of a component's backups already: of hundreds only the newest is then read. */
export interface KnownBackups {
  /** The one with the greatest sequence. */
  readonly newestId: string | undefined
  readonly count: number
  readonly damaged: readonly string[]
  /** Of the spool, when it was looked at a short while ago: every frame of it is opened. */
  readonly spoolProblems: readonly string[] | undefined
}

async function readBackups(repository: Repository, component: string, known: KnownBackups | undefined) {
  const damaged = [...(known?.damaged ?? [])]
  if (known === undefined) {
    const backups = await listBackups(repository, component, (failure) => damaged.push(failure.message))
    return { newest: backups[0], count: backups.length, damaged }
  }
  const { newestId, count } = known
  try {
    const newest = newestId === undefined ? undefined : await readManifest(repository, component, newestId)
    return { newest, count, damaged }
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'OBJECT_DAMAGED') throw error
    return { newest: undefined, count, damaged: [...damaged, error.message] }
  }
}

/** What the repository and the server say of a component. A server that does not answer is part of the answer. */
export async function readPostgresStatus(
  repository: Repository,
  component: PostgresComponent,
  options: { spoolDirectory: string; clock: Clock; signal: AbortSignal; known?: KnownBackups },
): Promise<PostgresStatus> {
  const { newest, count, damaged: damagedBackups } = await readBackups(repository, component.name, options.known)
  const now = options.clock.now()
  const standing = newest === undefined ? NOTHING_KNOWN : await judgeNewest(repository, newest, now)
  return {
    component: component.name,
    tier: component.tier,
    verdict: standing.verdict,
    verdictRemarks: standing.remarks,
    proven: await readProven(repository, component.name, now),
    backups: count,
    damagedBackups,
    newestBackup: newest === undefined ? null : describeBackup(newest, now),
    wal: await readWalStatus(repository, component.name, newest, options.signal),
    receiver: await readReceiver(component),
    spoolProblems: options.known?.spoolProblems ?? (await readSpoolProblems(repository, component.name, options.spoolDirectory)),
  }
}

async function readSpoolProblems(repository: Repository, component: string, directory: string): Promise<string[]> {
  try {
    const damaged = await damagedSpoolFiles({ directory, component, ring: repository.ring })
    return damaged.map((path) => `"${path}" is damaged: acknowledged WAL may be lost`)
  } catch (error) {
    const code = systemErrorCode(error)
    if (code === undefined) throw error
    // A receiver that is at work deletes what is stored.
    return code === 'ENOENT' ? [] : [`cannot read the spool in "${directory}": ${code}`]
  }
}

function describeBackup(manifest: BackupManifest, nowMs: number) {
  const { id, type, finishedAt } = manifest
  return { id, type, finishedAt, ageSeconds: Math.max(0, Math.round((nowMs - Date.parse(finishedAt)) / 1000)) }
}

const NOTHING_KNOWN: Standing = { verdict: 'not proven', decidedBy: undefined, remarks: [] }

async function judgeNewest(repository: Repository, newest: BackupManifest, nowMs: number): Promise<Standing> {
  return judgeBackup(await listVerdicts(repository, newest.component, newest.id), newest, nowMs)
}

async function readProven(repository: Repository, component: string, nowMs: number): Promise<ProvenStatus | null> {
  const proven = await newestProvenBackup(repository, component, nowMs)
  if (proven === undefined) return null
  const { target, reached, at, expires, checks, seconds } = proven.verdict
  const notProven = checks.filter(({ verdict }) => verdict !== 'verified').map(({ name }) => name)
  return {
    backup: proven.backup,
    target,
    reachedLsn: reached?.lsn ?? null,
    at,
    expires,
    current: proven.current,
    seconds,
    notProven,
  }
}

async function readWalStatus(
  repository: Repository,
  component: string,
  newest: BackupManifest | undefined,
  signal: AbortSignal,
): Promise<WalStatus | null> {
  const branches = await listBranches(repository, component, { signal })
  const branch = branches.toSorted((left, right) => left.head.createdAt.localeCompare(right.head.createdAt)).at(-1)
  if (branch === undefined) return null
  const from: Lsn = newest?.branch === branch.path.branch ? newest.startLsn : branch.head.firstLsn
  const { endLsn, objects, holes } = await coverage(repository, branch, from, { signal })
  const recorded = await listGaps(repository, branch, { signal })
  return {
    timeline: branch.head.timeline,
    keptFrom: formatLsn(from),
    keptUpTo: formatLsn(endLsn),
    lastCommitAt: await readLastCommit(repository, branch, objects),
    gaps: Math.max(holes.length, recorded.length),
  }
}

async function readLastCommit(repository: Repository, branch: Branch, objects: readonly WalObject[]): Promise<string | null> {
  for (const object of objects.toReversed().slice(0, NOTES_READ_MAX)) {
    const { greatestCommit } = await readNote(repository, branch, object)
    if (greatestCommit !== null) return new Date(microsToMs(greatestCommit)).toISOString()
  }
  return null
}

/** Of a cluster with several members, what the one says that somebody receives from, or else the primary. */
async function readReceiver(component: PostgresComponent): Promise<ReceiverStatus> {
  const members = listMembers(component.connection, component.stream.hosts)
  const states = await Promise.all(members.map((member) => readMember(component, member)))
  const best = states.find(({ status }) => status.active) ?? states.find(({ primary }) => primary) ?? states[0]!
  if (best.status.problem === null || members.length === 1) return best.status
  const problems = states.map(({ host, status }) => `"${host}": ${status.problem ?? 'well'}`)
  return { ...best.status, problem: best.status.active || best.primary ? best.status.problem : problems.join('; ') }
}

interface MemberStatus {
  readonly host: string
  readonly primary: boolean
  readonly status: ReceiverStatus
}

async function readMember(component: PostgresComponent, { host, connectionString }: Member): Promise<MemberStatus> {
  const { slot } = component.stream
  const unknown = { slot, active: false, synchronous: false, awaited: false, behindBytes: null }
  try {
    await using session = await ServerSession.connect({ ...component, connection: new Secret(connectionString) })
    const [row] = await session.query<ReceiverRow>(RECEIVER, [slot])
    const primary = row?.primary === true
    if (row === undefined || row.active === null) {
      return { host, primary, status: { ...unknown, problem: `the server has no slot "${slot}"` } }
    }
    const behindBytes = row.behind === null ? null : Number(row.behind)
    const lost = row.status === 'lost' ? `the slot "${slot}" has lost WAL` : null
    const problem = row.active ? lost : (lost ?? `nobody receives through the slot "${slot}"`)
    return {
      host,
      primary,
      status: { slot, active: row.active, synchronous: row.synchronous, awaited: row.awaited, behindBytes, problem },
    }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return { host, primary: false, status: { ...unknown, problem: error.message } }
  }
}

interface ReceiverRow extends Record<string, unknown> {
  readonly primary: boolean
  /** Null when there is no such slot. */
  readonly active: boolean | null
  readonly synchronous: boolean
  readonly awaited: boolean
  readonly behind: string | null
  readonly status: string | null
}

const RECEIVER = `
  select not pg_is_in_recovery() as primary, s.active, coalesce(r.sync_state in ('sync', 'quorum'), false) as synchronous,
    coalesce(r.sync_state = 'sync' and current_setting('synchronous_commit') in ('on', 'remote_apply'), false) as awaited, s.wal_status as status,
    pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_flush_lsn() end,
      coalesce(r.flush_lsn, s.restart_lsn))::text as behind
  from (select 1) one left join pg_replication_slots s on s.slot_name = $1
    left join pg_stat_replication r on r.pid = s.active_pid`
