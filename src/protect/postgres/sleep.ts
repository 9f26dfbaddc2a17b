import type { Clock } from '../../clock.ts'

/** Sleeps, and simply returns when the signal aborts. */
export async function sleepUnlessAborted(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  try {
    await clock.sleep(ms, signal)
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

/** Until `event` resolves, or the time is over, or the signal aborts. No timer is left. */
export async function waitForEvent(event: Promise<void>, wait: { clock: Clock; ms: number; signal: AbortSignal }): Promise<void> {
  const over = new AbortController()
  const timer = sleepUnlessAborted(wait.clock, wait.ms, AbortSignal.any([wait.signal, over.signal]))
  await Promise.race([event, timer])
  over.abort()
  await timer
}
