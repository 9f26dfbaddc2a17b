import { z } from 'zod'
import { objectivesSchema } from './objectives-settings.ts'
import { schedulesSchema, timeZoneSchema } from './schedule-settings.ts'
import { postgresComponentSchema } from '../protect/postgres/component.ts'
import { secretReferenceSchema } from './secret-reference.ts'

// The shape of resus.yaml. Kinds of components and of storages are registered here, and nowhere else.

export const DEFAULT_STATE_DIRECTORY = '/var/lib/resus/state'

const nameSchema = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'a name of lower-case letters, digits, ".", "_" and "-"')

const storageSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    name: nameSchema,
    kind: z.literal('directory'),
    path: z.string().min(1).describe('the directory that holds the objects; it belongs to Resus alone'),
  }),
])
export type StorageSettings = z.infer<typeof storageSchema>

const facilityName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'the id of a facility')

/** Of a component, what the control plane and people need to know. */
const managementFields = {
  owner: z.string().min(1).max(200).optional().describe('who answers for it'),
  sla: z.string().min(1).max(500).optional().describe('what was agreed, in words'),
  dependsOn: z.array(nameSchema).max(100).optional().describe('components of this system that it needs'),
  facilities: z.array(facilityName).max(1000).optional().describe('whose data it holds; all of the system when left out'),
  timeZone: timeZoneSchema.optional(),
  schedules: schedulesSchema.optional().describe('when the control plane does what; what is left out comes from the tier'),
  objectives: objectivesSchema.optional(),
}

const componentSchema = z.discriminatedUnion('kind', [postgresComponentSchema.extend(managementFields)])
export type ManagementSettings = Omit<z.infer<typeof componentSchema>, keyof z.infer<typeof postgresComponentSchema>>

export const configurationSchema = z.strictObject({
  system: z.string().min(1).max(200).describe('what the hospital calls this system; a repository belongs to one system'),
  state: z.string().min(1).default(DEFAULT_STATE_DIRECTORY).describe('the directory of caches and of the WAL spool'),
  repository: z.strictObject({
    storages: z.array(storageSchema).length(1, 'exactly one storage, for now'),
    key: z.strictObject({ passphrase: secretReferenceSchema }),
  }),
  timeZone: timeZoneSchema.optional().describe('of schedules, where a component has none; UTC when left out'),
  objectives: objectivesSchema.optional(),
  facilities: z
    .record(
      facilityName,
      z.strictObject({
        name: z.string().min(1).max(200),
        lga: z.string().max(100).optional(),
        type: z.string().max(100).optional(),
      }),
    )
    .optional()
    .describe('the hospitals and clinics of this system'),
  components: z.record(nameSchema, componentSchema),
})

/** JSON Schema of resus.yaml, for editors. */
export function configurationJsonSchema(): Record<string, unknown> {
  return { ...z.toJSONSchema(configurationSchema, { io: 'input' }), title: 'Configuration of Resus (resus.yaml)' }
}
