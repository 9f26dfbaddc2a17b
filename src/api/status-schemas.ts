import { z } from 'zod'
import { auditStateSchema } from './audit-schemas.ts'
import { scheduledKinds } from '../config/schedule-settings.ts'
import { DEFINITIONS } from '../recovery/objectives.ts'

// The documents of the status routes.

const time = z.iso.datetime()
const verdict = z.enum(['met', 'broken', 'not proven'])
const judgementSchema = z
  .object({
    target: z.number().nullable(),
    actual: z.number().nullable().describe('in the unit of the name; null where nothing was measured'),
    verdict,
    why: z.string().describe('what it was measured by, or why it is not proven'),
  })
  .nullable()
const rpoSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('measured'), seconds: z.number(), beating: z.boolean(), lastBeatAt: time }),
  z.object({
    kind: z.literal('not proven'),
    why: z.string(),
    atLeastSeconds: z.number().optional(),
    beating: z.boolean().optional(),
  }),
])

export const objectivesSchema = z.object({
  asOf: time,
  definitions: z.record(z.string(), z.string()).describe(
    Object.entries(DEFINITIONS)
      .map(([name, text]) => `${name}: ${text}`)
      .join(' '),
  ),
  components: z.array(
    z.object({
      system: z.string(),
      component: z.string(),
      tier: z.string(),
      targets: z.record(z.string(), z.object({ value: z.number(), from: z.string() }).nullable()),
      remarks: z.array(z.string()),
      judgements: z.record(z.string(), judgementSchema),
      actualRpo: z.object({
        repository: rpoSchema.describe('with the repository alone'),
        spool: rpoSchema.describe("with the spool of the receiver's host besides"),
      }),
    }),
  ),
})
export type ObjectivesDocument = z.infer<typeof objectivesSchema>

export const healthSchema = z.object({
  asOf: time,
  state: z.enum(['up', 'degraded', 'down', 'unknown']).describe('the worst of what is watched'),
  audit: auditStateSchema.nullable().describe('the audit trail; null for who sees some facilities alone'),
  watched: z.array(
    z.object({
      system: z.string(),
      component: z.string().nullable(),
      thing: z.enum(['database', 'receiver', 'backup', 'proof', 'storage', 'clock', 'certificate']),
      state: z.enum(['unknown', 'up', 'degraded', 'down']),
      since: time,
      lookedAt: time,
      answeredAt: time.nullable(),
      why: z.string().nullable(),
      figures: z.record(z.string(), z.number().nullable()).describe('each has its unit in its name; without one it is a count'),
    }),
  ),
})
export type HealthDocument = z.infer<typeof healthSchema>

export const schedulesSchema = z.object({
  leads: z.boolean().describe('whether this node asks for what is due'),
  schedules: z.array(
    z.object({
      system: z.string(),
      component: z.string(),
      kind: z.enum(scheduledKinds),
      schedule: z.string(),
      from: z.enum(['component', 'tier']),
      timeZone: z.string(),
      nextDueAt: time.nullable().describe('null: never, or not while one is under way or there is nothing to do'),
    }),
  ),
})

const measurement = z.object({ value: z.number().nullable(), why: z.string(), asOf: time.nullable() })
const readinessViewSchema = z.object({
  system: z.string(),
  component: z.string(),
  score: z.number(),
  terms: z.array(measurement.extend({ name: z.string(), weight: z.number() })),
  gates: z.array(z.object({ name: z.string(), holds: z.boolean().nullable(), why: z.string() })),
  action: z.object({ what: z.string(), gain: z.number() }).nullable().describe('what raises the score most'),
})
const leastSchema = z.object({ system: z.string(), score: z.number(), component: z.string().describe('the least ready') })

export const readinessSchema = z
  .object({
    asOf: time,
    formula: z.string(),
    weights: z.record(z.string(), z.number()),
    healthyAbove: z.number(),
    components: z.array(readinessViewSchema),
    systems: z.array(leastSchema),
    facilities: z.array(leastSchema.extend({ facility: z.string(), name: z.string() })),
  })
  .meta({ id: 'Readiness' })
export type ReadinessDocument = z.infer<typeof readinessSchema>

export const readinessHistorySchema = z
  .object({
    system: z.string(),
    component: z.string(),
    points: z.array(z.object({ at: time, score: z.number() })),
  })
  .meta({ id: 'ReadinessHistory' })

