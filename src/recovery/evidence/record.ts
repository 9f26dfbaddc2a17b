import { z } from 'zod'
import { jsonSchema } from '../../authority/canonical-json.ts'
import { damaged } from '../../repository/sealed-object.ts'
import { payloadOf, type Envelope } from './envelope.ts'

// What records say (docs/evidence.md, "A record"). A member that this release does not know is passed over, and stays in the envelope that was signed.

export const STATEMENT_TYPE = 'https://in-toto.io/Statement/v1'
export const EVIDENCE_TYPE = 'urn:resus:evidence:1'
export const HEAD_TYPE = 'urn:resus:evidence-head:1'

const instant = z.iso.datetime({ precision: 3 })
const digest = z.string().regex(/^[0-9a-f]{64}$/)
const seconds = z.number().nonnegative().nullable()

const checkSchema = z.object({
  name: z.string(),
  expected: z.string(),
  found: z.string(),
  verdict: z.enum(['verified', 'failed', 'not proven', 'skipped']),
  seconds: z.number(),
})

/** When what happened; null where it does not apply, or was not measured. */
export const timelineSchema = z.object({
  /** Whether the fault was simulated: it is then the moment at which the drill began. */
  simulated: z.boolean(),
  fault: instant.nullable(),
  detected: instant.nullable(),
  declared: instant.nullable(),
  approved: instant.nullable(),
  began: instant,
  dataReady: instant.nullable(),
  dataVerified: instant.nullable(),
  serviceUp: instant.nullable(),
  firstVerifiedTransaction: instant.nullable(),
  tornDown: instant.nullable(),
})
export type Timeline = z.infer<typeof timelineSchema>

export const measuredSchema = z.object({
  /** From the fault to the first verified transaction. */
  rtoSeconds: seconds,
  /** Its parts, in order; they add up to it. */
  rtoParts: z.record(z.string(), z.number()),
  rpoSeconds: seconds,
  bytesRestored: z.number().nullable(),
  restoreBytesPerSecond: z.number().nullable(),
  walBytesReplayed: z.number().nullable(),
  replayBytesPerSecond: z.number().nullable(),
  /** Acknowledged writes that were not there; null where nobody keeps a log of them. */
  acknowledgedLost: z.number().nullable(),
  /** Of each that is null: why. */
  why: z.record(z.string(), z.string()),
})
export type Measured = z.infer<typeof measuredSchema>

export const objectivesSchema = z.object({
  tier: z.string(),
  rtoMinutes: z.object({ value: z.number(), from: z.string() }).nullable(),
  rpoMinutes: z.object({ value: z.number(), from: z.string() }).nullable(),
  scenario: z.string().nullable(),
})

const recoveryPointSchema = z.object({
  backup: z.string(),
  fingerprint: digest.nullable(),
  /** As a person reads it. */
  target: z.string(),
  /** Which of the turn it was; null where the target was given. */
  turn: z.string().nullable(),
  /** The moment that was asked for; for the latest, that of the fault. Null where it is none of time. */
  asked: instant.nullable(),
  timeline: z.int().nullable(),
  lsn: z.string().nullable(),
  /** Of the newest heartbeat in the copy. */
  heartbeat: instant.nullable(),
})

/** What a drill and a real recovery have in common. */
const runFields = {
  component: z.string(),
  facilities: z.array(z.string()),
  startedBy: z.string(),
  node: z.string(),
  objectives: objectivesSchema,
  recoveryPoint: recoveryPointSchema,
  timeline: timelineSchema,
  measured: measuredSchema,
  checks: z.array(checkSchema),
  verdict: z.enum(['verified', 'failed', 'not proven']),
  why: z.string(),
  expires: instant,
  notTested: z.array(z.string()),
  /** What kept the copy apart; each true, false, or null where nobody could tell, and why. */
  isolation: z.array(z.object({ what: z.string(), holds: z.boolean().nullable(), why: z.string() })),
  /** `removed` null: nobody looked. */
  leftovers: z.object({ removed: z.boolean().nullable(), seen: z.string() }),
  software: z.object({ resus: z.string(), node: z.string(), postgres: z.string().nullable(), system: z.string() }),
  /** The object with what may name rows, and its keyed digest. */
  details: z.object({ id: z.uuid(), digest: z.string().regex(/^[0-9a-f]{32}$/) }).nullable(),
}

