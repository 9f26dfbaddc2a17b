import type { Kysely } from 'kysely'
import { z } from 'zod'
import { BACKUP_TYPES, type BackupManifest } from '../repository/backups.ts'
import { formatLsn } from '../postgres/lsn.ts'
import type { Schema } from './schema.ts'

// What is known of backups without their repository: a cache, rebuilt from it.

/** Of a manifest, what lists and figures need. */
export const backupSummarySchema = z.object({
  system: z.string(),
  component: z.string(),
  id: z.string(),
  type: z.enum(BACKUP_TYPES),
  sequence: z.number().int().describe('of two backups of a component the one with the greater number is the newer'),
  startedAt: z.string(),
  finishedAt: z.string(),
  timeline: z.number(),
  startLsn: z.string(),
  stopLsn: z.string(),
  stopTime: z.string(),
  serverVersion: z.string(),
  files: z.number(),
  bytes: z.number().describe('of the cluster'),
  bytesRead: z.number(),
  bytesStored: z.number().describe('new in the repository, with its own WAL'),
  bytesReused: z.number(),
  corruptPages: z.number(),
})
export type BackupSummary = z.infer<typeof backupSummarySchema>

export function summaryOf(system: string, manifest: BackupManifest): BackupSummary {
  const { component, id, type, sequence, startedAt, finishedAt, timeline, startLsn, stopLsn, stopTime, server, totals } = manifest
  return {
    system,
    component,
    id,
    type,
    sequence,
    startedAt,
    finishedAt,
    timeline,
    startLsn: formatLsn(startLsn),
    stopLsn: formatLsn(stopLsn),
    stopTime,
    serverVersion: server.version,
    files: totals.files,
    bytes: totals.bytes,
    bytesRead: totals.bytesRead,
    bytesStored: totals.bytesStored + totals.walBytesStored,
    bytesReused: totals.bytesReused,
    corruptPages: totals.corruptPages,
  }
}

/** What is remembered of a component's backups; what another version has written otherwise is not, and read again. */
export async function loadSummaries(queries: Kysely<Schema>, system: string, component: string): Promise<BackupSummary[]> {
  const rows = await queries
    .selectFrom('backups')
    .select('summary')
    .where('system', '=', system)
    .where('component', '=', component)
    .execute()
  return rows.flatMap(({ summary }) => {
    const parsed = backupSummarySchema.safeParse(summary)
    return parsed.success ? [parsed.data] : []
  })
}

export async function keepSummaries(queries: Kysely<Schema>, summaries: readonly BackupSummary[]): Promise<void> {
  if (summaries.length === 0) return
  const rows = summaries.map((summary) => {
    const { system, component, id } = summary
    return { system, component, id, summary: JSON.stringify(summary) }
  })
  await queries
    .insertInto('backups')
    .values(rows)
    .onConflict((conflict) =>
      conflict.columns(['system', 'component', 'id']).doUpdateSet((each) => ({ summary: each.ref('excluded.summary') })),
    )
    .execute()
}

export async function forgetSummaries(
  queries: Kysely<Schema>,
  { system, component, ids }: { readonly system: string; readonly component: string; readonly ids: readonly string[] },
): Promise<void> {
  if (ids.length === 0) return
  await queries
    .deleteFrom('backups')
    .where('system', '=', system)
    .where('component', '=', component)
    .where('id', 'in', [...ids])
    .execute()
}
