import { assert } from '../assert.ts'

export interface UnitQueueOptions<Unit, Result> {
  /** Jobs that may run at once. */
  readonly jobs: number
  /** A job is sent when it has this many units, or units of this many bytes together. */
  readonly unitsPerJob: number
  readonly bytesPerJob: number
  readonly signal: AbortSignal
  /** Does one job: a result for each unit, in their order. */
  readonly run: (units: readonly Unit[]) => Promise<readonly Result[]>
}

interface Queued<Unit, Result> {
  readonly unit: Unit
  readonly resolve: (result: Result) => void
  readonly reject: (error: unknown) => void
}

/** Collects units into jobs, and runs some jobs at once. Whoever adds waits while all places are taken. */
export class UnitQueue<Unit, Result> {
  readonly #options: UnitQueueOptions<Unit, Result>
  readonly #running = new Set<Promise<void>>()
  #collected: Queued<Unit, Result>[] = []
  #collectedBytes = 0
  /** Units that were added, and those of them that are in a job. */
  queued = 0
  sent = 0

  constructor(options: UnitQueueOptions<Unit, Result>) {
    this.#options = options
  }

  /** Queues a unit and waits until there is room for more. `result` of what it returns is what the unit will have become. */
  async add(unit: Unit, sizeBytes: number): Promise<{ result: Promise<Result> }> {
    let waiter!: Omit<Queued<Unit, Result>, 'unit'>
    const result = new Promise<Result>((resolve, reject) => (waiter = { resolve, reject }))
    // The failure reaches whoever waits for the result; when nobody does any more, it must not end the process.
    result.catch(() => undefined)
    this.#collected.push({ unit, ...waiter })
    this.queued += 1
    this.#collectedBytes += sizeBytes
    const { unitsPerJob, bytesPerJob } = this.#options
    if (this.#collected.length >= unitsPerJob || this.#collectedBytes >= bytesPerJob) await this.flush()
    return { result }
  }

  /** Sends what is collected. */
  async flush(): Promise<void> {
    const units = this.#collected
    this.#collected = []
    this.#collectedBytes = 0
    if (units.length === 0) return
    this.sent += units.length
    while (this.#running.size >= this.#options.jobs) await Promise.race(this.#running)
    const job = this.#run(units).finally(() => this.#running.delete(job))
    this.#running.add(job)
  }

  /** Gives up the units that are in no job, and resolves when nothing runs any more, whatever became of it. */
  async settled(): Promise<void> {
    // Whoever waits for one of these would wait for ever: after a failure nobody sends them.
    for (const { reject } of this.#collected.splice(0)) reject(new Error('the queue has ended before this unit was sent'))
    await Promise.allSettled(this.#running)
  }

  async #run(units: readonly Queued<Unit, Result>[]): Promise<void> {
    try {
      this.#options.signal.throwIfAborted()
      const results = await this.#options.run(units.map(({ unit }) => unit))
      assert(results.length === units.length, 'a job gives one result for each unit')
      for (const [index, { resolve }] of units.entries()) resolve(results[index]!)
    } catch (error) {
      for (const { reject } of units) reject(error)
    }
  }
}