const aboutSchema = z.object({ sequence: z.int().min(1), digest })

const common = {
  format: z.literal(1),
  sequence: z.int().min(1),
  id: z.uuid(),
  previous: digest.nullable(),
  madeAt: instant,
  system: z.string().min(1),
}

export const predicateSchema = z.discriminatedUnion('kind', [
  z.object({ ...common, kind: z.literal('drill'), ...runFields }),
  z.object({ ...common, kind: z.literal('recovery'), ...runFields, approval: z.string().nullable() }),
  z.object({
    ...common,
    kind: z.literal('certification'),
    of: aboutSchema,
    by: z.string(),
    decision: z.enum(['accepted', 'accepted with deviations', 'rejected']),
    text: z.string(),
  }),
  z.object({
    ...common,
    kind: z.literal('deviation'),
    of: aboutSchema,
    by: z.string(),
    severity: z.enum(['minor', 'major']),
    text: z.string(),
  }),
  z.object({
    ...common,
    kind: z.literal('action'),
    action: z.uuid(),
    of: aboutSchema,
    by: z.string(),
    owner: z.string(),
    due: z.iso.date(),
    state: z.enum(['open', 'done', 'dropped']),
    text: z.string(),
  }),
  z.object({ ...common, kind: z.literal('key'), publicKey: z.string(), fingerprint: digest }),
])
export type Predicate = z.infer<typeof predicateSchema>
export type PredicateKind = Predicate['kind']
export type RunPredicate = Extract<Predicate, { kind: 'drill' | 'recovery' }>

/** What a kind adds: all but what whoever appends fills in. */
export type NewRecord = Added<Predicate>
type Added<Each> = Each extends Predicate ? Omit<Each, keyof typeof common> : never

/** What people say of a record. */
export type WordRecord = Extract<NewRecord, { kind: 'certification' | 'deviation' | 'action' }>

const subjectSchema = z.array(z.object({ name: z.string(), digest: z.record(z.string(), z.string()) })).min(1)
export type Subject = z.infer<typeof subjectSchema>

export const statementSchema = z.object({
  _type: z.literal(STATEMENT_TYPE),
  subject: subjectSchema,
  predicateType: z.literal(EVIDENCE_TYPE),
  predicate: predicateSchema,
})
export type Statement = z.infer<typeof statementSchema>

/** The signed count: how many records there are, and of each, in order, the digest of its payload and when it was made. */
export const headSchema = z.object({
  _type: z.literal(STATEMENT_TYPE),
  subject: subjectSchema,
  predicateType: z.literal(HEAD_TYPE),
  predicate: z.object({
    format: z.literal(1),
    system: z.string(),
    at: instant,
    count: z.int().min(1),
    last: digest,
    records: z.array(z.object({ digest, at: instant })),
    /** Of a bundle of a part: which records are in it, by when they were made. */
    from: instant.nullable(),
    until: instant.nullable(),
  }),
})
export type HeadPredicate = z.infer<typeof headSchema>['predicate']

/** Whether the last second of the day on which an action is due is over, in UTC. */
export function isOverdue({ due }: { readonly due: string }, nowMs: number): boolean {
  return Date.parse(`${due}T23:59:59Z`) < nowMs
}

/** What an envelope says. Throws OBJECT_DAMAGED with the name when it is no statement of ours; whether it was signed is not looked at. */
export function statementOf(envelope: Envelope, name: string): Statement {
  const statement = statementSchema.safeParse(parsed(envelope))
  if (statement.success) return statement.data
  const [issue] = statement.error.issues
  throw damaged(name, `its payload is no record: ${issue?.path.join('.')}: ${issue?.message}`)
}

/** The payload as JSON; undefined when it is none. */
export function parsed(envelope: Envelope): unknown {
  try {
    return jsonSchema.parse(JSON.parse(payloadOf(envelope).toString('utf8')))
  } catch {
    return undefined
  }
}
