import assert from 'node:assert'
import { referralResource, type ReferralStatus } from './administrative-resources.ts'
import { write, type Episode, type Happening } from './episode.ts'
import { DAY_MS, registrationOf, type Transfer } from './plan.ts'
import type { Facility } from './places.ts'
import { attend, lasting, pickClass, pickCondition } from './visit.ts'

const HOUR_MS = 3_600_000
/** What became of it: it never left, nobody has come yet, the other side has no bed, it was taken back, the patient was seen. */
const OUTCOMES = ['draft', 'active', 'on-hold', 'revoked', 'completed'] as const satisfies readonly ReferralStatus[]
const SHARES = [4, 14, 8, 12, 62]

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
  send({ status: 'draft', atMs: authoredMs, by: home, continues: outcome !== 'draft' })
  if (outcome === 'draft') return episode.happenings
  send({ status: 'active', atMs: sentMs, by: home, continues: outcome !== 'active' })
  const answeredMs = sentMs + random.whole(1, 10) * DAY_MS + random.whole(0, 8) * HOUR_MS
  if (outcome === 'on-hold') send({ status: 'on-hold', atMs: answeredMs, by: to, continues: false })
  if (outcome === 'revoked') send({ status: 'revoked', atMs: answeredMs, by: home, continues: false })
  if (outcome !== 'completed') return episode.happenings
  becomeKnown(episode, id, { ...transfer, atMs: answeredMs })
  const kind = pickClass(random, condition, to.type)
  const treated = lasting(random, { ...seen, facility: to, class: kind, startMs: answeredMs + HOUR_MS })
  attend(episode, treated)
  send({ status: 'completed', atMs: treated.endMs + HOUR_MS, by: to, continues: false })
  return episode.happenings
}

interface Step {
  readonly status: ReferralStatus
  readonly atMs: number
  readonly by: Facility
  readonly continues: boolean
}

type Sent = Omit<Parameters<typeof referralResource>[0], 'from' | 'to' | 'status'> & {
  readonly from: Facility
  readonly to: Facility
}

const TYPES: Readonly<Record<ReferralStatus, string>> = {
  draft: 'ReferralDrafted',
  active: 'ReferralMade',
  'on-hold': 'ReferralHeld',
  revoked: 'ReferralWithdrawn',
  completed: 'ReferralCompleted',
}

function referralWriter(episode: Episode, sent: Sent): (step: Step) => void {
  return ({ status, atMs, by, continues }) => {
    write(episode, {
      atMs,
      type: TYPES[status],
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
