import assert from 'node:assert'
import { eventWhenChanged, eventWhenMade, LIFECYCLES, RECEIVED_REFERRAL } from '../fhir/statuses.ts'
import { referralResource, type ReferralStatus } from './administrative-resources.ts'
import { write, type Episode, type Happening } from './episode.ts'
import { DAY_MS, registrationOf, type Transfer } from './plan.ts'
import type { Facility } from './places.ts'
import { attend, lasting, pickClass, pickCondition } from './visit.ts'

const HOUR_MS = 3_600_000
/** What became of it: it never left, nobody has come yet, the other side has no bed, it was taken back, the other side declined, the patient was seen. */
const OUTCOMES = ['draft', 'active', 'on-hold', 'withdrawn', 'declined', 'completed'] as const
const SHARES = [4, 14, 8, 5, 7, 62]

/** Somebody is seen at home and sent to another facility, which comes to know the patient when they arrive there. */
export function referredVisit(episode: Episode): Happening[] {
  const { plan, patient, atMs, random } = episode
  const { id, home, person } = registrationOf(plan, patient)
  const condition = pickCondition(random, person, atMs)
  const seen = lasting(random, { facility: home, patient: id, person, condition, class: 'AMB', startMs: atMs })
  attend(episode, seen)
  const transfer = plan.transfers.get(patient)
  assert(transfer !== undefined, 'who is referred has somewhere to go')
  const { to } = transfer
  const authoredMs = seen.endMs + 5 * 60_000
  const outcome = OUTCOMES[random.weighted(SHARES)]!
  const send = referralWriter(episode, { id: random.uuid(authoredMs), from: home, to, patient: id, condition, authoredMs })
  const sentMs = authoredMs + random.whole(10, 120) * 60_000
  send({ before: undefined, status: 'draft', atMs: authoredMs, by: home, continues: outcome !== 'draft' })
  if (outcome === 'draft') return episode.happenings
  send({ before: 'draft', status: 'active', atMs: sentMs, by: home, continues: outcome !== 'active' })
  const answeredMs = sentMs + random.whole(1, 10) * DAY_MS + random.whole(0, 8) * HOUR_MS
  const answer = { before: 'active', atMs: answeredMs, continues: false } as const
  if (outcome === 'on-hold') send({ ...answer, status: 'on-hold', by: to })
  if (outcome === 'withdrawn') send({ ...answer, status: 'revoked', by: home })
  if (outcome === 'declined') send({ ...answer, status: 'revoked', by: to })
  if (outcome !== 'completed') return episode.happenings
  becomeKnown(episode, id, { ...transfer, atMs: answeredMs })
  const kind = pickClass(random, condition, to.type)
  const treated = lasting(random, { ...seen, facility: to, class: kind, startMs: answeredMs + HOUR_MS })
  attend(episode, treated)
  send({ ...answer, status: 'completed', atMs: treated.endMs + HOUR_MS, by: to })
  return episode.happenings
}

interface Step {
  /** Undefined when it is made. */
  readonly before: ReferralStatus | undefined
  readonly status: ReferralStatus
  readonly atMs: number
  readonly by: Facility
  readonly continues: boolean
}

type Sent = Omit<Parameters<typeof referralResource>[0], 'from' | 'to' | 'status'> & {
  readonly from: Facility
  readonly to: Facility
}

function referralWriter(episode: Episode, sent: Sent): (step: Step) => void {
  return ({ before, status, atMs, by, continues }) => {
    const lifecycle = by === sent.from ? LIFECYCLES.ServiceRequest : RECEIVED_REFERRAL
    write(episode, {
      atMs,
      type: before === undefined ? eventWhenMade(lifecycle, status) : eventWhenChanged(lifecycle, before, status),
      resource: referralResource({ ...sent, from: sent.from.id, to: sent.to.id, status }),
      facility: by,
      by: 'clinician',
      otherFacility: by === sent.from ? sent.to.id : sent.from.id,
      continues,
    })
  }
}

/** The other facility gives the patient a number of its own. */
function becomeKnown(episode: Episode, patient: string, { to, mrn, atMs }: Transfer & { readonly atMs: number }): void {
  episode.happenings.push({
    draft: {
      atMs,
      stream: `PatientFacility/${to.id}.${patient}`,
      type: 'PatientMadeKnown',
      schemaVersion: 1,
      facility: to.id,
      actor: `User/${to.clerk}`,
      payload: { facility: to.id, patient, mrn },
      continues: false,
    },
  })
}
