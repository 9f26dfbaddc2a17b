import { sql, type Transaction } from 'kysely'
import type { AlarmRow } from './alarms.ts'
import type { DeliveryState, Schema, Severity } from './schema.ts'
import type { Store } from './store.ts'

// Statements about notices and deliveries. All times are the caller's.

export interface DeliveryPlan {
  readonly channel: string
  readonly severities: readonly Severity[]
  readonly state: DeliveryState
  readonly outcome: string | null
}

export interface NoticePlan {
  readonly id: string
  readonly kind: 'alarms' | 'digest'
  readonly onceKey: string | null
  readonly alarmIds: readonly string[]
  readonly content: unknown
  readonly deliveries: readonly DeliveryPlan[]
}

export interface ClaimedDelivery {
  readonly noticeId: string
  readonly channel: string
  readonly severities: readonly Severity[]
  readonly attempts: number
  readonly madeAt: Date
  readonly content: unknown
}

/** Of one notice at most; what is left goes into the next. */
const ALARMS_PER_NOTICE = 200
/** What there is to do: whether alarms are to be told, and on which of these channels something is due. */
export async function dueWork(
  store: Store,
  { now, channels }: { now: Date; channels: readonly string[] },
): Promise<{ alarms: boolean; channels: string[] }> {
  const { rows } = await sql<{ alarms: boolean; channels: string[] }>`
    select exists (select from resus_control.alarms where due_at <= ${now}) as alarms,
      array(select c from unnest(${channels}::text[]) c where exists (
        select from resus_control.deliveries where channel = c and state = 'waiting' and next_attempt_at <= ${now}
          and (claimed_until is null or claimed_until <= ${now}))) as channels`.execute(store.sql)
  return rows[0] ?? { alarms: false, channels: [] }
}

/**
 * Puts what is due about alarms, and what falls due until `horizon`, into one notice. Alarms, notice and deliveries change together or not at all; of two nodes
 * one does it.
 */
export async function makeNotice(
  store: Store,
  options: { now: Date; horizon: Date; remindAt: Date; compose: (alarms: readonly AlarmRow[]) => NoticePlan },
): Promise<void> {
  await store.sql.transaction().execute(async (transaction) => {
    const rows = await transaction
      .selectFrom('alarms')
      .selectAll()
      .where('due_at', '<=', options.horizon)
      .orderBy('opened_at')
      .orderBy('id')
      .limit(ALARMS_PER_NOTICE)
      .forUpdate()
      .execute()
    if (!rows.some(({ due_at }) => due_at !== null && due_at <= options.now)) return
    await insertPlan(transaction, options.compose(rows), options.now)
    const ids = rows.map(({ id }) => id)
    await sql`
      update resus_control.alarms set
        told_as = case when severity = any (told_as) then told_as else told_as || severity end,
        told_at = ${options.now},
        due_at = case when state = 'open' then ${options.remindAt}::timestamptz end,
        state = case when state = 'open' then 'open' else 'closed' end
      where id = any (${ids}::uuid[])`.execute(transaction)
  })
}

/** Writes a notice with its deliveries. False when there is one of its `onceKey` already. */
export async function insertNotice(store: Store, plan: NoticePlan, at: Date): Promise<boolean> {
  return await store.sql.transaction().execute(async (transaction) => await insertPlan(transaction, plan, at))
}

async function insertPlan(transaction: Transaction<Schema>, plan: NoticePlan, at: Date): Promise<boolean> {
  const inserted = await transaction
    .insertInto('notices')
    .values({
      id: plan.id,
      kind: plan.kind,
      once_key: plan.onceKey,
      made_at: at,
      alarm_ids: [...plan.alarmIds],
      content: JSON.stringify(plan.content),
    })
    .onConflict((conflict) => conflict.doNothing())
    .returning('id')
    .executeTakeFirst()
  if (inserted === undefined || plan.deliveries.length === 0) return inserted !== undefined
  const rows = plan.deliveries.map(({ channel, severities, state, outcome }) => ({
    notice_id: plan.id,
    channel,
    severities: [...severities],
    state,
    next_attempt_at: at,
    ended_at: state === 'waiting' ? null : at,
    outcome,
  }))
  await transaction.insertInto('deliveries').values(rows).execute()
  return true
}

export async function hasNotice(store: Store, onceKey: string): Promise<boolean> {
  const found = await store.sql.selectFrom('notices').select('id').where('once_key', '=', onceKey).executeTakeFirst()
  return found !== undefined
}

