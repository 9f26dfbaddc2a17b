import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Clock } from '../clock.ts'
import { systemErrorCode } from '../errors.ts'
import { replaceFile } from '../protect/postgres/durable-file.ts'
import { AvailabilityRecord, type Availability, type SampleState } from '../recovery/availability.ts'

const FILE = 'availability.json'
const KEEP_MS = 60_000
const OPTIONS = { windowMs: 30 * 24 * 3_600_000, sampleHoldsMs: 30_000 }

const stretchSchema = z.object({ beginMs: z.number(), endMs: z.number(), state: z.enum(['up', 'down', 'unknown']) })
const schema = z.record(z.string(), z.array(stretchSchema).max(20_000))

/** Whether databases were up in the last 30 days, as this node saw it; kept in a file of its state, so that a restart forgets a minute at most. */
export class AvailabilityBook {
  readonly #path: string
  readonly #clock: Clock
  readonly #records = new Map<string, AvailabilityRecord>()
  #keptMs: number

  /** What is there and cannot be read is begun anew: it is a measurement, and nothing is built on it. */
  static async open(directory: string, clock: Clock): Promise<AvailabilityBook> {
    const book = new AvailabilityBook(directory, clock)
    const text = await readFile(book.#path, 'utf8').catch((error: unknown) => {
      if (systemErrorCode(error) === undefined) throw error
      return '{}'
    })
    for (const [key, stretches] of Object.entries(parse(text))) {
      // From a clock that was ahead nothing can be told.
      const past = stretches.filter(({ endMs }) => endMs <= clock.now())
      book.#records.set(key, new AvailabilityRecord({ ...OPTIONS, stretches: past }))
    }
    return book
  }

  private constructor(directory: string, clock: Clock) {
    this.#path = join(directory, FILE)
    this.#clock = clock
    this.#keptMs = clock.now()
  }

  note(key: string, state: SampleState): void {
    const record = this.#records.get(key) ?? new AvailabilityRecord(OPTIONS)
    this.#records.set(key, record)
    record.note(this.#clock.now(), state)
  }

  /** Null when nobody has ever looked. */
  measure(key: string): Availability | null {
    return this.#records.get(key)?.measure(this.#clock.now()) ?? null
  }

  /** Writes it down once a minute, with what is among `keys` alone. Throws what the file system throws; then it is tried again a minute later. */
  async keep(keys: ReadonlySet<string>): Promise<void> {
    const now = this.#clock.now()
    if (now - this.#keptMs < KEEP_MS) return
    this.#keptMs = now
    for (const key of this.#records.keys()) if (!keys.has(key)) this.#records.delete(key)
    const book = Object.fromEntries([...this.#records].map(([key, { stretches }]) => [key, stretches]))
    await replaceFile(this.#path, JSON.stringify(book))
  }
}

function parse(text: string): z.infer<typeof schema> {
  try {
    return schema.parse(JSON.parse(text))
  } catch {
    return {}
  }
}
