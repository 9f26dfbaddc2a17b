import type { ServiceRequest } from '@medplum/fhirtypes'
import { isDeepStrictEqual } from 'node:util'
import type { Transaction } from '../database/database.ts'
import { Refusal } from '../refusal.ts'
import { problem, type Problem } from './problem-list.ts'
import type { Json } from './rows.ts'

// A ServiceRequest is a referral: from the requester, a facility, to the first performer, another one. Both see it, and with it the patient.

/** The facility that the patient is sent to; undefined when the referral says of none. */
export function receiverOf(resource: Json): string | undefined {
  const reference = (resource as unknown as ServiceRequest).performer?.[0]?.reference
  return reference?.startsWith('Organization/') ? reference.slice('Organization/'.length) : undefined
}

export function requesterOf(resource: Json): string | undefined {
  return (resource as unknown as ServiceRequest).requester?.reference?.replace(/^Organization\//, '')
}

export async function checkReceiver({ sql }: Transaction, resource: Json, own: string): Promise<Problem[]> {
  const receiver = receiverOf(resource)
  const path = 'ServiceRequest.performer[0]'
  if (receiver === undefined) {
    return [
      problem(path, 'required', 'the facility that the patient is referred to is wanted', 'refer to it as "Organization/ID"'),
    ]
  }
  if (receiver === own) return [problem(path, 'business-rule', 'a facility refers to another one, not to itself')]
  const found = await sql.selectFrom('facilities').select('active').where('id', '=', receiver).executeTakeFirst()
  if (found?.active === true) return []
  return [
    problem(
      path,
      'business-rule',
      found === undefined ? `there is no facility ${receiver}` : `the facility ${receiver} is not active`,
    ),
  ]
}

/** Neither end of a referral, nor its patient, ever changes. */
export function checkEnds(before: Json, after: Json): Problem[] {
  return receiverOf(before) === receiverOf(after)
    ? []
    : [
        problem(
          'ServiceRequest.performer[0]',
          'business-rule',
          `this patient was referred to ${receiverOf(before)}`,
          'revoke it, and make another one',
        ),
      ]
}

/** Throws FORBIDDEN when the facility that was referred to changes anything but the status. */
export function requireStatusOnly(before: Json, after: Json): void {
  const { status: _before, meta: _metaBefore, ...restBefore } = before
  const { status: _after, meta: _metaAfter, ...restAfter } = after
  if (isDeepStrictEqual(restBefore, restAfter)) return
  throw new Refusal(
    'FORBIDDEN',
    'the facility that a patient is referred to changes the status of the referral, and nothing else of it',
    {
      expression: 'ServiceRequest',
    },
  )
}
