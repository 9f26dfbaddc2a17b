import type { Bundle, BundleEntry, BundleLink } from '@medplum/fhirtypes'
import { Refusal } from '../refusal.ts'

export const COUNT_DEFAULT = 50
export const COUNT_MAX = 500

/** _count as it was asked for, at most COUNT_MAX. Throws BAD_REQUEST. */
export function countOf(text: string | undefined): number {
  if (text === undefined) return COUNT_DEFAULT
  if (!/^\d{1,9}$/.test(text)) {
    throw new Refusal('BAD_REQUEST', `"${text.slice(0, 40)}" is no _count`, { hint: 'give a whole number', issue: 'value' })
  }
  return Math.min(Number(text), COUNT_MAX)
}

/** Where the next page begins: what the last row of this one was ordered by. Clients hand it back as it is. */
export function writeCursor(key: readonly string[]): string {
  return Buffer.from(JSON.stringify(key)).toString('base64url')
}

/** Throws BAD_REQUEST for a cursor that this service did not write. */
export function readCursor(text: string, isKey: (key: readonly string[]) => boolean): readonly string[] {
  try {
    const key: unknown = JSON.parse(Buffer.from(text, 'base64url').toString())
    if (Array.isArray(key) && key.every((each) => typeof each === 'string') && isKey(key as string[])) return key as string[]
  } catch {
    // No JSON: said below.
  }
  throw new Refusal('BAD_REQUEST', '_cursor is none that this service has written', {
    hint: 'follow the link "next" as it is',
    issue: 'value',
  })
}

export interface Page {
  readonly type: 'searchset' | 'history'
  readonly entries: readonly BundleEntry[]
  readonly total?: number | undefined
  /** Of the request, without paging. */
  readonly url: string
  readonly parameters: readonly (readonly [string, string])[]
  readonly cursor?: string | undefined
  readonly next?: readonly string[] | undefined
}

/** A page as a Bundle: `self` says which parameters were heeded, `next` is there when there is more. */
export function bundleOf({ type, entries, total, url, parameters, cursor, next }: Page): Bundle {
  const link: BundleLink[] = [{ relation: 'self', url: linkTo(url, parameters, cursor) }]
  if (next !== undefined) link.push({ relation: 'next', url: linkTo(url, parameters, writeCursor(next)) })
  return {
    resourceType: 'Bundle',
    type,
    ...(total === undefined ? {} : { total }),
    link,
    ...(entries.length === 0 ? {} : { entry: [...entries] }),
  }
}

function linkTo(url: string, parameters: Page['parameters'], cursor: string | undefined): string {
  const query = new URLSearchParams(parameters.map(([name, value]): [string, string] => [name, value]))
  if (cursor !== undefined) query.set('_cursor', cursor)
  return query.size === 0 ? url : `${url}?${query.toString()}`
}
