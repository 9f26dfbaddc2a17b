import { readFile } from 'node:fs/promises'
import type pg from 'pg'
import { z } from 'zod'
import { writeDurably } from '../durable.ts'
import { CannotRun } from '../refusal.ts'

// What a hospital had at one moment, so that a restored copy can be held against it. One JSON file, see docs/check.md.

const count = z.number().int().min(0)
const whole = z.string().regex(/^-?\d+$/)

const baselineFile = z.object({
  format: z.literal(1),
  takenAt: z.iso.datetime(),
  systemIdentifier: whole,
  /** The last event's position. */
  position: whole,
  /** Everything in here is in the WAL before this. */
  lsn: z.string().regex(/^[0-9A-F]+\/[0-9A-F]+$/),
  counts: z.record(z.string(), count),
  newest: z.object({ updatedAt: z.iso.datetime().nullable(), appointmentCreatedAt: z.iso.datetime().nullable() }),
  /** id, status, version */
  consents: z.array(z.tuple([z.uuid(), z.string(), count])),
  checkpoint: z.object({ number: whole, hash: z.string() }).nullable(),
  /** By name: sequences, lanes as "lane 1", medical record numbers as "mrn FAC001". */
  sequences: z.record(z.string(), whole),
})

export type Baseline = z.output<typeof baselineFile>

/** Tables of the seed documents, whose rows never become fewer, and the rest of what only grows. */
export const COUNTED_TABLES = [
  'patients',
  'users',
  'appointments',
  'consent_records',
  'audit_events',
  'fhir_resources',
  'facilities',
  'encounters',
  'observations',
  'medication_requests',
  'invoices',
  'document_references',
  'referrals',
  'messages',
  'provenances',
  'events',
  'checkpoints',
] as const

export const NEWEST = `
  select (select max(updated_at) from hospital.fhir_resources) as updated_at, (select max(created_at) from hospital.appointments) as created_at`

/** Which hospital it is, and which moment. */
export type Moment = Pick<Baseline, 'takenAt' | 'systemIdentifier' | 'position' | 'lsn'>

/** Of the transaction that the client is in. By indexes and counters alone: a damaged row is for the checks to find. */
export async function takeMoment(client: pg.ClientBase, now: Date): Promise<Moment> {
  const { rows } = await client.query<Omit<Moment, 'takenAt'>>(`
    select (select coalesce(max(position), 0) from hospital.events)::text as position,
      (select system_identifier from pg_control_system())::text as "systemIdentifier",
      case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end::text as lsn`)
  return { takenAt: now.toISOString(), ...rows[0]! }
}

/** Takes it in the transaction that the client is in. */
export async function takeBaseline(client: pg.ClientBase, moment: Moment): Promise<Baseline> {
  const { rows: newest } = await client.query<{ updated_at: Date | null; created_at: Date | null }>(NEWEST)
  const { rows: consents } = await client.query<{ id: string; status: string; version: number }>(
    'select id, status, version from hospital.consent_records order by id',
  )
  const { rows: checkpoints } = await client.query<{ number: string; hash: string }>(
    "select number::text, encode(hash, 'hex') as hash from hospital.checkpoints order by number desc limit 1",
  )
  return {
    format: 1,
    ...moment,
    counts: await countsOf(client),
    newest: {
      updatedAt: newest[0]?.updated_at?.toISOString() ?? null,
      appointmentCreatedAt: newest[0]?.created_at?.toISOString() ?? null,
    },
    consents: consents.map((each) => [each.id, each.status, each.version]),
    checkpoint: checkpoints[0] ?? null,
    sequences: await sequencesOf(client),
  }
}

export async function countsOf(client: pg.ClientBase): Promise<Record<string, number>> {
  const counts = COUNTED_TABLES.map((table) => `select '${table}' as name, count(*) from hospital.${table}`)
  const { rows } = await client.query<{ name: string; count: string }>(counts.join(' union all '))
  return Object.fromEntries(rows.map((row) => [row.name, Number(row.count)]))
}

/** Where everything that gives out numbers stands. */
export async function sequencesOf(client: pg.ClientBase): Promise<Record<string, string>> {
  const { rows: there } = await client.query<{ there: boolean }>(
    "select to_regclass('hospital.mrn_counters') is not null as there",
  )
  const { rows } = await client.query<{ name: string; value: string }>(`
    select sequencename::text as name, coalesce(last_value, 0)::text as value from pg_sequences where schemaname = 'hospital'
    union all select 'lane ' || lane, sequence::text from hospital.lanes
    ${there[0]?.there === true ? "union all select 'mrn ' || facility, last::text from hospital.mrn_counters" : ''}`)
  return Object.fromEntries(rows.map(({ name, value }) => [name, value]))
}

/** Throws CannotRun for a file that is not there, or is no baseline. */
export async function readBaseline(path: string): Promise<Baseline> {
  let text: unknown
  try {
    text = JSON.parse(await readFile(path, 'utf8'))
  } catch (cause) {
    throw new CannotRun(`cannot read the baseline "${path}": ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    })
  }
  const parsed = baselineFile.safeParse(text)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new CannotRun(`"${path}" is no baseline: ${issue?.path.join('.') || 'the file'}: ${issue?.message}`, {
    hint: '`hospital check --write-baseline FILE` makes one',
  })
}

/** A crash leaves the baseline that was there, or this one. */
export async function writeBaseline(path: string, baseline: Baseline): Promise<void> {
  try {
    await writeDurably(path, `${JSON.stringify(baseline)}\n`)
  } catch (cause) {
    throw new CannotRun(`cannot write the baseline "${path}": ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    })
  }
}
