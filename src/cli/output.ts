import { inspect } from 'node:util'
import { Failure } from '../errors.ts'

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'] as const
const EXIT_BUG = 1

/** `1.4 MB`: three digits at most, thousands. */
export function formatBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000
    unit += 1
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1
  return `${value.toFixed(digits)} ${UNITS[unit]}`
}

/** `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function formatDuration(ms: number): string {
  const seconds = Math.max(0, ms) / 1000
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  const minutes = Math.floor(whole / 60)
  if (minutes < 60) return `${minutes} min ${whole % 60} s`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`
}

/** `2026-11-21 03:04:05Z` */
export function formatTime(time: string | Date): string {
  return new Date(time)
    .toISOString()
    .replace('T', ' ')
    .replace(/\.\d+Z$/, 'Z')
}

/** Left-aligned columns with two spaces between them; those named in `right` are right-aligned. */
export function formatTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  right: readonly string[] = [],
): string {
  const all = [head, ...rows]
  const widths = head.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)))
  const line = (row: readonly string[]) => {
    const cells = row.map((cell, column) => {
      const width = widths[column] ?? 0
      return right.includes(head[column] ?? '') ? cell.padStart(width) : cell.padEnd(width)
    })
    return cells.join('  ').trimEnd()
  }
  return all.map(line).join('\n')
}

/** `name: value` lines with the values under each other. */
export function formatFields(fields: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...fields.map(([name]) => name.length))
  return fields.map(([name, value]) => `${`${name}:`.padEnd(width + 2)}${value}`).join('\n')
}

/** One JSON document, indented, or on one line; 64-bit numbers as text. */
export function formatJson(document: unknown, options: { readonly oneLine?: boolean } = {}): string {
  const plain = (_: string, value: unknown) => (typeof value === 'bigint' ? value.toString() : value)
  return JSON.stringify(document, plain, options.oneLine === true ? undefined : 2)
}

/** Prints what ended a command, and gives its exit status. Expected failures have no stack; what is not expected is our bug. */
export function reportError(error: unknown, options: { json: boolean; oneLine?: boolean }): number {
  if (error instanceof Failure) {
    const { code, message, hint = null, exitStatus } = error
    if (options.json) process.stdout.write(`${formatJson({ error: { code, message, hint } }, options)}\n`)
    process.stderr.write(`resus: ${message}\n${hint === null ? '' : `hint: ${hint}\n`}`)
    return exitStatus
  }
  const message = error instanceof Error ? error.message : String(error)
  const stack = error instanceof Error ? (error.stack ?? message) : message
  const hint = 'this is a bug of Resus: please report it with the text above'
  if (options.json) process.stdout.write(`${formatJson({ error: { code: 'BUG', message, hint } }, options)}\n`)
  process.stderr.write(`${stack}\n${causes(error)}${hint}\n`)
  return EXIT_BUG
}

function causes(error: unknown): string {
  if (!(error instanceof Error) || error.cause === undefined) return ''
  const { cause } = error
  return `caused by: ${cause instanceof Error ? (cause.stack ?? cause.message) : inspect(cause)}\n`
}
