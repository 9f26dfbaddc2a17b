import { z } from 'zod'
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

const componentSchema = z.discriminatedUnion('kind', [postgresComponentSchema])

export const configurationSchema = z.strictObject({
  system: z.string().min(1).max(200).describe('what the hospital calls this system; a repository belongs to one system'),
  state: z.string().min(1).default(DEFAULT_STATE_DIRECTORY).describe('the directory of caches and of the WAL spool'),
  repository: z.strictObject({
    storages: z.array(storageSchema).length(1, 'exactly one storage, for now'),
    key: z.strictObject({ passphrase: secretReferenceSchema }),
  }),
  components: z.record(nameSchema, componentSchema),
})

/** JSON Schema of resus.yaml, for editors. */
export function configurationJsonSchema(): Record<string, unknown> {
  return { ...z.toJSONSchema(configurationSchema, { io: 'input' }), title: 'Configuration of Resus (resus.yaml)' }
}
