import type pg from 'pg'

// Indexes and foreign keys of an empty database are cheaper made once at the end than row by row: half of a load's time. All of it happens in the
// caller's transaction, which holds the tables for itself: either everything is there again when it commits, or nothing has changed.

/** What was taken away, as the statements that bring it back, in their order. */
export interface Removed {
  readonly statements: readonly string[]
}

interface Definition {
  readonly relation: string
  readonly name: string
  readonly definition: string
}

/**
 * Takes away what only guards and finds rows: foreign keys, unique constraints and indexes. Primary keys stay, for the projections find their rows by them;
 * row security is not forced on the events' owner meanwhile, because COPY refuses it.
 */
export async function removeForLoad(client: pg.Client): Promise<Removed> {
  const constraints = await definitions(client, CONSTRAINTS)
  for (const { relation, name } of constraints) await client.query(`alter table ${relation} drop constraint ${name}`)
  const indexes = await definitions(client, INDEXES)
  for (const { name } of indexes) await client.query(`drop index ${name}`)
  await client.query('alter table hospital.events no force row level security')
  return {
    statements: [
      'alter table hospital.events force row level security',
      ...indexes.map(({ definition }) => definition),
      ...constraints
        .toReversed()
        .map(({ relation, name, definition }) => `alter table ${relation} add constraint ${name} ${definition}`),
    ],
  }
}

export async function bringBack(client: pg.Client, { statements }: Removed): Promise<void> {
  for (const statement of statements) await client.query(statement)
}

async function definitions(client: pg.Client, text: string): Promise<Definition[]> {
  const { rows } = await client.query<Definition>(text)
  return rows
}

/** Foreign keys first: they stand on the unique ones. */
const CONSTRAINTS = `
  select c.conrelid::regclass::text as relation, quote_ident(c.conname) as name, pg_get_constraintdef(c.oid) as definition
  from pg_constraint c join pg_class r on r.oid = c.conrelid
  where r.relnamespace = 'hospital'::regnamespace and c.contype in ('f', 'u')
  order by c.contype, c.conrelid::regclass::text, c.conname`

const INDEXES = `
  select i.indrelid::regclass::text as relation, i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as definition
  from pg_index i join pg_class r on r.oid = i.indrelid
  where r.relnamespace = 'hospital'::regnamespace and r.relkind = 'r' and not i.indisprimary
    and not exists (select from pg_constraint c where c.conindid = i.indexrelid)
  order by 1, 2`
