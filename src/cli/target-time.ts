import { Failure } from '../errors.ts'
import { msToMicros } from '../postgres/timestamp.ts'

const TIME_WITH_ZONE = /^(\d{4}-\d\d-\d\d[T ]\d\d:\d\d)(?:(:\d\d)(?:\.(\d{1,6}))?)?(Z|[+-]\d\d(?::?\d\d)?)$/

/**
 * A time in microseconds since 2000, as PostgreSQL counts; as it prints them, too. One without its zone would be read one way here and another
 * way there, and the difference is lost data: it is refused.
 */
export function parseTargetTime(text: string): bigint {
  const [, minutes = '', seconds = '', fraction = '', zone = ''] = TIME_WITH_ZONE.exec(text) ?? []
  const wholeMs = Date.parse(isoText(minutes + seconds + zone))
  if (!Number.isNaN(wholeMs)) return msToMicros(wholeMs) + BigInt(fraction.padEnd(6, '0'))
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
