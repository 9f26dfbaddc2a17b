import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { listAuthority, putAuthority, readAuthority } from '../repository/authority-objects.ts'
import type { Repository } from '../repository/repository.ts'
import { readDecision, readUse, takeUse } from './anchors.ts'
import { useBreakGlass } from './break-glass.ts'
import { canonicalJson } from './canonical-json.ts'
import { askedName, componentOf, digestOf, type Asked, type Operation } from './operation.ts'

const ASKED_HOLDS_MS = 4 * 3_600_000

/** By whose leave somebody wants to do what takes two. */
export type Clearance =
  | { readonly kind: 'none' }
  | { readonly kind: 'approval'; readonly id: string }
  | { readonly kind: 'emergency'; readonly id: string }
  | { readonly kind: 'break-glass'; readonly code: string }

/** What somebody is about to do. */
export interface Deed {
  readonly operation: Operation
  readonly parameters: Asked['parameters']
  /** It takes nothing away and overwrites nothing: an emergency or the sealed code is enough for it. */
  readonly isNewPlace: boolean
  /** Whose: the same may come again, as an interrupted restore does. */
  readonly run: string
}

const emergencySchema = z.object({
  format: z.literal(1),
  id: z.string(),
  at: z.string(),
  until: z.iso.datetime({ precision: 3 }),
})

/** Whether there are people: from then on what takes two takes two. */
export async function knowsPeople(repository: Repository): Promise<boolean> {
  return (await listAuthority(repository, 'people/')).length > 0
}

/**
 * Lets a deed through, or says what is missing; asked where the deed is done, of the repository alone. Throws APPROVAL_NEEDED, APPROVAL_INVALID, and what the storage throws: in doubt
 * nothing is done.
 */
export async function requireClearance(repository: Repository, deed: Deed, clearance: Clearance, clock: Clock): Promise<void> {
  if (clearance.kind === 'none') {
    if (!(await knowsPeople(repository))) return
    throw new Failure('APPROVAL_NEEDED', `a ${deed.operation} takes a second person`, {
      hint: 'ask for it with --ask "why", and when it is approved run it with --approval; in a declared emergency with --emergency; if nobody can be asked, with --break-glass',
    })
  }
  if (clearance.kind === 'approval') return await byApproval(repository, deed, clearance.id, clock)
  if (!deed.isNewPlace) {
    throw new Failure('APPROVAL_NEEDED', 'over what is there nobody restores alone, not in an emergency either', {
      hint: 'restore to a new place, or ask with --ask',
    })
  }
  if (clearance.kind === 'break-glass') return await useBreakGlass(repository, clearance.code, deed.run, clock)
  return await byEmergency(repository, clearance.id, clock)
}

/** Asks from a host, where there may be no control plane: it finds the request in the repository. Gives its id and digest. */
export async function askFromHost(
  repository: Repository,
  { operation, parameters }: Pick<Deed, 'operation' | 'parameters'>,
  asker: { readonly account: string; readonly host: string; readonly reason: string },
  clock: Clock,
): Promise<{ readonly id: string; readonly digest: string; readonly expiresAt: string }> {
  const nowMs = clock.now()
  const name = `${asker.account}@${asker.host}`
  const asked: Asked = {
    id: randomUUID(),
    operation,
    system: repository.system,
    component: componentOf(parameters),
    parameters: { ...parameters, reason: asker.reason },
    askedBy: { id: `host:${name}`, name },
    askedAt: new Date(nowMs).toISOString(),
    expiresAt: new Date(nowMs + ASKED_HOLDS_MS).toISOString(),
  }
  await putAuthority(repository, askedName(asked), { format: 1, ...asked })
  return { id: asked.id, digest: digestOf(asked), expiresAt: asked.expiresAt }
}

async function byApproval(repository: Repository, { operation, parameters, run }: Deed, id: string, clock: Clock): Promise<void> {
  const decided = await readDecision(repository, id)
  if (decided === undefined) {
    throw new Failure('APPROVAL_NEEDED', `nobody has decided on ${id} yet`, { hint: 'an approver has to; then run it again' })
  }
  const invalid = (why: string) => new Failure('APPROVAL_INVALID', `the approval ${id} ${why}`, { hint: 'ask for another' })
  if (decided.decision === 'refuse') throw invalid(`was refused by ${decided.decidedBy.name}`)
  const { reason: _, ...approved } = decided.parameters
  if (decided.operation !== operation || canonicalJson(approved) !== canonicalJson(parameters)) {
    throw invalid(`is for something else: ${decided.operation} ${canonicalJson(approved)}, and not ${canonicalJson(parameters)}`)
  }
  if (decided.system !== repository.system || decided.component !== componentOf(parameters)) {
    throw invalid(`is for ${decided.system ?? 'no system'}/${decided.component ?? '-'}`)
  }
  if (Date.parse(decided.expiresAt) <= clock.now() && (await readUse(repository, id))?.run !== run)
    throw invalid(`expired at ${decided.expiresAt}`)
  await takeUse(repository, { id, run, nowMs: clock.now() })
}

async function byEmergency(repository: Repository, id: string, clock: Clock): Promise<void> {
  const found = emergencySchema.safeParse(await readAuthority(repository, `emergencies/${id}.declared`))
  if (!found.success) throw new Failure('APPROVAL_INVALID', `no emergency "${id}" was declared`, { hint: 'declare it first' })
  if (Date.parse(found.data.until) > clock.now()) return
  throw new Failure('APPROVAL_INVALID', `the emergency ended at ${found.data.until}`, { hint: 'declare it again, if it goes on' })
}
