import { z } from 'zod'

// How objectives are written in a configuration. What they come to, and whether they are met, is for src/recovery to say.

const MINUTES_MAX = 366 * 24 * 60

const minutes = z.number().min(0).max(MINUTES_MAX).optional()
const values = {
  rtoMinutes: minutes.describe('recovery time objective: the longest that a return to service may take, in minutes'),
  rpoMinutes: minutes.describe('recovery point objective: the longest stretch of time whose changes may be lost, in minutes'),
  maximumTolerableDowntimeMinutes: minutes.describe('how long a single outage may last before the harm is lasting, in minutes'),
  availabilityPercent: z.number().gt(0).max(100).optional().describe('the share of time in which it has to be up, in percent'),
}

const objectiveValuesSchema = z.strictObject(values)

/** Objectives of a system or a component; each that is left out comes from above. `scenarios` says what else holds when a named thing happens. */
export const objectivesSchema = z.strictObject({
  ...values,
  scenarios: z
    .record(z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'a name of lower-case letters, digits and "-"'), objectiveValuesSchema)
    .optional()
    .describe('own values for a scenario, such as "host-lost"'),
})
export type ObjectiveValues = z.infer<typeof objectiveValuesSchema>
export type ObjectiveSettings = z.infer<typeof objectivesSchema>
export type ObjectiveName = keyof ObjectiveValues
