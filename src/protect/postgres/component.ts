import { join } from 'node:path'
import { z } from 'zod'
import { keepSchema } from '../../repository/retention.ts'
import type { Secret } from '../../secret.ts'
import { checksSchema } from './content/checks-schema.ts'

/** How much a component matters; it carries the default objectives. */
export const tierSchema = z.enum(['critical', 'high', 'medium', 'low'])
export type Tier = z.infer<typeof tierSchema>

/** A replication slot's name, as PostgreSQL allows it. */
const slotSchema = z.string().regex(/^[a-z0-9_]{1,63}$/, 'a name of lower-case letters, digits and underscores, at most 63')

/** `db1`, `db1:5433`, `[::1]:5432`. */
const hostSchema = z
  .string()
  .regex(
    /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?$/,
    'a host, or host:port, that takes the place of the one in "connection"',
  )

/** How a component's WAL is received. */
export const streamSchema = z.strictObject({
  synchronous: z.boolean().default(false).describe('whether the server waits for Resus at each commit (a synchronous standby)'),
  slot: slotSchema.default('resus').describe('the physical replication slot, which is also our application_name'),
  partialEverySeconds: z.int().min(1).max(3600).default(5).describe('how often the open WAL segment goes to the repository'),
  acknowledge: z
    .enum(['spool', 'repository'])
    .default('spool')
    .describe('what the server is told is safe: what the local spool has on disk, or only what the repository has'),
  hosts: z
    .array(hostSchema)
    .max(16)
    .default([])
    .describe('the members of the cluster, when it can fail over: the receiver follows the primary and keeps a slot on each'),
  spoolMegabytesMax: z.int().min(64).default(8192).describe('room for WAL that the storage has not taken yet'),
})

/** How drills of a component are made. */
export const drillsSchema = z.strictObject({
  afterBackup: z.boolean().default(false).describe('one after each backup, besides those of the schedule'),
  validDays: z.int().min(1).max(90).default(7).describe('how long a verdict holds'),
  minutes: z.int().min(1).max(2880).default(240).describe('how long one may take'),
  memoryMegabytes: z
    .int()
    .min(512)
    .max(16_777_216)
    .optional()
    .describe('address space that each process of the restored server may have; by default as much as the system gives'),
  diskMegabytes: z
    .int()
    .min(1)
    .optional()
    .describe('what the restored copy may grow to; by default the backup and half of it again, and room for the WAL'),
})

/** A component of kind `postgres`, as the configuration has it. */
export const postgresComponentSchema = z.strictObject({
  kind: z.literal('postgres'),
  tier: tierSchema,
  connection: z
    .string()
    .min(1)
    .describe('a connection string without a password, or a reference to a whole one: file:/path or env:NAME'),
  dataDirectory: z.string().min(1).describe('the data directory, on this host'),
  stream: streamSchema.prefault({}),
  keep: keepSchema.prefault({}).describe('which backups, and which WAL, "resus expire" leaves'),
  checks: checksSchema.prefault({}).describe('what a drill looks at in the copy: without one of its own, nothing is verified'),
  drills: drillsSchema.prefault({}).describe('how drills are made'),
  binaries: z.string().min(1).optional().describe("the directory of the cluster's programs (postgres, pg_ctl)"),
  workers: z.int().min(1).max(64).optional().describe('worker threads of a backup or restore; by default cores, 4 at most'),
  compressionLevel: z.int().min(1).max(19).default(1).describe('zstd level'),
})
export type PostgresComponentSettings = z.infer<typeof postgresComponentSchema>

/** The same, ready for use: named, its paths absolute, its connection string resolved. */
export interface PostgresComponent extends Omit<PostgresComponentSettings, 'connection'> {
  readonly name: string
  /** A connection string for `pg`. It may hold a password: reveal it only where a connection is made. */
  readonly connection: Secret
}

/** Where the receiver of a component keeps what it has acknowledged and the repository does not have yet. */
export function streamSpool(stateDirectory: string, component: string): string {
  return join(stateDirectory, 'spool', component, 'stream')
}

/** The same of backups that stream their own WAL, one directory each. What a dead backup left there was acknowledged to nobody. */
export function backupSpools(stateDirectory: string, component: string): string {
  return join(stateDirectory, 'spool', component, 'backup')
}
