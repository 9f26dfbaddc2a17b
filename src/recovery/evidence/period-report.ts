import type { StoredRecord } from './chain.ts'
import { describeForecast, forecastRto } from '../forecast.ts'
import { judgeControls, type JudgedControl } from './controls.ts'
import { html, page, verdictClass, type Markup } from './html.ts'
import { isOverdue, type Predicate, type RunPredicate } from './record.ts'

// What a period's records say together: drills and recoveries, what was measured, what is open.

type Action = Extract<Predicate, { kind: 'action' }>
type Certification = Extract<Predicate, { kind: 'certification' }>
type Deviation = Extract<Predicate, { kind: 'deviation' }>

interface Row {
  readonly sequence: number
  readonly run: Pick<RunPredicate, 'kind' | 'component' | 'madeAt' | 'verdict' | 'why' | 'measured' | 'objectives'> & {
    readonly isLatest: boolean
  }
}

export interface Period {
  readonly system: string
  readonly fromMs?: number | undefined
  readonly untilMs?: number | undefined
  /** All that has to be recoverable; left out, only what has a record is known. */
  readonly components?: readonly string[] | undefined
}

/** Gathers records, in their order, into a report. It keeps a line of each, not the record. */
export class PeriodReport {
  readonly #period: Period
  readonly #runs: Row[] = []
  readonly #actions = new Map<string, Action>()
  readonly #certified = new Map<number, Certification>()
  readonly #deviations: Deviation[] = []
  #count = 0

  constructor(period: Period) {
    this.#period = period
  }

  get count(): number {
    return this.#count
  }

  add({ sequence, predicate }: StoredRecord): void {
    this.#count += 1
    switch (predicate.kind) {
      case 'drill':
      case 'recovery': {
        const { kind, component, madeAt, verdict, why, measured, objectives, recoveryPoint } = predicate
        const isLatest = recoveryPoint.target === 'latest'
        this.#runs.push({ sequence, run: { kind, component, madeAt, verdict, why, measured, objectives, isLatest } })
        break
      }
      case 'certification':
        this.#certified.set(predicate.of.sequence, predicate)
        break
      case 'deviation':
        this.#deviations.push(predicate)
        break
      case 'action':
        this.#actions.set(predicate.action, predicate)
        break
      case 'key':
        break
      default:
        predicate satisfies never
    }
  }