export const statusSchema = z.object({
  asOf: time,
  readiness: z
    .object({ score: z.number(), healthyAbove: z.number(), least: z.string(), action: z.string().nullable() })
    .nullable()
    .describe('of the least ready component; null where there is none'),
  node: z.string(),
  version: z.string(),
  configuration: z.object({
    systems: z.int(),
    components: z.int(),
    refused: z.string().nullable().describe('why the files as they are now are not in force'),
  }),
  nodes: z.array(z.object({ name: z.string(), renewedAt: time.nullable(), reached: z.int(), notReached: z.int() })),
  authority: z
    .enum(['people', 'one token'])
    .describe('one token: nobody is known yet, and whoever has the token of the file may do everything'),
  health: z.enum(['up', 'degraded', 'down', 'unknown']),
  objectives: z.object({ met: z.int(), broken: z.int(), notProven: z.int() }),
  proven: z.object({ components: z.int(), ofComponents: z.int() }),
})

export const monitorSchema = z.object({
  asOf: time,
  components: z.array(
    z.object({
      system: z.string(),
      component: z.string(),
      backups: z.int(),
      newestBackupAgeSeconds: z.number().nullable().describe('an age, and no RPO'),
      storedBytes: z.number().describe('of all its backups, with their own WAL'),
      last30Days: z.object({ backups: z.int(), storedBytes: z.number() }),
      tasks30Days: z.object({ done: z.int(), failed: z.int(), successPercent: z.number().nullable() }).describe('of backups'),
    }),
  ),
})

export const alarmsSchema = z.object({
  items: z.array(
    z.object({
      key: z.string(),
      severity: z.string(),
      title: z.string(),
      text: z.string(),
      system: z.string(),
      component: z.string().nullable(),
      code: z.string().nullable(),
      hint: z.string().nullable(),
      openedAt: time,
      count: z.int(),
    }),
  ),
})

export const channelTestSchema = z.object({ delivered: z.boolean(), words: z.string() })

export const complianceSchema = z.object({
  system: z.string(),
  component: z.string(),
  objective: z.string(),
  points: z.array(
    z.object({
      at: time,
      per: z.enum(['minute', 'hour']),
      target: z.number().describe('in the unit of the objective, as are the others'),
      actualLeast: z.number().nullable().describe('null where nothing was measured'),
      actualGreatest: z.number().nullable(),
      minutesMet: z.int(),
      minutesBroken: z.int(),
      minutesNotProven: z.int().describe('the rest of an hour nobody watched'),
    }),
  ),
})

const growthSchema = z.object({
  bytes: z.number().nullable(),
  bytesPerDay: z.number().nullable().describe('by the last 30 days; null with less than a day of measurements'),
  bytesIn30Days: z.number().nullable().describe('as it goes on now'),
})
export const storageSchema = z.object({
  asOf: time,
  systems: z.array(
    z.object({
      system: z.string(),
      storage: z.object({
        bytes: z.number().nullable(),
        free: growthSchema,
        daysLeft: z.number().nullable().describe('until nothing is free; null when it does not shrink, or nobody can tell'),
      }),
      components: z.array(
        z.object({
          component: z.string(),
          cluster: growthSchema,
          stored: growthSchema.describe('by all its backups, with their own WAL'),
        }),
      ),
    }),
  ),
})
export const sizeHistorySchema = z.object({
  system: z.string(),
  component: z.string().nullable(),
  points: z.array(z.object({ name: z.enum(['storage', 'free', 'cluster', 'stored']), at: time, bytes: z.number() })),
})

export const facilitiesSchema = z.object({
  asOf: time,
  facilities: z.array(
    z.object({
      system: z.string(),
      facility: z.string(),
      name: z.string(),
      lga: z.string().nullable(),
      type: z.string().nullable(),
      components: z.array(z.string()).describe('that hold its data'),
      verdict: z.enum(['verified', 'failed', 'not proven']).describe('of the worst of them'),
      rpoSeconds: z.number().nullable().describe('the worst that was measured; null where one is not'),
      rtoMinutes: z.number().nullable().describe('of the last proven recoveries, the longest; null where one is not proven'),
      ownBytes: z.number().describe('of components that hold its data alone'),
      sharedBytes: z.number().describe('of components that it shares with others'),
    }),
  ),
})
