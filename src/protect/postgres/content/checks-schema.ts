import { z } from 'zod'

// What the configuration says of checks. Every command reads it, `wal-get` too: nothing else is loaded here.

const SQL_MINUTES_DEFAULT = 5
const COMMAND_MINUTES_DEFAULT = 20

const expectSchema = z.union([
  z.strictObject({
    equals: z.union([z.number(), z.string(), z.boolean()]),
    tolerance: z.number().nonnegative().optional().describe('for numbers: how far off is right still'),
  }),
  z.strictObject({ least: z.number(), most: z.number().optional() }),
  z.strictObject({ most: z.number() }),
  z.strictObject({ rows: z.literal('none') }),
  z.strictObject({
    within: z.strictObject({ minutes: z.number().positive() }).describe('a time, older than the moment asked for by no more'),
  }),
])
export type Expectation = z.infer<typeof expectSchema>

export const sqlCheckSchema = z.strictObject({
  name: z.string().min(1).max(100),
  query: z.string().min(1).max(20_000),
  database: z.string().min(1).max(63).optional().describe('where it is asked; by default that of the connection'),
  expect: expectSchema,
  minutes: z.number().positive().max(1440).default(SQL_MINUTES_DEFAULT).describe('how long it may take'),
})
export type SqlCheckSettings = z.infer<typeof sqlCheckSchema>

export const commandCheckSchema = z.strictObject({
  name: z.string().min(1).max(100),
  run: z.array(z.string()).min(1).max(100).describe('a program and its arguments; no shell is asked'),
  database: z.string().min(1).max(63).optional().describe('PGDATABASE; by default that of the connection'),
  trusted: z
    .boolean()
    .default(false)
    .describe('what it prints as expected and found names nobody: it may be in a record as it is'),
  minutes: z.number().positive().max(1440).default(COMMAND_MINUTES_DEFAULT).describe('how long it may take'),
})
export type CommandCheckSettings = z.infer<typeof commandCheckSchema>

const BASELINE_MINUTES_DEFAULT = 30
const TABLES_MAX = 10_000

export const baselineSchema = z.strictObject({
  database: z.string().min(1).max(63).optional().describe('of which database; by default that of the connection'),
  tables: z
    .union([z.literal('all'), z.array(z.string().min(1).max(200)).min(1).max(TABLES_MAX)])
    .default('all')
    .describe('all, or names, "schema.table"; those without a schema are in public'),
  except: z
    .array(z.string().min(1).max(200))
    .max(TABLES_MAX)
    .default([])
    .describe('tables that are left out: queues and sessions, which may rightly be empty'),
  drift: z.number().min(0).max(1).default(0.2).describe('the part of its rows that a table may have lost since the baseline'),
  minutes: z.number().positive().max(1440).default(BASELINE_MINUTES_DEFAULT).describe('how long reading one table may take'),
})
export type BaselineSettings = z.infer<typeof baselineSchema>

const querySchema = z.string().min(1).max(20_000)

/** A layout that is shipped, or queries that say where resources are. */
export const fhirSchema = z.union([
  z.enum(['reference-hospital', 'hapi', 'medplum']),
  z.strictObject({
    resources: querySchema.describe('type, id, version, last_updated, facility, body (jsonb): current resources'),
    versions: querySchema.optional().describe('type, id, version, last_updated: all versions of all resources'),
    references: querySchema.optional().describe('source, target, as "Patient/7"; by default those in the bodies'),
    provenances: querySchema.optional().describe('source, target; by default the references of Provenance resources'),
    audit: querySchema.optional().describe('series, number: what numbers AuditEvents without a hole'),
    hanging: querySchema.optional().describe('name, facility, subject, encounter; by default by the bodies'),
  }),
])
export type FhirSettings = z.infer<typeof fhirSchema>

const CHECKS_MAX = 200

/** What a drill looks at in a component's copy, as the configuration has it. */
export const checksSchema = z
  .strictObject({
    baseline: baselineSchema.prefault({}).describe('what "resus baseline" reads, and a copy is held against'),
    sql: z.array(sqlCheckSchema).max(CHECKS_MAX).default([]),
    commands: z.array(commandCheckSchema).max(CHECKS_MAX).default([]),
    fhir: fhirSchema.optional().describe('rules over the resources of a FHIR server, in the database of the baseline'),
  })
  .superRefine(({ sql, commands }, context) => {
    for (const [field, checks] of [['sql', sql] as const, ['commands', commands] as const]) {
      const names = checks.map(({ name }) => name)
      const twice = names.findIndex((name, index) => names.indexOf(name) !== index)
      if (twice >= 0)
        context.addIssue({ code: 'custom', path: [field, twice, 'name'], message: 'a name that no other check has' })
    }
  })
export type ChecksSettings = z.infer<typeof checksSchema>
