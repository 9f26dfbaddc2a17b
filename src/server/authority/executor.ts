import { basename } from 'node:path'
import { z } from 'zod'
import type { People } from '../../authority/people.ts'
import { NOWHERE } from '../../authority/account-event.ts'
import type { Tokens } from '../../authority/tokens.ts'
import { readUse, takeUse } from '../../authority/anchors.ts'
import { keepBreakGlass } from '../../authority/break-glass.ts'
import { grantSchema } from '../../authority/principal.ts'
import type { Approval } from '../../catalog/approvals.ts'
import type { Json } from '../../authority/canonical-json.ts'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import type { Repository } from '../../repository/repository.ts'
import type { Control } from '../control.ts'
import type { Target } from '../task-kinds.ts'

// Doing what was approved. Each may be called again for the same approval, after a crash between the doing and its being written down.

const email = z.email().max(254).nullable()
export const peopleSchema = z.discriminatedUnion('change', [
  z.strictObject({
    change: z.literal('make'),
    name: z.string().min(1).max(63),
    displayName: z.string().min(1).max(200),
    email,
    grants: z.array(grantSchema).min(1).max(50),
  }),
  z.strictObject({ change: z.literal('grants'), person: z.uuid(), grants: z.array(grantSchema).max(50) }),
  z.strictObject({ change: z.literal('disable'), person: z.uuid() }),
  z.strictObject({ change: z.literal('enable'), person: z.uuid() }),
  z.strictObject({ change: z.literal('reset'), person: z.uuid() }),
])
export type PeopleChange = z.infer<typeof peopleSchema>

const tokenSchema = z.strictObject({
  id: z.uuid(),
  person: z.uuid(),
  name: z.string(),
  grants: z.array(grantSchema),
  digest: z.string(),
  at: z.iso.datetime(),
  expiresAt: z.iso.datetime(),
})

const restoreSchema = z.object({
  verb: z.literal('restore'),
  component: z.string(),
  to: z.string(),
  options: z.strictObject({
    backup: z.string().optional(),
    targetTime: z.string().optional(),
    targetLsn: z.string().optional(),
    targetXid: z.string().optional(),
    targetName: z.string().optional(),
    targetTimeline: z.string().optional(),
    exclusive: z.literal(true).optional(),
  }),
})

/** What the command of a restore is asked, in the words of its options: what the approval is bound to. */
export function restoreParameters(component: string, to: string, target: Target): Record<string, Json> {
  const { backup, time, lsn, xid, name, timeline, exclusive } = target
  const options = {
    ...(backup === undefined ? {} : { backup }),
    ...(time === undefined ? {} : { targetTime: time }),
    ...(lsn === undefined ? {} : { targetLsn: lsn }),
    ...(xid === undefined ? {} : { targetXid: xid }),
    ...(name === undefined ? {} : { targetName: name }),
    ...(timeline === undefined ? {} : { targetTimeline: String(timeline) }),
    ...(exclusive === true ? { exclusive } : {}),
  }
  return { verb: 'restore', component, to, options }
}

export interface Execution {
  readonly control: () => Control
  readonly people: () => People
  readonly tokens: () => Tokens
  /** Of a system, or all that can be reached. */
  readonly repositoriesOf: (system: string | null) => Promise<readonly Repository[]>
  readonly clock: Clock
  /** A configuration that waited may come into force. */
  readonly admit: () => Promise<void>
}

/** Gives what came of it; undefined where somebody else does it, on a host. */
export async function execute(approval: Approval, execution: Execution): Promise<Record<string, unknown> | undefined> {
  if (approval.asked_by.startsWith('host:')) return await usedOnHost(approval, execution)
  // Whoever has revoked it was quicker, or is too late.
  if (approval.operation !== 'restore') {
    const run = `approval ${approval.id}`
    for (const repository of await execution.repositoriesOf(approval.system)) {
      await takeUse(repository, { id: approval.id, run, nowMs: execution.clock.now() })
    }
  }
  switch (approval.operation) {
    case 'restore':
      return await startRestore(approval, execution.control())
    case 'people':
      return await changePeople(
        peopleSchema.parse(approval.parameters),
        { id: approval.asked_by, since: approval.asked_at },
        execution.people(),
      )
    case 'token': {
      const { digest, at, expiresAt, ...made } = tokenSchema.parse(approval.parameters)
      const row = { ...made, digest: Buffer.from(digest, 'base64'), at: new Date(at), expiresAt: new Date(expiresAt) }
      await execution.tokens().keep(row, NOWHERE)
      return { token: made.id }
    }
    case 'configuration':
      await execution.admit()
      return {}
    case 'break-glass': {
      const { id, digest } = z.object({ id: z.uuid(), digest: z.string() }).parse(approval.parameters)
      await keepBreakGlass(await execution.repositoriesOf(null), { id, digest }, approval.id, execution.clock)
      return { id }
    }
    default:
      throw new Failure('APPROVAL_INVALID', `nobody knows how to do "${approval.operation}"`)
  }
}

/** What runs on a host says so in the repository. */
async function usedOnHost({ id, system }: Approval, { repositoriesOf }: Execution): Promise<Record<string, unknown> | undefined> {
  for (const repository of await repositoriesOf(system)) {
    const use = await readUse(repository, id)
    if (use !== undefined) return { run: use.run, at: use.at }
  }
  return undefined
}

async function startRestore(approval: Approval, control: Control): Promise<Record<string, unknown>> {
  const { component, to, options } = restoreSchema.parse(approval.parameters)
  // Who decided was an approver of that one.
  if (component !== approval.component)
    throw new Failure('APPROVAL_INVALID', `it was approved for "${approval.component ?? '-'}", and is for "${component}"`)
  const picture = control.catalogue.picture(approval.system ?? '', component)
  if (picture === undefined) throw new Failure('COMPONENT_UNKNOWN', `there is no component "${component}" any more`)
  const { backup, targetTime, targetLsn, targetXid, targetName, targetTimeline, exclusive } = options
  const target = {
    backup,
    time: targetTime,
    lsn: targetLsn,
    xid: targetXid,
    name: targetName,
    timeline: targetTimeline === undefined ? undefined : Number(targetTimeline),
    exclusive,
  }
  const task = await control.request({
    picture,
    kind: 'restore',
    asked: approval.parameters,
    parameters: () => ({ target: JSON.parse(JSON.stringify(target)) as Target, name: basename(to) }),
    requestedBy: approval.asked_name,
    clearance: { kind: 'approval', id: approval.id },
    idempotencyKey: `approval ${approval.id}`,
  })
  return { task: task.id }
}

/** Does a change of people, for somebody who asked for it then. */
export async function changePeople(
  change: PeopleChange,
  by: { readonly id: string; readonly since: Date },
  people: People,
): Promise<{ person: string }> {
  switch (change.change) {
    case 'make': {
      const { change: _, ...person } = change
      // Made already by a node that died before it could say so.
      const there = await people.readByName(person.name)
      if (there?.madeBy === by.id && there.madeAt >= by.since) return { person: there.id }
      return { person: (await people.insertPerson(person, by)).id }
    }
    case 'grants':
      await people.setGrants(change.person, change.grants, by)
      return { person: change.person }
    case 'disable':
      await people.disable(change.person, by)
      return { person: change.person }
    case 'enable':
      await people.enable(change.person, by)
      return { person: change.person }
    case 'reset':
      await people.resetFactors(change.person, by)
      return { person: change.person }
    default:
      return change satisfies never
  }
}
