import pg from 'pg'
import { Failure } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { ReplicationConnection, serverFailure, type ServerIdentity } from '../../postgres/replication.ts'
import { parseTimelineHistory } from '../../postgres/timeline-history.ts'
import type { Secret } from '../../secret.ts'

// The members of a cluster that can fail over: which of them is the primary, and our slot on the others.

/** A member that does not answer in this time counts as unreachable: a failover must not wait for the dead. */
const MEMBER_TIMEOUT_MS = 4000

export interface Member {
  /** As the configuration names it; empty for the one server of a component without `hosts`. */
  readonly host: string
  /** It may hold a password. */
  readonly connectionString: string
}

/** A timeline, and how its cluster came to it. */
export interface MemberTimeline {
  readonly identity: ServerIdentity
  /** Text of its history file. */
  readonly history: string
}

export type MemberState = Member &
  (({ readonly kind: 'primary' | 'standby' } & MemberTimeline) | { readonly kind: 'unreachable'; readonly failure: Failure })
export type PrimaryState = MemberState & { readonly kind: 'primary' }

/** The members that `hosts` names: the connection string with each host, and its port, in place of its own. */
export function listMembers(connection: Secret, hosts: readonly string[]): Member[] {
  const connectionString = connection.reveal().toString()
  if (hosts.length === 0) return [{ host: '', connectionString }]
  return hosts.map((host) => ({ host, connectionString: withHost(connectionString, host) }))
}

function withHost(connectionString: string, given: string): string {
  // `user@/database?host=/directory` has no host, which URL refuses and `pg` accepts.
  const url = new URL(connectionString.replace('@/', '@localhost/'))
  url.searchParams.delete('host')
  url.searchParams.delete('port')
  const [, host = given, port] = /^(\[[^\]]+\]|[^:]+)(?::(\d+))?$/.exec(given) ?? []
  url.hostname = host
  if (port !== undefined) url.port = port
  return url.toString()
}

/** Asks every member at once what it is. Never throws, but for the signal. */
export async function surveyMembers(members: readonly Member[], signal: AbortSignal): Promise<MemberState[]> {
  const states = await Promise.all(members.map((member) => readMember(member, signal)))
  signal.throwIfAborted()
  return states
}

async function readMember(member: Member, signal: AbortSignal): Promise<MemberState> {
  try {
    await using connection = await ReplicationConnection.connect({
      connectionString: member.connectionString,
      applicationName: 'resus members',
      timeoutMs: MEMBER_TIMEOUT_MS,
      commandTimeoutMs: MEMBER_TIMEOUT_MS,
      signal,
    })
    const kind = (await connection.inRecovery()) ? 'standby' : 'primary'
    const identity = await connection.identifySystem()
    return { ...member, kind, identity, history: await connection.readTimelineHistory(identity.timeline) }
  } catch (error) {
    return { ...member, kind: 'unreachable', failure: serverFailure(`cannot ask "${member.host}"`, error) }
  }
}

/**
 * The primary: the one member that takes writes, on a timeline that no other member and nothing in the repository has left. Others
 * that say they are the primary are `stale` then. Throws POSTGRES_UNREACHABLE when there is none, and PRIMARY_UNCLEAR rather than
 * guess: following the wrong one would acknowledge commits that the cluster is about to throw away.
 */
export async function choosePrimary(
  states: readonly MemberState[],
  hasLeft: (primary: MemberTimeline) => Promise<boolean>,
): Promise<{ primary: PrimaryState; stale: readonly PrimaryState[] }> {
  const claiming = states.filter((state): state is PrimaryState => state.kind === 'primary')
  if (claiming.length === 0) {
    throw new Failure(
      'POSTGRES_UNREACHABLE',
      `no member of the cluster is the primary: ${states.map(describeMember).join('; ')}`,
      {
        hint: 'the receiver looks again by itself; the slots keep the WAL meanwhile',
      },
    )
  }
  const fit: PrimaryState[] = []
  for (const each of claiming) {
    if (!claiming.some((other) => descendsFrom(other, each)) && !(await hasLeft(each))) fit.push(each)
  }
  const [primary, ...others] = fit
  if (primary !== undefined && others.length === 0) return { primary, stale: claiming.filter((each) => each !== primary) }
  const what =
    fit.length === 0 ? 'is on a timeline that the cluster has left' : 'say they are the primary, and neither follows the other'
  throw new Failure('PRIMARY_UNCLEAR', `no primary to stream from: ${claiming.map(describeMember).join('; ')} ${what}`, {
    hint: 'stop the member that must not take writes; if a timeline was abandoned on purpose, name its primary in "connection", without "hosts"',
  })
}

export function describeMember(state: MemberState): string {
  if (state.kind === 'unreachable') return `"${state.host}" does not answer (${state.failure.message})`
  const { timeline, position } = state.identity
  return `"${state.host}" is a ${state.kind} on timeline ${timeline} at ${formatLsn(position)}`
}

/** Whether `younger` went on from `older`'s timeline: the history of the one has the other as it was. */
export function descendsFrom(younger: MemberTimeline, older: MemberTimeline): boolean {
  if (younger.identity.systemIdentifier !== older.identity.systemIdentifier) return false
  const [timeline, ancestors] = [older.identity.timeline, parseTimelineHistory(younger.identity.timeline, younger.history)]
  const at = ancestors.findIndex((each) => each.timeline === timeline)
  const before = parseTimelineHistory(timeline, older.history)
  return (
    at >= 0 &&
    at === before.length &&
    before.every((each, index) => each.timeline === ancestors[index]!.timeline && each.endLsn === ancestors[index]!.endLsn)
  )
}

/**
 * Keeps our slot on a standby, so that WAL that is not in the repository is there after its promotion: makes it, makes it again when
 * the server has invalidated it, and moves it up to `lsn` at most. Throws POSTGRES_UNREACHABLE, POSTGRES_FAILED.
 */
export async function tendSlot(member: Member, { slot, lsn }: { slot: string; lsn: Lsn }): Promise<void> {
  const { connectionString } = member
  const settings = { connectionTimeoutMillis: MEMBER_TIMEOUT_MS, query_timeout: MEMBER_TIMEOUT_MS }
  const client = new pg.Client({ connectionString, application_name: 'resus members', ...settings })
  client.on('error', () => undefined)
  try {
    await client.connect()
    const { rows } = await client.query<{ lost: boolean }>(
      `select wal_status is not distinct from 'lost' or restart_lsn is null as lost from pg_replication_slots where slot_name = $1`,
      [slot],
    )
    if (rows[0]?.lost === true) await client.query('select pg_drop_replication_slot($1)', [slot])
    if (rows[0]?.lost !== false) await client.query('select pg_create_physical_replication_slot($1, true)', [slot])
    await client.query(ADVANCE, [slot, formatLsn(lsn)])
  } catch (error) {
    throw serverFailure(`cannot keep the slot "${slot}" on "${member.host}"`, error)
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** Only forwards, and only on a standby: on a primary it is ours to stream through. */
const ADVANCE = `
  select pg_replication_slot_advance(slot_name, $2::pg_lsn) from pg_replication_slots
  where slot_name = $1 and not active and restart_lsn < least($2::pg_lsn, pg_last_wal_replay_lsn()) and pg_is_in_recovery()`
