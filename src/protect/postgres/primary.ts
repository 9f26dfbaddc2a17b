import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { ReplicationConnection } from '../../postgres/replication.ts'
import type { Repository } from '../../repository/repository.ts'
import { listBranches, type Branch } from '../../repository/wal-branch.ts'
import type { Archives } from './archives.ts'
import { AlarmPace } from './backlog.ts'
import { watchMembers } from './member-watch.ts'
import {
  choosePrimary,
  describeMember,
  descendsFrom,
  listMembers,
  surveyMembers,
  type Member,
  type MemberTimeline,
} from './members.ts'
import type { StreamEvent } from './stream-event.ts'
import type { StreamOptions } from './stream.ts'

const WATCH_EVERY_MS = 5000

export interface PrimaryOptions extends Pick<StreamOptions, 'component' | 'membersEveryMs'> {
  readonly repository: Repository
  readonly archives: Archives
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onEvent: (event: StreamEvent) => void
}

/**
 * The server that is streamed from: the one of `connection`, or of several `hosts` the primary. With `hosts` the others are looked at
 * while it streams: each standby has our slot, and a promotion ends the stream from the old primary. Close it.
 */
export class Primary implements AsyncDisposable {
  readonly #options: PrimaryOptions
  readonly #members: readonly Member[]
  readonly #pace: AlarmPace
  readonly #ended = new AbortController()
  readonly #watching: Promise<void>
  #superseded = new AbortController()
  #streaming: { member: Member; server: MemberTimeline | undefined } | undefined

  constructor(options: PrimaryOptions) {
    const { component, clock, archives, membersEveryMs } = options
    this.#options = options
    this.#members = listMembers(component.connection, component.stream.hosts)
    this.#pace = new AlarmPace(clock)
    const signal = AbortSignal.any([options.signal, this.#ended.signal])
    if (this.#members.length === 1) {
      this.#watching = Promise.resolve()
      return
    }
    this.#watching = watchMembers({
      members: this.#members,
      slot: component.stream.slot,
      everyMs: membersEveryMs ?? WATCH_EVERY_MS,
      clock,
      signal,
      streaming: () => this.#streamingMember(),
      archivedTo: () => archives.safeTo,
      onTrouble: (subject, failure) => this.#tell(subject, failure),
      onSuperseded: (failure) => this.#superseded.abort(failure),
    })
  }

  /** Aborts, with the reason, when another member has gone on from the timeline that is streamed. */
  get superseded(): AbortSignal {
    return this.#superseded.signal
  }

  /** Where the connection leads that was made last. */
  get connectionString(): string {
    return this.#streaming?.member.connectionString ?? this.#members[0]!.connectionString
  }

  /** A connection to the server to stream from. Throws POSTGRES_UNREACHABLE, PRIMARY_UNCLEAR. */
  async connect(): Promise<ReplicationConnection> {
    const { component, signal } = this.#options
    this.#superseded = new AbortController()
    this.#streaming = undefined
    const member = await this.#find()
    const connection = await ReplicationConnection.connect({
      connectionString: member.connectionString,
      applicationName: component.stream.slot,
      signal,
    })
    this.#streaming = { member, server: undefined }
    return connection
  }

  /** What the server that we are connected to is: from now on the other members are held against it. */
  setServer(server: MemberTimeline): void {
    if (this.#streaming !== undefined) this.#streaming.server = server
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort()
    await this.#watching
  }

  async #find(): Promise<Member> {
    const [only, ...others] = this.#members
    if (others.length === 0) return only!
    const states = await surveyMembers(this.#members, this.#options.signal)
    const { primary, stale } = await choosePrimary(states, (candidate) => this.#wasLeft(candidate))
    for (const each of stale) {
      const what = `${describeMember(each)}: the cluster has left that timeline, "${primary.host}" is streamed from`
      this.#tell(each.host, new Failure('PRIMARY_UNCLEAR', what))
    }
    return primary
  }

  /** Whether what is streamed, or else what is stored, has gone on from this timeline: then a primary on it is a stale one. */
  async #wasLeft(candidate: MemberTimeline): Promise<boolean> {
    const { archives, component, repository, signal } = this.#options
    // A stream that is under way must not wait for the storage to be asked.
    const known = archives.current === undefined ? await listBranches(repository, component.name, { signal }) : [archives.current]
    return known.some((branch) => descendsFrom(timelineOf(branch), candidate))
  }

  #streamingMember(): { host: string; server: MemberTimeline } | undefined {
    const { member, server } = this.#streaming ?? {}
    return member === undefined || server === undefined ? undefined : { host: member.host, server }
  }

  #tell(host: string, failure: Failure | undefined): void {
    const { onEvent } = this.#options
    if (failure === undefined) {
      if (this.#pace.end(host)) onEvent({ kind: 'cleared', code: 'POSTGRES_UNREACHABLE' })
      return
    }
    const { code, message } = failure
    if (this.#pace.isDue(host)) onEvent({ kind: 'alarm', code, message, attempts: 1 })
  }
}

function timelineOf({ head }: Branch): MemberTimeline {
  const { systemIdentifier, timeline, history, firstLsn: position } = head
  return { identity: { systemIdentifier, timeline, position }, history }
}
