import { Failure } from '../errors.ts'

const TIME_WITH_ZONE = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d(:?\d\d)?)$/

/** A time without its zone would be read one way here and another way there, and the difference is lost data: it is refused. */
export function parseTargetTime(text: string): number {
  const timeMs = TIME_WITH_ZONE.test(text) ? Date.parse(isoText(text)) : Number.NaN
  if (!Number.isNaN(timeMs)) return timeMs
  throw new Failure('ARGUMENTS_INVALID', `--target-time is "${text}", wanted a time with its zone`, {
    hint: 'like 2026-11-21T03:00:00Z, or "2026-11-21 04:00:00+01:00"',
  })
}

function isoText(text: string): string {
  return text
    .replace(' ', 'T')
    .replace(/([+-]\d\d)$/, '$1:00')
    .replace(/([+-]\d\d)(\d\d)$/, '$1:$2')
}
