import type pg from 'pg'

/** Rows whose foreign key leads nowhere: PostgreSQL checks a key when a row is written, and never again. */
export interface DanglingKey {
  readonly constraint: string
  readonly table: string
  readonly count: number
  /** The first of them: the values that are not there. */
  readonly examples: readonly string[]
}

interface ForeignKey {
  readonly name: string
  readonly source: string
  readonly target: string
  readonly source_columns: string[]
  readonly target_columns: string[]
}

const EXAMPLES_MAX = 20

/** Checks every foreign key of the hospital's tables again. */
export async function danglingKeys(
  client: pg.ClientBase,
): Promise<{ readonly checked: number; readonly dangling: DanglingKey[] }> {
  const { rows: keys } = await client.query<ForeignKey>(FOREIGN_KEYS)
  const dangling: DanglingKey[] = []
  for (const key of keys) {
    const pairs = key.source_columns.map((column, index) => `t.${key.target_columns[index]} = s.${column}`).join(' and ')
    const given = key.source_columns.map((column) => `s.${column} is not null`).join(' and ')
    const values = key.source_columns.map((column) => `s.${column}::text`).join(', ')
    const { rows } = await client.query<{ example: string; total: string }>(`
      select concat_ws(' ', ${values}) as example, count(*) over () as total from ${key.source} s
      where ${given} and not exists (select from ${key.target} t where ${pairs}) limit ${EXAMPLES_MAX}`)
    if (rows.length === 0) continue
    dangling.push({
      constraint: key.name,
      table: key.source,
      count: Number(rows[0]!.total),
      examples: rows.map(({ example }) => example),
    })
  }
  return { checked: keys.length, dangling }
}

const FOREIGN_KEYS = `
  select conname as name, format('%s', conrelid::regclass) as source, format('%s', confrelid::regclass) as target,
    array(select format('%I', attname) from unnest(conkey) with ordinality k(number, place)
      join pg_attribute on attrelid = conrelid and attnum = number order by place) as source_columns,
    array(select format('%I', attname) from unnest(confkey) with ordinality k(number, place)
      join pg_attribute on attrelid = confrelid and attnum = number order by place) as target_columns
  from pg_constraint where contype = 'f' and connamespace = 'hospital'::regnamespace order by conname`
