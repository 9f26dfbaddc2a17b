// PostgreSQL's time: microseconds since 2000-01-01 UTC (TimestampTz in src/include/datatype/timestamp.h), here as bigint.

const EPOCH_MS = Date.UTC(2000, 0, 1)

/** The time as milliseconds since 1970 (ours), rounded down. */
export function microsToMs(micros: bigint): number {
  return Number((micros - (((micros % 1000n) + 1000n) % 1000n)) / 1000n) + EPOCH_MS
}

/** Milliseconds since 1970, a whole number of them, as PostgreSQL counts. */
export function msToMicros(ms: number): bigint {
  return BigInt(ms - EPOCH_MS) * 1000n
}

/** In ISO 8601, UTC: with milliseconds, or with all its microseconds where it has some. */
export function formatMicros(micros: bigint): string {
  const ms = microsToMs(micros)
  const rest = micros - msToMicros(ms)
  const text = new Date(ms).toISOString()
  return rest === 0n ? text : text.replace('Z', `${String(rest).padStart(3, '0')}Z`)
}
