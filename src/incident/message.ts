import type { Severity } from '../catalog/schema.ts'

// What people are told, and how it reads.

export type EntryEvent = 'opened' | 'worse' | 'reminder' | 'recovered'

/** One alarm of a notice, as it was when the notice was made. */
export interface Entry {
  readonly event: EntryEvent
  readonly alarm: string
  readonly key: string
  readonly severity: Severity
  /** It goes to channels that are told about one of these. */
  readonly audience: readonly Severity[]
  readonly title: string
  readonly text: string
  readonly hint: string | null
  readonly system: string
  readonly component: string | null
  readonly code: string | null
  readonly count: number
  readonly openedAt: string
  readonly clearedAt: string | null
}

export interface Message {
  /** The same each time that the message is sent, on each channel. */
  readonly id: string
  readonly kind: 'alarms' | 'digest' | 'test'
  readonly at: string
  readonly entries: readonly Entry[]
  /** Of a digest or a test. */
  readonly lines: readonly string[]
}

const ENTRIES_SHOWN = 50
const LINES_SHOWN = 1_000
const SUBJECT_CHARACTERS = 180
const WORDS_CHARACTERS = 300

const EVENT_WORDS = {
  opened: 'new',
  worse: 'worse',
  reminder: 'still so',
  recovered: 'over',
} as const satisfies Record<EntryEvent, string>
const RANK = { info: 0, warning: 1, alarm: 2 } as const satisfies Record<Severity, number>

export function worst(left: Severity, right: Severity): Severity {
  return RANK[left] >= RANK[right] ? left : right
}

/** The severity of a message: the worst of what is not over. */
export function severityOf(message: Message): Severity {
  const live = message.entries.filter(({ event }) => event !== 'recovered')
  return live.reduce<Severity>((found, { severity }) => worst(found, severity), 'info')
}

/** One line. */
export function subjectOf(message: Message): string {
  return oneLine(wholeSubject(message), SUBJECT_CHARACTERS)
}

function wholeSubject(message: Message): string {
  if (message.kind === 'test') return '[test] Resus: a test message'
  if (message.kind === 'digest') return `[digest] Resus: ${message.at.slice(0, 10)}`
  const first = message.entries.find(({ event }) => event !== 'recovered') ?? message.entries[0]
  if (first === undefined) return '[info] Resus'
  const head = first.event === 'recovered' ? 'over' : first.severity
  const more = message.entries.length > 1 ? ` (and ${message.entries.length - 1} more)` : ''
  return `[${head}] ${placeOf(first)}: ${first.title}${more}`
}

/** Plain text of several lines. */
export function bodyOf(message: Message): string {
  const shown = message.entries.slice(0, ENTRIES_SHOWN).map(paragraphOf)
  const left = message.entries.length - shown.length
  const lines = message.lines.slice(0, LINES_SHOWN)
  const parts = [...shown, ...(left > 0 ? [`... and ${left} more`] : []), ...(lines.length > 0 ? [lines.join('\n')] : [])]
  return `${parts.join('\n\n')}\n\nNotice ${message.id} of ${message.at}\n`
}

function paragraphOf(entry: Entry): string {
  const { event, severity, title, text, hint, openedAt, clearedAt, count } = entry
  const since = event === 'opened' ? `since ${openedAt}` : `since ${openedAt}, seen ${count} times`
  const lines = [
    `${event === 'recovered' ? 'OVER' : severity.toUpperCase()} (${EVENT_WORDS[event]}) ${placeOf(entry)}: ${title}`,
    ...(text === '' ? [] : [text]),
    ...(hint === null || event === 'recovered' ? [] : [`What to do: ${hint}`]),
    clearedAt === null ? since : `${since}, over at ${clearedAt}`,
  ]
  return lines.join('\n')
}

function placeOf({ system, component }: Entry): string {
  return component === null ? system : `${system} / ${component}`
}

/** For what people type and programs say: no control characters but the end of a line, valid Unicode, not endless. */
export function cleanText(text: string, charactersMax: number): string {
  // Also what turns the direction of writing round, and other ends of lines.
  const clean = text
    .toWellFormed()
    .replace(/\r\n?/g, '\n')
    .replace(/[\u2028\u2029]/g, '\n')
    .replace(/(?!\n)[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, ' ')
    .trim()
  return clean.length > charactersMax ? `${clean.slice(0, charactersMax - 3).toWellFormed()}...` : clean
}

/** The same on one line. */
export function oneLine(text: string, charactersMax: number): string {
  return cleanText(text.replace(/[\s\u2028\u2029]+/g, ' '), charactersMax)
}

/** What a server replied, or an error, without any of these secrets, which the other side may have sent back. */
export function wordsOf(text: string, secrets: readonly string[] = []): string {
  const hidden = secrets
    .filter((each) => each !== '')
    .flatMap((each) => [each, Buffer.from(each).toString('base64').replace(/=+$/, '')])
    .reduce((words, secret) => words.replaceAll(secret, '[secret]'), text)
  return oneLine(hidden, WORDS_CHARACTERS)
}
