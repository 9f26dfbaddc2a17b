import { z } from 'zod'

const hash = z.string().describe('SHA-256, hexadecimal')

const auditEntryDocument = z
  .object({
    seq: z.int(),
    id: z.string(),
    at: z.string(),
    node: z.string(),
    actor: z.object({ kind: z.string(), id: z.string().nullable(), name: z.string() }),
    factor: z.string().nullable(),
    address: z.string().nullable(),
    action: z.string(),
    object: z.record(z.string(), z.unknown()),
    before: z.unknown(),
    after: z.unknown(),
    outcome: z.string(),
    reason: z.string().nullable(),
    approval: z.string().nullable(),
    previous: hash,
    hash,
  })
  .meta({ id: 'AuditEntry' })

export const auditPageSchema = z
  .object({ items: z.array(auditEntryDocument), next: z.string().nullable() })
  .meta({ id: 'AuditPage' })

export const acknowledgeBody = z.strictObject({
  text: z.string().trim().min(3).max(2000).describe('who has looked, and what was found'),
})

export const acknowledgedSchema = z.object({
  closed: z.array(z.object({ code: z.string(), system: z.string(), text: z.string() })),
})

const verification = z.object({
  system: z.string(),
  at: z.string(),
  problems: z.array(z.string()).describe('in words; of many the first'),
  inAll: z.int(),
})
export const auditStateSchema = z.object({
  protection: z
    .enum(['role', 'triggers'])
    .nullable()
    .describe('what keeps Resus itself from changing entries of the store; null where nobody has looked yet'),
  verified: z.array(verification).describe('of each system, the last time that its copy was held against the store'),
})

export const auditHeadsSchema = z
  .object({
    newest: z.object({ seq: z.int(), hash, at: z.string() }).nullable(),
    protection: z
      .enum(['role', 'triggers'])
      .describe('what keeps Resus itself from changing entries of the store: no right to, or triggers alone'),
    heads: z.array(
      z.object({
        seq: z.int(),
        hash,
        at: z.string(),
        system: z.string(),
        signature: z.string().describe('Ed25519 over the canonical JSON of the four before, base64'),
        publicKey: z.string().describe('PEM'),
      }),
    ),
  })
  .meta({ id: 'AuditHeads' })
