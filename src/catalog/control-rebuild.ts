import { sql, type Transaction } from 'kysely'
import { z } from 'zod'
import type { ControlRecord } from '../repository/control-records.ts'
import type { Schema } from './schema.ts'
import type { Store } from './store.ts'

// Rows made of the records of a repository. Given newest first, the first of a thing counts; what is there already stays as it is. May be run again.

const LOST = 'the store was lost before it was known to be sent'

const time = z.iso.datetime({ offset: true })
const severity = z.enum(['info', 'warning', 'alarm'])

const taskBody = z.object({
  component: z.string().nullable(),
  kind: z.string(),
  lane: z.string(),
  parameters: z.record(z.string(), z.unknown()).catch({}),
  requestedBy: z.string(),
  scheduleKey: z.string().nullable(),
  state: z.enum(['done', 'failed', 'cancelled']),
  attempts: z.int(),
  node: z.string().nullable(),
  createdAt: time,
  dueAt: time,
  startedAt: time.nullable(),
  exitStatus: z.int().nullable(),
  result: z.unknown(),
  error: z.object({ code: z.string(), message: z.string(), hint: z.string().nullable() }).nullable(),
})

const alarmBody = z.object({
  key: z.string(),
  severity,
  title: z.string(),
  text: z.string().catch(''),
  system: z.string(),
  component: z.string().nullable(),
  code: z.string().nullable(),
  count: z.int(),
  state: z.enum(['open', 'recovering', 'closed']),
  openedAt: time,
  raisedAt: time,
  clearedAt: time.nullable(),
  clearText: z.string().nullable().catch(null),
  toldAs: z.array(severity),
  toldAt: time.nullable(),
})

const noticeBody = z.object({
  kind: z.enum(['alarms', 'digest']),
  onceKey: z.string().nullable(),
  madeAt: time,
  // Left out where the record would have been too long.
  entries: z
    .array(
      z.object({
        event: z.string(),
        alarm: z.uuid(),
        severity,
        title: z.string(),
        system: z.string(),
        component: z.string().nullable().catch(null),
        code: z.string().nullable().catch(null),
        text: z.string(),
      }),
    )
    .catch([]),
  deliveries: z
    .array(
      z.object({
        channel: z.string(),
        severities: z.array(severity),
        state: z.enum(['waiting', 'sent', 'given-up']),
        attempts: z.int(),
        endedAt: time.nullable(),
        outcome: z.string().nullable(),
      }),
    )
    .catch([]),
})

const complianceBody = z.object({
  component: z.string(),
  hour: time,
  objectives: z.array(
    z.object({
      objective: z.string(),
      target: z.number(),
      actualLeast: z.number().nullable(),
      actualGreatest: z.number().nullable(),
      minutesMet: z.int(),
      minutesBroken: z.int(),
      minutesNotProven: z.int(),
    }),
  ),
})

/** A schedule's key: whose it is, and the instant that it fell due. */
const scheduleKeySchema = z.tuple([z.string(), z.string(), z.string(), z.iso.datetime()])

export interface RebuildOptions {
  readonly system: string
  /** When what is still so is told again, behind the last time. */
  readonly remindAfterMs: number
  readonly now: Date
}

/** Fills the store from records, newest first: all of them or none. Gives how many were none that this version knows. */
export async function insertRecords(store: Store, records: readonly ControlRecord[], options: RebuildOptions): Promise<number> {
  const known = {
    task: parsed(records, 'task', taskBody),
    alarm: parsed(records, 'alarm', alarmBody),
    notice: parsed(records, 'notice', noticeBody),
    compliance: parsed(records, 'compliance', complianceBody),
  }
  await store.sql.transaction().execute(async (transaction) => {
    // What comes from the repository is not to be written there again.
    await sql`select set_config('resus.rebuild', 'on', true)`.execute(transaction)
    await insertTasks(transaction, known.task, options)
    await insertAlarms(transaction, known.alarm, options)
    await insertNotices(transaction, known.notice)
    await insertCompliance(transaction, known.compliance, options)
  })
  return records.length - Object.values(known).reduce((sum, each) => sum + each.length, 0)
}

