import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { listAuthority, putAuthority, readAuthority } from '../repository/authority-objects.ts'
import { randomId, timeName } from '../repository/layout.ts'
import type { Repository } from '../repository/repository.ts'
import { jsonSchema } from './canonical-json.ts'

// The settings of each server that were accepted, as the repositories know them (docs/authority.md): what somebody edits in server.yaml is held against these.

const FOLDER = 'servers/'

export const acceptedSettingsSchema = z.object({
  format: z.literal(1),
  at: z.iso.datetime({ precision: 3 }),
  node: z.string(),
  document: z.record(z.string(), jsonSchema),
  approval: z.string().nullable(),
})
export type AcceptedSettings = z.infer<typeof acceptedSettingsSchema>

/**
 * The newest of this node; of a node that none of these knows the newest of any: who calls a node otherwise has no new settings by that. Undefined while none was kept, which is so while there
 * are no people. Throws OBJECT_DAMAGED, and what a storage throws.
 */
export async function newestSettings(repositories: readonly Repository[], node: string): Promise<AcceptedSettings | undefined> {
  const own = await newestIn(repositories, `${FOLDER}${node}/`)
  return own ?? (await newestIn(repositories, FOLDER))
}

/** Keeps settings that come into force in each of these. Gives them as they are kept; throws what a storage throws, when all have been tried. */
export async function keepSettings(
  repositories: readonly Repository[],
  { node, document, approval }: Pick<AcceptedSettings, 'node' | 'document' | 'approval'>,
  clock: Clock,
): Promise<AcceptedSettings> {
  const folder = `${FOLDER}${node}/`
  const before = await newestIn(repositories, folder)
  // Names tell seconds apart; a clock that is behind must not put it below the one before.
  const nowMs = Math.max(clock.now(), before === undefined ? 0 : Date.parse(before.at) + 1000)
  const isSame = before !== undefined && isDeepStrictEqual(before.document, document)
  const kept: AcceptedSettings = isSame ? before : { format: 1, at: new Date(nowMs).toISOString(), node, document, approval }
  let failure: unknown
  for (const repository of repositories) {
    try {
      const there = await newestIn([repository], folder)
      if (there !== undefined && there.at >= kept.at) continue
      await putAuthority(repository, `${folder}${timeName(Date.parse(kept.at))}-${randomId()}`, kept)
    } catch (error) {
      failure = error
    }
  }
  if (failure !== undefined) throw failure as Error
  return kept
}

/** By their time: those of several repositories differ where one was away. */
async function newestIn(repositories: readonly Repository[], folder: string): Promise<AcceptedSettings | undefined> {
  let newest: AcceptedSettings | undefined
  for (const repository of repositories) {
    const names = await listAuthority(repository, folder)
    const name = names.toSorted((left, right) => (timeOf(left) < timeOf(right) ? -1 : 1)).at(-1)
    if (name === undefined) continue
    const found = await read(repository, name)
    if (newest === undefined || found.at > newest.at) newest = found
  }
  return newest
}

/** `servers/<node>/<time>-<random>`: without the node. */
function timeOf(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1)
}

async function read(repository: Repository, name: string): Promise<AcceptedSettings> {
  const found = acceptedSettingsSchema.safeParse(await readAuthority(repository, name))
  if (found.success) return found.data
  throw new Failure('OBJECT_DAMAGED', `"authority/${name}" is no settings of a server`, { hint: 'run "resus verify --all"' })
}
