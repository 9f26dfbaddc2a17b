import { scheduledKinds, type Schedule, type ScheduledKind, type ScheduleSettings } from '../config/schedule-settings.ts'
import type { Tier } from '../protect/postgres/component.ts'

type Schedules = Readonly<Record<ScheduledKind, Schedule>>

/** The same for every tier. A verdict holds for 7 days, so that a drill every 5 days leaves two in which to fail and try again. A drill proves all that a proof does. */
const COMMON = {
  verify: { after: '1 d' },
  prove: 'never',
  drill: { after: '5 d' },
  // It reads every row of the server: whoever wants that says when.
  baseline: 'never',
  expire: { after: '1 d' },
  check: { after: '1 h' },
} as const satisfies Partial<Schedules>

/** Each backup is complete, whatever it reads: there is no weekly full one. */
export const DEFAULT_SCHEDULES: Readonly<Record<Tier, Schedules>> = {
  critical: { backup: { after: '15 min' }, ...COMMON },
  high: { backup: { after: '1 h' }, ...COMMON },
  medium: { backup: { after: '4 h' }, ...COMMON },
  low: { backup: { after: '1 d' }, ...COMMON },
}

export interface ResolvedSchedule {
  readonly kind: ScheduledKind
  readonly schedule: Schedule
  readonly from: 'component' | 'tier'
}

/** All schedules of a component: its own, and for the other kinds those of its tier. */
export function resolveSchedules(tier: Tier, own: ScheduleSettings = {}): readonly ResolvedSchedule[] {
  return scheduledKinds.map((kind) => {
    const schedule = own[kind]
    if (schedule === undefined) return { kind, schedule: DEFAULT_SCHEDULES[tier][kind], from: 'tier' }
    return { kind, schedule, from: 'component' }
  })
}
