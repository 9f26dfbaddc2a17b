import { sql } from 'kysely'
import { RECORD_BYTES_MAX, recordLine, type ControlRecord } from '../repository/control-records.ts'
import type { AlarmRow } from './alarms.ts'
import type { PendingChange } from './control-pending.ts'
import type { Store } from './store.ts'
import type { Task } from './tasks.ts'

// Records of what has changed, as it is now (docs/control-plane.md, "What the repositories keep of it").

/** What is longer is left out, and its size said. */
const RESULT_BYTES_MAX = 32 * 1024
const TEXT_CHARACTERS_MAX = 4000
/** Of a record that would be too long all the same, fields that are longer go. */
const FIELD_BYTES_MAX = 1000
const TEXT_OF_ENTRY = 200

/** A change with the line that says how the thing is now; without one when the thing is not kept any more. */
export interface ComposedChange extends PendingChange {
  readonly line: Buffer | undefined
}

/** In the order given. What was not foreseen of a kind that is not known has no line. */
export async function composeRecords(store: Store, system: string, changes: readonly PendingChange[]): Promise<ComposedChange[]> {
  const idsOf = (kind: string) => changes.filter((each) => each.kind === kind).map(({ id }) => id)
  const records = [
    ...(await taskRecords(store, idsOf('task'))),
    ...(await alarmRecords(store, idsOf('alarm'))),
    ...(await noticeRecords(store, system, idsOf('notice'))),
    ...(await complianceRecords(store, system, idsOf('compliance'))),
  ]
  const byName = new Map(records.map((record) => [nameOf(record), record]))
  return changes.map((change) => {
    const record = byName.get(nameOf(change))
    return { ...change, line: record === undefined ? undefined : boundedLine(record) }
  })
}

function nameOf({ kind, id }: { readonly kind: string; readonly id: string }): string {
  return `${kind} ${id}`
}

/** Within its bound, whatever is in it. */
export function boundedLine(record: ControlRecord): Buffer {
  const line = recordLine(record)
  if (line.length <= RECORD_BYTES_MAX) return line
  const short = Object.entries(record.body).filter(([, value]) => (JSON.stringify(value)?.length ?? 0) <= FIELD_BYTES_MAX)
  const body = { ...Object.fromEntries(short.slice(0, 30)), leftOutBytes: line.length }
  return recordLine({ ...record, body })
}

function cut(text: string | null): string | null {
  return text === null || text.length <= TEXT_CHARACTERS_MAX ? text : `${text.slice(0, TEXT_CHARACTERS_MAX)}…`
}

async function taskRecords(store: Store, ids: readonly string[]): Promise<ControlRecord[]> {
  if (ids.length === 0) return []
  const tasks = await store.sql.selectFrom('tasks').selectAll().where('id', 'in', ids).execute()
  return tasks.flatMap((task) => (task.ended_at === null ? [] : [taskRecord(task, task.ended_at)]))
}

function taskRecord(task: Task, endedAt: Date): ControlRecord {
  const resultBytes = task.result === null ? 0 : Buffer.byteLength(JSON.stringify(task.result))
  const isLeftOut = resultBytes > RESULT_BYTES_MAX
  return {
    id: task.id,
    at: endedAt.toISOString(),
    kind: 'task',
    body: {
      component: task.component,
      kind: task.kind,
      lane: task.lane,
      parameters: task.parameters,
      requestedBy: task.requested_by,
      scheduleKey: task.schedule_key,
      state: task.state,
      attempts: task.attempts,
      node: task.node,
      createdAt: task.created_at.toISOString(),
      dueAt: task.due_at.toISOString(),
      startedAt: task.started_at?.toISOString() ?? null,
      exitStatus: task.exit_status,
      result: isLeftOut ? null : task.result,
      ...(isLeftOut ? { resultLeftOutBytes: resultBytes } : {}),
      error:
        task.error_code === null
          ? null
          : { code: task.error_code, message: cut(task.error_message) ?? '', hint: cut(task.error_hint) },
    },
  }
}

async function alarmRecords(store: Store, ids: readonly string[]): Promise<ControlRecord[]> {
  if (ids.length === 0) return []
  const alarms = await store.sql.selectFrom('alarms').selectAll().where('id', 'in', ids).execute()
  return alarms.map(alarmRecord)
}

