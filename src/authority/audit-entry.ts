import { createHash } from 'node:crypto'
import { z } from 'zod'
import { assert } from '../assert.ts'
import { canonicalJson, jsonSchema, type Json } from './canonical-json.ts'
import { FACTORS, type Factor, type Principal } from './principal.ts'

// Entries of the trail, and their chain (docs/authority.md, "What remains"):
//
//   hash = SHA-256(previous hash, 32 bytes ‖ canonical JSON of the entry without `previous` and `hash`)

export const OUTCOMES = ['done', 'refused', 'failed'] as const
export type AuditOutcome = (typeof OUTCOMES)[number]

/** Who did it, or wanted to. `unknown` has shown nothing: then the name is what was claimed. `resus` is the control plane itself. */
export const ACTOR_KINDS = ['person', 'token', 'bootstrap', 'break-glass', 'command-line', 'resus', 'unknown'] as const
export interface AuditActor {
  readonly kind: (typeof ACTOR_KINDS)[number]
  readonly id: string | null
  readonly name: string
}

/** What is to be written down. No secret and no record of a patient is in it. */
export interface NewAuditEntry {
  /** A UUID that follows from what it tells, where several may tell the same: it is entered once. */
  readonly id?: string
  readonly actor: AuditActor
  /** What they have shown; null for nothing. */
  readonly factor?: Factor | null
  /** From where: an IP address; null for this host. */
  readonly address?: string | null
  /** Like "restore.ask", "session.begin". */
  readonly action: string
  /** What it was done to: names and ids. */
  readonly object?: Readonly<Record<string, Json>>
  readonly before?: Json
  readonly after?: Json
  readonly outcome: AuditOutcome
  /** Why it was refused or failed, or what people gave as the reason. */
  readonly reason?: string | null
  /** The id of the approval that it was done with. */
  readonly approval?: string | null
}

const text = z.string().max(2_000)
const HASH = /^[0-9a-f]{64}$/
/** The hash before the first. */
export const NO_HASH = '0'.repeat(64)
const TEXT_CHARACTERS = 2_000
const NAME_CHARACTERS = 300
/** Of `object`, `before` and `after` each, so that a whole entry stays below what a record of the repository takes. */
const VALUE_BYTES_MAX = 12 * 1024

const bodySchema = z.object({
  id: z.uuid(),
  at: z.iso.datetime({ precision: 3 }),
  node: text,
  actor: z.object({ kind: z.enum(ACTOR_KINDS), id: text.nullable(), name: text }),
  factor: z.enum(FACTORS).nullable(),
  address: text.nullable(),
  action: z.string().regex(/^[a-z][a-z.-]{0,60}$/),
  object: z.record(z.string(), jsonSchema),
  before: jsonSchema,
  after: jsonSchema,
  outcome: z.enum(OUTCOMES),
  reason: text.nullable(),
  approval: text.nullable(),
})
/** An entry that has no place in the chain yet. */
export type AuditBody = z.infer<typeof bodySchema>

export const auditEntrySchema = bodySchema.extend({
  seq: z.int().min(1),
  previous: z.string().regex(HASH),
  hash: z.string().regex(HASH),
})
/** An entry of the chain. */
export type AuditEntry = z.infer<typeof auditEntrySchema>

/** Where a chain ends. */
export interface ChainEnd {
  readonly seq: number
  readonly hash: string
}

/** An entry as the store keeps it: the text is exactly what was hashed. */
export interface ChainedText extends ChainEnd {
  readonly entry: string
  readonly previous: string
}

/** Who asks, as the trail names them. */
export function actorOf({ kind, id, name }: Principal): AuditActor {
  return { kind, id, name }
}

/** Gives it an id, a time, a node; what is too long is cut, and said to be. Nothing that outsiders send keeps an entry from being written. */
export function auditBody(
  entry: NewAuditEntry,
  made: { readonly id: string; readonly atMs: number; readonly node: string },
): AuditBody {
  const { actor } = entry
  return bodySchema.parse({
    id: made.id,
    at: new Date(made.atMs).toISOString(),
    node: made.node,
    actor: { kind: actor.kind, id: cut(actor.id, NAME_CHARACTERS), name: cut(actor.name, NAME_CHARACTERS) },
    factor: entry.factor ?? null,
    address: cut(entry.address, NAME_CHARACTERS),
    action: entry.action,
    object: bounded(entry.object ?? {}),
    before: bounded(entry.before ?? null),
    after: bounded(entry.after ?? null),
    outcome: entry.outcome,
    reason: cut(entry.reason, TEXT_CHARACTERS),
    approval: cut(entry.approval, NAME_CHARACTERS),
  } satisfies Record<keyof AuditBody, unknown>)
}

/** The text of a body outside the chain; `parseBody` reads it. */
export function bodyText(body: AuditBody): string {
  return canonicalJson(body)
}

/** A body from its text; undefined for what is none. */
export function parseBody(given: string): AuditBody | undefined {
  const parsed = bodySchema.safeParse(tryJson(given))
  return parsed.success ? parsed.data : undefined
}

/** The next entry of a chain. */
export function chainEntry(body: AuditBody, end: ChainEnd): ChainedText {
  const seq = end.seq + 1
  const entry = canonicalJson({ ...body, seq })
  return { seq, entry, previous: end.hash, hash: chainHash(end.hash, entry) }
}

export function chainHash(previous: string, entry: string): string {
  assert(HASH.test(previous), 'a hash has 64 hexadecimal digits')
  return createHash('sha256').update(Buffer.from(previous, 'hex')).update(entry, 'utf8').digest('hex')
}

/** The text that was hashed, of an entry as people and repositories have it: also of one with members that this version does not know. */
export function hashedText(entry: Readonly<Record<string, Json>>): string {
  const { previous: _previous, hash: _hash, ...rest } = entry
  return canonicalJson(rest)
}

/** An entry with its place in the chain, from what the store keeps. */
export function wholeEntry({ entry, previous, hash }: ChainedText): AuditEntry {
  return { ...(JSON.parse(entry) as Omit<AuditEntry, 'previous' | 'hash'>), previous, hash }
}

function tryJson(given: string): unknown {
  try {
    return JSON.parse(given) as unknown
  } catch {
    return undefined
  }
}

function cut(given: string | null | undefined, characters: number): string | null {
  if (given === null || given === undefined) return null
  // PostgreSQL keeps no NUL.
  const clean = given.toWellFormed().replaceAll('\u0000', '\ufffd')
  return clean.length <= characters ? clean : `${clean.slice(0, characters - 1).toWellFormed()}…`
}

/** As JSON says it, and within the bound. */
function bounded(value: Json): Json {
  const plain = wellFormed(JSON.parse(JSON.stringify(value)) as Json)
  const whole = canonicalJson(plain)
  const bytes = Buffer.byteLength(whole)
  if (bytes <= VALUE_BYTES_MAX) return plain
  return { cut: true, bytes, sha256: createHash('sha256').update(whole).digest('hex') }
}

function wellFormed(value: Json): Json {
  if (typeof value === 'string') return value.toWellFormed().replaceAll('\u0000', '\ufffd')
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map((each: Json) => wellFormed(each))
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [wellFormed(key) as string, wellFormed(each)]))
}
