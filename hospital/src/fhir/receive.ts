import type { Context } from '../database/database.ts'
import type { DocumentStore, StoredFile } from '../files/document-store.ts'
import { takeInData } from './document-rules.ts'
import { refuseAll } from './problem-list.ts'
import type { Json } from './rows.ts'
import { facilityOfWriter } from './rules.ts'
import type { ServedType } from './served-types.ts'
import { validate } from './validate.ts'
import type { FoundReference } from './walk.ts'

/** A resource that a client sent, right by FHIR's rules, with what came with it already on disk. */
export interface Received {
  readonly served: ServedType
  readonly content: Json
  readonly references: readonly FoundReference[]
  readonly file: StoredFile | undefined
}

/** What taking a resource in needs, besides the resource. */
export interface Intake {
  readonly context: Context
  readonly documents: DocumentStore
}

/**
 * Reads what a client sent, before a transaction begins. Throws FORBIDDEN or NOT_SUPPORTED for who may not write it, and refuses (INVALID) all that is
 * wrong with it at once.
 */
export async function receive(served: ServedType, content: unknown, { context, documents }: Intake): Promise<Received> {
  facilityOfWriter(served, context)
  const { problems, references } = await validate(content, served.name)
  refuseAll(problems)
  // A copy: the hospital adds to it.
  const copy = { ...(content as Json) }
  const file = served.name === 'DocumentReference' ? await takeInData(copy, documents) : undefined
  return { served, content: copy, references, file }
}
