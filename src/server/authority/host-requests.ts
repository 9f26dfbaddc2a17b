import { z } from 'zod'
import { askedFolder, askedName, askedSchema, componentOf, digestOf } from '../../authority/operation.ts'
import { insertApproval, readApproval, type Approval } from '../../catalog/approvals.ts'
import type { Store } from '../../catalog/store.ts'
import { Failure } from '../../errors.ts'
import { listAuthority, readAuthority } from '../../repository/authority-objects.ts'
import type { Repository } from '../../repository/repository.ts'

const schema = askedSchema.extend({ format: z.literal(1) })
/** At one look. */
const NAMES_MAX = 10_000
/** What asks for longer was written by hand. */
const HOLDS_MS = 4 * 3_600_000
/** Clocks may differ by so much. */
const CLOCKS_MS = 4 * 3_600_000

const seen = new WeakMap<Repository, Set<string>>()

interface Importing {
  readonly store: Store
  readonly repository: Repository
  readonly nowMs: number
  readonly sealOf: (digest: string) => Buffer
}

/** Takes in what was asked for on hosts: it lies in the repository until a control plane finds it. */
export async function importAsked(importing: Importing, onNew: (approval: Approval) => Promise<void>): Promise<void> {
  const { repository, nowMs } = importing
  // What is older is over: however many were asked for in all, one or two days are listed.
  const folders = new Set([nowMs - HOLDS_MS - CLOCKS_MS, nowMs, nowMs + CLOCKS_MS].map(askedFolder))
  const names: string[] = []
  for (const folder of folders) names.push(...(await listAuthority(repository, folder)))
  const before = seen.get(repository)
  const known = new Set(names.filter((each) => before?.has(each) === true))
  seen.set(repository, known)
  for (const name of names.filter((each) => !known.has(each)).slice(0, NAMES_MAX)) {
    const approval = await importOne(importing, name)
    if (approval !== undefined) await onNew(approval)
    known.add(name)
  }
}

async function importOne({ store, nowMs, sealOf, repository }: Importing, name: string): Promise<Approval | undefined> {
  // One that is damaged asks for nothing; "resus verify --all" names it.
  const document = await readAuthority(repository, name).catch((error: unknown) => {
    if (error instanceof Failure && error.code === 'OBJECT_DAMAGED') return undefined
    throw error
  })
  const parsed = schema.safeParse(document)
  // One that was written by hand, or under another's name, asks for nothing.
  if (!parsed.success || name !== askedName(parsed.data) || !parsed.data.askedBy.id.startsWith('host:')) return undefined
  const { format: _, ...asked } = parsed.data
  if (Date.parse(asked.expiresAt) - Date.parse(asked.askedAt) > HOLDS_MS) return undefined
  // A host asks for what is done on a host.
  if (asked.operation !== 'restore' && asked.operation !== 'expire') return undefined
  // What it says it is about is what decides who may decide.
  if (asked.system !== repository.system || asked.component !== componentOf(asked.parameters)) return undefined
  // Of long ago, where the store was lost.
  if (Date.parse(asked.expiresAt) <= nowMs) return undefined
  if ((await readApproval(store.sql, asked.id)) !== undefined) return undefined
  const digest = digestOf(asked)
  await insertApproval(store.sql, {
    ...asked,
    digest,
    seal: sealOf(digest),
    askedAt: new Date(asked.askedAt),
    expiresAt: new Date(asked.expiresAt),
  })
  return await readApproval(store.sql, asked.id)
}
