import { z } from 'zod'
import { backupSummarySchema } from '../catalog/backups.ts'

// The documents of the HTTP API; the OpenAPI document is made from them.

export const problemSchema = z
  .object({
    type: z.string().describe('urn:resus:problem:CODE'),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.string().describe("the CLI's code of the same failure"),
    hint: z.string().nullable().describe('what to do next'),
    errors: z
      .array(z.object({ at: z.string().describe('JSON Pointer into the body, or the name of a parameter'), problem: z.string() }))
      .optional(),
  })
  .describe('Problem details (RFC 9457)')
export type Problem = z.infer<typeof problemSchema>

const time = z.iso.datetime()
const name = z.string().min(1).max(200)

export const pageQuery = {
  limit: z.coerce.number().int().min(1).max(500).default(50),
  cursor: z.string().max(200).optional().describe('`next` of the page before'),
}

export const componentQuery = {
  system: name.optional().describe('may be left out where there is only one'),
  component: name.optional().describe('may be left out where there is only one'),
}

export const backupSchema = backupSummarySchema
export const backupPageSchema = z.object({
  items: z.array(backupSchema),
  next: z.string().nullable(),
  total: z.int(),
})

export const taskStateSchema = z.enum(['waiting', 'running', 'done', 'failed', 'cancelled'])
export const taskSchema = z.object({
  id: z.uuid(),
  system: z.string(),
  component: z.string().nullable(),
  kind: z.string(),
  parameters: z.record(z.string(), z.unknown()),
  requestedBy: z.string(),
  state: taskStateSchema,
  attempts: z.int(),
  node: z.string().nullable(),
  createdAt: time,
  dueAt: time,
  startedAt: time.nullable(),
  endedAt: time.nullable(),
  progress: z.object({ phase: z.string(), bytesDone: z.number(), bytesTotal: z.number().describe('0: not known') }).nullable(),
  exitStatus: z.int().nullable().describe('of the command: 0 done, 1 failed or not verified, 2 could not run'),
  result: z.unknown().describe("the command's report"),
  error: z.object({ code: z.string(), message: z.string(), hint: z.string().nullable() }).nullable(),
  source: z
    .enum(['store', 'repository'])
    .describe('repository: the store was lost, and this is what the repository has of it: the outcome, and no log'),
})
export type TaskDocument = z.infer<typeof taskSchema>
export const taskPageSchema = z.object({ items: z.array(taskSchema), next: z.string().nullable() })
export const taskEventSchema = z.object({
  number: z.int(),
  at: time,
  kind: z.enum(['state', 'log']),
  data: z.record(z.string(), z.unknown()),
})
export const taskEventsSchema = z.object({ items: z.array(taskEventSchema) })

const problemOfRead = z.object({ code: z.string(), message: z.string(), hint: z.string().nullable() }).nullable()

export const backupStatusSchema = z.object({
  asOf: time,
  components: z.array(
    z.object({
      system: z.string(),
      component: z.string(),
      tier: z.string(),
      asOf: time.nullable().describe('when its repository was last read'),
      problem: problemOfRead.describe('why it could not be read the last time'),
      verdict: z
        .enum(['verified', 'failed', 'not proven'])
        .describe('of the newest backup, by a restore. What no restore has proven is not proven'),
      proven: z.object({ backup: z.string(), at: time, expires: time, current: z.boolean() }).nullable(),
      backups: z.int(),
      newestBackup: z
        .object({ id: z.string(), type: z.string(), finishedAt: time, ageSeconds: z.number().describe('an age, and no RPO') })
        .nullable(),
      damaged: z.array(z.string()),
      wal: z
        .object({ timeline: z.int(), keptFrom: z.string(), keptUpTo: z.string(), lastCommitAt: time.nullable(), gaps: z.int() })
        .nullable(),
      receiver: z.object({
        state: z.enum(['starting', 'receiving', 'disconnected', 'ended', 'none']),
        acknowledgedLsn: z.string().nullable(),
        archivedLsn: z.string().nullable(),
        behindBytes: z.number().nullable(),
        synchronous: z.boolean(),
        problem: z.string().nullable(),
        alarms: z.record(z.string(), z.string()),
      }),
      reachedBy: z.array(z.string()).describe('nodes that can work on it'),
      notReached: z.array(z.object({ node: z.string(), why: z.string() })),
      lastTask: z
        .record(z.string(), z.object({ id: z.uuid(), state: taskStateSchema, endedAt: time.nullable() }))
        .describe('by kind'),
    }),
  ),
})
export type BackupStatus = z.infer<typeof backupStatusSchema>
