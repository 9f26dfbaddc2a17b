/** When a digest goes out. */
export interface DigestTime {
  /** "07:00" */
  readonly at: string
  readonly timeZone: string
}

/**
 * The date whose digest is due, "2026-11-21": today's, once its time has come there. One that was not sent by the end of its day is left out, since the next one
 * has newer figures.
 */
export function digestDateDue({ at, timeZone }: DigestTime, nowMs: number): string | undefined {
  const parts = new Intl.DateTimeFormat('en-CA', {
    timeZone,
    calendar: 'iso8601',
    numberingSystem: 'latn',
    year: 'numeric',
    month: '2-digit',
    day: '2-digit',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
  }).formatToParts(nowMs)
  const part = (type: Intl.DateTimeFormatPartTypes) => parts.find((each) => each.type === type)?.value ?? ''
  return `${part('hour')}:${part('minute')}` >= at ? `${part('year')}-${part('month')}-${part('day')}` : undefined
}
