/** A topic, without the prefix that a broker shared with others needs. */
export type TopicName = 'audit' | 'patient' | 'appointment' | 'lab' | 'pharmacy' | 'billing'

interface Topic {
  readonly retentionYears: number
  /** The types of streams whose events it carries. */
  readonly kinds: readonly string[]
}

/**
 * Which event goes where, and how long it is kept there. The audit topic carries one record for every event of the hospital, whatever its kind; the
 * kinds that no other topic names (Organization, User, Location, Message, Heartbeat, Hold) are on it alone. Retention counts from publication.
 */
export const TOPICS: Readonly<Record<TopicName, Topic>> = {
  audit: { retentionYears: 10, kinds: [] },
  patient: {
    retentionYears: 7,
    kinds: ['Patient', 'PatientFacility', 'Encounter', 'Consent', 'DocumentReference', 'ServiceRequest'],
  },
  appointment: { retentionYears: 2, kinds: ['Appointment'] },
  lab: { retentionYears: 10, kinds: ['Observation'] },
  pharmacy: { retentionYears: 5, kinds: ['MedicationRequest'] },
  billing: { retentionYears: 7, kinds: ['Invoice'] },
}

export const TOPIC_NAMES = Object.keys(TOPICS) as readonly TopicName[]

const DAY_MS = 86_400_000
const YEAR_DAYS = 365.25
const TOPIC_OF_KIND: ReadonlyMap<string, TopicName> = new Map(
  TOPIC_NAMES.flatMap((name) => TOPICS[name].kinds.map((kind) => [kind, name] as const)),
)

/** The topic that carries what an event of this stream says, beside the audit topic. */
export function topicOf(stream: string): TopicName | undefined {
  return TOPIC_OF_KIND.get(stream.slice(0, stream.indexOf('/')))
}

export function retentionMs(topic: TopicName): number {
  return TOPICS[topic].retentionYears * YEAR_DAYS * DAY_MS
}