  /** Which requirements these records prove, at the end of the period. */
  controls(nowMs: number): JudgedControl[] {
    const { components, untilMs } = this.#period
    const endMs = Math.min(nowMs, untilMs ?? nowMs)
    const runs = this.#runs.map(({ sequence, run }) => ({
      sequence,
      component: run.component,
      madeAt: run.madeAt,
      verdict: run.verdict,
      isLatest: run.isLatest,
      rtoSeconds: run.measured.rtoSeconds,
      rpoSeconds: run.measured.rpoSeconds,
      rtoMinutes: run.objectives.rtoMinutes?.value ?? null,
      rpoMinutes: run.objectives.rpoMinutes?.value ?? null,
    }))
    const accepted = [...this.#certified].filter(([, { decision }]) => decision !== 'rejected').map(([sequence]) => sequence)
    return judgeControls({
      components: components ?? [...new Set(runs.map(({ component }) => component))],
      runs,
      accepted: new Set(accepted),
      overdueActions: this.openActions().filter((action) => isOverdue(action, endMs)).length,
      nowMs: endMs,
    })
  }

  /** Corrective actions that are open, the first due first. */
  openActions(): Action[] {
    return [...this.#actions.values()]
      .filter(({ state }) => state === 'open')
      .toSorted((left, right) => (left.due < right.due ? -1 : 1))
  }

  page(nowMs: number): string {
    const { system, fromMs, untilMs } = this.#period
    const title = `Recovery evidence of "${system}"`
    const from = fromMs === undefined ? 'the beginning' : day(fromMs)
    const until = untilMs === undefined ? day(nowMs) : day(untilMs)
    return page(
      title,
      html`<h1>${title}</h1>
        <p>From ${from} until ${until}: ${this.#count} records. Made at ${new Date(nowMs).toISOString()}.</p>
        <h2>Drills and recoveries</h2>
        ${this.#runs.length === 0 ? html`<p class="failed">None: nothing was proven in this time.</p>` : this.#runTable()}
        <h2>Trend</h2>
        ${this.#trend(nowMs)}
        <h2>Deviations</h2>
        ${
          this.#deviations.length === 0
            ? html`<p>none</p>`
            : html`<ul>
                ${this.#deviations.map((each) => html`<li>Record ${each.of.sequence} (${each.severity}), by ${each.by}: ${each.text}</li>`)}
              </ul>`
        }
        <h2>Corrective actions that are open</h2>
        ${this.#actionList(nowMs)}
        <h2>Controls</h2>
        <p class="fine">
          By these records alone, at the end of the period: what a framework asks for besides is not judged
          here.${this.#period.components === undefined ? ' Only components that have a record are known here.' : ''}
        </p>
        ${this.#controlTable(nowMs)}`,
    )
  }

  #runTable(): Markup {
    return html`<table>
      <thead>
        <tr>
          <th>record</th>
          <th>when</th>
          <th>what</th>
          <th>verdict</th>
          <th>RTO</th>
          <th>RPO</th>
          <th>certified</th>
        </tr>
      </thead>
      <tbody>
        ${this.#runs.map((row) => this.#runRow(row))}
      </tbody>
    </table>`
  }

  #runRow({ sequence, run }: Row): Markup {
    const certified = this.#certified.get(sequence)
    const { measured, objectives } = run
    return html`<tr>
      <td><a href="records/${String(sequence).padStart(10, '0')}.html">${sequence}</a></td>
      <td>${run.madeAt}</td>
      <td>${run.kind} of ${run.component}</td>
      <td class="${verdictClass(run.verdict)}">${run.verdict}${run.verdict === 'verified' ? '' : `: ${run.why}`}</td>
      <td>${against(measured.rtoSeconds, objectives.rtoMinutes)}</td>
      <td>${against(measured.rpoSeconds, objectives.rpoMinutes)}</td>
      <td>${certified === undefined ? 'not yet' : `${certified.decision}, ${certified.by}`}</td>
    </tr>`
  }

  #trend(nowMs: number): Markup {
    const lines = [...new Set(this.#runs.map(({ run }) => run.component))].map((component) => {
      const runs = this.#runs.filter(({ run }) => run.component === component).map(({ run }) => run)
      const target = runs.at(-1)?.objectives.rtoMinutes?.value ?? null
      const measured = runs.map(({ madeAt, verdict, measured: { rtoSeconds } }) => ({ madeAt, verdict, rtoSeconds }))
      const forecast = forecastRto(measured, target, nowMs)
      if (forecast === null) return html`<li>${component}: too few verified drills to say where the RTO goes</li>`
      const broken = describeForecast(forecast, target)
      return html`<li class="${broken === null ? '' : 'unproven'}">
        ${component}: ${broken ?? `no end in sight, by ${forecast.basis}`}
      </li>`
    })
    return lines.length === 0
      ? html`<p>nothing was measured</p>`
      : html`<ul>
          ${lines}
        </ul>`
  }

  #controlTable(nowMs: number): Markup {
    return html`<table>
      <thead>
        <tr>
          <th>framework</th>
          <th>requirement</th>
          <th></th>
          <th>state</th>
          <th>why</th>
        </tr>
      </thead>
      <tbody>
        ${this.controls(nowMs).map(
          ({ framework, id, title, state, why }) =>
            html`<tr>
              <td>${framework}</td>
              <td>${id}</td>
              <td>${title}</td>
              <td class="${verdictClass(state)}">${state}</td>
              <td>${why}</td>
            </tr>`,
        )}
      </tbody>
    </table>`
  }

  #actionList(nowMs: number): Markup {
    const open = this.openActions()
    if (open.length === 0) return html`<p>none</p>`
    return html`<ul>
      ${open.map(({ due, owner, text, of }) => {
        const overdue = isOverdue({ due }, nowMs)
        return html`<li class="${overdue ? 'failed' : ''}">
          ${text} (record ${of.sequence}; ${owner}, due ${due}${overdue ? ', OVERDUE' : ''})
        </li>`
      })}
    </ul>`
  }
}

function against(seconds: number | null, objective: { readonly value: number } | null): Markup {
  if (seconds === null) return html`<span class="unproven">not measured</span>`
  const measured = `${seconds.toFixed(1)} s`
  if (objective === null) return html`${measured}`
  const met = seconds <= objective.value * 60
  return html`<span class="${met ? 'met' : 'broken'}">${measured} of ${objective.value * 60} s${met ? '' : ': broken'}</span>`
}

function day(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10)
}
