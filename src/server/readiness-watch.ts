import { recordReadiness } from '../catalog/readiness.ts'
import type { Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import type { Judgement } from '../recovery/judgement.ts'
import { headroom, readiness, type Gate, type Measurement, type Readiness, type ReadinessInput } from '../recovery/readiness.ts'
import type { Catalogue, ComponentPicture } from './catalogue.ts'
import { componentKey } from './component-key.ts'
import type { EvidenceBook, RunSummary } from './evidence-book.ts'
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
    const runs = this.#evidence.runs(system, component.name)
    const [last] = runs ?? []
    const rpo = promised?.judgements.rpoMinutes ?? null
    const rto = promised?.judgements.rtoMinutes ?? null
    const unknown = runs === undefined ? 'its evidence was not read yet' : 'there was no drill yet'
    const nowMs = this.#clock.now()
    const asOf = new Date(nowMs).toISOString()
    return {
      terms: {
        freshness: last === undefined ? missing(unknown) : freshnessOf(last, nowMs),
        'rpo headroom': headroomOf(rpo, asOf),
        'rto headroom': last === undefined ? missing(unknown) : rtoHeadroom(last, rto),
        coverage: last === undefined ? missing(unknown) : coverageOf(last),
        replicas: replicasOf(lag, rpo, asOf),
        playbooks: missing('this release has no playbooks'),
        contacts: missing('this release keeps no contacts'),
        actions: this.#actionsOf(system, asOf, nowMs),
      },
      gates: {
        verified: this.#verified(last, unknown, nowMs),
        key: keyOf(picture, nowMs),
        immutable: { holds: null, why: 'nothing proves that what is kept cannot be deleted before its time' },
        rpo: rpoGate(rpo),
      },
    }
  }

  #verified(last: RunSummary | undefined, unknown: string, nowMs: number): Gate {
    if (last === undefined) return { holds: false, why: unknown }
    if (last.verdict !== 'verified') return { holds: false, why: `record ${last.sequence}: ${last.verdict}: ${last.why}` }
    if (Date.parse(last.expires) <= nowMs)
      return { holds: false, why: `the verdict of record ${last.sequence} expired at ${last.expires}` }
    return { holds: true, why: `record ${last.sequence}, until ${last.expires}` }
  }

  #actionsOf(system: string, asOf: string, nowMs: number): Measurement {
    if (this.#evidence.problem(system) !== null) return missing(`its evidence cannot be read: ${this.#evidence.problem(system)}`)
    const open = this.#evidence.openActions(system)
    const overdue = open.filter(({ due }) => Date.parse(`${due}T23:59:59Z`) < nowMs)
    if (overdue.length > 0) return { value: 0, why: `${overdue.length} overdue, the first was due ${overdue[0]!.due}`, asOf }
    return open.length > 0 ? { value: 0.5, why: `${open.length} open`, asOf } : { value: 1, why: 'none is open', asOf }
  }
}

function missing(why: string): Measurement {
  return { value: null, why, asOf: null }
}

function freshnessOf({ verdict, madeAt, expires, sequence }: RunSummary, nowMs: number): Measurement {
  if (verdict !== 'verified') return { value: 0, why: `record ${sequence} was ${verdict}`, asOf: madeAt }
  const [fromMs, toMs] = [Date.parse(madeAt), Date.parse(expires)]
  return {
    value: headroom(nowMs - fromMs, toMs - fromMs),
    why: `record ${sequence} of ${madeAt}, until ${expires}`,
    asOf: madeAt,
  }
}

function coverageOf({ verdict, sequence, madeAt, checks: { verified, all } }: RunSummary): Measurement {
  if (all === 0) return { value: 0, why: `record ${sequence} has no check: ${verdict}`, asOf: madeAt }
  return { value: verified / all, why: `${verified} of ${all} checks of record ${sequence} were verified`, asOf: madeAt }
}

function headroomOf(judgement: Judgement | null, asOf: string): Measurement {
  if (judgement === null || judgement.target === null) return missing('no objective is set')
  if (judgement.verdict === 'not proven' || judgement.actual === null) return missing(judgement.why)
  return { value: headroom(judgement.actual, judgement.target), why: judgement.why, asOf }
}

/** Of the last drill, and of no other proof. */
function rtoHeadroom({ measured, sequence, madeAt }: RunSummary, judgement: Judgement | null): Measurement {
  if (judgement === null || judgement.target === null) return missing('no objective is set')
  if (measured.rtoSeconds === null) return missing(`record ${sequence}: ${measured.why.rtoSeconds ?? 'it was not measured'}`)
  const value = headroom(measured.rtoSeconds / 60, judgement.target)
  return { value, why: `${measured.rtoSeconds.toFixed(1)} s of ${judgement.target * 60} s, record ${sequence}`, asOf: madeAt }
}

function replicasOf(lagSeconds: number | null, rpo: Judgement | null, asOf: string): Measurement {
  if (lagSeconds === null) return missing('no standby is known')
  if (rpo === null || rpo.target === null) return missing('no objective is set')
  return { value: headroom(lagSeconds / 60, rpo.target), why: `a standby is ${lagSeconds.toFixed(1)} s behind`, asOf }
}

function keyOf({ problem, asOf }: ComponentPicture, nowMs: number): Gate {
  if (problem !== null) return { holds: false, why: problem.message }
  if (asOf === null) return { holds: null, why: 'its repository was not opened yet' }
  if (nowMs - Date.parse(asOf) > FRESH_MS) return { holds: null, why: `it was last opened at ${asOf}` }
  return { holds: true, why: `the repository was opened with its key at ${asOf}` }
}

function rpoGate(rpo: Judgement | null): Gate {
  if (rpo === null) return { holds: null, why: 'no objective is set' }
  if (rpo.verdict === 'not proven') return { holds: null, why: rpo.why }
  return { holds: rpo.verdict === 'met', why: rpo.why }
}
