import { schedulesSchema } from '../api/status-schemas.ts'
import { ControlPlaneClient } from './control-plane-client.ts'
import { formatTable, formatTime } from './output.ts'
import type { Verb } from './verb.ts'

const HEAD = ['COMPONENT', 'KIND', 'SCHEDULE', 'FROM', 'NEXT'] as const

/** What a control plane does by itself, and when. */
export const run: Verb = async (context, given) => {
  const client = await ControlPlaneClient.of(given, context.signal)
  const document = await client.get('/schedules', schedulesSchema)
  const rows = document.schedules.map(({ system, component, kind, schedule, timeZone, from, nextDueAt }) => [
    `${system}/${component}`,
    kind,
    schedule.includes(' ') && /^\S+ \S+ \S+ \S+ \S+/.test(schedule) ? `${schedule} (${timeZone})` : schedule,
    from,
    nextDueAt === null ? '-' : formatTime(nextDueAt),
  ])
  return { json: document, text: rows.length === 0 ? 'nothing is scheduled' : formatTable(HEAD, rows) }
}