function alarmRecord(alarm: AlarmRow): ControlRecord {
  const times = [alarm.opened_at, alarm.raised_at, alarm.cleared_at, alarm.told_at].flatMap((time) => time?.getTime() ?? [])
  return {
    id: alarm.id,
    at: new Date(Math.max(...times)).toISOString(),
    kind: 'alarm',
    body: {
      key: alarm.key,
      severity: alarm.severity,
      title: alarm.title,
      text: cut(alarm.text),
      system: alarm.system,
      component: alarm.component,
      code: alarm.code,
      count: alarm.count,
      state: alarm.state,
      openedAt: alarm.opened_at.toISOString(),
      raisedAt: alarm.raised_at.toISOString(),
      clearedAt: alarm.cleared_at?.toISOString() ?? null,
      clearText: cut(alarm.clear_text),
      toldAs: alarm.told_as,
      toldAt: alarm.told_at?.toISOString() ?? null,
    },
  }
}

interface NoticeToRecord {
  readonly id: string
  readonly kind: string
  readonly onceKey: string | null
  readonly madeAt: Date
  readonly entries: unknown
  readonly deliveries: unknown
  readonly changedAt: Date
}

/** Of the entries those of this system, and of Resus itself: another system's are not for this repository. */
async function noticeRecords(store: Store, system: string, ids: readonly string[]): Promise<ControlRecord[]> {
  if (ids.length === 0) return []
  const { rows } = await sql<NoticeToRecord>`
    select n.id::text, n.kind, n.once_key as "onceKey", n.made_at as "madeAt",
      (select coalesce(jsonb_agg(jsonb_build_object('event', e -> 'event', 'alarm', e -> 'alarm', 'severity', e -> 'severity',
          'title', e -> 'title', 'system', e -> 'system', 'component', e -> 'component', 'code', e -> 'code', 'text', left(e ->> 'text', ${TEXT_OF_ENTRY}))), '[]')
        from jsonb_array_elements(n.content -> 'entries') e where e ->> 'system' in (${system}, 'Resus')) as entries,
      (select coalesce(jsonb_agg(jsonb_build_object('channel', d.channel, 'severities', d.severities, 'state', d.state,
          'attempts', d.attempts, 'endedAt', d.ended_at, 'outcome', left(d.outcome, ${TEXT_OF_ENTRY})) order by d.channel), '[]')
        from resus_control.deliveries d where d.notice_id = n.id) as deliveries,
      greatest(n.made_at, (select max(d.ended_at) from resus_control.deliveries d where d.notice_id = n.id)) as "changedAt"
    from resus_control.notices n where n.id = any (${ids}::uuid[])`.execute(store.sql)
  return rows.map(({ id, changedAt, madeAt, kind, onceKey, entries, deliveries }) => ({
    id,
    at: changedAt.toISOString(),
    kind: 'notice',
    body: { kind, onceKey, madeAt: madeAt.toISOString(), entries, deliveries },
  }))
}

/** Minutes and what became of them: an hour that waited long may be half of each. */
async function complianceRecords(store: Store, system: string, ids: readonly string[]): Promise<ControlRecord[]> {
  if (ids.length === 0) return []
  const { rows } = await sql<{ component: string; hour: Date; objectives: unknown }>`
    with asked as (
      select split_part(id, ' ', 1) as component, split_part(id, ' ', 2)::timestamptz as hour from unnest(${ids}::text[]) as id
    ), kept as (
      select a.component, a.hour, h.objective, h.at + interval '1 h' as last, h.target, h.actual_least, h.actual_greatest,
        h.minutes_met, h.minutes_broken, h.minutes_not_proven
      from asked a join resus_control.compliance_hours h on h.system = ${system} and h.component = a.component and h.at = a.hour
      union all
      select a.component, a.hour, m.objective, m.at, m.target, m.actual, m.actual,
        (m.verdict = 'met')::int, (m.verdict = 'broken')::int, (m.verdict = 'not proven')::int
      from asked a join resus_control.compliance_minutes m
        on m.system = ${system} and m.component = a.component and m.at >= a.hour and m.at < a.hour + interval '1 h'
    ), summed as (
      select component, hour, objective, (array_agg(target order by last desc))[1] as target, min(actual_least) as "actualLeast",
        max(actual_greatest) as "actualGreatest", sum(minutes_met)::int as "minutesMet", sum(minutes_broken)::int as "minutesBroken",
        sum(minutes_not_proven)::int as "minutesNotProven"
      from kept group by component, hour, objective
    )
    select component, hour, jsonb_agg(to_jsonb(summed) - 'component' - 'hour' order by objective) as objectives
    from summed group by component, hour`.execute(store.sql)
  return rows.map(({ component, hour, objectives }) => ({
    id: `${component} ${hour.toISOString().replace('.000Z', 'Z')}`,
    at: hour.toISOString(),
    kind: 'compliance',
    body: { component, hour: hour.toISOString(), objectives },
  }))
}
