import assert from 'node:assert'
import { setTimeout as sleep } from 'node:timers/promises'
import { activityAt } from '../generator/day-curve.ts'
import { Random } from '../generator/random.ts'
import { AcknowledgedLog } from '../lost/acknowledged-log.ts'
import { ACTIONS, type Action, type Done } from './actions.ts'
import { openSites, type Site } from './site.ts'

export interface ActivityOptions {
  readonly url: string
  /** Of people of facilities; one for each facility that is to be active. */
  readonly tokens: readonly string[]
  /** Writes a second, over a day. */
  readonly rate: number
  /** The rate is the same all day. */
  readonly isFlat: boolean
  readonly logPath: string
  readonly seed: number
  readonly secondsMax: number
  readonly giveUpAfterSeconds: number
  readonly signal: AbortSignal
  /** Told once when the service goes away, and once when it is back. */
  readonly say: (text: string) => void
}

export interface ActivityReport {
  readonly acknowledged: number
  /** By status and the beginning of what the hospital said. */
  readonly refused: Readonly<Record<string, number>>
  /** Without an answer: the hospital may have done them or not, and nobody was told so. */
  readonly unanswered: number
  /** Due, and not begun because too much was in flight. */
  readonly dropped: number
  readonly end: 'over' | 'told to end' | 'the service is gone'
}

const TICK_MS = 10
const IN_FLIGHT_MAX = 64
const BACKLOG_SECONDS_MAX = 2
const PROBE_MS = 500
const PROBE_TIMEOUT_MS = 2000
const REFUSALS_MAX = 50
const WEIGHTS = ACTIONS.map(({ weight }) => weight)

/**
 * Writes at a rate until it is told to end, its time is over, or the service has been away for too long. Each write is in the log, on disk, once the hospital has
 * acknowledged it. Throws CannotRun when there is nothing to begin with: no service, no right token, no log.
 */
export async function runActivity(options: ActivityOptions): Promise<ActivityReport> {
  const sites = await openSites(options.url, options.tokens)
  const random = new Random(options.seed)
  for (const site of sites) await site.load(random)
  await using log = await AcknowledgedLog.open(options.logPath)
  return await new Activity({ options, sites, random, log }).run()
}

class Activity {
  readonly #options: ActivityOptions
  readonly #sites: readonly Site[]
  readonly #random: Random
  readonly #log: AcknowledgedLog
  readonly #inFlight = new Set<Promise<void>>()
  readonly #refused: Record<string, number> = {}
  #counts = { acknowledged: 0, unanswered: 0, dropped: 0 }
  /** Writes that are due and not begun. */
  #due = 0
  #awayBecause: string | undefined
  #failure: Error | undefined

  constructor(given: {
    readonly options: ActivityOptions
    readonly sites: readonly Site[]
    readonly random: Random
    readonly log: AcknowledgedLog
  }) {
    assert(given.sites.length > 0)
    this.#options = given.options
    this.#sites = given.sites
    this.#random = given.random
    this.#log = given.log
  }

