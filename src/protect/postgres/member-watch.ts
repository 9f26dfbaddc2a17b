import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import type { Lsn } from '../../postgres/lsn.ts'
import { descendsFrom, describeMember, surveyMembers, tendSlot, type Member, type MemberTimeline } from './members.ts'
import { sleepUnlessAborted } from './sleep.ts'

export interface MemberWatchOptions {
  readonly members: readonly Member[]
  readonly slot: string
  readonly everyMs: number
  readonly clock: Clock
  readonly signal: AbortSignal
  /** The member that is streamed from, and what was read of it then; undefined while there is none. */
  readonly streaming: () => { readonly host: string; readonly server: MemberTimeline } | undefined
  /** Everything before this LSN is in the repository: no member needs to keep it for us. */
  readonly archivedTo: () => Lsn
  /** A member needs attention. `subject` tells one trouble from another; `undefined`: it is over. */
  readonly onTrouble: (subject: string, failure: Failure | undefined) => void
  /** Another member has gone on from the timeline that is streamed. */
  readonly onSuperseded: (failure: Failure) => void
}

/**
 * Until the signal aborts: looks every so often at the members that are not streamed from, keeps the slot on those that are standbys,
 * and tells when one of them was promoted while the old primary still answers. What goes wrong is told, and tried again.
 */
export async function watchMembers(options: MemberWatchOptions): Promise<void> {
  const { clock, everyMs, signal } = options
  while (!signal.aborted) {
    const streaming = options.streaming()
    try {
      if (streaming !== undefined) await lookAtOthers(options, streaming)
    } catch (error) {
      // A history file that cannot be read, say: the stream itself is well.
      if (!(error instanceof Failure)) throw error
      options.onTrouble('', error)
    }
    await sleepUnlessAborted(clock, everyMs, signal)
  }
}

async function lookAtOthers(
  options: MemberWatchOptions,
  streaming: { readonly host: string; readonly server: MemberTimeline },
): Promise<void> {
  const { members, signal, onSuperseded, onTrouble } = options
  const others = members.filter(({ host }) => host !== streaming.host)
  const states = await surveyMembers(others, signal).catch((error: unknown) => {
    if (signal.aborted) return []
    throw error
  })
  for (const state of states) {
    if (state.kind === 'unreachable') {
      onTrouble(state.host, state.failure)
      continue
    }
    if (state.identity.systemIdentifier !== streaming.server.identity.systemIdentifier) {
      onTrouble(
        state.host,
        new Failure('SERVER_SETTING', `"${state.host}" in "hosts" belongs to another cluster: it is left alone`),
      )
      continue
    }
    if (state.kind === 'standby') {
      onTrouble(state.host, await keepSlot(options, state))
      continue
    }
    const what = `${describeMember(state)}, while "${streaming.host}" is streamed from`
    const failure = new Failure('PRIMARY_UNCLEAR', what, { hint: 'stop the one that must not take writes' })
    onTrouble(state.host, failure)
    if (descendsFrom(state, streaming.server)) onSuperseded(failure)
  }
}

async function keepSlot({ slot, archivedTo }: MemberWatchOptions, member: Member): Promise<Failure | undefined> {
  try {
    await tendSlot(member, { slot, lsn: archivedTo() })
    return undefined
  } catch (error) {
    if (error instanceof Failure) return error
    throw error
  }
}
