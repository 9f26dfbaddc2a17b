import { CronExpressionParser } from 'cron-parser'
import { z } from 'zod'

// How a schedule is written in a configuration. When it is due is for src/schedule to say.

const MINUTE_MS = 60_000
const UNIT_MS: Readonly<Record<string, number>> = { min: MINUTE_MS, h: 60 * MINUTE_MS, d: 24 * 60 * MINUTE_MS }
const AFTER = /^(?<count>\d{1,6}) ?(?<unit>min|h|d)$/
const AFTER_MS_MAX = 366 * UNIT_MS['d']!
const CRON_CHARACTERS_MAX = 200
/** Minute, hour, day of the month, month, day of the week. Without `H`: it would be another time on each node. */
const FIELDS = [
  /^[\d*,/-]+$/,
  /^[\d*,/-]+$/,
  /^[\d*,/L-]+$/,
  /^([\d*,/-]|[A-Za-z]{3})+$/,
  /^([\d*,/#-]|\dL|[A-Za-z]{3})+$/,
] as const
const FIELD_NAMES = ['minute', 'hour', 'day of the month', 'month', 'day of the week'] as const

const cronSchema = z
  .string()
  .describe('five fields: minute, hour, day of the month, month, day of the week; in the time zone of the component')
  .superRefine((text, context) => {
    const problem = cronProblem(text)
    if (problem !== undefined) context.addIssue({ code: 'custom', message: problem })
  })

const afterSchema = z
  .string()
  .describe('so long behind the end of the last: "15 min", "6 h", "1 d"')
  .refine((text) => Number.isFinite(parseAfterMs(text)), 'a time of 1 min to 366 d, such as "15 min", "6 h" or "1 d"')

/** `{ cron: '0 2 * * *' }`, `{ after: '6 h' }`, or `never`. */
export const scheduleSchema = z.union(
  [z.strictObject({ cron: cronSchema }), z.strictObject({ after: afterSchema }), z.literal('never')],
  { error: '{ cron: "0 2 * * *" }, { after: "6 h" } or never' },
)
export type Schedule = z.infer<typeof scheduleSchema>

/** Kinds of work that a schedule asks for: taking a backup, reading back, proving by a restore, a drill (which proves as well), a baseline to hold drills against, expiry, checking the set-up. */
export const scheduledKinds = ['backup', 'verify', 'prove', 'drill', 'baseline', 'expire', 'check'] as const
export type ScheduledKind = (typeof scheduledKinds)[number]

/** A component's own schedules; the others are those of its tier. */
export const schedulesSchema = z.strictObject({
  backup: scheduleSchema.optional(),
  verify: scheduleSchema.optional(),
  prove: scheduleSchema.optional(),
  drill: scheduleSchema.optional(),
  baseline: scheduleSchema.optional(),
  expire: scheduleSchema.optional(),
  check: scheduleSchema.optional(),
} satisfies Record<ScheduledKind, unknown>)
export type ScheduleSettings = z.infer<typeof schedulesSchema>

/** A time zone by its name in the IANA database. */
export const timeZoneSchema = z
  .string()
  .refine(isTimeZone, 'the name of a time zone, such as "Africa/Lagos"')
  .describe('the time zone that cron schedules are in')

/** Milliseconds of "6 h"; NaN for what is none. */
export function parseAfterMs(text: string): number {
  const { count, unit } = AFTER.exec(text)?.groups ?? {}
  const ms = Number(count) * (UNIT_MS[unit ?? ''] ?? Number.NaN)
  return ms >= MINUTE_MS && ms <= AFTER_MS_MAX ? ms : Number.NaN
}

/** What is wrong with a cron expression, as what was wanted instead; undefined when nothing is. */
function cronProblem(text: string): string | undefined {
  const fields = text.split(' ')
  if (text.length > CRON_CHARACTERS_MAX || fields.length !== FIELDS.length || fields.includes('')) {
    return 'five fields with one space between: minute, hour, day of the month, month, day of the week (no seconds, no "@daily")'
  }
  const wrong = FIELDS.findIndex((allowed, index) => !allowed.test(fields[index]!))
  if (wrong >= 0)
    return `a ${FIELD_NAMES[wrong]} such as ${wrong === 3 ? '"*", "6" or "jan"' : wrong === 4 ? '"*", "1-5" or "sun"' : '"*", "5" or "*/15"'}`
  try {
    CronExpressionParser.parse(text, { tz: 'UTC' }).next()
    return undefined
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    if (/explicit day of month|loop limit/i.test(why)) return 'a day that some month has: this one never comes'
    return `a cron expression of five fields (${why})`
  }
}

function isTimeZone(name: string): boolean {
  // An offset such as "+01:00" knows no summer time: whoever writes one has forgotten it.
  if (!/^[A-Za-z]/.test(name)) return false
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone !== ''
  } catch {
    return false
  }
}
