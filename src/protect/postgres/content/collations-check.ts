import type { Finding } from '../check-list.ts'
import { usedDatabases, type CheckedCopy, type ContentCheck } from './content-check.ts'

const NAMED_MAX = 5
const FINDINGS_MAX = 500

/** An index of texts is in the order of the library that built it: by another one, what is there is not found. */
export const collationsCheck: ContentCheck = {
  name: 'collations',
  expected: 'each collation that an index is built by has the version that this machine has',
  look,
}

interface StaleIndex {
  readonly database: string
  readonly index: string
  readonly collation: string
  readonly built: string
  readonly here: string | null
}

async function look(copy: CheckedCopy): Promise<Finding> {
  const stale: StaleIndex[] = []
  let count = 0
  for (const database of await usedDatabases(copy)) {
    await copy.server.session(database, async (client) => {
      const { rows } = await client.query<Omit<StaleIndex, 'database'> & { same: boolean }>(INDEXES)
      count += rows.length
      for (const { same, ...each } of rows) if (!same) stale.push({ database, ...each })
    })
  }
  const [first] = stale
  if (first === undefined)
    return { verdict: 'verified', found: `${count} collations of indexes, each with this machine's version` }
  const versions = `${first.collation} was ${first.built}, and is ${first.here ?? 'unknown'} here`
  const names = [...new Set(stale.map(({ index }) => index))]
  const more = names.length > NAMED_MAX ? `, and ${names.length - NAMED_MAX} more` : ''
  return {
    verdict: 'not proven',
    found: `this machine has another library (${versions}): ${names.length} indexes cannot be judged here: ${names.slice(0, NAMED_MAX).join(', ')}${more}`,
    findings: stale.slice(0, FINDINGS_MAX),
  }
}

/** Collations without a version (C, POSIX) never change. Oid 100 is the database's own. */
const INDEXES = `
  select i.indexrelid::regclass::text as index, v.collation, v.built, v.here, v.built is not distinct from v.here as same
  from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
  join (
    select oid, format('%s', collname) as collation, collversion as built, pg_collation_actual_version(oid) as here
    from pg_collation where collversion is not null and oid <> 100
    union all
    select 100, format('the database''s %s', datcollate), datcollversion, pg_database_collation_actual_version(oid)
    from pg_database where datname = current_database() and datcollversion is not null
  ) v on v.oid = any (i.indcollation::oid[])
  where n.nspname !~ '^pg_' order by 1, 2`
