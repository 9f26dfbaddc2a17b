import assert from 'node:assert'

/**
 * A value as PostgreSQL prints it as jsonb: shorter keys first, those of one length in the order of their bytes, a blank behind each colon and comma. Events'
 * hashes are taken over this text, so the generator can make them before the database has seen the event. What JSON cannot say (undefined) is left out.
 */
export function jsonbText(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'number') return numberText(value)
  if (Array.isArray(value)) return arrayText(value)
  if (typeof value === 'object' && value !== null) return objectText(value as Readonly<Record<string, unknown>>)
  assert(typeof value === 'boolean' || value === null, 'no JSON')
  return String(value)
}

/** numeric prints as it was written, except that it knows neither exponents nor a zero below zero. */
function numberText(value: number): string {
  const text = String(value)
  assert(/^-?\d+(\.\d+)?$/.test(text), `no jsonb prints like ${text}`)
  return text
}

function arrayText(items: readonly unknown[]): string {
  let text = '['
  for (const item of items) text += text === '[' ? jsonbText(item) : `, ${jsonbText(item)}`
  return `${text}]`
}

function objectText(object: Readonly<Record<string, unknown>>): string {
  let text = ''
  for (const key of orderOf(Object.keys(object))) {
    const value = object[key]
    if (value === undefined) continue
    text += (text === '' ? '{' : ', ') + keyText(key) + jsonbText(value)
  }
  return text === '' ? '{}' : `${text}}`
}

const KEYS_MAX = 10_000
const keyTexts = new Map<string, string>()

/** Resources have few different keys: each is looked at once. */
function keyText(key: string): string {
  const known = keyTexts.get(key)
  if (known !== undefined) return known
  assert(/^[\w-]+$/.test(key), `"${key}" needs quoting, and its bytes counted`)
  const text = `"${key}": `
  if (keyTexts.size < KEYS_MAX) keyTexts.set(key, text)
  return text
}

/** Sorts in place, by insertion: a resource's objects have few keys, and a sort with a callback takes three times as long. */
function orderOf(keys: string[]): string[] {
  for (let end = 1; end < keys.length; end += 1) {
    const key = keys[end]!
    let at = end
    for (; at > 0 && isBefore(key, keys[at - 1]!); at -= 1) keys[at] = keys[at - 1]!
    keys[at] = key
  }
  return keys
}

function isBefore(a: string, b: string): boolean {
  return a.length === b.length ? a < b : a.length < b.length
}
