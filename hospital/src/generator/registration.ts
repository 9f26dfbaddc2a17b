import { consentResource } from './administrative-resources.ts'
import { write, type Episode, type Happening } from './episode.ts'
import { LGAS } from './names.ts'
import { makePhone, patientOfSchema1, patientResource } from './person.ts'
import { FLAGS, registrationOf } from './plan.ts'

/** Somebody comes for the first time: their record, and mostly their consent. */
export function register(episode: Episode): Happening[] {
  const { plan, patient, atMs } = episode
  const registered = registrationOf(plan, patient)
  const { id, home, consent } = registered
  const isSchema1 = atMs <= plan.schema1UntilMs
  episode.happenings.push({
    draft: {
      atMs,
      stream: `Patient/${id}`,
      type: 'PatientRegistered',
      schemaVersion: isSchema1 ? 1 : 2,
      facility: home.id,
      actor: `User/${home.clerk}`,
      payload: isSchema1 ? patientOfSchema1(registered) : { resource: patientResource(registered) },
      continues: (plan.flags[patient]! & FLAGS.changes) !== 0,
    },
  })
  if (consent !== undefined) {
    write(episode, {
      atMs: consent.givenMs,
      type: 'ConsentGiven',
      resource: consentResource({ id: consent.id, facility: home.id, patient: id, scope: 'treatment', givenMs: consent.givenMs }),
      facility: home,
      by: 'clerk',
      continues: (plan.flags[patient]! & FLAGS.withdraws) !== 0,
    })
  }
  return episode.happenings
}

/** Somebody has moved, or has another telephone. */
export function changeRecord(episode: Episode): Happening[] {
  const { plan, patient, atMs, random } = episode
  const registered = registrationOf(plan, patient)
  const person = { ...registered.person, phone: makePhone(random), lga: random.pick(LGAS) }
  write(episode, {
    atMs,
    type: 'PatientAmended',
    resource: patientResource({ ...registered, person }),
    facility: registered.home,
    by: 'clerk',
  })
  return episode.happenings
}

export function withdrawConsent(episode: Episode): Happening[] {
  const { plan, patient, atMs } = episode
  const { id, home, consent } = registrationOf(plan, patient)
  if (consent === undefined) return []
  const permission = { id: consent.id, facility: home.id, patient: id, scope: 'treatment', givenMs: consent.givenMs } as const
  write(episode, {
    atMs,
    type: 'ConsentWithdrawn',
    resource: consentResource({ ...permission, withdrawnMs: atMs }),
    facility: home,
    by: 'clerk',
  })
  return episode.happenings
}
