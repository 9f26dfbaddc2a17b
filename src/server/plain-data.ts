import type { Json } from '../authority/canonical-json.ts'

/** As JSON has it: what is undefined is not there, and of texts what neither the store nor a digest takes is something else. */
export function plainData(value: unknown): Json {
  const text = JSON.stringify(value, (_, each: unknown) =>
    typeof each === 'string' ? each.toWellFormed().replaceAll('\0', '\ufffd') : each,
  )
  return JSON.parse(text) as Json
}
