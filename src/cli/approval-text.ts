import { z } from 'zod'
import type { ApprovalDocument } from '../api/authority-schemas.ts'
import { grantSchema } from '../authority/principal.ts'
import { formatGrants } from './grants-text.ts'
import { formatFields, formatTime } from './output.ts'
import { plainJson, plainText } from './plain-text.ts'

const doneSchema = z.object({ verb: z.string(), component: z.string().optional(), to: z.string().optional() })
const changeSchema = z.object({
  change: z.string(),
  name: z.string().optional(),
  person: z.string().optional(),
  grants: z.array(grantSchema).optional(),
})

/** In a line, for people; the parameters say it exactly. `nameOf` tells who an id is, where that is known. */
export function summaryOf({ operation, parameters, system }: ApprovalDocument, nameOf = (id: string) => id): string {
  switch (operation) {
    case 'restore':
    case 'expire': {
      const { verb, component, to } = doneSchema.catch({ verb: operation }).parse(parameters)
      const where = to === undefined ? '' : `, to "${to}": a copy of patients' records`
      return plainText(`${verb} of "${system ?? '-'}/${component ?? '-'}"${where}`)
    }
    case 'people': {
      const { change, name, person, grants } = changeSchema.catch({ change: 'another change' }).parse(parameters)
      const who = name ?? (person === undefined ? '-' : nameOf(person))
      return plainText(`people: ${change} "${who}"${grants === undefined ? '' : `, as ${formatGrants(grants)}`}`)
    }
    case 'configuration':
      return plainText(`the configuration of "${system ?? '-'}" is changed so that it protects less`)
    case 'token': {
      const { name, grants } = changeSchema.catch({ change: 'token' }).parse({ change: 'token', ...parameters })
      return plainText(`an API token "${name ?? '-'}"${grants === undefined ? '' : `, as ${formatGrants(grants)}`}`)
    }
    case 'break-glass':
      return 'a sealed code: whoever has it restores to new places alone, for four hours'
    default:
      return operation satisfies never
  }
}

/** All of a request, as its digest has it. */
export function describeApproval(approval: ApprovalDocument, nameOf?: (id: string) => string): string {
  const { id, digest, askedBy, askedAt, expiresAt, state, facilities, decidedBy, decidedAt, factor, reason } = approval
  const decision =
    decidedBy === null ? undefined : `${plainText(decidedBy)}, at ${formatTime(decidedAt ?? askedAt)}, by ${factor}`
  const fields = [
    ['request', id],
    ['what', summaryOf(approval, nameOf)],
    ['asked by', `${plainText(askedBy)}, at ${formatTime(askedAt)}`],
    ['facilities', facilities.length === 0 ? 'the whole installation' : plainText(facilities.join(', '))],
    ['state', state === 'pending' ? `pending, until ${formatTime(expiresAt)}` : state],
    ...(decision === undefined ? [] : [['decided by', decision] as const]),
    ...(reason === null ? [] : [['reason', plainText(reason)] as const]),
    ['digest', digest],
  ] as const
  return [
    formatFields(fields),
    `exactly this:\n${plainJson(approval.parameters)}`,
    ...(approval.outcome === null || approval.outcome === undefined ? [] : [`what came of it:\n${plainJson(approval.outcome)}`]),
  ].join('\n')
}

/** What somebody is told whose request takes another person. */
export function waitsText({ id, digest, expiresAt }: ApprovalDocument): string {
  return [
    'it was asked for, and waits for another person',
    formatFields([
      ['request', id],
      ['digest', digest],
      ['until', formatTime(expiresAt)],
      ['to do', `an approver runs "resus approve ${id}", and compares the digest`],
    ]),
  ].join('\n')
}
