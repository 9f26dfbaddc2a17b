import type { Notices } from '../../incident/notices.ts'
import type { AuditKeeper } from '../audit-keeper.ts'
import type { Authority } from '../authority/authority.ts'
import type { Control } from '../control.ts'
import type { EvidenceBook } from '../evidence-book.ts'
import type { HealthWatch } from '../health-watch.ts'
import type { ObjectivesWatch } from '../objectives-watch.ts'
import type { ReadinessWatch } from '../readiness-watch.ts'
import type { Scheduler } from '../scheduler.ts'
import type { SizeWatch } from '../size-watch.ts'
import type { TaskFigures } from '../task-figures.ts'
import type { StatusBoard } from '../status-board.ts'

/** What every group of routes is given. */
export interface RouteOptions {
  readonly control: Control
  readonly board: StatusBoard
  readonly health: HealthWatch
  readonly objectives: ObjectivesWatch
  readonly sizes: SizeWatch
  readonly tasks: TaskFigures
  readonly scheduler: Scheduler
  readonly notices: Notices
  readonly audit: AuditKeeper
  readonly evidence: EvidenceBook
  readonly readiness: ReadinessWatch
  readonly node: string
  readonly authority: Authority
  /** Browsers reach us by https. */
  readonly isSecure: boolean
  /** Why the configuration as its files are now is not in force. */
  readonly refused: () => string | null
  /** Ends streams of events. */
  readonly signal: AbortSignal
}
