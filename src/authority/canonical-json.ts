import { z } from 'zod'
import { assert } from '../assert.ts'

/** What JSON can say. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

export const jsonSchema: z.ZodType<Json> = z.json()

/**
 * The one text of a value (RFC 8785): keys in the order of their UTF-16 code units, no spaces, numbers as ECMAScript writes them. What JSON cannot say (NaN, undefined, half of a
 * surrogate pair) is a mistake of whoever calls.
 */
export function canonicalJson(value: Json): string {
  if (typeof value === 'string') return quoted(value)
  if (typeof value === 'number') assert(Number.isFinite(value), 'a number of JSON is finite')
  if (typeof value !== 'object' || value === null) {
    const text = JSON.stringify(value) as string | undefined
    assert(text !== undefined, 'JSON can say it')
    return text
  }
  if (Array.isArray(value)) return `[${value.map((each: Json) => canonicalJson(each)).join(',')}]`
  // The order of `toSorted` is that of code units.
  const members = Object.entries(value).toSorted(([left], [right]) => (left < right ? -1 : 1))
  return `{${members.map(([key, each]) => `${quoted(key)}:${canonicalJson(each)}`).join(',')}}`
}

function quoted(text: string): string {
  assert(text.isWellFormed(), 'text of JSON is Unicode')
  return JSON.stringify(text)
}
