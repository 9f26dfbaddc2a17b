import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { Store } from '../../src/catalog/store.ts'
import { systemClock, type Clock } from '../../src/clock.ts'
import { alarmOf } from '../../src/incident/alarm-kinds.ts'
import type { Alarm } from '../../src/incident/alarm.ts'
import type { Entry, Message } from '../../src/incident/message.ts'
import { Notices, type NoticesOptions } from '../../src/incident/notices.ts'
import { testSecret } from './channels.ts'
import { testDatabase } from './store.ts'
import type { WebReceiver } from './web-receiver.ts'

const POLL_MS = 20
export const HOUR_MS = 3_600_000
/** As many rounds as are certainly enough for something that must not happen. */
export const LONG_ENOUGH_MS = 400

export class MovedClock implements Clock {
  offsetMs = 0
  now = () => Date.now() + this.offsetMs
  sleep = async (ms: number, signal?: AbortSignal) => systemClock.sleep(ms, signal)
}

export interface Sent extends Message {
  readonly subject: string
  readonly text: string
  readonly severity: string
}

export const alarm: Alarm = alarmOf('BACKUP_FAILED', { system: 'Osun HIS', component: 'his-db', text: 'the storage was full' })
export const other: Alarm = alarmOf('CERTIFICATE_EXPIRING', { system: 'Osun HIS', text: 'in 5 days' })

export function webhook(receiver: WebReceiver, settings: Record<string, unknown> = {}) {
  const secret = testSecret('hush')
  return { kind: 'webhook' as const, url: `http://127.0.0.1:${receiver.port}/hook`, secret, allowPrivate: true, ...settings }
}

const stacks = new WeakMap<TestContext, AsyncDisposableStack>()

/** Whatever is kept ends with the test, the last first: notices before their store. */
export function keep<Kept extends AsyncDisposable>(t: TestContext, kept: Kept): Kept {
  const stack = stacks.get(t) ?? new AsyncDisposableStack()
  if (!stacks.has(t)) t.after(async () => stack.disposeAsync())
  stacks.set(t, stack)
  return stack.use(kept)
}

export async function openStore(t: TestContext, connectionString?: string): Promise<Store> {
  return keep(t, await Store.open(connectionString ?? (await testDatabase())))
}

export function startNotices(t: TestContext, options: Partial<NoticesOptions> & Pick<NoticesOptions, 'channels'>): Notices {
  const errors: unknown[] = []
  keep(t, { [Symbol.asyncDispose]: async () => assert.deepEqual(errors, []) })
  const onError = (error: unknown) => errors.push(error)
  return keep(t, Notices.start({ node: 'node-1', clock: systemClock, groupMs: 100, pollMs: POLL_MS, onError, ...options }))
}

export function sentTo(receiver: WebReceiver): Sent[] {
  return receiver.calls.map(({ body }) => JSON.parse(body) as Sent)
}

export function events(message: Message | undefined): string[] {
  return (message?.entries ?? []).map(({ event, key }: Entry) => `${event} ${key}`)
}
