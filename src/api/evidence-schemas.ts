import { z } from 'zod'

const instant = z.string()
const figure = z.number().nullable()

export const runSummarySchema = z
  .object({
    system: z.string(),
    component: z.string(),
    sequence: z.int(),
    digest: z.string().describe('SHA-256 of what was signed'),
    kind: z.enum(['drill', 'recovery']),
    madeAt: instant,
    verdict: z.enum(['verified', 'failed', 'not proven']),
    why: z.string(),
    expires: instant,
    target: z.string(),
    turn: z.string().nullable(),
    rtoSeconds: figure,
    rpoSeconds: figure,
    leftBehind: z.boolean(),
    certified: z.string().nullable().describe('the decision of management; null where there is none yet'),
  })
  .meta({ id: 'DrillSummary' })
export type RunSummaryDocument = z.infer<typeof runSummarySchema>

export const evidenceListSchema = z
  .object({
    items: z.array(runSummarySchema),
    forecasts: z.array(
      z.object({
        system: z.string(),
        component: z.string(),
        secondsPerDay: z.number(),
        brokenOn: z.string().nullable().describe('the day on which the RTO objective is broken at this growth'),
        basis: z.string(),
      }),
    ),
    systems: z.array(
      z.object({
        system: z.string(),
        count: z.int().nullable().describe('how many records there are; null where there is none, or nobody has looked yet'),
        last: z.string().nullable().describe('digest of the last one: note it elsewhere'),
        problem: z.string().nullable(),
        openActions: z.array(
          z.object({
            action: z.string(),
            of: z.int(),
            text: z.string(),
            owner: z.string(),
            due: z.string(),
            overdue: z.boolean(),
          }),
        ),
      }),
    ),
  })
  .meta({ id: 'EvidenceList' })
export type EvidenceListDocument = z.infer<typeof evidenceListSchema>

export const evidenceRecordSchema = z
  .object({
    sequence: z.int(),
    digest: z.string(),
    signer: z.string(),
    predicate: z.record(z.string(), z.unknown()),
    envelope: z.object({
      payloadType: z.string(),
      payload: z.string(),
      signatures: z.array(z.object({ keyid: z.string(), sig: z.string() })),
    }),
  })
  .meta({ id: 'EvidenceRecord' })

export const evidenceDetailsSchema = z
  .object({ id: z.string(), checks: z.array(z.object({ name: z.string(), said: z.string(), findings: z.unknown() })) })
  .meta({ id: 'EvidenceDetails' })

export const evidenceReportSchema = z
  .object({
    verdict: z.enum(['verified', 'failed', 'not proven']),
    why: z.string(),
    records: z.int(),
    first: z.int().nullable(),
    last: z.int().nullable(),
    lastDigest: z.string().nullable(),
    signers: z.array(z.string()),
    problems: z.array(z.object({ kind: z.string(), sequence: z.int().nullable(), text: z.string() })),
  })
  .meta({ id: 'EvidenceReport' })

const text = z.string().trim().min(1).max(4000)
export const certificationBody = z.strictObject({
  decision: z.enum(['accepted', 'accepted with deviations', 'rejected']),
  text,
})
export const deviationBody = z.strictObject({ severity: z.enum(['minor', 'major']).default('minor'), text })
export const actionBody = z.strictObject({ owner: z.string().trim().min(1).max(200), due: z.iso.date(), text })
export const actionChangeBody = z.strictObject({
  owner: z.string().trim().min(1).max(200).optional(),
  due: z.iso.date().optional(),
  state: z.enum(['open', 'done', 'dropped']).optional(),
  text: text.optional(),
})
