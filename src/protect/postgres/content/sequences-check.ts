import pg from 'pg'
import { askingSession } from './asking-role.ts'
import { readOnly, usedDatabases, type CheckedCopy, type ContentCheck } from './content-check.ts'
import type { Finding } from '../check-list.ts'

const TIMEOUT_MS = 10 * 60_000
const EXAMPLES_MAX = 100

/** A sequence that stands below what was given out gives the same number twice: one patient's result comes under another's. */
export const sequencesCheck: ContentCheck = {
  name: 'sequences',
  expected: 'each sequence stands at or above every value that its column has',
  look,
}

interface Owned {
  readonly sequence: string
  readonly table: string
  readonly column: string
  readonly last: string | null
  readonly increment: string
}

async function look(copy: CheckedCopy): Promise<Finding> {
  const databases = await usedDatabases(copy)
  const behind: { database: string; sequence: string; table: string; column: string; stands: string; used: string }[] = []
  let count = 0
  for (const database of databases) {
    await askingSession(copy, database, async (client) => {
      await readOnly(client, TIMEOUT_MS, async () => {
        for (const owned of (await client.query<Owned>(SEQUENCES)).rows) {
          copy.signal.throwIfAborted()
          count += 1
          const used = await farthestUsed(client, owned)
          if (used !== null && isBehind(owned, used)) {
            const { sequence, table, column, last } = owned
            behind.push({ database, sequence, table, column, stands: last ?? 'not begun', used })
          }
        }
      })
    })
  }
  const [first] = behind
  if (first !== undefined) {
    return {
      verdict: 'failed',
      found: `${behind.length} of ${count} would give out numbers again: ${first.sequence} in "${first.database}" stands at ${first.stands}, ${first.table}.${first.column} has ${first.used}`,
      findings: behind.slice(0, EXAMPLES_MAX),
    }
  }
  return { verdict: 'verified', found: `${count} sequences, all at or above what was given out` }
}

/** Null for a table that is empty. */
async function farthestUsed(client: pg.Client, { table, column, increment }: Owned): Promise<string | null> {
  const farthest = increment.startsWith('-') ? 'min' : 'max'
  const { rows } = await client.query<{ used: string | null }>(
    `select ${farthest}(${pg.escapeIdentifier(column)})::text as used from ${table}`,
  )
  return rows[0]?.used ?? null
}

function isBehind({ last, increment }: Owned, used: string): boolean {
  if (last === null) return true
  return increment.startsWith('-') ? BigInt(last) > BigInt(used) : BigInt(last) < BigInt(used)
}

/** Sequences that a column of a table of integers draws from: serial, identity, or by an explicit default. `last` is null of one that was never drawn from. */
const SEQUENCES = `
  select distinct s.oid::regclass::text as sequence, t.oid::regclass::text as table, a.attname::text as column, q.seqincrement::text as increment,
    pg_sequence_last_value(s.oid)::text as last
  from pg_class s
  join pg_sequence q on q.seqrelid = s.oid
  join (
    select objid as sequence, refobjid as table, refobjsubid as number from pg_depend
    where classid = 'pg_class'::regclass and refclassid = 'pg_class'::regclass and deptype in ('a', 'i')
    union
    select d.refobjid, f.adrelid, f.adnum from pg_depend d join pg_attrdef f on f.oid = d.objid
    where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass
  ) used on used.sequence = s.oid
  join pg_class t on t.oid = used.table and t.relkind in ('r', 'p') and t.relpersistence = 'p'
  join pg_attribute a on a.attrelid = t.oid and a.attnum = used.number and a.attnum > 0
    and a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
  where s.relkind = 'S' order by 1, 2, 3`
