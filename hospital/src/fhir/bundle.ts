import type { Bundle, BundleEntry, BundleEntryRequest } from '@medplum/fhirtypes'
import { Refusal } from '../refusal.ts'
import { runBatch } from './batch.ts'
import type { BundleOptions } from './bundle-entries.ts'
import type { Operation } from './bundle-references.ts'
import { problem, refuseAll } from './problem-list.ts'
import type { Json } from './rows.ts'
import { runTransaction } from './transaction.ts'
import { validate } from './validate.ts'

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
