/** Ends the job when our own code broke a promise: a failed assertion is a bug of Resus, never the user's mistake. */
export function assert(condition: boolean, promise: string): asserts condition {
  if (!condition) throw new Error(`internal error: expected that ${promise}`)
}
