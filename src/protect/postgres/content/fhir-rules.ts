import type { FhirMapping } from './fhir-mappings.ts'

// Rules over the resources of a FHIR server, each as SQL over what a mapping gives.

/** One rule. `problems` gives `row, problem`: each thing that is wrong. `count` gives how many things were looked at: none, and nothing was shown. */
export interface FhirRule {
  readonly name: string
  readonly expected: string
  readonly count: string
  readonly problems: string
}

/** All rules that a mapping can say something of, by their names; those that it cannot are left out. */
export function fhirRules(mapping: FhirMapping): readonly FhirRule[] {
  const parts = partsOf(mapping)
  const versions = mapping.versions === null ? [] : [versionsRule(mapping.resources, mapping.versions)]
  const audit = mapping.audit === null ? [] : [auditRule(mapping.audit)]
  return [
    bodiesRule(mapping.resources),
    referencesRule(parts),
    ...versions,
    provenancesRule(parts),
    ...audit,
    subjectsRule(parts),
    facilitiesRule(parts),
  ]
}

/** What each kind of rule expects; also of one that a mapping cannot say anything of. */
export const EXPECTED = {
  bodies: 'each body that SQL can read is a resource of its type',
  references: 'each literal reference in a current resource leads to a resource, but those that led nowhere at the baseline',
  versions: 'versions 1, 2, 3 … without a hole, lastUpdated never going back, and the newest is the current one',
  provenances: 'the target of each Provenance is there',
  audit: 'no hole in what numbers AuditEvents, and none of the baseline cut off',
  consents: 'each consent of the baseline as it was, or changed by a later version',
  subjects: "what hangs on an encounter is of the encounter's patient",
  facilities: 'an encounter and what hangs on it belong to one facility',
} as const
export type RuleName = keyof typeof EXPECTED

interface Parts {
  readonly resources: string
  /** `name`: whatever a Provenance may be of. */
  readonly known: string
  readonly references: string
  readonly provenances: string
  readonly hanging: string
}

function partsOf({ resources, versions, references, provenances, hanging }: FhirMapping): Parts {
  const given =
    references ??
    `select source, split_part(reference, '/', 1) || '/' || split_part(reference, '/', 2) as target from (
      select r.type || '/' || r.id as source, given #>> '{}' as reference
      from (${resources}) r, jsonb_path_query(r.body, '$.** ? (@.type() == "object").reference') given where jsonb_typeof(given) = 'string'
    ) g where reference ~ '^[A-Z][A-Za-z]*/[^/]'`
  return {
    resources,
    known: `select type || '/' || id as name from (${versions ?? resources}) k group by 1`,
    references: given,
    provenances: provenances ?? `select source, target from (${given}) g where source like 'Provenance/%'`,
    hanging:
      hanging ??
      `select type || '/' || id as name, facility, coalesce(body #>> '{subject,reference}', body #>> '{patient,reference}') as subject,
        coalesce(body #>> '{encounter,reference}', body #>> '{context,encounter,0,reference}') as encounter
      from (${resources}) r`,
  }
}

/** It reads all of them: a column that somebody has encrypted is no JSON. */
function bodiesRule(resources: string): FhirRule {
  return {
    name: 'bodies',
    expected: EXPECTED.bodies,
    count: `select count(*) from (${resources}) r where body is not null`,
    problems: `
      select type || '/' || id as row, 'has a body of ' || coalesce(body ->> 'resourceType', 'nothing') as problem
      from (${resources}) r where body is not null and body ->> 'resourceType' is distinct from type`,
  }
}

function referencesRule({ resources, references }: Parts): FhirRule {
  return {
    name: 'references',
    expected: EXPECTED.references,
    count: `select count(*) from (${references}) g`,
    problems: `
      select g.source as row, 'refers to ' || g.target || ', which is not there' as problem
      from (${references}) g left join (select type || '/' || id as name from (${resources}) r) t on t.name = g.target where t.name is null`,
  }
}

/** A layout whose versions have no numbers has their times. */
function versionsRule(resources: string, versions: string): FhirRule {
  return {
    name: 'versions',
    expected: EXPECTED.versions,
    count: `select count(*) from (${versions}) v`,
    problems: `
      select type || '/' || id as row, case when version <> before + 1 then format('has version %s behind version %s', version, before)
          else format('version %s was last updated before version %s', version, before) end as problem
      from (select type, id, version, last_updated, coalesce(lag(version) over w, 0) as before, lag(last_updated) over w as updated_before
        from (${versions}) v where version is not null window w as (partition by type, id order by version)) o
      where version <> before + 1 or last_updated < updated_before
      union all
      select r.type || '/' || r.id, 'is not the newest of its versions'
      from (${resources}) r left join (select type, id, max(version) as version, max(last_updated) as last_updated from (${versions}) v group by 1, 2) n
        on n.type = r.type and n.id = r.id
      where n.id is null or (r.version is not null and r.version <> n.version) or (r.version is null and r.last_updated <> n.last_updated)`,
  }
}

function provenancesRule({ provenances, known }: Parts): FhirRule {
  return {
    name: 'provenances',
    expected: EXPECTED.provenances,
    count: `select count(*) from (${provenances}) p`,
    problems: `
      select p.source as row, 'is of ' || p.target || ', which is not there' as problem
      from (${provenances}) p left join (${known}) k on k.name = p.target where k.name is null`,
  }
}

function auditRule(audit: string): FhirRule {
  return {
    name: 'audit',
    expected: EXPECTED.audit,
    count: `select count(*) from (${audit}) a`,
    problems: `
      select series as row, format('has number %s behind %s', number, before) as problem
      from (select series, number, lag(number) over (partition by series order by number) as before from (${audit}) a) o where number <> before + 1`,
  }
}

function subjectsRule({ hanging }: Parts): FhirRule {
  return {
    name: 'subjects',
    expected: EXPECTED.subjects,
    count: `select count(*) from (${hanging}) h where encounter is not null and subject is not null`,
    problems: `
      select h.name as row, format('is of %s, and its %s of %s', h.subject, e.name, e.subject) as problem
      from (${hanging}) h join (${hanging}) e on e.name = h.encounter where h.subject <> e.subject`,
  }
}

function facilitiesRule({ hanging }: Parts): FhirRule {
  return {
    name: 'facilities',
    expected: EXPECTED.facilities,
    count: `select count(*) from (${hanging}) h where encounter is not null and facility is not null`,
    problems: `
      select h.name as row, format('belongs to %s, and its %s to %s', h.facility, e.name, e.facility) as problem
      from (${hanging}) h join (${hanging}) e on e.name = h.encounter where h.facility <> e.facility`,
  }
}
