import type { Control } from '../control.ts'
import type { StatusBoard } from '../status-board.ts'

/** What every group of routes is given. */
export interface RouteOptions {
  readonly control: Control
  readonly board: StatusBoard
  /** Ends streams of events. */
  readonly signal: AbortSignal
}
