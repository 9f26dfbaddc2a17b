import type { BundleEntryRequest } from '@medplum/fhirtypes'
import { facilityIdOf } from './organization-rules.ts'
import type { Json, ResourceRow } from './rows.ts'
import type { Received } from './receive.ts'

/** An entry of a bundle, read. */
export interface Operation {
  readonly index: number
  /** Bundle.entry[index] */
  readonly place: string
  readonly fullUrl: string | undefined
  readonly request: BundleEntryRequest
  /** The parts of the URL's path. */
  readonly path: readonly string[]
  readonly query: URLSearchParams
  readonly content: Json | undefined
  /** What the server has chosen for what a transaction makes. */
  readonly id: string | undefined
}

/** Gives an id to everything that a transaction makes, and brings the references to it to these ids. */
export function identify(operations: readonly Operation[], newId: () => string): Operation[] {
  const identified = operations.map((each) => ({ ...each, id: each.request.method === 'POST' ? idFor(each, newId) : undefined }))
  const targets = new Map<string, string>()
  for (const { fullUrl, path, id } of identified) {
    if (fullUrl === undefined) continue
    if (id !== undefined) targets.set(fullUrl, `${path[0]}/${id}`)
    else if (path.length === 2) targets.set(fullUrl, path.join('/'))
  }
  return identified.map((each) => ({
    ...each,
    content: each.content === undefined ? undefined : (replaced(each.content, targets) as Json),
  }))
}

function idFor({ path, content }: Operation, newId: () => string): string {
  return path[0] === 'Organization' && content !== undefined ? (facilityIdOf(content) ?? newId()) : newId()
}

/** A resource whose references lead to what was there already, where a condition (ifNoneExist) has found something. */
export function pointedTo(received: Received | undefined, existing: ReadonlyMap<Operation, ResourceRow>): Received | undefined {
  if (received === undefined || existing.size === 0) return received
  const targets = new Map([...existing].map(([{ path, id }, row]) => [`${path[0]}/${id}`, `${path[0]}/${row.id}`]))
  return {
    ...received,
    content: replaced(received.content, targets) as Json,
    references: received.references.map((each) => {
      const target = targets.get(`${each.type}/${each.id}`)
      return target === undefined ? each : { ...each, id: target.slice(each.type.length + 1) }
    }),
  }
}

/** Where FHIR has a URL that may lead to another entry (https://hl7.org/fhir/R4/http.html#trules). */
const LEADS = /^(reference|url|uri|value(Uri|Url|Uuid|Oid|Canonical))$/
const DEPTH_MAX = 60

function replaced(value: unknown, targets: ReadonlyMap<string, string>, depth = 0): unknown {
  // Deeper than any resource may be: it is refused later.
  if (typeof value !== 'object' || value === null || depth > DEPTH_MAX) return value
  if (Array.isArray(value)) return value.map((each) => replaced(each, targets, depth + 1))
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [
      key,
      typeof each === 'string' && LEADS.test(key) ? (targets.get(each) ?? each) : replaced(each, targets, depth + 1),
    ]),
  )
}
