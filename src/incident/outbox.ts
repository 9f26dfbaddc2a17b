import { randomUUID } from 'node:crypto'
import type { AlarmRow } from '../catalog/alarms.ts'
import type { DeliveryPlan, NoticePlan } from '../catalog/notices.ts'
import type { Severity } from '../catalog/schema.ts'
import { hintOf } from './alarm-kinds.ts'
import { concerns, type Channel } from './channel.ts'
import type { HeldAlarm } from './held-alarms.ts'
import type { Entry, EntryEvent, Message } from './message.ts'

// Which notice goes where: computed from rows, and written before anything is sent.

/** The notice about these alarms, and its way to each channel that it concerns. */
export function noticeOf(alarms: readonly AlarmRow[], channels: readonly Channel[], at: Date): NoticePlan {
  return planOf(alarms.map(entryOf), channels, at)
}

/** The same about alarms that the store does not know of. */
export function noticeOfHeld(held: readonly HeldAlarm[], channels: readonly Channel[], at: Date): NoticePlan {
  return planOf(
    held.flatMap((each) => heldEntries(each)),
    channels,
    at,
  )
}

function planOf(entries: readonly Entry[], channels: readonly Channel[], at: Date): NoticePlan {
  const id = randomUUID()
  const message: Message = { id, kind: 'alarms', at: at.toISOString(), entries, lines: [] }
  const deliveries = channels.filter((channel) => entries.some(({ audience }) => concerns(channel, audience))).map(deliveryTo)
  return { id, kind: 'alarms', onceKey: null, alarmIds: entries.map(({ alarm }) => alarm), content: message, deliveries }
}

/** The digest of a day. */
export function digestOf(
  { date, lines, at }: { date: string; lines: readonly string[]; at: Date },
  channels: readonly Channel[],
): NoticePlan {
  const id = randomUUID()
  const message: Message = { id, kind: 'digest', at: at.toISOString(), entries: [], lines }
  const deliveries = channels.filter(({ digest }) => digest).map(deliveryTo)
  return { id, kind: 'digest', onceKey: digestKey(date), alarmIds: [], content: message, deliveries }
}

export function digestKey(date: string): string {
  return `digest ${date}`
}

function deliveryTo({ name, severities }: Channel): DeliveryPlan {
  return { channel: name, severities, state: 'waiting', outcome: null }
}

/** What a channel is sent of a message: the entries that concern it. */
export function messageFor(content: unknown, severities: readonly Severity[]): Message {
  // Our own, as `planOf` and `digestOf` made it.
  const message = content as Message
  return { ...message, entries: message.entries.filter(({ audience }) => concerns({ severities: [...severities] }, audience)) }
}

function entryOf(row: AlarmRow): Entry {
  const isOver = row.state === 'recovering'
  return {
    event: eventOf(row),
    alarm: row.id,
    key: row.key,
    severity: row.severity,
    audience: [...new Set([...row.told_as, row.severity])],
    title: row.title,
    text: isOver ? (row.clear_text ?? row.text) : row.text,
    hint: hintOf(row.code),
    system: row.system,
    component: row.component,
    code: row.code,
    count: row.count,
    openedAt: row.opened_at.toISOString(),
    clearedAt: isOver ? (row.cleared_at?.toISOString() ?? null) : null,
  }
}

function eventOf({ state, told_as, severity }: AlarmRow): EntryEvent {
  if (state === 'recovering') return 'recovered'
  if (told_as.length === 0) return 'opened'
  return told_as.includes(severity) ? 'reminder' : 'worse'
}

function heldEntries({ raised }: HeldAlarm): Entry[] {
  if (raised === undefined) return []
  const { alarm, id, count, firstAt } = raised
  const code = alarm.code ?? null
  return [
    {
      event: 'opened',
      alarm: id,
      key: alarm.key,
      severity: alarm.severity,
      audience: [alarm.severity],
      title: alarm.title,
      text: alarm.text,
      hint: hintOf(code),
      system: alarm.system,
      component: alarm.component ?? null,
      code,
      count,
      openedAt: new Date(firstAt).toISOString(),
      clearedAt: null,
    },
  ]
}
