import type pg from 'pg'
import { CannotRun } from '../refusal.ts'
import { readAcknowledged, type AcknowledgedWrite, type TornLine } from './acknowledged-log.ts'

/** An acknowledged write that the database does not have: nothing is there, or another write with the same version. */
export interface LostWrite extends AcknowledgedWrite {
  readonly found: 'nothing' | 'another write'
}

export interface LostReport {
  readonly acknowledged: number
  readonly lost: number
  /** Of the lost ones: how many have given their version to another write. */
  readonly replaced: number
  readonly facilities: readonly FacilityLosses[]
  /** The writes themselves, as many as LISTED_MAX. */
  readonly writes: readonly LostWrite[]
  readonly torn: readonly TornLine[]
}

export interface Losses {
  readonly lost: number
  /** When the hospital had recorded the first and the last of them. */
  readonly from: string
  readonly to: string
}

export interface FacilityLosses extends Losses {
  readonly facility: string
  readonly patients: readonly (Losses & { readonly patient: string })[]
}

const BATCH = 5000
export const LISTED_MAX = 1000

/** Which acknowledged writes of a log the database no longer has. Reads only, and sees all facilities: `admin` is the owner's connection. */
export async function findLost(admin: pg.ClientBase, path: string): Promise<LostReport> {
  const torn: TornLine[] = []
  const tally = new Map<string, Map<string, Losses>>()
  const writes: LostWrite[] = []
  const counts = { acknowledged: 0, lost: 0, replaced: 0 }
  for await (const batch of readAcknowledged(path, { batch: BATCH, onTorn: (each) => torn.push(each) })) {
    counts.acknowledged += batch.length
    for (const write of await lostOf(admin, batch)) {
      counts.lost += 1
      if (write.found === 'another write') counts.replaced += 1
      if (writes.length < LISTED_MAX) writes.push(write)
      count(tally, write)
    }
  }
  if (counts.acknowledged === 0 && torn.length > 0) throw new CannotRun(`"${path}" is no log of acknowledged writes`)
  return { ...counts, facilities: facilitiesOf(tally), writes, torn }
}

/** Events are recorded to the millisecond, which is what meta.lastUpdated shows. */
const LOOKUP = `
  select l.number::integer, e.stream is not null as replaced
  from unnest($1::text[], $2::integer[], $3::timestamptz[]) with ordinality as l(stream, version, at, number)
  left join hospital.events e on e.stream = l.stream and e.version = l.version
  where e.stream is null or e.at <> l.at
  order by l.number`

async function lostOf(admin: pg.ClientBase, batch: readonly AcknowledgedWrite[]): Promise<LostWrite[]> {
  const { rows } = await admin.query<{ number: number; replaced: boolean }>({
    name: 'lost',
    text: LOOKUP,
    values: [batch.map(({ type, id }) => `${type}/${id}`), batch.map(({ version }) => version), batch.map(({ at }) => at)],
  })
  return rows.map(({ number, replaced }) => ({ ...batch[number - 1]!, found: replaced ? 'another write' : 'nothing' }))
}

function count(tally: Map<string, Map<string, Losses>>, { facility, patient, at }: LostWrite): void {
  const patients = tally.get(facility) ?? new Map<string, Losses>()
  tally.set(facility, patients)
  const before = patients.get(patient) ?? { lost: 0, from: at, to: at }
  patients.set(patient, { lost: before.lost + 1, ...span([before, { from: at, to: at }]) })
}

function facilitiesOf(tally: ReadonlyMap<string, ReadonlyMap<string, Losses>>): FacilityLosses[] {
  return [...tally]
    .map(([facility, byPatient]) => {
      const patients = [...byPatient].map(([patient, losses]) => ({ patient, ...losses })).toSorted((a, b) => b.lost - a.lost)
      return { facility, lost: patients.reduce((sum, { lost }) => sum + lost, 0), ...span(patients), patients }
    })
    .toSorted((a, b) => (a.facility < b.facility ? -1 : 1))
}

function span(parts: readonly Pick<Losses, 'from' | 'to'>[]): Pick<Losses, 'from' | 'to'> {
  const from = parts.map((part) => part.from).reduce((a, b) => (Date.parse(b) < Date.parse(a) ? b : a))
  const to = parts.map((part) => part.to).reduce((a, b) => (Date.parse(b) > Date.parse(a) ? b : a))
  return { from, to }
}
