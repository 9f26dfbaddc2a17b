/**
 * Visits every item, at most `limit` at a time. Stops taking items at the first failure, waits until all that were begun have
 * settled, and throws the first failure.
 */
export async function forEachConcurrent<T>(
  items: Iterable<T> | AsyncIterable<T>,
  options: { limit: number; signal?: AbortSignal },
  visit: (item: T) => Promise<void>,
): Promise<void> {
  const running = new Set<Promise<void>>()
  const failures: unknown[] = []
  try {
    for await (const item of items) {
      options.signal?.throwIfAborted()
      const visiting = visit(item)
        .catch((error: unknown) => {
          failures.push(error)
        })
        .finally(() => running.delete(visiting))
      running.add(visiting)
      if (running.size >= options.limit) await Promise.race(running)
      if (failures.length > 0) break
    }
  } finally {
    await Promise.all(running)
  }
  if (failures.length > 0) throw failures[0] as Error
}
