import { createHash } from 'node:crypto'
import { z } from 'zod'
import { canonicalJson, jsonSchema } from './canonical-json.ts'

// What takes two people, and what a decision on it is bound to (docs/authority.md, "Two pairs of eyes").

export const OPERATIONS = ['restore', 'expire', 'configuration', 'people', 'token', 'break-glass'] as const
export type Operation = (typeof OPERATIONS)[number]

const askerSchema = z.object({ id: z.string(), name: z.string() })

export const askedSchema = z.object({
  id: z.uuid(),
  operation: z.enum(OPERATIONS),
  /** What it is about; null for what belongs to no system, or to no component. */
  system: z.string().nullable(),
  component: z.string().nullable(),
  parameters: z.record(z.string(), jsonSchema),
  askedBy: askerSchema,
  askedAt: z.iso.datetime({ precision: 3 }),
  expiresAt: z.iso.datetime({ precision: 3 }),
})
/** An operation that somebody asks for: all that the digest is made of. */
export type Asked = z.infer<typeof askedSchema>

/** SHA-256 (hex) of all that is asked, in canonical form: what is approved under it is this and nothing else. */
export function digestOf({ id, operation, system, component, parameters, askedBy, askedAt, expiresAt }: Asked): string {
  const asked = { id, operation, system, component, parameters, askedBy, askedAt, expiresAt }
  return createHash('sha256').update(canonicalJson(asked)).digest('hex')
}

/** The component that something is asked for, by its parameters. */
export function componentOf(parameters: Asked['parameters']): string | null {
  const { component } = parameters
  return typeof component === 'string' ? component : null
}

/** Where a request of a host lies: by the day, so that whoever looks for new ones lists those of today alone. */
export function askedName({ id, askedAt }: Pick<Asked, 'id' | 'askedAt'>): string {
  return `${askedFolder(Date.parse(askedAt))}${id}`
}

export function askedFolder(timeMs: number): string {
  return `asked/${new Date(timeMs).toISOString().slice(0, 10).replaceAll('-', '')}/`
}

export const decidedSchema = askedSchema
  .extend({
    format: z.literal(1),
    digest: z.string(),
    decision: z.enum(['approve', 'refuse']),
    decidedBy: askerSchema,
    decidedAt: z.iso.datetime({ precision: 3 }),
    factor: z.enum(['totp', 'passkey']),
    reason: z.string().nullable(),
  })
  .refine((decided) => digestOf(decided) === decided.digest, { message: 'its digest is not that of what it says' })
/** A decision, as it is kept in the repository. */
export type Decided = z.infer<typeof decidedSchema>
