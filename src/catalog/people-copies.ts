import type { Kysely } from 'kysely'
import { z } from 'zod'
import type { Schema } from './schema.ts'
import type { WholePerson } from './whole-people.ts'

// People as the repositories keep them: all that lets them in again, and nothing that changes each day.

const base64 = z.string().regex(/^[A-Za-z0-9+/]*={0,2}$/)
const time = z.iso.datetime({ precision: 3 })

const factorSchema = z.object({
  id: z.uuid(),
  kind: z.enum(['totp', 'passkey']),
  label: z.string(),
  sealedSecret: base64.nullable(),
  credentialId: z.string().nullable(),
  publicKey: base64.nullable(),
  transports: z.array(z.string()).nullable(),
  madeAt: time,
})

export const personCopySchema = z.object({
  id: z.uuid(),
  /** Counts the changes: of two copies the greater one is the newer. */
  version: z.int().nonnegative().default(0),
  name: z.string(),
  displayName: z.string(),
  email: z.string().nullable(),
  grants: z.array(z.object({ role: z.string(), facilities: z.array(z.string()).nullable() })),
  state: z.enum(['active', 'disabled']),
  password: z.string().nullable(),
  issuer: z.string().nullable(),
  subject: z.string().nullable(),
  madeBy: z.string(),
  madeAt: time,
  resetBy: z.string().nullable(),
  resetAt: time.nullable(),
  factors: z.array(factorSchema),
})
/** A person as a repository has them. */
export type PersonCopy = z.infer<typeof personCopySchema>

/** What of a person is kept, and sealed. What it says is not looked at here: somebody may have written it. */
export function copyOf({ factors, ...person }: WholePerson): PersonCopy {
  return {
    id: person.id,
    version: person.version,
    name: person.name,
    displayName: person.display_name,
    email: person.email,
    grants: person.grants as PersonCopy['grants'],
    state: person.state,
    password: person.password,
    issuer: person.issuer,
    subject: person.subject,
    madeBy: person.made_by,
    madeAt: person.made_at.toISOString(),
    resetBy: person.reset_by,
    resetAt: person.reset_at?.toISOString() ?? null,
    factors: factors.map((factor) => ({
      id: factor.id,
      kind: factor.kind,
      label: factor.label,
      sealedSecret: factor.sealed_secret?.toString('base64') ?? null,
      credentialId: factor.credential_id,
      publicKey: factor.public_key?.toString('base64') ?? null,
      transports: factor.transports,
      madeAt: factor.made_at.toISOString(),
    })),
  }
}

/** Adds whom the store does not know, each by themselves; those whom it knows stay as they are. Gives how many came. */
export async function insertPeopleCopies(
  queries: Kysely<Schema>,
  copies: readonly PersonCopy[],
  seal: (copy: PersonCopy) => Buffer,
): Promise<number> {
  const known = new Set((await queries.selectFrom('people').select('id').execute()).map(({ id }) => id))
  let came = 0
  for (const copy of copies.filter(({ id }) => !known.has(id))) {
    came += await queries.transaction().execute(async (transaction) => insertCopy(transaction, copy, seal(copy)))
  }
  return came
}

/** 0 where somebody else has the name, or the identity, by now. */
async function insertCopy(queries: Kysely<Schema>, { factors, ...person }: PersonCopy, seal: Buffer): Promise<0 | 1> {
  const inserted = await queries
    .insertInto('people')
    .values({
      id: person.id,
      name: person.name,
      display_name: person.displayName,
      email: person.email,
      grants: JSON.stringify(person.grants),
      state: person.state,
      password: person.password,
      issuer: person.issuer,
      subject: person.subject,
      made_by: person.madeBy,
      made_at: person.madeAt,
      reset_by: person.resetBy,
      reset_at: person.resetAt,
      version: person.version,
      seal,
    })
    .onConflict((conflict) => conflict.doNothing())
    .returning('id')
    .executeTakeFirst()
  if (inserted === undefined) return 0
  await insertFactors(queries, person.id, factors)
  return 1
}

async function insertFactors(queries: Kysely<Schema>, person: string, factors: PersonCopy['factors']): Promise<void> {
  for (const factor of factors) {
    await queries
      .insertInto('factors')
      .values({
        id: factor.id,
        person,
        kind: factor.kind,
        label: factor.label,
        sealed_secret: bytesOf(factor.sealedSecret),
        credential_id: factor.credentialId,
        public_key: bytesOf(factor.publicKey),
        counter: factor.kind === 'passkey' ? 0 : null,
        transports: factor.transports,
        made_at: factor.madeAt,
      })
      .execute()
  }
}

/** Puts one in place of an older row that somebody has put back: all of it but attempts. Gives false where the row is not older by now. */
export async function replaceByCopy(queries: Kysely<Schema>, copy: PersonCopy, seal: Buffer): Promise<boolean> {
  return await queries.transaction().execute(async (transaction) => {
    const { id, factors } = copy
    const replaced = await transaction
      .updateTable('people')
      .set({
        name: copy.name,
        display_name: copy.displayName,
        email: copy.email,
        grants: JSON.stringify(copy.grants),
        state: copy.state,
        password: copy.password,
        issuer: copy.issuer,
        subject: copy.subject,
        made_by: copy.madeBy,
        made_at: copy.madeAt,
        reset_by: copy.resetBy,
        reset_at: copy.resetAt,
        version: copy.version,
        seal,
      })
      .where('id', '=', id)
      .where('version', '<', copy.version)
      .returning('id')
      .executeTakeFirst()
    if (replaced === undefined) return false
    await transaction.deleteFrom('factors').where('person', '=', id).execute()
    await insertFactors(transaction, id, factors)
    return true
  })
}

function bytesOf(text: string | null): Buffer | null {
  return text === null ? null : Buffer.from(text, 'base64')
}
