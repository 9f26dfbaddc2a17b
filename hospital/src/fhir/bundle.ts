import type { Bundle, BundleEntry, BundleEntryRequest } from '@medplum/fhirtypes'
import type { Database, Transaction } from '../database/database.ts'
import { operationOutcome } from '../http/problem.ts'
import { Refusal, REFUSALS } from '../refusal.ts'
import { uuid } from '../uuid.ts'
import { within } from './bundle-places.ts'
import { identify, pointedTo, type Operation } from './bundle-references.ts'
import { updateResource } from './change.ts'
import { createResource } from './create.ts'
import { versionOfIfMatch } from './negotiation.ts'
import { problem, refuseAll } from './problem-list.ts'
import { readFhir, servedTypeOf } from './reading.ts'
import { etagOf, resourceOf, type Json, type ResourceRow } from './rows.ts'
import type { ServedType } from './served-types.ts'
import { WRITTEN_TYPES } from './type-names.ts'
import { validate } from './validate.ts'
import { receive, type Intake, type Received } from './receive.ts'
import { create, findExisting, update } from './writing.ts'

export interface BundleOptions extends Intake {
  readonly database: Database
  readonly base: string
  readonly isStrict: boolean
  /** The client wants what it has written back. */
  readonly wantsResources: boolean
  readonly log: (error: unknown) => void
}

const ENTRIES_MAX = 1000

/**
 * A transaction, of which all is done or nothing, or a batch, of which each entry is done for itself. Refuses (INVALID) a transaction with all that is
 * wrong with its entries, and for what went wrong in the database with that.
 */
export async function processBundle(content: unknown, options: BundleOptions): Promise<Bundle> {
  const bundle = await readBundle(content)
  const { type, entry = [] } = bundle
  if (type !== 'transaction' && type !== 'batch') {
    throw new Refusal('BAD_REQUEST', `a bundle of type "${type}" is nothing to be processed`, {
      hint: 'send a transaction or a batch',
      expression: 'Bundle.type',
    })
  }
  if (entry.length > ENTRIES_MAX)
    throw new Refusal('TOO_LARGE', `a bundle may have ${ENTRIES_MAX} entries, and this one has ${entry.length}`)
  const operations = entry.map(operationOf)
  const entries = type === 'transaction' ? await runTransaction(operations, options) : await runBatch(operations, options)
  return { resourceType: 'Bundle', type: `${type}-response`, ...(entries.length === 0 ? {} : { entry: entries }) }
}

/** The bundle by FHIR's rules, without what is in it: that is looked at entry by entry. */
async function readBundle(content: unknown): Promise<Bundle> {
  const bundle = content as { entry?: unknown }
  const entries = Array.isArray(bundle?.entry) ? (bundle.entry as Json[]) : undefined
  refuseAll(
    (entries ?? []).flatMap((each, index) =>
      each?.['request'] === undefined
        ? [problem(`Bundle.entry[${index}].request`, 'required', 'an entry says what is to be done')]
        : [],
    ),
  )
  const shell = entries === undefined ? content : { ...bundle, entry: entries.map((each) => withoutResource(each)) }
  const { problems } = await validate(shell, 'Bundle')
  refuseAll(problems)
  return content as Bundle
}

function withoutResource(entry: Json): unknown {
  if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) return entry
  const { resource: _resource, ...rest } = entry
  return rest
}

function operationOf({ fullUrl, request = {} as BundleEntryRequest, resource }: BundleEntry, index: number): Operation {
  const place = `Bundle.entry[${index}]`
  const { pathname, query } = parsed(request, place)
  return {
    index,
    place,
    fullUrl,
    request,
    path: pathname.split('/'),
    query,
    content: resource as Json | undefined,
    id: undefined,
  }
}

