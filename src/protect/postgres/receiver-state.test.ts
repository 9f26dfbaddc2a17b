import assert from 'node:assert/strict'
import test from 'node:test'
import { next, type ReceiverEvent, type ReceiverState } from './receiver-state.ts'

const STATES: Readonly<Record<ReceiverState['kind'], ReceiverState>> = {
  connecting: { kind: 'connecting', attempt: 2 },
  positioning: { kind: 'positioning', attempt: 2 },
  streaming: { kind: 'streaming', attempt: 2 },
  switching: { kind: 'switching', timeline: 2, lsn: 9n },
  repairing: { kind: 'repairing', attempt: 2 },
  waiting: { kind: 'waiting', attempt: 2, ms: 500 },
  stopping: { kind: 'stopping' },
  stopped: { kind: 'stopped' },
}

const EVENTS: Readonly<Record<ReceiverEvent['kind'], ReceiverEvent>> = {
  connected: { kind: 'connected' },
  positioned: { kind: 'positioned' },
  acknowledged: { kind: 'acknowledged' },
  timelineEnded: { kind: 'timelineEnded', timeline: 2, lsn: 9n },
  switched: { kind: 'switched' },
  diverged: { kind: 'diverged' },
  walLost: { kind: 'walLost' },
  repaired: { kind: 'repaired' },
  failed: { kind: 'failed' },
  waited: { kind: 'waited' },
  stop: { kind: 'stop' },
  ended: { kind: 'ended' },
}

const FAILED = { kind: 'waiting', attempt: 3, ms: 1000 } as const
const STOP = { stop: { kind: 'stopping' } } as const

/** What each event changes; whatever is not here leaves the state as it is. */
const TABLE: Readonly<Record<ReceiverState['kind'], Partial<Record<ReceiverEvent['kind'], ReceiverState>>>> = {
  connecting: { ...STOP, failed: FAILED, connected: { kind: 'positioning', attempt: 2 } },
  positioning: { ...STOP, failed: FAILED, positioned: { kind: 'streaming', attempt: 2 } },
  streaming: {
    ...STOP,
    failed: FAILED,
    acknowledged: { kind: 'streaming', attempt: 0 },
    timelineEnded: { kind: 'switching', timeline: 2, lsn: 9n },
    diverged: { kind: 'positioning', attempt: 0 },
    walLost: { kind: 'repairing', attempt: 3 },
  },
  switching: { ...STOP, failed: { kind: 'waiting', attempt: 1, ms: 250 }, switched: { kind: 'positioning', attempt: 0 } },
  repairing: { ...STOP, failed: FAILED, repaired: { kind: 'positioning', attempt: 2 } },
  waiting: { ...STOP, waited: { kind: 'connecting', attempt: 2 } },
  stopping: { ended: { kind: 'stopped' } },
  stopped: {},
}

for (const [stateKind, state] of Object.entries(STATES)) {
  for (const [eventKind, event] of Object.entries(EVENTS)) {
    const expected = TABLE[state.kind][event.kind] ?? state
    test(`${stateKind}, ${eventKind}: ${expected.kind}`, () => assert.deepEqual(next(state, event), expected))
  }
}

test('waits grow to a limit and never end', () => {
  let state: ReceiverState = { kind: 'connecting', attempt: 0 }
  const waits: number[] = []
  for (let attempt = 0; attempt < 40; attempt += 1) {
    state = next(state, { kind: 'failed' })
    assert.ok(state.kind === 'waiting')
    waits.push(state.ms)
    state = next(state, { kind: 'waited' })
  }
  assert.deepEqual(waits.slice(0, 8), [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000])
  assert.equal(waits.at(-1), 15_000)
})
