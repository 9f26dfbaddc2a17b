import { sql, type RawBuilder } from 'kysely'
import type { Resource } from '@medplum/fhirtypes'
import { auditEventOf, provenanceOf, type AuditEventRow, type ProvenanceRow } from './logged.ts'
import type { ServedType } from './served-types.ts'

export type Json = Record<string, unknown>

/** One version of a resource as the database has it. */
export interface ResourceRow {
  readonly id: string
  readonly version: number
  readonly updated_at: Date
  readonly content: unknown
}

/** What every query of a type selects from; the names of its columns are those of ResourceRow, and the searched ones. */
export function selectRows({ name, table }: ServedType): RawBuilder<ResourceRow> {
  return name === 'Provenance' || name === 'AuditEvent'
    ? sql<ResourceRow>`select id, 1 as version, recorded_at as updated_at, to_jsonb(t) - 'lane_hash' as content from ${sql.table(table)} t`
    : sql<ResourceRow>`select id, version, updated_at, content from ${sql.table(table)} t`
}

/** A resource as clients see it: with the version and the time of its last change. */
export function resourceOf({ name }: ServedType, row: ResourceRow): Resource {
  if (name === 'Provenance') return withMeta(provenanceOf(row.content as ProvenanceRow), row)
  if (name === 'AuditEvent') return withMeta(auditEventOf(row.content as AuditEventRow), row)
  return withMeta(row.content as Resource, row)
}

export function withMeta<Each extends Resource>(
  content: Each,
  row: { readonly version: number; readonly updated_at: Date },
): Each {
  const { resourceType, id, meta, ...rest } = content
  const versioned = { ...meta, versionId: String(row.version), lastUpdated: row.updated_at.toISOString() }
  return { resourceType, id, meta: versioned, ...rest } as Each
}

export function etagOf(version: number | string): string {
  return `W/"${version}"`
}
