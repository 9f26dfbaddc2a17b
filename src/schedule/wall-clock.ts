import { assert } from '../assert.ts'

// Between instants and what a clock on the wall shows. A wall time is kept as the milliseconds that it would be in UTC.

const HOUR_MS = 3_600_000
/** Zones lie between 12 hours behind UTC and 14 before it: no offset at these distances is that of the other side of a change. */
const AHEAD_MS = 15 * HOUR_MS
const BEHIND_MS = 13 * HOUR_MS

const formats = new Map<string, Intl.DateTimeFormat>()

/** What the wall shows at an instant, less the instant. */
export function offsetMs(timeZone: string, instantMs: number): number {
  const parts = new Map(
    formatOf(timeZone)
      .formatToParts(instantMs)
      .map(({ type, value }) => [type, Number(value)]),
  )
  const [year, month, day] = [parts.get('year')!, parts.get('month')!, parts.get('day')!]
  const wallMs = Date.UTC(year, month - 1, day, parts.get('hour')!, parts.get('minute')!, parts.get('second')!)
  return wallMs - Math.floor(instantMs / 1000) * 1000
}

export function wallTime(timeZone: string, instantMs: number): number {
  return instantMs + offsetMs(timeZone, instantMs)
}

/**
 * The instant at which the wall first shows this time; where it never does, because a change leaves it out, the instant of that change.
 * A later wall time gives a later instant or the same, never an earlier one.
 */
export function instantOf(timeZone: string, wallMs: number): number {
  const before = offsetMs(timeZone, wallMs - AHEAD_MS)
  const after = offsetMs(timeZone, wallMs + BEHIND_MS)
  const shown = [wallMs - before, wallMs - after].filter((instant) => wallTime(timeZone, instant) === wallMs)
  return shown.length > 0 ? Math.min(...shown) : changeBetween(timeZone, wallMs - AHEAD_MS, wallMs + BEHIND_MS)
}

/** The first instant, to the second, with another offset than `lowMs` has; they are before and after one change. */
function changeBetween(timeZone: string, lowMs: number, highMs: number): number {
  const old = offsetMs(timeZone, lowMs)
  let [low, high] = [Math.floor(lowMs / 1000), Math.ceil(highMs / 1000)]
  assert(offsetMs(timeZone, high * 1000) !== old, 'a wall time is left out only where the offset changes')
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2)
    if (offsetMs(timeZone, middle * 1000) === old) low = middle
    else high = middle
  }
  return high * 1000
}

function formatOf(timeZone: string): Intl.DateTimeFormat {
  let format = formats.get(timeZone)
  if (format === undefined) {
    const numeric = {
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    } as const
    format = new Intl.DateTimeFormat('en-US', {
      timeZone,
      hourCycle: 'h23',
      calendar: 'gregory',
      numberingSystem: 'latn',
      ...numeric,
    })
    formats.set(timeZone, format)
  }
  return format
}
