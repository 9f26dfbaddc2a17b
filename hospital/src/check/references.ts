import { danglingKeys } from '../events/foreign-keys.ts'
import { countOf, FindingList, findRows, joined, type Check } from './verdict.ts'

/** Every literal reference, wherever it stands in a resource. References to another server and into the resource itself are not this hospital's. */
const GIVEN = `
  select r.type || '/' || r.id as source, given #>> '{}' as reference
  from hospital.fhir_resources r, jsonb_path_query(r.content, '$.** ? (@.type() == "object").reference') given
  where jsonb_typeof(given) = 'string'`

/**
 * A version's number behind the id is left out: versions are never removed one by one. Two statements, because an OR beside NOT EXISTS would ask row by row
 * what one join asks of all.
 */
const DANGLING = `
  select g.source as row, 'refers to ' || g.reference || ', which is not there' as problem
  from (${GIVEN}) g left join (select type || '/' || id as name from hospital.fhir_resources) t
    on t.name = split_part(g.reference, '/', 1) || '/' || split_part(g.reference, '/', 2)
  where t.name is null and g.reference ~ '^[A-Z][A-Za-z]*/'
  union all
  select g.source, 'refers to ' || g.reference || ', which was never resolved' from (${GIVEN}) g where g.reference like 'urn:%'`

const DANGLING_MESSAGES = `
  select 'Message/' || m.id as row, 'is to Patient/' || m.patient_id || ', who is not there' as problem
  from hospital.messages m where m.patient_id is not null and not exists (select from hospital.patients p where p.id = m.patient_id)
  union all select 'Message/' || m.id, 'was asked for by ' || m.cause || ', which is not there'
  from hospital.messages m where m.cause ~ '^[A-Z][A-Za-z]*/' and not exists (select from hospital.events e where e.stream = m.cause)`

export const references: Check = {
  name: 'references',
  run: async ({ client }) => ({
    kind: 'judged',
    expected: 'every reference in every current resource leads somewhere',
    found: `${await countOf(client, `select count(*) from (${GIVEN}) g`)} references`,
    ...joined(await findRows(client, DANGLING), await findRows(client, DANGLING_MESSAGES)),
  }),
}

export const foreignKeys: Check = {
  name: 'foreign-keys',
  run: async ({ client }) => {
    const { checked, dangling } = await danglingKeys(client)
    const list = new FindingList()
    for (const { table, constraint, examples, count } of dangling) {
      for (const example of examples) list.add(`${table} (${constraint})`, `refers to ${example}, which is not there`)
      list.total += count - examples.length
    }
    return {
      kind: 'judged',
      expected: 'every foreign key leads somewhere, asked of the rows and not of the index',
      found: `${checked} foreign keys`,
      findings: list.findings,
      total: list.total,
    }
  },
}
