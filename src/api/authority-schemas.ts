import { z } from 'zod'
import { givenFactorSchema } from '../authority/given-factor.ts'
import { OPERATIONS } from '../authority/operation.ts'
import { grantSchema } from '../authority/principal.ts'

// The documents of what takes two people, and of people.

const time = z.iso.datetime()
const reason = z.string().trim().min(3).max(1000)

export const APPROVAL_STATES = ['pending', 'approved', 'refused', 'revoked', 'expired', 'used', 'failed'] as const

export const approvalSchema = z.object({
  id: z.uuid(),
  operation: z.enum(OPERATIONS),
  system: z.string().nullable(),
  component: z.string().nullable(),
  facilities: z.array(z.string()).describe('whose data it is about; empty: of the whole installation'),
  parameters: z.record(z.string(), z.unknown()).describe('exactly what is asked for'),
  digest: z.string().describe('SHA-256 of all that is asked: a decision is bound to it'),
  askedBy: z.string(),
  askedAt: time,
  expiresAt: time,
  state: z.enum(APPROVAL_STATES),
  decidedBy: z.string().nullable(),
  decidedAt: time.nullable(),
  factor: z.string().nullable(),
  reason: z.string().nullable(),
  outcome: z.unknown().describe('what came of it: the task that was started'),
})
export type ApprovalDocument = z.infer<typeof approvalSchema>
export const approvalPageSchema = z.object({ items: z.array(approvalSchema), next: z.string().nullable() })

export const decisionBody = z.strictObject({
  decision: z.enum(['approve', 'refuse']),
  digest: z.string().regex(/^[0-9a-f]{64}$/, 'the digest of what was looked at'),
  factor: givenFactorSchema.describe('of this person, shown now'),
  reason: reason.nullable().default(null),
})

const aloneSchema = z.object({
  kind: z.enum(['emergency', 'break-glass']),
  id: z.uuid(),
  at: time,
  until: time.describe('restores to new places run by it until then'),
  by: z.object({ id: z.string().nullable(), name: z.string() }),
  reason: z.string().nullable(),
  reviewDue: time,
  review: z.object({ at: time, by: z.string(), text: z.string() }).nullable(),
})
export const emergencySchema = aloneSchema
export const emergenciesSchema = z.object({ items: z.array(aloneSchema) })
export const emergencyBody = z.strictObject({
  reason,
  factor: givenFactorSchema
    .optional()
    .describe('of this person, shown now; a passkey answers the challenge for this very reason'),
})
export const reasonQuery = z.strictObject({ reason })
export const reviewBody = z.strictObject({ text: reason })

export const sealedCodeSchema = z.object({
  code: z.string().describe('shown this once: print it, seal it, put it away'),
  approval: approvalSchema.describe('it is good when this was approved'),
})

export const personSchema = z.object({
  id: z.uuid(),
  name: z.string(),
  displayName: z.string(),
  email: z.string().nullable(),
  grants: z.array(grantSchema),
  state: z.enum(['active', 'disabled']),
  lockedUntil: time.nullable(),
  hasPassword: z.boolean(),
  factors: z.int(),
  madeBy: z.string(),
  madeAt: time,
  resetBy: z.string().nullable(),
  resetAt: time.nullable(),
  lastSeenAt: time.nullable(),
})
export type PersonDocument = z.infer<typeof personSchema>
export const peopleSchema = z.object({ items: z.array(personSchema), next: z.string().nullable() })
export const peopleChangedSchema = z.object({
  approval: approvalSchema.nullable().describe('who decides on it; null where it is done: nobody could decide yet'),
  person: z.uuid().nullable(),
})
export const accessReviewSchema = z.object({
  last: time.nullable(),
  due: time.nullable().describe('a quarter after the last; the first, a day after the first person came'),
  people: z.array(
    z.object({
      id: z.uuid(),
      name: z.string(),
      grants: z.array(grantSchema),
      state: z.enum(['active', 'disabled']),
      madeBy: z.string().describe('id of a person; "bootstrap", or "identity-provider"'),
      madeAt: time,
      factors: z.int(),
      lastSeenAt: time.nullable(),
      isAway: z.boolean().describe('not here for 60 days: has this person left?'),
      tokens: z.int().describe('of theirs, that are good'),
    }),
  ),
  copies: z
    .array(
      z.object({
        at: time,
        by: z.string(),
        approvedBy: z.string().nullable(),
        system: z.string().nullable(),
        component: z.string().nullable(),
        parameters: z.unknown(),
      }),
    )
    .describe("copies of patients' records since the last review"),
  alone: z.array(aloneSchema).describe('what one person did in an emergency since then, or that waits for a review'),
})
export const invitationSchema = z.object({ code: z.string().describe('shown this once; good for 24 hours'), expiresAt: time })
export const firstBody = z.strictObject({
  code: z.string().regex(/^[\w-]{43}$/, 'the part of the link behind #'),
  name: z.string().min(1).max(63),
  displayName: z.string().min(1).max(200),
  password: z.string().min(1).max(1000),
})
