import { Counter, Histogram, type Registry } from 'prom-client'
import type { TaskOutcome } from '../catalog/tasks.ts'

const SECONDS = [1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200]
const LABELS = ['system', 'component', 'kind', 'state'] as const

export interface EndedTask {
  readonly system: string
  readonly component: string | null
  readonly kind: string
  readonly startedMs: number | null
}

/** Tasks that ended on this node since it began. */
export class TaskFigures {
  readonly #ended = new Counter({
    name: 'resus_tasks_ended_total',
    help: 'Tasks that have ended on this node',
    labelNames: LABELS,
    registers: [],
  })
  readonly #seconds = new Histogram({
    name: 'resus_task_duration_seconds',
    help: 'How long the last attempt of a task took',
    labelNames: ['kind', 'state'],
    buckets: SECONDS,
    registers: [],
  })

  note({ system, component, kind, startedMs }: EndedTask, { state, at }: Pick<TaskOutcome, 'state' | 'at'>): void {
    this.#ended.inc({ system, component: component ?? '', kind, state })
    if (startedMs !== null) this.#seconds.observe({ kind, state }, Math.max(0, (at.getTime() - startedMs) / 1000))
  }

  register(registry: Registry): void {
    registry.registerMetric(this.#ended)
    registry.registerMetric(this.#seconds)
  }
}
