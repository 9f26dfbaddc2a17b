import { z } from 'zod'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { listAuthority, putAuthority, readAuthority } from '../repository/authority-objects.ts'
import { randomId, timeName } from '../repository/layout.ts'
import type { Repository } from '../repository/repository.ts'
import { canonicalJson, jsonSchema, type Json } from './canonical-json.ts'

// The configuration in force, as the repository has it: what somebody edits in a file on a host does not weaken what the repository says (docs/authority.md).

const schema = z.object({
  format: z.literal(1),
  at: z.string(),
  document: z.record(z.string(), jsonSchema),
  approval: z.string().nullable(),
})
export type ConfigurationAnchor = z.infer<typeof schema>

/** The newest; undefined while none was kept, which is so while there are no people. Throws OBJECT_DAMAGED, and what the storage throws. */
export async function newestConfiguration(repository: Repository): Promise<ConfigurationAnchor | undefined> {
  const name = (await listAuthority(repository, 'configurations/')).at(-1)
  if (name === undefined) return undefined
  const found = schema.safeParse(await readAuthority(repository, name))
  if (found.success) return found.data
  throw new Failure('OBJECT_DAMAGED', `"authority/${name}" is no configuration`, { hint: 'run "resus verify --all"' })
}

/** Keeps the configuration that comes into force, unless it is the newest already. */
export async function keepConfiguration(
  repository: Repository,
  document: Readonly<Record<string, Json>>,
  approval: string | null,
  clock: Clock,
): Promise<void> {
  const before = await newestConfiguration(repository)
  if (before !== undefined && canonicalJson(before.document) === canonicalJson(document)) return
  // Names tell seconds apart; a clock that is behind must not put it below the one before.
  const nowMs = Math.max(clock.now(), before === undefined ? 0 : Date.parse(before.at) + 1000)
  const anchor = { format: 1, at: new Date(nowMs).toISOString(), document, approval }
  await putAuthority(repository, `configurations/${timeName(nowMs)}-${randomId()}`, anchor)
}