/** Behind the last record: what may not have reached anybody is told once more, while it is so. */
export async function tellAgain(store: Store, now: Date): Promise<void> {
  await sql`
    update resus_control.alarms a set due_at = ${now} where a.state = 'open' and a.due_at > ${now} and exists (
      select from resus_control.notices n join resus_control.deliveries d on d.notice_id = n.id
      where a.id = any (n.alarm_ids) and d.outcome = ${LOST} and n.made_at >= a.opened_at)`.execute(store.sql)
}

type Parsed<Body> = Body & { readonly id: string; readonly at: string }

/** The newest of each thing. */
function parsed<Body extends object>(records: readonly ControlRecord[], kind: string, schema: z.ZodType<Body>): Parsed<Body>[] {
  const seen = new Set<string>()
  return records.flatMap((record) => {
    if (record.kind !== kind || seen.has(record.id)) return []
    const body = schema.safeParse(record.body)
    if (!body.success || (kind !== 'compliance' && !z.uuid().safeParse(record.id).success)) return []
    seen.add(record.id)
    return [{ ...body.data, id: record.id, at: record.at }]
  })
}

async function insertTasks(
  transaction: Transaction<Schema>,
  tasks: readonly Parsed<z.infer<typeof taskBody>>[],
  { system }: RebuildOptions,
): Promise<void> {
  if (tasks.length === 0) return
  await sql`
    with given as (
      select * from jsonb_to_recordset(${JSON.stringify(tasks)}::jsonb) as t(id uuid, at timestamptz, component text, kind text, lane text,
        parameters jsonb, "requestedBy" text, "scheduleKey" text, state text, attempts int, node text, "createdAt" timestamptz, "dueAt" timestamptz,
        "startedAt" timestamptz, "exitStatus" int, result jsonb, error jsonb)
    ), made as (
      insert into resus_control.tasks (id, system, component, kind, lane, parameters, requested_by, schedule_key, state, attempts, node, created_at,
        due_at, started_at, ended_at, exit_status, result, error_code, error_message, error_hint, last_event, from_repository)
      select id, ${system}, component, kind, lane, parameters, "requestedBy", "scheduleKey", state, attempts, node, "createdAt", "dueAt", "startedAt",
        at, "exitStatus", nullif(result, 'null'), error ->> 'code', error ->> 'message', error ->> 'hint', 1, true from given
      on conflict do nothing returning id
    )
    insert into resus_control.task_events (task_id, number, at, kind, data)
    select id, 1, at, 'state', jsonb_build_object('state', state, 'error', nullif(error, 'null'), 'from', 'repository')
    from given join made using (id)`.execute(transaction)
  const runs = tasks.flatMap(({ id, scheduleKey }) => {
    const key = scheduleKeySchema.safeParse(scheduleKey === null ? null : tryJson(scheduleKey))
    if (!key.success || key.data[0] !== system) return []
    const [, component, kind, dueAt] = key.data
    return [{ component, kind, dueAt, id }]
  })
  await sql`
    insert into resus_control.schedule_runs as r (system, component, kind, due_at, task_id)
    select distinct on (component, kind) ${system}, component, kind, "dueAt", id
    from jsonb_to_recordset(${JSON.stringify(runs)}::jsonb) as g(component text, kind text, "dueAt" timestamptz, id uuid)
    order by component, kind, "dueAt" desc
    on conflict (system, component, kind) do update set due_at = excluded.due_at, task_id = excluded.task_id
    where r.due_at < excluded.due_at`.execute(transaction)
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    // A key of another version: its schedule is not known.
    return null
  }
}

/** One that was found again already goes on as the one that people were told of. */
async function insertAlarms(
  transaction: Transaction<Schema>,
  alarms: readonly Parsed<z.infer<typeof alarmBody>>[],
  { remindAfterMs, now }: RebuildOptions,
): Promise<void> {
  if (alarms.length === 0) return
  const given = sql`jsonb_to_recordset(${JSON.stringify(alarms)}::jsonb) as g(id uuid, key text, severity text, title text, text text, system text,
    component text, code text, count int, state text, "openedAt" timestamptz, "raisedAt" timestamptz, "clearedAt" timestamptz, "clearText" text,
    "toldAs" text[], "toldAt" timestamptz)`
  const reminder = sql`case when g."toldAt" is null then ${now}::timestamptz else g."toldAt" + ${remindAfterMs} * interval '1 ms' end`
  await sql`
    update resus_control.alarms a set told_as = g."toldAs", told_at = g."toldAt", opened_at = least(a.opened_at, g."openedAt"), due_at = ${reminder}
    from ${given} where a.key = g.key and a.state = 'open' and a.told_as = '{}' and g.state = 'open' and g."toldAs" <> '{}'
      and not exists (select from resus_control.alarms x where x.id = g.id)`.execute(transaction)
  await sql`
    insert into resus_control.alarms (id, key, severity, title, text, system, component, code, count, state, opened_at, raised_at, cleared_at, clear_text,
      told_as, told_at, due_at)
    select id, key, severity, title, text, system, component, code, count, state, "openedAt", "raisedAt", "clearedAt", "clearText", "toldAs", "toldAt",
      case state when 'open' then ${reminder} when 'recovering' then ${now}::timestamptz end
    from ${given} on conflict do nothing`.execute(transaction)
}

