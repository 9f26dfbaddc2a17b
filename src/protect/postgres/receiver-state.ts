import type { Lsn } from '../../postgres/lsn.ts'

// A receiver of WAL, from its start until it is told to stop.
//
//                 +---------------------- waited ------------------- waiting <-- failed -- any but stopping, stopped
//                 v
//   start --> connecting -- connected --> positioning -- positioned --> streaming -- timelineEnded --> switching
//                                           ^   ^  ^                      |  |                            |
//                                           |   |  +------ diverged ------+  |                            |
//                                           |   +-- repaired -- repairing <--+ walLost                    |
//                                           +---------------------- switched -----------------------------+
//
//   acknowledged: streaming stays, and forgets the attempts that failed before
//   stop: any --> stopping -- ended --> stopped
//
// failed: the connection, the storage or the disk; tried again for ever, ever more slowly, from `connecting`.
// diverged: the server sends other bytes than those that are stored; the next branch was made.
// walLost: the server refuses, or has no WAL at the position; repairing makes the slot again, or records a gap.

export type ReceiverState =
  | { readonly kind: 'connecting'; readonly attempt: number }
  | { readonly kind: 'positioning'; readonly attempt: number }
  | { readonly kind: 'streaming'; readonly attempt: number }
  | { readonly kind: 'switching'; readonly timeline: number; readonly lsn: Lsn }
  | { readonly kind: 'repairing'; readonly attempt: number }
  | { readonly kind: 'waiting'; readonly attempt: number; readonly ms: number }
  | { readonly kind: 'stopping' }
  | { readonly kind: 'stopped' }

export type ReceiverEvent =
  | { readonly kind: 'connected' }
  | { readonly kind: 'positioned' }
  | { readonly kind: 'acknowledged' }
  | { readonly kind: 'timelineEnded'; readonly timeline: number; readonly lsn: Lsn }
  | { readonly kind: 'switched' }
  | { readonly kind: 'diverged' }
  | { readonly kind: 'walLost' }
  | { readonly kind: 'repaired' }
  | { readonly kind: 'failed' }
  | { readonly kind: 'waited' }
  | { readonly kind: 'stop' }
  | { readonly kind: 'ended' }

export const FIRST_STATE: ReceiverState = { kind: 'connecting', attempt: 0 }

/** Waits between attempts: this, doubled each time, up to the longest. */
const WAIT_MS_FIRST = 250
const WAIT_MS_MAX = 15_000

/** What a receiver does after an event. An event that means nothing in a state leaves it as it is. */
export function next(state: ReceiverState, event: ReceiverEvent): ReceiverState {
  switch (state.kind) {
    case 'stopped':
      return state
    case 'stopping':
      return event.kind === 'ended' ? { kind: 'stopped' } : state
    case 'connecting':
    case 'positioning':
    case 'streaming':
    case 'switching':
    case 'repairing':
    case 'waiting':
      if (event.kind === 'stop') return { kind: 'stopping' }
      if (event.kind === 'failed' && state.kind !== 'waiting') return waitAfter(state)
      return advance(state, event)
    default:
      return state satisfies never
  }
}

type RunningState = Exclude<ReceiverState, { readonly kind: 'stopping' | 'stopped' }>

function advance(state: RunningState, event: ReceiverEvent): ReceiverState {
  switch (state.kind) {
    case 'connecting':
      return event.kind === 'connected' ? { kind: 'positioning', attempt: state.attempt } : state
    case 'positioning':
      return event.kind === 'positioned' ? { kind: 'streaming', attempt: state.attempt } : state
    case 'streaming':
      // Only WAL that flows proves that things are well again: the count of attempts ends here.
      if (event.kind === 'acknowledged') return { kind: 'streaming', attempt: 0 }
      if (event.kind === 'walLost') return { kind: 'repairing', attempt: state.attempt + 1 }
      if (event.kind === 'diverged') return { kind: 'positioning', attempt: 0 }
      return event.kind === 'timelineEnded' ? { kind: 'switching', timeline: event.timeline, lsn: event.lsn } : state
    case 'switching':
      return event.kind === 'switched' ? { kind: 'positioning', attempt: 0 } : state
    case 'repairing':
      return event.kind === 'repaired' ? { kind: 'positioning', attempt: state.attempt } : state
    case 'waiting':
      return event.kind === 'waited' ? { kind: 'connecting', attempt: state.attempt } : state
    default:
      return state satisfies never
  }
}

function waitAfter(state: RunningState): ReceiverState {
  const attempt = 'attempt' in state ? state.attempt : 0
  return { kind: 'waiting', attempt: attempt + 1, ms: Math.min(WAIT_MS_MAX, WAIT_MS_FIRST * 2 ** Math.min(attempt, 16)) }
}
