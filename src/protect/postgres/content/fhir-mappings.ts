import pg from 'pg'

// Where FHIR servers keep resources, as SQL (docs/drills.md, "FHIR"). What a layout cannot say is null.

/** Each is a query. `name` of a resource is its type and id: `Patient/7`. */
export interface FhirMapping {
  /** `type, id, version, last_updated, facility, body`: current resources, none that was deleted. */
  readonly resources: string
  /** `type, id, version, last_updated`: all versions of all resources, the current ones too. */
  readonly versions: string | null
  /** `source, target`: names, by literal references of current resources. Null: they are looked for in the bodies. */
  readonly references: string | null
  /** `source, target`: of what a Provenance is. Null: references of Provenance resources. */
  readonly provenances: string | null
  /** `series, number`: what numbers AuditEvents without a hole. */
  readonly audit: string | null
  /** `name, facility, subject, encounter`: what hangs on an encounter, all names. Null: by `subject` and `encounter` in the bodies. */
  readonly hanging: string | null
}

/** A mapping that is shipped: it looks at the database before it says anything. Undefined where the database has none of its tables. */
export interface ShippedMapping {
  readonly of: string
  find(client: pg.Client): Promise<FhirMapping | undefined>
}

const referenceHospital: FhirMapping = {
  resources:
    'select type, id, version::bigint as version, updated_at as last_updated, facility, content as body from hospital.fhir_resources',
  versions: `select split_part(stream, '/', 1) as type, split_part(stream, '/', 2) as id, version::bigint as version, at as last_updated from hospital.events`,
  references: null,
  provenances: `select 'Provenance/' || id as source, target from hospital.provenances`,
  audit: `select 'lane ' || lane as series, lane_sequence as number from hospital.audit_events`,
  hanging: null,
}

/**
 * HAPI FHIR's JPA tables. A resource goes by its internal id here, which all versions of the layout have; references are rows of HFJ_RES_LINK. A body that is stored compressed (RES_TEXT) cannot be read by SQL:
 * then its consents have no status here.
 */
const hapi: FhirMapping = {
  resources: `
    select r.res_type as type, r.res_id::text as id, r.res_ver::bigint as version, r.res_updated as last_updated, to_jsonb(r) ->> 'partition_id' as facility,
      case when v.res_encoding = 'JSON' then v.res_text_vc::jsonb end as body
    from hfj_resource r left join hfj_res_ver v on v.res_id = r.res_id and v.res_ver = r.res_ver
    where r.res_deleted_at is null`,
  versions: `
    select r.res_type as type, v.res_id::text as id, v.res_ver::bigint as version, v.res_updated as last_updated
    from hfj_res_ver v join hfj_resource r on r.res_id = v.res_id`,
  references: `
    select s.res_type || '/' || s.res_id as source, l.target_resource_type || '/' || l.target_resource_id as target
    from hfj_res_link l join hfj_resource s on s.res_id = l.src_resource_id
    where l.target_resource_id is not null and s.res_deleted_at is null`,
  provenances: null,
  audit: null,
  hanging: `
    select s.res_type || '/' || s.res_id as name, to_jsonb(s) ->> 'partition_id' as facility,
      min(l.target_resource_type || '/' || l.target_resource_id) filter (where l.src_path in (s.res_type || '.subject', s.res_type || '.patient')) as subject,
      min('Encounter/' || l.target_resource_id) filter (where l.src_path = s.res_type || '.encounter') as encounter
    from hfj_res_link l join hfj_resource s on s.res_id = l.src_resource_id
    where s.res_deleted_at is null
    group by s.res_id, s.res_type, to_jsonb(s) ->> 'partition_id'`,
}

/** Medplum has three tables for each type of resource. Its versions have no numbers, and what divides resources is the project. */
function medplum(types: readonly string[]): FhirMapping {
  const all = (select: (type: string, table: (suffix?: string) => string) => string) =>
    types
      .map((type) => select(pg.escapeLiteral(type), (suffix = '') => pg.escapeIdentifier(`${type}${suffix}`)))
      .join(' union all ')
  return {
    resources: all(
      (type, table) => `
      select ${type} as type, id::text as id, null::bigint as version, "lastUpdated" as last_updated, "projectId"::text as facility,
        case when not deleted then content::jsonb end as body
      from ${table()} where not deleted`,
    ),
    versions: all(
      (type, table) =>
        `select ${type} as type, id::text as id, null::bigint as version, "lastUpdated" as last_updated from ${table('_History')}`,
    ),
    references: null,
    provenances: null,
    audit: null,
    hanging: null,
  }
}

const MEDPLUM_TYPES = `
  select c.relname::text as type from pg_class c
  where c.relkind = 'r' and c.relnamespace = to_regnamespace('public')
    and to_regclass(format('public.%I', c.relname || '_History')) is not null and to_regclass(format('public.%I', c.relname || '_References')) is not null
  order by 1`

const HAPI_TABLES = ['hfj_resource', 'hfj_res_ver', 'hfj_res_link']

async function hasTables(client: pg.Client, tables: readonly string[]): Promise<boolean> {
  const { rows } = await client.query<{ all: boolean }>(
    'select bool_and(to_regclass(t) is not null) as all from unnest($1::text[]) t',
    [tables],
  )
  return rows[0]?.all === true
}

export const SHIPPED_MAPPINGS: Readonly<Record<'reference-hospital' | 'hapi' | 'medplum', ShippedMapping>> = {
  'reference-hospital': {
    of: 'the reference hospital',
    find: async (client) =>
      (await hasTables(client, ['hospital.fhir_resources', 'hospital.events'])) ? referenceHospital : undefined,
  },
  hapi: {
    of: 'HAPI FHIR (JPA)',
    find: async (client) =>
      (await hasTables(
        client,
        HAPI_TABLES.map((table) => `public.${table}`),
      ))
        ? hapi
        : undefined,
  },
  medplum: {
    of: 'Medplum',
    find: async (client) => {
      const { rows } = await client.query<{ type: string }>(MEDPLUM_TYPES)
      return rows.length === 0 ? undefined : medplum(rows.map(({ type }) => type))
    },
  },
}
