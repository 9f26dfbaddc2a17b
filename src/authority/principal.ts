import { z } from 'zod'

// Who asks, and what they were granted (docs/authority.md).

export const ROLES = ['viewer', 'operator', 'approver', 'administrator', 'auditor'] as const
export type Role = (typeof ROLES)[number]

export const grantSchema = z.strictObject({
  role: z.enum(ROLES),
  facilities: z
    .array(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'the id of a facility'))
    .min(1)
    .max(1000)
    .nullable()
    .describe('for these facilities alone; null for all'),
})
/** A role, for all facilities or for some. */
export type Grant = z.infer<typeof grantSchema>

/** What somebody has shown. `file` is the administrator token of an installation without people. */
export const FACTORS = ['password', 'totp', 'passkey', 'oidc', 'token', 'file'] as const
export type Factor = (typeof FACTORS)[number]

/** Who asks: somebody who was found to be who they say. */
export interface Principal {
  readonly kind: 'person' | 'token' | 'bootstrap'
  /** Of the person or of the token. */
  readonly id: string
  /** The person who answers for it; null where there are no people yet. */
  readonly person: string | null
  /** For people to read; unique among people. */
  readonly name: string
  readonly grants: readonly Grant[]
  readonly factor: Factor
}
