import { setTimeout as sleep } from 'node:timers/promises'

/** Waits, or less long when it is told to end: then it just returns. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch((error: unknown) => {
    if (!signal.aborted) throw error
  })
}