  async run(): Promise<ActivityReport> {
    const { signal, secondsMax } = this.#options
    const endMs = Date.now() + secondsMax * 1000
    let end: ActivityReport['end'] = 'over'
    for (let lastMs = Date.now(); Date.now() < endMs;) {
      await sleep(TICK_MS, undefined, { signal }).catch(() => undefined)
      if (signal.aborted) end = 'told to end'
      if (this.#awayBecause !== undefined && !signal.aborted && !(await this.#waitForService(endMs))) end = 'the service is gone'
      if (end !== 'over' || this.#failure !== undefined) break
      const nowMs = Date.now()
      this.#begin(nowMs, Math.min(nowMs - lastMs, BACKLOG_SECONDS_MAX * 1000))
      lastMs = nowMs
    }
    await Promise.all(this.#inFlight)
    if (this.#failure !== undefined) throw this.#failure
    return { ...this.#counts, refused: this.#refused, end }
  }

  /** Begins what has become due; an open loop: slow answers do not make it ask less, until too much is in flight. */
  #begin(nowMs: number, passedMs: number): void {
    const rate = this.#options.rate * (this.#options.isFlat ? 1 : activityAt(nowMs))
    this.#due += (rate * passedMs) / 1000
    while (this.#due >= 1 && this.#inFlight.size < IN_FLIGHT_MAX) {
      this.#due -= 1
      const running = this.#act(nowMs).catch((error: unknown) => {
        this.#failure ??= error instanceof Error ? error : new Error(String(error))
      })
      this.#inFlight.add(running)
      void running.then(() => this.#inFlight.delete(running))
    }
    const tooMany = Math.floor(this.#due - rate * BACKLOG_SECONDS_MAX)
    if (tooMany <= 0) return
    this.#due -= tooMany
    this.#counts.dropped += tooMany
  }

  async #act(nowMs: number): Promise<void> {
    const site = this.#random.pick(this.#sites)
    const done = await this.#tryActions(site, nowMs)
    const { outcome, patient } = done
    if (outcome.kind === 'gone') {
      this.#counts.unanswered += 1
      this.#awayBecause ??= outcome.cause
      return
    }
    if (outcome.kind === 'refused') return this.#countRefusal(`${outcome.status} ${outcome.text}`)
    const acknowledgedAt = new Date().toISOString()
    await this.#log.add(
      outcome.value.map((write) => ({ facility: site.facility, patient: patient || write.id, ...write, acknowledgedAt })),
    )
    this.#counts.acknowledged += outcome.value.length
    // A transaction of several counts for several.
    this.#due -= outcome.value.length - 1
  }

  /** Somebody can always be registered. */
  async #tryActions(site: Site, nowMs: number): Promise<Done> {
    const moment = { site, random: this.#random, nowMs, tell: this.#tell }
    const chosen = ACTIONS[this.#random.weighted(WEIGHTS)]!.action
    const rest: readonly Action[] = ACTIONS.slice(0, 2)
      .map(({ action }) => action)
      .toReversed()
    for (const action of [chosen, ...rest]) {
      const done = await action(moment)
      if (done !== undefined) return done
    }
    throw new Error('the first action needs nobody')
  }

  readonly #tell = (facility: string, referral: Parameters<Site['referred']['add']>[1]): void => {
    this.#sites.find((site) => site.facility === facility)?.referred.add(this.#random, referral)
  }

  #countRefusal(text: string): void {
    const ids = /[0-9a-f]{8}-[0-9a-f-]{27}/g
    const short = text.replaceAll(ids, 'ID').slice(0, 160)
    const name = short in this.#refused || Object.keys(this.#refused).length < REFUSALS_MAX ? short : 'others'
    this.#refused[name] = (this.#refused[name] ?? 0) + 1
  }

  /** Whether it came back. What the hospital has then may be older than what is known here, so all of that is read anew. */
  async #waitForService(endMs: number): Promise<boolean> {
    const { say, url, signal, giveUpAfterSeconds } = this.#options
    await Promise.all(this.#inFlight)
    const awayMs = Date.now()
    say(`the hospital at ${url} does not answer (${this.#awayBecause}); trying again for ${giveUpAfterSeconds} s`)
    const untilMs = Math.min(awayMs + giveUpAfterSeconds * 1000, endMs)
    while (Date.now() < untilMs && !signal.aborted) {
      if (await this.#isBack()) {
        say(`the hospital answers again after ${((Date.now() - awayMs) / 1000).toFixed(1)} s`)
        this.#awayBecause = undefined
        this.#due = 0
        return true
      }
      await sleep(PROBE_MS, undefined, { signal }).catch(() => undefined)
    }
    return Date.now() >= endMs || signal.aborted
  }

  async #isBack(): Promise<boolean> {
    try {
      const answer = await fetch(`${this.#options.url.replace(/\/+$/, '')}/health`, {
        signal: AbortSignal.timeout(PROBE_TIMEOUT_MS),
      })
      await answer.body?.cancel()
      if (!answer.ok) return false
      for (const site of this.#sites) await site.load(this.#random)
      return true
    } catch {
      return false
    }
  }
}
