import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import type { Transaction } from '../database/database.ts'
import { record } from '../events/record.ts'
import type { RouteOptions } from '../http/server.ts'
import { Refusal } from '../refusal.ts'
import { nextMrn } from './patient-rules.ts'
import { readRow } from './read.ts'
import { etagOf } from './rows.ts'
import { servedType } from './served-types.ts'

const registration = z.strictObject({ mrn: z.string().trim().min(1).max(64).optional() })

interface KnownPatient {
  readonly facility: string
  readonly patient: string
  readonly mrn: string
  /** What of it became an event: `PatientFacility/facility.patient`. */
  readonly stream: string
  readonly version: number
  readonly at: Date
}

/**
 * POST /patients/:id/known-at: the facility that a patient was referred to takes the patient into its own index, by a number of its own. The answer names
 * the version that was made, as every write's does.
 */
export async function knownPatientRoutes(server: FastifyInstance, { database }: RouteOptions): Promise<void> {
  server.post<{ Params: { id: string } }>('/patients/:id/known-at', async (request, reply) => {
    const { mrn } = registration.parse(request.body ?? {})
    const known = await database.transaction(request.requester.context, async (transaction) =>
      registerAsKnown(transaction, request.params.id, mrn),
    )
    return await reply.code(201).header('ETag', etagOf(known.version)).header('Last-Modified', known.at.toUTCString()).send(known)
  })
}

/** Throws NOT_FOUND for a patient that this facility does not see, CONFLICT for one that it knows already, and for a number that is taken. */
export async function registerAsKnown(
  transaction: Transaction,
  patient: string,
  given: string | undefined,
): Promise<KnownPatient> {
  const { context, client, sql } = transaction
  if (context.kind !== 'facility') throw new Refusal('FORBIDDEN', 'a patient becomes known at a facility, to its people')
  const { facility } = context
  await readRow(transaction, servedType('Patient'), patient)
  const before = await sql
    .selectFrom('patient_facilities')
    .select('mrn')
    .where('facility', '=', facility)
    .where('patient_id', '=', patient)
    .executeTakeFirst()
  if (before !== undefined) throw new Refusal('CONFLICT', `the patient is known here already, by ${before.mrn}`)
  const mrn = given ?? (await nextMrn(client))
  const { stream, version, at } = await record(transaction, {
    stream: `PatientFacility/${facility}.${patient}`,
    expected: 0,
    type: 'PatientMadeKnown',
    schemaVersion: 1,
    facility,
    payload: { facility, patient, mrn },
  })
  return { facility, patient, mrn, stream, version, at }
}
