import { BROKEN_CHECKPOINTS } from '../events/checkpoints.ts'
import { countOf, findRows, joined, type Check } from './verdict.ts'

const VERSIONS = `
  select stream as row, case
      when version <> before + 1 and before = 0 then format('begins with version %s', version)
      when version <> before + 1 then format('has version %s behind version %s', version, before)
      else format('was last updated at %s in version %s, and at %s in the version before', at, version, at_before)
    end as problem
  from (
    select stream, version, at, coalesce(lag(version) over w, 0) as before, lag(at) over w as at_before
    from hospital.events window w as (partition by stream order by version)
  ) v
  where version <> before + 1 or at < at_before`

/** A row that shows another version than its stream's last: such a resource's versionId went back, or ahead. */
const SHOWN_VERSIONS = `
  select r.type || '/' || r.id as row, format('shows version %s of %s', r.version, coalesce(e.version::text, 'no event at all')) as problem
  from hospital.fhir_resources r
  left join (select stream, max(version) as version from hospital.events group by stream) e on e.stream = r.type || '/' || r.id
  where e.version is distinct from r.version`

export const versions: Check = {
  name: 'versions',
  run: async ({ client }) => ({
    kind: 'judged',
    expected: 'versions 1, 2, 3 … without a hole, lastUpdated never going back, and the newest is shown',
    found: `${await countOf(client, 'select count(*) from hospital.events where version = 1')} streams`,
    ...joined(await findRows(client, VERSIONS), await findRows(client, SHOWN_VERSIONS)),
  }),
}

const CHAIN = `
  select stream || ' version ' || version as row, 'does not follow the version before it' as problem
  from (
    select stream, version, previous_hash, coalesce(lag(hash) over (partition by stream order by version), hospital.no_hash()) as chain
    from hospital.events
  ) e where previous_hash <> chain`

const CONTENT = `
  select stream || ' version ' || version as row, 'is not what was hashed when it was written' as problem
  from hospital.events e where hash <> hospital.event_hash(previous_hash, e)`

export const streams: Check = {
  name: 'streams',
  run: async ({ client }) => ({
    kind: 'judged',
    expected: "every event is what its hash was made of, and follows its stream's event before it",
    found: `${await countOf(client, 'select count(*) from hospital.events')} events`,
    ...joined(await findRows(client, CONTENT), await findRows(client, CHAIN)),
  }),
}

const CHECKPOINTS = `select 'checkpoint ' || number as row, problem from (${BROKEN_CHECKPOINTS}) c`
const BASELINE_CHECKPOINT = `
  select 'checkpoint ' || $1 as row, 'is not the one of the baseline' as problem
  where not exists (select from hospital.checkpoints where number = $1::bigint and encode(hash, 'hex') = $2)`

export const checkpoints: Check = {
  name: 'checkpoints',
  run: async ({ client, baseline }) => {
    const { rows } = await client.query<{ made: string; covered: string; since: string }>(`
      select count(*) as made, coalesce(sum(events), 0) as covered,
        (select count(*) from hospital.events where position > coalesce((select max(position) from hospital.checkpoints), 0)) as since
      from hospital.checkpoints`)
    const { made, covered, since } = rows[0]!
    const known = baseline?.checkpoint ?? undefined
    if (made === '0' && known === undefined)
      return { kind: 'not proven', reason: 'there is no checkpoint yet', found: `${since} events` }
    const wanted = known === undefined ? joined() : await findRows(client, BASELINE_CHECKPOINT, [known.number, known.hash])
    return {
      kind: 'judged',
      expected: `every checkpoint is over the events that are there${known === undefined ? '' : ", the baseline's too"}`,
      found: `${made} checkpoints over ${covered} events, ${since} events since`,
      ...joined(await findRows(client, CHECKPOINTS), wanted),
    }
  },
}
