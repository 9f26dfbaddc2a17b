import type { Kysely, Selectable } from 'kysely'
import type { FactorsTable, Schema } from './schema.ts'

// Statements about second factors.

export type FactorRow = Selectable<FactorsTable>

export type NewFactorRow = {
  readonly id: string
  readonly person: string
  readonly label: string
  readonly at: Date
} & (
  | { readonly kind: 'totp'; readonly sealedSecret: Buffer; readonly step: number }
  | {
      readonly kind: 'passkey'
      readonly credentialId: string
      readonly publicKey: Buffer
      readonly counter: number
      readonly transports: readonly string[]
    }
)

/** False when this passkey is somebody's already. */
export async function insertFactor(queries: Kysely<Schema>, factor: NewFactorRow): Promise<boolean> {
  const { id, person, kind, label, at } = factor
  const isPasskey = kind === 'passkey'
  const row = await queries
    .insertInto('factors')
    .values({
      id,
      person,
      kind,
      label,
      sealed_secret: isPasskey ? null : factor.sealedSecret,
      last_step: isPasskey ? null : factor.step,
      credential_id: isPasskey ? factor.credentialId : null,
      public_key: isPasskey ? factor.publicKey : null,
      counter: isPasskey ? factor.counter : null,
      transports: isPasskey ? [...factor.transports] : null,
      made_at: at,
    })
    .onConflict((conflict) => conflict.doNothing())
    .returning('id')
    .executeTakeFirst()
  return row !== undefined
}

export async function listFactors(queries: Kysely<Schema>, person: string): Promise<FactorRow[]> {
  return await queries.selectFrom('factors').selectAll().where('person', '=', person).orderBy('made_at').orderBy('id').execute()
}

/** Takes a code's time step. False when it, or a later one, was taken: of two at once, on whatever node, one gets it. */
export async function takeStep(
  queries: Kysely<Schema>,
  { factor, step, at }: { readonly factor: string; readonly step: number; readonly at: Date },
): Promise<boolean> {
  const row = await queries
    .updateTable('factors')
    .set({ last_step: step, last_used_at: at })
    .where('id', '=', factor)
    .where((each) => each.or([each('last_step', 'is', null), each('last_step', '<', step)]))
    .returning('id')
    .executeTakeFirst()
  return row !== undefined
}

export async function notePasskeyUse(
  queries: Kysely<Schema>,
  { factor, counter, at }: { readonly factor: string; readonly counter: number; readonly at: Date },
): Promise<void> {
  await queries.updateTable('factors').set({ counter, last_used_at: at }).where('id', '=', factor).execute()
}

export async function deleteFactor(queries: Kysely<Schema>, factor: string): Promise<void> {
  await queries.deleteFrom('factors').where('id', '=', factor).execute()
}

export async function deleteFactors(queries: Kysely<Schema>, person: string): Promise<void> {
  await queries.deleteFrom('factors').where('person', '=', person).execute()
}