/** "Patient/7f1c…", "Patient?family=Ojo", and the same with our own address before it. */
function parsed({ url }: BundleEntryRequest, place: string): { pathname: string; query: URLSearchParams } {
  const [before = '', after = ''] = (url ?? '').replace(/^(https?:\/\/[^/]+)?\/?(fhir\/)?/, '').split('?', 2)
  if (!/^[A-Za-z$_][\w$./-]*$/.test(before))
    throw new Refusal('BAD_REQUEST', `${place}: "${url}" is no URL of this service`, { expression: `${place}.request.url` })
  return { pathname: before.replace(/\/$/, ''), query: new URLSearchParams(after) }
}

async function runTransaction(operations: readonly Operation[], options: BundleOptions): Promise<BundleEntry[]> {
  const identified = identify(operations, () => uuid())
  requireDistinct(identified)
  const received = await receiveAll(identified, options)
  return await options.database.transaction(options.context, async (transaction) => {
    const existing = await findAllExisting(transaction, identified)
    const known = new Set(
      identified.filter((each) => each.id !== undefined && !existing.has(each)).map(({ path, id }) => `${path[0]}/${id}`),
    )
    const results: BundleEntry[] = []
    for (const operation of inOrder(identified)) {
      results[operation.index] = await within(operation.place, async () => {
        const row = existing.get(operation)
        if (row !== undefined) return answerOf(servedTypeOf(operation.path[0]!), { row, isNew: false }, options)
        return await perform(transaction, { operation, received: pointedTo(received.get(operation), existing), known }, options)
      })
    }
    return results
  })
}

/** FHIR's order (DELETE, POST, PUT, GET), and of what is made what others refer to first: the database's keys look at once. */
function inOrder(operations: readonly Operation[]): Operation[] {
  const methods = ['DELETE', 'POST', 'PUT', 'PATCH', 'GET', 'HEAD']
  const rank = ({ request, path }: Operation): number =>
    methods.indexOf(request.method ?? '') * 100 +
    (request.method === 'POST' ? (WRITTEN_TYPES as readonly string[]).indexOf(path[0] ?? '') : 0)
  // Among changes by their names, so that two transactions that change the same things wait for each other instead of both.
  return operations.toSorted(
    (a, b) => rank(a) - rank(b) || (a.request.method === 'PUT' && a.path.join('/') < b.path.join('/') ? -1 : 1),
  )
}

function requireDistinct(operations: readonly Operation[]): void {
  const seen = new Set<string>()
  for (const { request, path, place } of operations) {
    if (request.method !== 'PUT') continue
    const name = path.join('/')
    if (seen.has(name))
      throw new Refusal('BAD_REQUEST', `${place}: ${name} is changed twice in one transaction`, { expression: place })
    seen.add(name)
  }
}

async function receiveAll(operations: readonly Operation[], options: BundleOptions): Promise<Map<Operation, Received>> {
  const received = new Map<Operation, Received>()
  const refusals: Refusal[] = []
  for (const operation of operations) {
    const { request, path, place, content } = operation
    if (request.method !== 'POST' && request.method !== 'PUT') continue
    try {
      received.set(operation, await within(place, async () => receive(servedTypeOf(path[0] ?? ''), content, options)))
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      refusals.push(error)
    }
  }
  const [first, ...others] = refusals
  if (first === undefined) return received
  const { message, hint, expression, issue } = first
  throw new Refusal(first.code, message, {
    ...(hint === undefined ? {} : { hint }),
    ...(expression === undefined ? {} : { expression }),
    ...(issue === undefined ? {} : { issue }),
    others: [...first.others, ...others.flatMap((each) => [each, ...each.others])],
  })
}

async function findAllExisting(transaction: Transaction, operations: readonly Operation[]): Promise<Map<Operation, ResourceRow>> {
  const existing = new Map<Operation, ResourceRow>()
  // In one order, so that two transactions with the same conditions do not wait for each other.
  for (const operation of operations.toSorted((a, b) =>
    (a.request.ifNoneExist ?? '') < (b.request.ifNoneExist ?? '') ? -1 : 1,
  )) {
    const { request, path, place } = operation
    if (request.method !== 'POST' || request.ifNoneExist === undefined) continue
    const row = await within(place, async () => findExisting(transaction, servedTypeOf(path[0] ?? ''), request.ifNoneExist ?? ''))
    if (row !== undefined) existing.set(operation, row)
  }
  return existing
}

