import { setTimeout as delay } from 'node:timers/promises'

/** Where time comes from. Passed in, so that a test can move it. */
export interface Clock {
  /** Milliseconds since 1970 in UTC. */
  now(): number
  /** Resolves after `ms` milliseconds; rejects with the signal's reason when it aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

export const systemClock: Clock = {
  now: () => Date.now(),
  sleep: async (ms, signal) => {
    await delay(ms, undefined, signal === undefined ? {} : { signal })
  },
}
