import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'

/**
 * What is awaited longer than this will not come: a failure of what is tested, not of a slow machine with much else to do. Below the limit
 * of a test in test/run.ts, so that the message says what was awaited.
 */
export const HANGS_AFTER_MS = 300_000
const POLL_MS = 10

/** Resolves when it holds; fails, naming it, when it never does. */
export async function waitUntil(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const begun = performance.now(); !(await holds()); await delay(POLL_MS)) {
    assert.ok(performance.now() - begun < HANGS_AFTER_MS, `it never came to pass that ${what}`)
  }
}
