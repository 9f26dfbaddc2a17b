import { groupActor, type Episode, type Happening } from './episode.ts'
import { changeRecord, register, withdrawConsent } from './registration.ts'
import { referredVisit } from './referral.ts'
import { visit } from './visit.ts'
import { EPISODES, PURPOSES, type Plan } from './plan.ts'
import { locationOf, PLACE_KINDS } from './places.ts'
import { Random } from './random.ts'
import { TimeQueue } from './time-queue.ts'
import { organizationOf } from '../facilities/onboard.ts'
import { GROUP_FACILITY } from '../facilities/users.ts'

/**
 * All that happened, in the order of time, until the plan's end. It holds what has begun and is not over (an admission, a bill to be paid), and nothing of
 * whoever comes later.
 */
export function* history(plan: Plan): Generator<Happening> {
  yield* openFacilities(plan)
  const queue = new TimeQueue<Happening>()
  let next = 0
  for (;;) {
    while (next < plan.times.length && plan.times[next]! <= queue.earliestMs) {
      for (const happening of expand(plan, next)) queue.push(happening.draft.atMs, happening)
      next += 1
    }
    const happening = queue.pop()
    if (happening === undefined || happening.draft.atMs > plan.untilMs) return
    yield happening
  }
}

function expand(plan: Plan, index: number): Happening[] {
  const kind = EPISODES[plan.kinds[index]!]!
  const episode: Episode = {
    plan,
    patient: plan.patientsOf[index]!,
    atMs: plan.times[index]!,
    random: new Random(plan.seed, PURPOSES.episode, index),
    happenings: [],
  }
  switch (kind) {
    case 'registration':
      return register(episode)
    case 'visit':
      return visit(episode)
    case 'referredVisit':
      return referredVisit(episode)
    case 'recordChange':
      return changeRecord(episode)
    case 'consentWithdrawal':
      return withdrawConsent(episode)
    default:
      return kind satisfies never
  }
}

/** Ten thousand facilities are open within two days. */
const STEP_MS = 2500

/** The registry: facilities, the places in them, and who works there. */
function* openFacilities({ group, fromMs }: Plan): Generator<Happening> {
  let atMs = fromMs
  const open = (stream: string, type: string, more: { facility: string; schemaVersion: number; payload: object }): Happening => {
    atMs += STEP_MS
    return { draft: { atMs, stream, type, actor: groupActor, continues: false, ...more } }
  }
  const user = (id: string, name: string, role: string, facility: string | null): Happening =>
    open(`User/${id}`, 'UserAdded', {
      facility: facility ?? GROUP_FACILITY,
      schemaVersion: 1,
      payload: { id, name, role, facility, active: true },
    })
  yield user('group', 'Group administration', 'group', null)
  for (const facility of group) {
    const { id, name, lga, type } = facility
    const resource = organizationOf({ id, name, lga, type, active: true })
    yield open(`Organization/${id}`, 'FacilityOnboarded', { facility: id, schemaVersion: 2, payload: { resource } })
    yield user(facility.clinician, `Clinicians, ${name}`, 'clinician', id)
    yield user(facility.clerk, `Records and billing, ${name}`, 'clerk', id)
    for (const kind of PLACE_KINDS) {
      const place = { resource: locationOf(facility, kind) }
      yield open(`Location/${facility.places[kind]}`, 'LocationAdded', { facility: id, schemaVersion: 1, payload: place })
    }
  }
}
