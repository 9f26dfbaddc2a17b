import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { assert } from '../assert.ts'
import type { HospitalSize } from './hospital.ts'

/** A write that PostgreSQL has acknowledged: COMMIT returned. Each feed counts its own writes from 1, without a hole. */
export interface AcknowledgedWrite {
  readonly feed: number
  readonly sequence: number
  readonly atMs: number
}

export interface WriteStreamOptions {
  readonly connection: string
  readonly size: HospitalSize
  readonly logFile: string
  readonly feeds: number
  /** Of all feeds together. */
  readonly writesPerSecond: number
  /** Feeds go on behind what was written before: the last sequence of each, 0 for a new one. */
  readonly lastSequences: readonly number[]
}

const STOP_TIMEOUT_MS = 5000

/** A new observation, and the patient's row touched: new pages at the end of a table, and changed ones in the middle of another. */
const WRITE = `
  with seen as (update patient set last_seen_at = clock_timestamp() where id = (select patient_id from encounter where id = $3))
  insert into observation (encounter_id, patient_id, facility_id, code, value, observed_at, feed, feed_sequence)
  select e.id, e.patient_id, e.facility_id, c.code, round(c.low + (c.high - c.low) * $5 / 10000, c.digits), clock_timestamp(), $1, $2
  from encounter e, concept c where e.id = $3 and c.number = $4`

/**
 * Several clinical systems that write all the time, each on a connection of its own. A write is logged after COMMIT returned and
 * not before: what is in the log has to survive everything. A feed whose connection fails ends.
 */
export class WriteStream {
  readonly #options: WriteStreamOptions
  readonly #log: number
  readonly #feeds: Promise<void>[] = []
  readonly #sequences: number[]
  #stopping = false
  #failedAtMs: number | undefined

  constructor(options: WriteStreamOptions) {
    this.#options = options
    this.#log = openSync(options.logFile, 'a', 0o600)
    this.#sequences = [...options.lastSequences]
  }

  /** Connects and begins to write. Throws when a feed cannot connect. */
  async start(): Promise<void> {
    for (let feed = 1; feed <= this.#options.feeds; feed += 1) {
      const client = new pg.Client({ connectionString: this.#options.connection, application_name: `feed ${feed}` })
      client.on('error', () => this.#noteFailure())
      await client.connect()
      const writing = this.#write(client, feed)
      // Whoever waits for the end gets the error; until then it must not end the process.
      writing.catch(() => undefined)
      this.#feeds.push(writing)
    }
  }

  /** Writes acknowledged so far, since the first start. */
  get acknowledged(): number {
    return this.#sequences.reduce((sum, sequence) => sum + sequence, 0)
  }

  /** When the first feed lost its server, by our clock. */
  get failedAtMs(): number | undefined {
    return this.#failedAtMs
  }

  /** Resolves when every feed has ended, by `stop` or by the loss of its server. */
  async ended(): Promise<void> {
    await Promise.all(this.#feeds)
  }

  /** Lets each feed finish the write it is at; one whose commit is not answered is left. */
  async stop(): Promise<void> {
    this.#stopping = true
    await Promise.race([this.ended(), delay(STOP_TIMEOUT_MS, undefined, { ref: false })])
    closeSync(this.#log)
  }

  async #write(client: pg.Client, feed: number): Promise<void> {
    const everyMs = (1000 * this.#options.feeds) / this.#options.writesPerSecond
    let dueMs = performance.now()
    try {
      while (!this.#stopping) {
        const sequence = (this.#sequences[feed - 1] ?? 0) + 1
        const { rowCount } = await client.query({ name: 'write', text: WRITE, values: this.#values(feed, sequence) })
        assert(rowCount === 1, 'a write inserts one observation')
        // COMMIT has returned: from here on, losing it is data loss.
        this.#sequences[feed - 1] = sequence
        writeSync(this.#log, `${feed} ${sequence} ${Date.now()}\n`)
        dueMs = Math.max(dueMs + everyMs, performance.now() - 100)
        await delay(Math.max(0, dueMs - performance.now()))
      }
    } catch (error) {
      // The server is gone, and that is the point of the demo; anything else is a mistake of ours.
      if (error instanceof pg.DatabaseError && !/^(57P|08)/.test(error.code ?? '')) throw error
      this.#noteFailure()
    } finally {
      await Promise.race([client.end().catch(() => undefined), delay(500)])
    }
  }

  #values(feed: number, sequence: number): number[] {
    const { encounters } = this.#options.size
    const spread = (sequence * 7919 + feed * 104_729) >>> 0
    return [feed, sequence, 1 + (spread % encounters), spread % 13, spread % 10_000]
  }

  #noteFailure(): void {
    this.#failedAtMs ??= Date.now()
  }
}

/** Every acknowledged write, in the order in which they were acknowledged. */
export function readAcknowledged(logFile: string): AcknowledgedWrite[] {
  const lines = readFileSync(logFile, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
  return lines.map((line) => {
    const [feed = 0, sequence = 0, atMs = 0] = line.split(' ').map(Number)
    return { feed, sequence, atMs }
  })
}