async function insertNotices(
  transaction: Transaction<Schema>,
  notices: readonly Parsed<z.infer<typeof noticeBody>>[],
): Promise<void> {
  if (notices.length === 0) return
  const rows = notices.map(({ id, kind, onceKey, madeAt, entries, deliveries }) => {
    const whole = entries.map((entry) => ({
      ...entry,
      key: '',
      audience: [entry.severity],
      hint: null,
      count: 1,
      openedAt: madeAt,
      clearedAt: null,
    }))
    const content = { id, kind, at: madeAt, entries: whole, lines: [], from: 'repository' }
    return { id, kind, onceKey, madeAt, alarmIds: entries.map(({ alarm }) => alarm), content, deliveries }
  })
  // Another system's repository has the entries of that system.
  await sql`
    insert into resus_control.notices as n (id, kind, once_key, made_at, alarm_ids, content)
    select id, kind, "onceKey", "madeAt", "alarmIds", content
    from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as g(id uuid, kind text, "onceKey" text, "madeAt" timestamptz, "alarmIds" uuid[], content jsonb)
    where not exists (select from resus_control.notices o where o.once_key = g."onceKey" and o.id <> g.id)
    on conflict (id) do update set
      alarm_ids = n.alarm_ids || array(select unnest(excluded.alarm_ids) except select unnest(n.alarm_ids)),
      content = jsonb_set(n.content, '{entries}', (n.content -> 'entries') || coalesce((
        select jsonb_agg(e) from jsonb_array_elements(excluded.content -> 'entries') e where not (e ->> 'alarm')::uuid = any (n.alarm_ids)), '[]'))
    where n.content ->> 'from' = 'repository'`.execute(transaction)
  const deliveries = rows.flatMap((row) => row.deliveries.map((delivery) => ({ ...delivery, id: row.id, madeAt: row.madeAt })))
  await sql`
    insert into resus_control.deliveries (notice_id, channel, severities, state, attempts, next_attempt_at, ended_at, outcome)
    select g.id, channel, severities, case state when 'waiting' then 'given-up' else state end, attempts, "madeAt",
      case state when 'waiting' then "madeAt" else "endedAt" end, case state when 'waiting' then ${LOST} else outcome end
    from jsonb_to_recordset(${JSON.stringify(deliveries)}::jsonb) as g(id uuid, channel text, severities text[], state text, attempts int,
      "madeAt" timestamptz, "endedAt" timestamptz, outcome text)
    join resus_control.notices n on n.id = g.id
    on conflict do nothing`.execute(transaction)
}

async function insertCompliance(
  transaction: Transaction<Schema>,
  hours: readonly Parsed<z.infer<typeof complianceBody>>[],
  { system }: RebuildOptions,
): Promise<void> {
  if (hours.length === 0) return
  const rows = hours.flatMap(({ component, hour, objectives }) => objectives.map((each) => ({ ...each, component, hour })))
  await sql`
    insert into resus_control.compliance_hours
      (system, component, objective, at, target, actual_least, actual_greatest, minutes_met, minutes_broken, minutes_not_proven)
    select ${system}, component, objective, hour, target, "actualLeast", "actualGreatest", "minutesMet", "minutesBroken", "minutesNotProven"
    from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as g(component text, objective text, hour timestamptz, target float8, "actualLeast" float8,
      "actualGreatest" float8, "minutesMet" int, "minutesBroken" int, "minutesNotProven" int)
    on conflict do nothing`.execute(transaction)
}
