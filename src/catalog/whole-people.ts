import { sql, type Kysely, type RawBuilder } from 'kysely'
import { z } from 'zod'
import type { FactorRow } from './factors.ts'
import type { Person } from './people.ts'
import type { Schema } from './schema.ts'

// People with their second factors, read by one statement, so that both are of one instant: a seal is over all of it.

export type WholePerson = Person & { readonly factors: readonly FactorRow[] }

export type WhichPerson =
  { readonly id: string } | { readonly name: string } | { readonly issuer: string; readonly subject: string }

const bytes = z
  .string()
  .nullable()
  .transform((text) => (text === null ? null : Buffer.from(text, 'hex')))
const time = z.number().transform((ms) => new Date(ms))

const factorsSchema = z.array(
  z.object({
    id: z.string(),
    person: z.string(),
    kind: z.enum(['totp', 'passkey']),
    label: z.string(),
    sealed_secret: bytes,
    last_step: z.number().nullable(),
    credential_id: z.string().nullable(),
    public_key: bytes,
    counter: z.string().nullable(),
    transports: z.array(z.string()).nullable(),
    made_at: time,
    last_used_at: time.nullable(),
  }),
)

/** Times in milliseconds, bytes in hex, however the server writes them otherwise. */
const FACTORS = sql<unknown>`(
  select coalesce(jsonb_agg(jsonb_build_object(
    'id', f.id, 'person', f.person, 'kind', f.kind, 'label', f.label,
    'sealed_secret', encode(f.sealed_secret, 'hex'), 'last_step', f.last_step, 'credential_id', f.credential_id,
    'public_key', encode(f.public_key, 'hex'), 'counter', f.counter::text, 'transports', f.transports,
    'made_at', floor(extract(epoch from f.made_at) * 1000), 'last_used_at', floor(extract(epoch from f.last_used_at) * 1000)
  ) order by f.made_at, f.id), '[]') from resus_control.factors f where f.person = p.id)`

export async function readWholePerson(queries: Kysely<Schema>, which: WhichPerson): Promise<WholePerson | undefined> {
  const of = queries.selectFrom('people as p').selectAll('p').select(FACTORS.as('own_factors'))
  const row = await of.where(conditionOf(which)).executeTakeFirst()
  return row === undefined ? undefined : wholeOf(row)
}

/** In the order of their ids. */
export async function readWholePeople(queries: Kysely<Schema>): Promise<WholePerson[]> {
  const rows = await queries.selectFrom('people as p').selectAll('p').select(FACTORS.as('own_factors')).orderBy('p.id').execute()
  return rows.map(wholeOf)
}

/** Whoever changes what is sealed has the row first. */
export async function lockPerson(queries: Kysely<Schema>, id: string): Promise<void> {
  await queries.selectFrom('people').select('id').where('id', '=', id).forUpdate().execute()
}

export async function putPersonSeal(
  queries: Kysely<Schema>,
  { id, version, seal }: { readonly id: string; readonly version: number; readonly seal: Buffer },
): Promise<void> {
  await queries.updateTable('people').set({ version, seal }).where('id', '=', id).execute()
}

function wholeOf({ own_factors, ...person }: Person & { readonly own_factors: unknown }): WholePerson {
  return { ...person, factors: factorsSchema.parse(own_factors) }
}

function conditionOf(which: WhichPerson): RawBuilder<boolean> {
  if ('id' in which) return sql<boolean>`p.id = ${which.id}::uuid`
  if ('name' in which) return sql<boolean>`lower(p.name collate "C") = lower(${which.name} collate "C")`
  return sql<boolean>`p.issuer = ${which.issuer} and p.subject = ${which.subject}`
}
