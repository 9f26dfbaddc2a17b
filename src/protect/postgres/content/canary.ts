import { keyedMac, type KeyRing } from '../../../repository/key-ring.ts'

// Rows that nobody can make but who has the repository's key: one for the whole, one for each facility (docs/drills.md, "Canaries").

/** The row of the whole. */
export const WHOLE = ''

/** What a row says. Its value is made of it. */
export interface Canary {
  readonly facility: string
  /** Counts renewals. */
  readonly number: bigint
  /** Milliseconds since 1970. */
  readonly atMs: number
  /** Of the row of the whole: the facilities that were planted with it. */
  readonly facilities: readonly string[] | null
}

/** The 32 bytes of a row. */
export function canaryValue(ring: KeyRing, component: string, canary: Canary): Buffer {
  const { facility, number, atMs, facilities } = canary
  return keyedMac(ring, 'canary', JSON.stringify([component, facility, String(number), atMs, facilities]))
}
