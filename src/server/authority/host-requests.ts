import { z } from 'zod'
import { askedSchema, digestOf } from '../../authority/operation.ts'
import { insertApproval, readApproval, type Approval } from '../../catalog/approvals.ts'
import type { Store } from '../../catalog/store.ts'
import { Failure } from '../../errors.ts'
import { listAuthority, readAuthority } from '../../repository/authority-objects.ts'
import type { Repository } from '../../repository/repository.ts'
import type { Catalogue } from '../catalogue.ts'
import { facilitiesOf } from '../view.ts'

const HOLDS_MS = 4 * 3_600_000
/** What a host's command does when it is approved. A change of the configuration, asked for so, would show whatever its writer likes. */
const schema = askedSchema
  .extend({ format: z.literal(1), operation: z.enum(['restore', 'expire']) })
  .refine(({ askedAt, expiresAt }) => Date.parse(expiresAt) - Date.parse(askedAt) <= HOLDS_MS)
/** Requests hold for four hours; what is older was seen, or is over. */
const NAMES_MAX = 10_000

const seen = new WeakMap<Repository, Set<string>>()

/** Takes in what was asked for on hosts: it lies in the repositories until a control plane finds it. */
export async function importAsked(
  store: Store,
  catalogue: Catalogue,
  repositories: readonly Repository[],
  onNew: (approval: Approval) => Promise<void>,
): Promise<void> {
  for (const repository of repositories) {
    const known = seen.get(repository) ?? new Set<string>()
    seen.set(repository, known)
    const names = (await listAuthority(repository, 'approvals/')).filter((name) => name.endsWith('.asked') && !known.has(name))
    for (const name of names.slice(0, NAMES_MAX)) {
      const approval = await importOne({ store, catalogue, repository }, name)
      if (approval !== undefined) await onNew(approval)
      known.add(name)
    }
  }
}

async function importOne(
  { store, catalogue, repository }: { readonly store: Store; readonly catalogue: Catalogue; readonly repository: Repository },
  name: string,
): Promise<Approval | undefined> {
  const parsed = schema.safeParse(await readWhole(repository, name))
  // One that was written by hand, or under another's name, asks for nothing.
  if (!parsed.success || name !== `approvals/${parsed.data.id}.asked` || !parsed.data.askedBy.id.startsWith('host:'))
    return undefined
  const { format: _, ...asked } = parsed.data
  if ((await readApproval(store.sql, asked.id)) !== undefined) return undefined
  const { system } = repository
  const component = typeof asked.parameters['component'] === 'string' ? asked.parameters['component'] : null
  const picture = component === null ? undefined : catalogue.picture(system, component)
  await insertApproval(store.sql, {
    ...asked,
    system,
    component,
    facilities: picture === undefined ? [] : facilitiesOf(catalogue, picture),
    digest: digestOf(asked),
    askedAt: new Date(asked.askedAt),
    expiresAt: new Date(asked.expiresAt),
  })
  return await readApproval(store.sql, asked.id)
}

/** One that is damaged asks for nothing, and keeps no other from being found. */
async function readWhole(repository: Repository, name: string): Promise<unknown> {
  try {
    return await readAuthority(repository, name)
  } catch (error) {
    if (error instanceof Failure && error.code === 'OBJECT_DAMAGED') return undefined
    throw error
  }
}
