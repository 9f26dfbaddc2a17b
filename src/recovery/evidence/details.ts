import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { canonicalJson, jsonSchema, type Json } from '../../authority/canonical-json.ts'
import { Failure } from '../../errors.ts'
import { putEvidence, readEvidence } from '../../repository/evidence-objects.ts'
import { keyedDigest } from '../../repository/key-ring.ts'
import type { Repository } from '../../repository/repository.ts'
import { damaged } from '../../repository/sealed-object.ts'
import type { CallOptions } from '../../storage/storage.ts'

// What may name rows of patients: an object of its own, which a record names by a keyed digest. Whoever reads one is in the trail.

const PURPOSE = 'evidence details'

const detailsSchema = z.object({
  format: z.literal(1),
  id: z.uuid(),
  checks: z.array(z.object({ name: z.string(), said: z.string(), findings: jsonSchema })),
})
export type Details = z.infer<typeof detailsSchema>
export type CheckDetail = Details['checks'][number]

/** Keeps details; what a record has of them. Null when there are none. Throws what the storage throws. */
export async function putDetails(
  repository: Repository,
  checks: readonly CheckDetail[],
  call: CallOptions = {},
): Promise<{ readonly id: string; readonly digest: string } | null> {
  if (checks.length === 0) return null
  const id = randomUUID()
  const document: Details = { format: 1, id, checks: [...checks] }
  await putEvidence(repository, `details/${id}`, document, call)
  return { id, digest: digestOf(repository, document) }
}

/** The details that a record names. Throws EVIDENCE_UNKNOWN, OBJECT_DAMAGED when they are not those, and what the storage throws. */
export async function readDetails(
  repository: Repository,
  named: { readonly id: string; readonly digest: string },
  call: CallOptions = {},
): Promise<Details> {
  const name = `details/${named.id}`
  const document = await readEvidence(repository, name, call)
  if (document === undefined)
    throw new Failure('EVIDENCE_UNKNOWN', `the details "${name}" are not in the repository`, {
      hint: 'bring the object back from another copy of the storage',
    })
  const details = detailsSchema.safeParse(document)
  if (!details.success || digestOf(repository, details.data) !== named.digest)
    throw damaged(name, 'it is not what the record has signed')
  return details.data
}

function digestOf(repository: Repository, document: Details): string {
  return keyedDigest(repository.ring, PURPOSE, canonicalJson(JSON.parse(JSON.stringify(document)) as Json))
}
