import { sql, type Selectable } from 'kysely'
import type { AlarmsTable, Severity } from './schema.ts'
import type { Store } from './store.ts'

// Statements about alarms. All times are the caller's.

export type AlarmRow = Selectable<AlarmsTable>

export interface RaisedAlarm {
  readonly id: string
  readonly key: string
  readonly severity: Severity
  readonly title: string
  readonly text: string
  readonly system: string
  readonly component: string | null
  readonly code: string | null
  readonly count: number
  readonly openedAt: Date
  readonly raisedAt: Date
  /** When people are to be told, if they were not. */
  readonly dueAt: Date
  readonly toldAt: Date | null
  readonly remindAfterMs: number
}

const OPEN_ALARMS_MAX = 10_000

/** Opens an alarm, or says again that it is so; one that was just over is open again, without anybody being told of either. */
export async function raiseAlarm(store: Store, alarm: RaisedAlarm): Promise<void> {
  const told = alarm.toldAt === null ? [] : [alarm.severity]
  const dueAt = alarm.toldAt === null ? alarm.dueAt : new Date(alarm.toldAt.getTime() + alarm.remindAfterMs)
  await sql`
    insert into resus_control.alarms as a
      (id, key, severity, title, text, system, component, code, count, state, opened_at, raised_at, told_as, told_at, due_at)
    values (${alarm.id}, ${alarm.key}, ${alarm.severity}, ${alarm.title}, ${alarm.text}, ${alarm.system}, ${alarm.component},
      ${alarm.code}, ${alarm.count}, 'open', ${alarm.openedAt}, ${alarm.raisedAt}, ${told}, ${alarm.toldAt}, ${dueAt})
    on conflict (key) where state <> 'closed' do update set
      severity = ${WORST},
      title = excluded.title,
      text = excluded.text,
      code = excluded.code,
      count = a.count + excluded.count,
      state = 'open',
      raised_at = excluded.raised_at,
      cleared_at = null,
      clear_text = null,
      told_as = a.told_as || excluded.told_as,
      told_at = greatest(a.told_at, excluded.told_at),
      due_at = case
        when not (${WORST} = any (a.told_as || excluded.told_as)) then least(a.due_at, excluded.due_at)
        when a.state = 'recovering' or excluded.told_at is not null
          then greatest(a.told_at, excluded.told_at) + ${alarm.remindAfterMs} * interval '1 ms'
        else a.due_at
      end`.execute(store.sql)
}

const WORST = sql`case
  when array_position(array['info', 'warning', 'alarm'], excluded.severity) > array_position(array['info', 'warning', 'alarm'], a.severity)
  then excluded.severity else a.severity end`

/** Says that it is over: quietly when nobody was told that it was so. Does nothing where it is not open. */
export async function clearAlarm(
  store: Store,
  { key, at, dueAt, text }: { key: string; at: Date; dueAt: Date; text: string | null },
): Promise<void> {
  await sql`
    update resus_control.alarms set
      state = case when told_as = '{}' then 'closed' else 'recovering' end,
      due_at = case when told_as = '{}' then null else ${dueAt}::timestamptz end,
      cleared_at = ${at}, clear_text = ${text}
    where key = ${key} and state = 'open'`.execute(store.sql)
}

/** What is wrong now, oldest first; 10 000 at most. */
export async function listOpenAlarms(store: Store): Promise<AlarmRow[]> {
  return await store.sql
    .selectFrom('alarms')
    .selectAll()
    .where('state', '=', 'open')
    .orderBy('opened_at')
    .orderBy('id')
    .limit(OPEN_ALARMS_MAX)
    .execute()
}

/** The same, by their keys. */
export async function listOpenKeys(store: Store): Promise<Pick<AlarmRow, 'key' | 'code'>[]> {
  return await store.sql
    .selectFrom('alarms')
    .select(['key', 'code'])
    .where('state', '=', 'open')
    .orderBy('opened_at')
    .orderBy('id')
    .limit(OPEN_ALARMS_MAX)
    .execute()
}
