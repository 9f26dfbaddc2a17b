import { recordReadiness } from '../catalog/readiness.ts'
import type { Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { readiness, type Gate, type Readiness, type ReadinessInput } from '../recovery/readiness.ts'
import { readinessInput } from '../recovery/readiness-input.ts'
import type { Catalogue, ComponentPicture } from './catalogue.ts'
import { componentKey } from './component-key.ts'
import type { EvidenceBook } from './evidence-book.ts'
import type { HealthWatch } from './health-watch.ts'
import type { ObjectivesView, ObjectivesWatch } from './objectives-watch.ts'

/** What was measured longer ago is stale. */
const FRESH_MS = 10 * 60_000
/** A fall by so much within so long is told. */
const FALL = 0.1
const FALL_MS = 3_600_000
const TOLD_MS = 24 * 3_600_000

export interface ReadinessView extends Readiness {
  readonly system: string
  readonly component: string
}

interface Course {
  /** Within the last hour. */
  readonly scores: { readonly atMs: number; readonly score: number }[]
  fell: { readonly from: number; readonly atMs: number } | undefined
}

/** How ready each component is, from what is known now (docs/readiness.md). */
export class ReadinessWatch {
  readonly #store: Store
  readonly #catalogue: Catalogue
  readonly #objectives: ObjectivesWatch
  readonly #evidence: EvidenceBook
  readonly #health: HealthWatch
  readonly #clock: Clock
  readonly #courses = new Map<string, Course>()

  constructor(options: {
    readonly store: Store
    readonly catalogue: Catalogue
    readonly objectives: ObjectivesWatch
    readonly evidence: EvidenceBook
    readonly health: HealthWatch
    readonly clock: Clock
  }) {
    this.#store = options.store
    this.#catalogue = options.catalogue
    this.#objectives = options.objectives
    this.#evidence = options.evidence
    this.#health = options.health
    this.#clock = options.clock
  }

  /** As of now, from memory. */
  views(): ReadinessView[] {
    const promised = new Map(this.#objectives.views().map((view) => [componentKey(view.system, view.component), view]))
    const lags = new Map(
      this.#health
        .views()
        .filter(({ thing }) => thing === 'database')
        .map(({ system, component, figures }) => [componentKey(system, component ?? ''), figures.standbyLagSecondsMost ?? null]),
    )
    return this.#catalogue.pictures().map((picture) => {
      const key = componentKey(picture.system, picture.component.name)
      const input = this.#input(picture, { promised: promised.get(key), lag: lags.get(key) ?? null })
      return { system: picture.system, component: picture.component.name, ...readiness(input) }
    })
  }

  /** Follows the numbers, and once an hour writes them down where this node leads. */
  async look(writes: boolean): Promise<void> {
    const nowMs = this.#clock.now()
    const views = this.views()
    for (const { system, component, score } of views) this.#follow(componentKey(system, component), score, nowMs)
    if (!writes) return
    // Until everything was looked at once, a number says more of us than of what is protected.
    const known = views.filter(({ system, component }) => this.#evidence.runs(system, component) !== undefined)
    const rows = known.map(({ system, component, score }) => ({ system, component, score }))
    await recordReadiness(this.#store.sql, new Date(nowMs), rows)
  }

  /** What is told of a fall; null while there is none. */
  fell(system: string, component: string): string | null {
    const course = this.#courses.get(componentKey(system, component))
    const now = course?.scores.at(-1)?.score
    if (course?.fell === undefined || now === undefined) return null
    return `it fell from ${course.fell.from.toFixed(2)} to ${now.toFixed(2)} within an hour`
  }

  #follow(key: string, score: number, nowMs: number): void {
    const course = this.#courses.get(key) ?? { scores: [], fell: undefined }
    this.#courses.set(key, course)
    while (course.scores[0] !== undefined && nowMs - course.scores[0].atMs > FALL_MS) course.scores.shift()
    course.scores.push({ atMs: nowMs, score })
    const highest = Math.max(...course.scores.map((each) => each.score))
    if (course.fell === undefined && highest - score >= FALL) course.fell = { from: highest, atMs: nowMs }
    else if (course.fell !== undefined && (score > course.fell.from - FALL || nowMs - course.fell.atMs > TOLD_MS))
      course.fell = undefined
  }

  #input(
    picture: ComponentPicture,
    { promised, lag }: { readonly promised: ObjectivesView | undefined; readonly lag: number | null },
  ): ReadinessInput {
    const { system, component } = picture
    const nowMs = this.#clock.now()
    return readinessInput({
      lastRun: this.#evidence.runs(system, component.name)?.[0] ?? null,
      lastOfNewest:
        this.#evidence.runs(system, component.name)?.find(({ recoveryPoint }) => recoveryPoint.target === 'latest') ?? null,
      unknown:
        this.#evidence.runs(system, component.name) === undefined ? 'its evidence was not read yet' : 'there was no drill yet',
      rpo: promised?.judgements.rpoMinutes ?? null,
      rtoMinutes: promised?.judgements.rtoMinutes?.target ?? null,
      standbyLagSeconds: lag,
      key: keyOf(picture, nowMs),
      openActions: this.#evidence.problem(system) === null ? this.#evidence.openActions(system) : null,
      nowMs,
    })
  }
}

function keyOf({ problem, asOf }: ComponentPicture, nowMs: number): Gate {
  if (problem !== null) return { holds: false, why: problem.message }
  if (asOf === null) return { holds: null, why: 'its repository was not opened yet' }
  if (nowMs - Date.parse(asOf) > FRESH_MS) return { holds: null, why: `it was last opened at ${asOf}` }
  return { holds: true, why: `the repository was opened with its key at ${asOf}` }
}
