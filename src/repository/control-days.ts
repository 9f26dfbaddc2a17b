import { assert } from '../assert.ts'
import { Failure } from '../errors.ts'
import type { CallOptions } from '../storage/storage.ts'
import {
  DAY_OBJECT_BYTES_MAX,
  DAY_OBJECT_RECORDS_MAX,
  fitting,
  listControlObjects,
  putLines,
  readControlObject,
  readControlObjectOrWhy,
  type ControlObject,
  type ControlStream,
} from './control-records.ts'
import { CONTROL_PREFIX, randomId } from './layout.ts'
import type { Repository } from './repository.ts'

// Folding the batches of a day into few objects, and forgetting old days (docs/format.md, "Control records").

const DAY_MS = 24 * 3600 * 1000
/** More than two clocks differ and a listing lags together: nobody puts a batch of that day any more. */
const CLOSED_AFTER_MS = 6 * 3600 * 1000
/** The trail: six years and a month, whatever backups' retention says. */
const KEPT_MS: Readonly<Record<ControlStream, number>> = { work: 400 * DAY_MS, audit: (6 * 366 + 30) * DAY_MS }
/** Whatever is wrong, it must not take all at once. */
const DAYS_FORGOTTEN_AT_ONCE = 2
const MAX = { records: DAY_OBJECT_RECORDS_MAX, bytes: DAY_OBJECT_BYTES_MAX }

export interface TidyReport {
  /** Batches that are in an object of their day now. */
  readonly folded: number
  readonly forgotten: number
  /** Batches that do not open. They stay. */
  readonly unreadable: readonly { readonly key: string; readonly problem: string }[]
}

/** Folds what can be folded, and deletes what is old enough. May be run by several at once, and killed anywhere. Throws what the storage throws. */
export async function tidyControlRecords(
  repository: Repository,
  { stream, node, nowMs }: { readonly stream: ControlStream; readonly node: string; readonly nowMs: number },
  call: CallOptions = {},
): Promise<TidyReport> {
  const objects = await listControlObjects(repository, stream, call)
  const days = Map.groupBy(objects, ({ day }) => day)
  // Of a clock that has jumped ahead, the records know nothing: what is newest is not old.
  const untilMs = Math.min(nowMs, Math.max(...[...days.keys()].map((day) => startOf(day) + DAY_MS)))
  const old = await oldDays(repository, days, { untilMs, keptMs: KEPT_MS[stream], call })
  const gone = old.flatMap((day) => days.get(day)!)
  for (const { key } of gone) await repository.storage.delete(key, call)
  const closed = [...days].filter(([day]) => startOf(day) + DAY_MS + CLOSED_AFTER_MS <= nowMs && !old.includes(day))
  let folded = 0
  const unreadable: { key: string; problem: string }[] = []
  for (const [day, ofDay] of closed) {
    const folding = new DayFolding(repository, { stream, node, nowMs, day, ofDay }, call)
    folded += await folding.run()
    unreadable.push(...folding.unreadable)
  }
  return { folded, forgotten: gone.length, unreadable }
}

/** The first days that may be forgotten: by their names, and by all that is in them. */
async function oldDays(
  repository: Repository,
  days: ReadonlyMap<string, readonly ControlObject[]>,
  { untilMs, keptMs, call }: { readonly untilMs: number; readonly keptMs: number; readonly call: CallOptions },
): Promise<string[]> {
  const old: string[] = []
  for (const [day, ofDay] of days) {
    if (startOf(day) + keptMs >= untilMs) continue
    if (!(await hasYounger(repository, ofDay, { thanMs: untilMs - keptMs, call }))) old.push(day)
    if (old.length === DAYS_FORGOTTEN_AT_ONCE) break
  }
  return old
}

/** A clock that was years behind has named them; what does not open is as old as its name. */
async function hasYounger(
  repository: Repository,
  objects: readonly ControlObject[],
  { thanMs, call }: { readonly thanMs: number; readonly call: CallOptions },
): Promise<boolean> {
  for (const { key } of objects) {
    const read = await readControlObjectOrWhy(repository, key, call)
    if (read === undefined || read instanceof Failure) continue
    if (read.records.some(({ at }) => Date.parse(at) >= thanMs)) return true
  }
  return false
}

interface Day {
  readonly stream: ControlStream
  readonly node: string
  readonly nowMs: number
  readonly day: string
  readonly ofDay: readonly ControlObject[]
}

/** The batches of one day on their way into few objects. */
class DayFolding {
  readonly unreadable: { key: string; problem: string }[] = []
  readonly #repository: Repository
  readonly #day: Day
  readonly #call: CallOptions
  #part: number
  #lines: Buffer[] = []
  /** Whose lines these are. */
  #keys: string[] = []

  constructor(repository: Repository, day: Day, call: CallOptions) {
    this.#repository = repository
    this.#day = day
    this.#call = call
    this.#part = Math.max(-1, ...day.ofDay.flatMap(({ part }) => (part === undefined ? [] : [part]))) + 1
  }

  /** Gives how many batches are folded now. */
  async run(): Promise<number> {
    let folded = 0
    for (const { key } of this.#day.ofDay.filter(({ part }) => part === undefined)) {
      const read = await readControlObjectOrWhy(this.#repository, key, this.#call)
      if (read === undefined) continue
      if (read instanceof Failure) {
        this.unreadable.push({ key, problem: read.message })
        continue
      }
      const together = [...this.#lines, ...read.lines]
      if (fitting(together, MAX) < together.length) folded += await this.#publish()
      this.#lines.push(...read.lines)
      this.#keys.push(key)
    }
    return folded + (await this.#publish())
  }

  /** The object first, and only when it can be read back whole its batches go: a crash leaves records twice. */
  async #publish(): Promise<number> {
    const { stream, node, nowMs, day } = this.#day
    const [lines, keys] = [this.#lines, this.#keys]
    this.#lines = []
    this.#keys = []
    if (keys.length === 0) return 0
    // More parts than that nobody's day has.
    assert(this.#part < 10_000, 'a day has fewer than 10 000 parts')
    const key = `${CONTROL_PREFIX}${stream}/${day}-${String(this.#part).padStart(4, '0')}-${randomId()}`
    this.#part += 1
    await putLines(this.#repository, { key, stream, node, nowMs, lines }, this.#call)
    const back = await readControlObject(this.#repository, key, this.#call)
    assert(Buffer.concat(back.lines).equals(Buffer.concat(lines)), 'what was folded reads back as it was')
    for (const batch of keys) await this.#repository.storage.delete(batch, this.#call)
    return keys.length
  }
}

function startOf(day: string): number {
  return Date.UTC(Number(day.slice(0, 4)), Number(day.slice(4, 6)) - 1, Number(day.slice(6)))
}
