import type { BundleEntry } from '@medplum/fhirtypes'
import type { Transaction } from '../database/database.ts'
import { Refusal } from '../refusal.ts'
import { uuid } from '../uuid.ts'
import { answerOf, inOrder, notSupported, readEntry, type BundleOptions } from './bundle-entries.ts'
import { within } from './bundle-places.ts'
import { identify, pointedTo, type Operation } from './bundle-references.ts'
import { updateResource } from './change.ts'
import { createResource } from './create.ts'
import { versionOfIfMatch } from './negotiation.ts'
import { servedTypeOf } from './reading.ts'
import { receive, type Received } from './receive.ts'
import type { ResourceRow } from './rows.ts'
import { findExisting } from './writing.ts'

/** All of it in one transaction of the database. */
export async function runTransaction(operations: readonly Operation[], options: BundleOptions): Promise<BundleEntry[]> {
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
