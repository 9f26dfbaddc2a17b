import { z } from 'zod'
import type { Transaction } from '../database/database.ts'
import { record, type RecordedEvent } from '../events/record.ts'

/** The facility in whose name the group's own events are recorded. */
export const GROUP_FACILITY = 'GROUP'

export const newUser = z.strictObject({
  id: z.string().regex(/^[a-z0-9][a-z0-9.-]{0,62}$/, 'small letters, digits, dots and hyphens'),
  name: z.string().trim().min(1).max(200),
  role: z.enum(['clinician', 'clerk', 'group']),
  facility: z.string().nullable(),
})

/** Adds somebody who works here. Throws VERSION_CONFLICT when the id is taken. */
export async function addUser(transaction: Transaction, given: z.input<typeof newUser>): Promise<RecordedEvent> {
  const user = newUser.parse(given)
  return await record(transaction, {
    stream: `User/${user.id}`,
    expected: 0,
    type: 'UserAdded',
    schemaVersion: 1,
    facility: user.facility ?? GROUP_FACILITY,
    payload: { ...user, active: true },
  })
}
