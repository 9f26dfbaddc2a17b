import { Refusal } from '../refusal.ts'

/** A date of a search: what the client asks of it, and the first instant of it and the first one after it. */
export interface SearchedTime {
  readonly prefix: (typeof PREFIXES)[number]
  readonly start: string
  readonly end: string
}

const PREFIXES = ['eq', 'ne', 'gt', 'lt', 'ge', 'le', 'sa', 'eb'] as const
const TIME =
  /^(eq|ne|gt|lt|ge|le|sa|eb)?(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?)?)?$/

/** Throws BAD_REQUEST for what is no date. A time without a zone is UTC. */
export function parseTime(name: string, text: string): SearchedTime {
  // A plus that was not escaped arrives as a space.
  const match = TIME.exec(text.replace(' ', '+'))
  if (match === null)
    throw badValue(name, text, 'give a date as 2026-01-31 or 2026-01-31T08:00:00Z, with eq, ne, gt, lt, ge or le before it')
  const [, prefix = 'eq', year = '', month, day, hour, minute, second, fraction, zone = 'Z'] = match
  const start = new Date(
    `${year}-${month ?? '01'}-${day ?? '01'}T${hour ?? '00'}:${minute ?? '00'}:${second ?? '00'}${fraction?.slice(0, 4) ?? ''}${zone}`,
  )
  const exists =
    !Number.isNaN(start.getTime()) &&
    (day === undefined || Number(day) <= new Date(Date.UTC(Number(year), Number(month), 0)).getUTCDate())
  if (!exists) throw badValue(name, text, 'such a day or time does not exist')
  const end = new Date(start)
  if (month === undefined) end.setUTCFullYear(end.getUTCFullYear() + 1)
  else if (day === undefined) end.setUTCMonth(end.getUTCMonth() + 1)
  else end.setTime(end.getTime() + lengthMs({ hour, second, fraction }))
  return { prefix: prefix as SearchedTime['prefix'], start: start.toISOString(), end: end.toISOString() }
}

function lengthMs(given: Readonly<Record<'hour' | 'second' | 'fraction', string | undefined>>): number {
  if (given.hour === undefined) return 86_400_000
  if (given.second === undefined) return 60_000
  return given.fraction === undefined ? 1000 : 1
}

/** "system|code", "|code" (a code without a system), "system|", "code". */
export interface SearchedToken {
  /** '' when there may be none; undefined when any will do. */
  readonly system: string | undefined
  readonly code: string | undefined
}

export function parseToken(name: string, text: string): SearchedToken {
  const at = indexOfBare(text, '|')
  const system = at === -1 ? undefined : unescaped(text.slice(0, at))
  const code = unescaped(text.slice(at + 1))
  if (code === '' && (system ?? '') === '') throw badValue(name, text, 'give a code, or system|code')
  return { system, code: code === '' ? undefined : code }
}

/** The alternatives of a value: what lies between commas that are not escaped. */
export function alternatives(text: string): string[] {
  const result: string[] = []
  let rest = text
  for (let at = indexOfBare(rest, ','); at !== -1; at = indexOfBare(rest, ',')) {
    result.push(rest.slice(0, at))
    rest = rest.slice(at + 1)
  }
  return [...result, rest]
}

function indexOfBare(text: string, separator: string): number {
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === '\\') at += 1
    else if (text[at] === separator) return at
  }
  return -1
}

export function unescaped(text: string): string {
  return text.replaceAll(/\\([\\,|$])/g, '$1')
}

/** As hospital.search_key of the database. */
export function searchKey(text: string): string {
  return text
    .normalize('NFD')
    .replaceAll(/[\u0300-\u036f]/g, '')
    .toLowerCase()
}

export function badValue(name: string, text: string, hint: string): Refusal {
  return new Refusal('BAD_REQUEST', `"${text.slice(0, 100)}" is no value for the search parameter ${name}`, {
    hint,
    issue: 'value',
  })
}
