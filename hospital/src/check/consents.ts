import { findRows, NO_BASELINE, type Check } from './verdict.ts'

/** As it was, or another because a later event says so. */
const CONSENTS = `
  select 'Consent/' || b.id as row, case
      when c.id is null then format('is gone, and was %s', b.status)
      when c.version < b.version then format('went back from version %s (%s) to version %s (%s)', b.version, b.status, c.version, c.status)
      when c.version = b.version then format('is %s, was %s, and no event since says so', c.status, b.status)
      when c.status is distinct from c.content ->> 'status' then format('is %s in its row and %s in its resource', c.status, c.content ->> 'status')
      else format('is %s, which is not what its event of version %s says', c.status, c.version)
    end as problem
  from unnest($1::uuid[], $2::text[], $3::integer[]) b (id, status, version)
  left join hospital.consent_records c using (id)
  left join hospital.events e on e.stream = 'Consent/' || c.id and e.version = c.version
  where c.id is null or c.version < b.version or c.version = b.version and c.status <> b.status
    or c.status is distinct from c.content ->> 'status' or c.status is distinct from e.payload #>> '{resource,status}'`

export const consents: Check = {
  name: 'consents',
  run: async ({ client, baseline }) => {
    if (baseline === undefined) return { kind: 'not proven', reason: NO_BASELINE }
    const columns = [0, 1, 2].map((column) => baseline.consents.map((consent) => consent[column]))
    const found = await findRows(client, CONSENTS, columns)
    const { rows } = await client.query<{ changed: string; added: string }>(
      `select count(b.id) filter (where c.version > b.version) as changed, count(*) filter (where b.id is null) as added
      from hospital.consent_records c left join unnest($1::uuid[], $2::text[], $3::integer[]) b (id, status, version) using (id)`,
      columns,
    )
    return {
      kind: 'judged',
      expected: 'every consent of the baseline is as it was, or was changed by a later event',
      found: `${baseline.consents.length} consents, of which ${rows[0]!.changed} were changed since; ${rows[0]!.added} were added`,
      ...found,
    }
  },
}
