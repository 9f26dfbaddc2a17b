import { likelyTime } from './day-curve.ts'
import { makePerson, mrnOf, type Registration } from './person.ts'
import { makeFacilities, SIZES, type Facility } from './places.ts'
import { Random } from './random.ts'

export interface Size {
  readonly seed: number
  readonly facilities: number
  readonly patients: number
  /** Where the history ends; it begins HISTORY_YEARS before. */
  readonly untilMs: number
}

/** What begins at a time of somebody's life; all that comes of it is worked out when that time is reached. */
export const EPISODES = ['registration', 'visit', 'referredVisit', 'recordChange', 'consentWithdrawal'] as const
export type EpisodeKind = (typeof EPISODES)[number]

/** Twenty bytes for each episode: a million patients fit in memory because nothing else is kept of those whose time has not come. */
export interface Plan extends Size {
  readonly fromMs: number
  readonly group: readonly Facility[]
  /** By the number of the patient: home facility, and number there. */
  readonly homes: Uint16Array
  readonly numbers: Uint32Array
  readonly registeredMs: Float64Array
  /** Who is referred (once), where to, and the number that they have there if they arrive. */
  readonly transfers: ReadonlyMap<number, Transfer>
  /** CHANGES and WITHDRAWS: what is still to come for somebody. */
  readonly flags: Uint8Array
  /** Patients registered up to here were written by the first version of the software. */
  readonly schema1UntilMs: number
  /** Episodes in the order of their times. */
  readonly times: Float64Array
  readonly patientsOf: Uint32Array
  readonly kinds: Uint8Array
}

export const PURPOSES = { life: 2, person: 3, episode: 4, eventIds: 5 } as const
export const DAY_MS = 86_400_000
export const FLAGS = { changes: 1, withdraws: 2 } as const
const HISTORY_YEARS = 3
const SCHEMA_1_SHARE = 0.01
const VISITS = [22, 48, 22, 6, 2] as const
const CHANGED = 0.06
const WITHDRAWN = 0.05
const REFERRED = 0.08
const EPISODES_MAX = VISITS.length + 3
const CONSENTING = 0.6
const SETTLING_MS = 20 * 60_000

/** Who comes when, and where. Depends on `size` alone. */
export function makePlan(size: Size): Plan {
  const { seed, patients, untilMs } = size
  const fromMs = untilMs - HISTORY_YEARS * 365 * DAY_MS
  const group = makeFacilities({ seed, facilities: size.facilities, openedMs: fromMs })
  const weights = group.map(({ type }) => SIZES[type])
  const homes = new Uint16Array(patients)
  const numbers = new Uint32Array(patients)
  const registeredMs = new Float64Array(patients)
  const flags = new Uint8Array(patients)
  const counts = new Uint32Array(group.length)
  const transfers = new Map<number, Transfer>()
  const unsorted = new Episodes(patients * EPISODES_MAX)
  for (let patient = 0; patient < patients; patient += 1) {
    const random = new Random(seed, PURPOSES.life, patient)
    const home = random.weighted(weights)
    homes[patient] = home
    numbers[patient] = counts[home]! += 1
    if (group.length > 1 && random.chance(REFERRED)) transfers.set(patient, planTransfer(random, group, { home, counts }))
    registeredMs[patient] = planLife(random, patient, { fromMs, untilMs, flags, transfers, episodes: unsorted })
  }
  const earliest = registeredMs.toSorted()
  const schema1UntilMs = earliest[Math.ceil(patients * SCHEMA_1_SHARE) - 1] ?? fromMs
  return { ...size, fromMs, group, homes, numbers, registeredMs, flags, transfers, schema1UntilMs, ...unsorted.sorted() }
}

export interface Transfer {
  readonly to: Facility
  readonly mrn: string
}

/** Most are sent where there is more: other health centres rarely. */
const PULL = { PRIMARY: 1, SECONDARY: 4, TERTIARY: 8 } as const

function planTransfer(
  random: Random,
  group: readonly Facility[],
  { home, counts }: { readonly home: number; readonly counts: Uint32Array },
): Transfer {
  const to = random.weighted(group.map(({ type }, index) => (index === home ? 0 : PULL[type])))
  return { to: group[to]!, mrn: mrnOf((counts[to]! += 1)) }
}

/** Gives the time of registration. */
function planLife(random: Random, patient: number, into: Into): number {
  const { fromMs, untilMs, flags, transfers, episodes } = into
  // Two days for facilities and users before, one behind so that nobody is registered beyond the end.
  const registered = likelyTime(random, fromMs + 2 * DAY_MS + random.fraction() * (untilMs - fromMs - 3 * DAY_MS))
  episodes.add(registered, patient, 'registration')
  const later = (): number => {
    const at = likelyTime(random, registered + random.fraction() ** 2 * (untilMs - registered))
    return Math.max(at, registered + SETTLING_MS + random.whole(0, 3 * SETTLING_MS))
  }
  for (let visits = random.weighted(VISITS); visits > 0; visits -= 1) episodes.add(later(), patient, 'visit')
  if (transfers.has(patient)) episodes.add(later(), patient, 'referredVisit')
  if (random.chance(CHANGED)) {
    flags[patient]! |= FLAGS.changes
    episodes.add(later(), patient, 'recordChange')
  }
  if (random.chance(WITHDRAWN)) {
    flags[patient]! |= FLAGS.withdraws
    episodes.add(later() + DAY_MS, patient, 'consentWithdrawal')
  }
  return registered
}

interface Into {
  readonly fromMs: number
  readonly untilMs: number
  readonly flags: Uint8Array
  readonly transfers: ReadonlyMap<number, Transfer>
  readonly episodes: Episodes
}

/** Whoever registers, worked out again each time that somebody asks. */
export function registrationOf(plan: Plan, patient: number): Registered {
  const random = new Random(plan.seed, PURPOSES.person, patient)
  const home = plan.group[plan.homes[patient]!]!
  const atMs = plan.registeredMs[patient]!
  return {
    id: random.uuid(atMs),
    facility: home.id,
    mrn: mrnOf(plan.numbers[patient]!),
    person: makePerson(random, home.lga, atMs),
    home,
    consent: random.chance(CONSENTING) ? { id: random.uuid(atMs), givenMs: atMs + random.whole(1, 9) * 60_000 } : undefined,
  }
}

export interface Registered extends Registration {
  readonly home: Facility
  /** Most consent on the day that they register. */
  readonly consent: { readonly id: string; readonly givenMs: number } | undefined
}

class Episodes {
  readonly #times: Float64Array
  readonly #patients: Uint32Array
  readonly #kinds: Uint8Array
  #count = 0

  constructor(most: number) {
    this.#times = new Float64Array(most)
    this.#patients = new Uint32Array(most)
    this.#kinds = new Uint8Array(most)
  }

  add(atMs: number, patient: number, kind: EpisodeKind): void {
    this.#times[this.#count] = atMs
    this.#patients[this.#count] = patient
    this.#kinds[this.#count] = EPISODES.indexOf(kind)
    this.#count += 1
  }

  sorted(): Pick<Plan, 'times' | 'patientsOf' | 'kinds'> {
    const times = this.#times
    // Stable, so that the order of episodes of one time is the same everywhere.
    const order = new Uint32Array(this.#count).map((_, index) => index).sort((a, b) => times[a]! - times[b]! || a - b)
    return {
      times: Float64Array.from(order, (index) => times[index]!),
      patientsOf: Uint32Array.from(order, (index) => this.#patients[index]!),
      kinds: Uint8Array.from(order, (index) => this.#kinds[index]!),
    }
  }
}
