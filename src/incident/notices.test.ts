import assert from 'node:assert/strict'
import test, { after, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { testChannels, testSecret } from '../../test/services/channels.ts'
import { stopTestStore, testStore } from '../../test/services/store.ts'
import { waitUntil } from '../../test/services/wait-until.ts'
import { webReceiver, type WebReceiver } from '../../test/services/web-receiver.ts'
import { systemClock } from '../clock.ts'
import type { Alarm } from './alarm.ts'
import { alarmOf } from './alarm-kinds.ts'
import type { Entry, Message } from './message.ts'
import { Notices, type NoticesOptions } from './notices.ts'

after(stopTestStore)

const POLL_MS = 20
/** As many rounds as are certainly enough for something that must not happen. */
const LONG_ENOUGH_MS = 400

interface Sent extends Message {
  readonly subject: string
  readonly text: string
  readonly severity: string
}

const alarm: Alarm = alarmOf('BACKUP_FAILED', { system: 'Osun HIS', component: 'his-db', text: 'the storage was full' })

function webhook(receiver: WebReceiver, settings: Record<string, unknown> = {}) {
  const secret = testSecret('hush')
  return { kind: 'webhook' as const, url: `http://127.0.0.1:${receiver.port}/hook`, secret, allowPrivate: true, ...settings }
}

function start(t: TestContext, options: Partial<NoticesOptions> & Pick<NoticesOptions, 'channels'>): Notices {
  const errors: unknown[] = []
  const notices = Notices.start({
    node: 'node-1',
    clock: systemClock,
    groupMs: 100,
    pollMs: POLL_MS,
    onError: (error) => errors.push(error),
    ...options,
  })
  t.after(async () => {
    await notices[Symbol.asyncDispose]()
    assert.deepEqual(errors, [])
  })
  return notices
}

function sentTo(receiver: WebReceiver): Sent[] {
  return receiver.calls.map(({ body }) => JSON.parse(body) as Sent)
}

function events(message: Message | undefined): string[] {
  return (message?.entries ?? []).map(({ event, key }: Entry) => `${event} ${key}`)
}

test('an alarm is told once however often it is raised, and its end once', async (t) => {
  const store = await testStore(t)
  const receiver = await webReceiver(t)
  const notices = start(t, { store, channels: testChannels({ hook: webhook(receiver) }) })
  for (let times = 0; times < 3; times += 1) assert.equal(await notices.raise(alarm), 'kept')
  await waitUntil('the notice came', () => receiver.calls.length === 1)
  await notices.raise({ ...alarm, text: 'it was full again' })
  await delay(LONG_ENOUGH_MS)
  assert.equal(receiver.calls.length, 1)
  const [open] = await notices.openAlarms()
  assert.deepEqual([open?.count, open?.text], [4, 'it was full again'])

  await notices.clear(alarm.key, 'a backup was taken')
  await waitUntil('its end came', () => receiver.calls.length === 2)
  await notices.clear(alarm.key)
  await delay(LONG_ENOUGH_MS)
  const [first, second, ...more] = sentTo(receiver)
  assert.deepEqual(more, [])
  assert.deepEqual(events(first), [`opened ${alarm.key}`])
  assert.equal(first?.subject, '[alarm] Osun HIS / his-db: A backup failed')
  assert.match(first?.text ?? '', /the storage was full\nWhat to do: read the log of the job/)
  assert.deepEqual(events(second), [`recovered ${alarm.key}`])
  assert.equal(second?.subject, '[over] Osun HIS / his-db: A backup failed')
  assert.match(second?.text ?? '', /a backup was taken/)
  assert.notEqual(first?.id, second?.id)
  assert.deepEqual(await notices.openAlarms(), [])
  const [newest, oldest] = await notices.recent({ limit: 10 })
  assert.deepEqual([newest?.id, oldest?.id], [second?.id, first?.id])
  assert.deepEqual(newest?.deliveries, [{ channel: 'hook', state: 'sent', attempts: 1, outcome: 'HTTP 200' }])
})
