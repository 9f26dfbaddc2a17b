import assert from 'node:assert/strict'
import type { Severity } from '../catalog/schema.ts'
import { cleanText, oneLine } from './message.ts'

const KEY_CHARACTERS = 1_000
const TITLE_CHARACTERS = 200
const TEXT_CHARACTERS = 4_000
const NAME_CHARACTERS = 200

/** Something is wrong. No secret is in any part of it. */
export interface Alarm {
  /** Of what is the same whenever it is raised, and of nothing else. */
  readonly key: string
  readonly severity: Severity
  readonly title: string
  readonly text: string
  readonly system: string
  readonly component?: string
  /** A name of `ALARM_KINDS`, which adds what to do, or another. */
  readonly code?: string
}

/** The same, fit for rows and messages: names and texts may come from outside. */
export function cleanAlarm(alarm: Alarm): Alarm {
  assert(alarm.key !== '' && alarm.key.length <= KEY_CHARACTERS, 'an alarm has a key')
  return {
    key: cleanKey(alarm.key),
    severity: alarm.severity,
    title: oneLine(alarm.title, TITLE_CHARACTERS),
    text: cleanText(alarm.text, TEXT_CHARACTERS),
    system: oneLine(alarm.system, NAME_CHARACTERS),
    ...(alarm.component === undefined ? {} : { component: oneLine(alarm.component, NAME_CHARACTERS) }),
    ...(alarm.code === undefined ? {} : { code: oneLine(alarm.code, NAME_CHARACTERS) }),
  }
}

export function cleanKey(key: string): string {
  return oneLine(key, KEY_CHARACTERS)
}

export function cleanClearText(text: string | undefined): string | null {
  return text === undefined ? null : cleanText(text, TEXT_CHARACTERS)
}
