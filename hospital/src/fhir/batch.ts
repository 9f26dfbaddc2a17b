import type { BundleEntry } from '@medplum/fhirtypes'
import { operationOutcome } from '../http/problem.ts'
import { Refusal, REFUSALS } from '../refusal.ts'
import { answerOf, inOrder, notSupported, readEntry, type BundleOptions } from './bundle-entries.ts'
import { within } from './bundle-places.ts'
import type { Operation } from './bundle-references.ts'
import { versionOfIfMatch } from './negotiation.ts'
import { servedTypeOf } from './reading.ts'
import { create, update } from './writing.ts'

/** Each entry in a transaction of its own: what is refused is said in its place. */
export async function runBatch(operations: readonly Operation[], options: BundleOptions): Promise<BundleEntry[]> {
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