/**
 * The next delivery that is due on a channel, for one node at a time, which says within its lease what became of it. Never one about an alarm while
 * an earlier one about the same is still on its way on this channel: "over" comes behind "new".
 */
export async function claimDelivery(
  store: Store,
  { channel, node, now, until }: { channel: string; node: string; now: Date; until: Date },
): Promise<ClaimedDelivery | undefined> {
  const { rows } = await sql<ClaimedDelivery>`
    with next as (
      select d.notice_id from resus_control.deliveries d join resus_control.notices n on n.id = d.notice_id
      where d.channel = ${channel} and d.state = 'waiting' and d.next_attempt_at <= ${now}
        and (d.claimed_until is null or d.claimed_until <= ${now})
        and not exists (
          select from resus_control.deliveries e join resus_control.notices o on o.id = e.notice_id
          where e.channel = d.channel and e.state = 'waiting' and o.made_at < n.made_at and o.alarm_ids && n.alarm_ids)
      order by n.made_at, n.id limit 1
      for update of d skip locked
    )
    update resus_control.deliveries d set attempts = d.attempts + 1, claimed_by = ${node}, claimed_until = ${until}
    from next, resus_control.notices n
    where d.notice_id = next.notice_id and d.channel = ${channel} and n.id = d.notice_id
    returning d.notice_id as "noticeId", d.channel, d.severities, d.attempts, n.made_at as "madeAt", n.content`.execute(store.sql)
  return rows[0]
}

export interface DeliveryEnd {
  readonly state: DeliveryState
  readonly outcome: string
  readonly at: Date
  /** Of one that goes on waiting. */
  readonly nextAttemptAt: Date
}

/** Records what became of an attempt, unless another node has taken the delivery over. */
export async function recordAttempt(store: Store, delivery: ClaimedDelivery, end: DeliveryEnd): Promise<void> {
  await store.sql
    .updateTable('deliveries')
    .set({
      state: end.state,
      outcome: end.outcome,
      ended_at: end.state === 'waiting' ? null : end.at,
      next_attempt_at: end.nextAttemptAt,
      claimed_by: null,
      claimed_until: null,
    })
    .where('notice_id', '=', delivery.noticeId)
    .where('channel', '=', delivery.channel)
    .where('state', '=', 'waiting')
    .where('attempts', '=', delivery.attempts)
    .execute()
}

/** Gives up what nobody could deliver until now, also because no node has its channel any more. */
export async function giveUpDeliveries(store: Store, { madeBefore, now }: { madeBefore: Date; now: Date }): Promise<void> {
  await sql`
    update resus_control.deliveries d set state = 'given-up', ended_at = ${now},
      outcome = coalesce(d.outcome, 'no node has this channel'), claimed_by = null, claimed_until = null
    from resus_control.notices n
    where n.id = d.notice_id and d.state = 'waiting' and n.made_at < ${madeBefore}
      and (d.claimed_until is null or d.claimed_until <= ${now})`.execute(store.sql)
}

/** Forgets what is over for long. */
export async function forgetNotices(store: Store, before: Date): Promise<void> {
  await store.sql.deleteFrom('alarms').where('state', '=', 'closed').where('cleared_at', '<', before).execute()
  await store.sql.deleteFrom('notices').where('made_at', '<', before).execute()
}

export interface NoticeRow {
  readonly id: string
  readonly kind: 'alarms' | 'digest'
  readonly madeAt: Date
  readonly content: unknown
  readonly deliveries: readonly { channel: string; state: DeliveryState; attempts: number; outcome: string | null }[]
}

/** The newest notices first, and what became of each on its channels; `before` is the last one of the page before. */
export async function listNotices(
  store: Store,
  { limit, before }: { limit: number; before?: { madeAt: Date; id: string } },
): Promise<NoticeRow[]> {
  const behind = before === undefined ? sql`true` : sql`(n.made_at, n.id) < (${before.madeAt}, ${before.id}::uuid)`
  const { rows } = await sql<NoticeRow>`
    select n.id, n.kind, n.made_at as "madeAt", n.content,
      coalesce((select jsonb_agg(jsonb_build_object('channel', d.channel, 'state', d.state, 'attempts', d.attempts, 'outcome', d.outcome)
        order by d.channel) from resus_control.deliveries d where d.notice_id = n.id), '[]') as deliveries
    from resus_control.notices n where ${behind} order by n.made_at desc, n.id desc limit ${limit}`.execute(store.sql)
  return rows
}