interface Task {
  readonly operation: Operation
  readonly received: Received | undefined
  readonly known: ReadonlySet<string>
}

async function perform(
  transaction: Transaction,
  { operation, received, known }: Task,
  options: BundleOptions,
): Promise<BundleEntry> {
  const { request, path, query, id } = operation
  if (request.method === 'GET') return await readEntry(transaction, { path, query }, options)
  const served = servedTypeOf(path[0] ?? '')
  if (request.method === 'POST' && path.length === 1 && received !== undefined && id !== undefined) {
    return answerOf(served, { row: await createResource(transaction, received, id, known), isNew: true }, options)
  }
  if (request.method === 'PUT' && path.length === 2 && received !== undefined) {
    const change = { expected: versionOfIfMatch(request.ifMatch), known }
    return answerOf(served, { row: await updateResource(transaction, received, path[1]!, change), isNew: false }, options)
  }
  throw notSupported(request)
}

async function readEntry(
  transaction: Transaction,
  { path, query }: Pick<Operation, 'path' | 'query'>,
  options: BundleOptions,
): Promise<BundleEntry> {
  const resource = await readFhir(transaction, { path, query, base: options.base, isStrict: options.isStrict })
  const { versionId, lastUpdated } = resource.meta ?? {}
  const versioned =
    versionId === undefined
      ? {}
      : { etag: etagOf(versionId), ...(lastUpdated === undefined ? {} : { lastModified: lastUpdated }) }
  return { resource, response: { status: '200 OK', ...versioned } }
}

function answerOf(
  served: ServedType,
  { row, isNew }: { row: ResourceRow; isNew: boolean },
  { base, wantsResources }: BundleOptions,
): BundleEntry {
  return {
    fullUrl: `${base}/${served.name}/${row.id}`,
    ...(wantsResources ? { resource: resourceOf(served, row) } : {}),
    response: {
      status: isNew ? '201 Created' : '200 OK',
      location: `${served.name}/${row.id}/_history/${row.version}`,
      etag: etagOf(row.version),
      lastModified: row.updated_at.toISOString(),
    },
  }
}

async function runBatch(operations: readonly Operation[], options: BundleOptions): Promise<BundleEntry[]> {
  const results: BundleEntry[] = []
  for (const operation of inOrder(operations)) {
    results[operation.index] = await within(operation.place, async () => runAlone(operation, options)).catch((error: unknown) => {
      if (!(error instanceof Refusal)) options.log(error)
      const refusal =
        error instanceof Refusal
          ? error
          : new Refusal('UNAVAILABLE', 'the hospital could not do this now; of this entry nothing was changed', { cause: error })
      return { response: { status: String(REFUSALS[refusal.code].status), outcome: operationOutcome([refusal]) } }
    })
  }
  return results
}

async function runAlone({ request, path, query, content }: Operation, options: BundleOptions): Promise<BundleEntry> {
  if (request.method === 'GET') {
    return await options.database.transaction(options.context, async (transaction) =>
      readEntry(transaction, { path, query }, options),
    )
  }
  const served = servedTypeOf(path[0] ?? '')
  if (request.method === 'POST' && path.length === 1) {
    return answerOf(served, await create(options.database, options, { served, content, condition: request.ifNoneExist }), options)
  }
  if (request.method === 'PUT' && path.length === 2) {
    const change = { served, id: path[1]!, content, expected: versionOfIfMatch(request.ifMatch) }
    return answerOf(served, await update(options.database, options, change), options)
  }
  throw notSupported(request)
}

function notSupported({ method, url }: BundleEntryRequest): Refusal {
  return new Refusal('NOT_SUPPORTED', `${method} ${url} is not supported in a bundle`)
}
