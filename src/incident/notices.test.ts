import assert from 'node:assert/strict'
import test, { after } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { testChannels } from '../../test/services/channels.ts'
import {
  alarm,
  events,
  HOUR_MS,
  LONG_ENOUGH_MS,
  MovedClock,
  openStore,
  other,
  sentTo,
  startNotices,
  webhook,
} from '../../test/services/notices.ts'
import { reply, testMailServer } from '../../test/services/smtp.ts'
import { stopTestStore, testDatabase } from '../../test/services/store.ts'
import { waitUntil } from '../../test/services/wait-until.ts'
import { webReceiver } from '../../test/services/web-receiver.ts'
import type { Notices } from './notices.ts'

after(stopTestStore)

test('an alarm is told once however often it is raised, and its end once', async (t) => {
  const store = await openStore(t)
  const receiver = await webReceiver(t)
  const notices = startNotices(t, { store, channels: testChannels({ hook: webhook(receiver) }) })
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

test('what opens and ends before anybody was told is never told', async (t) => {
  const store = await openStore(t)
  const receiver = await webReceiver(t)
  const clock = new MovedClock()
  const notices = startNotices(t, { store, clock, groupMs: HOUR_MS, channels: testChannels({ hook: webhook(receiver) }) })
  await notices.raise(alarm)
  await notices.clear(alarm.key)
  await notices.raise(other)
  clock.offsetMs = 2 * HOUR_MS
  await waitUntil('the other one came', () => receiver.calls.length === 1)
  await delay(LONG_ENOUGH_MS)
  assert.deepEqual(sentTo(receiver).map(events), [[`opened ${other.key}`]])
})

test('what opens close together goes out as one notice, and each channel gets what concerns it', async (t) => {
  const store = await openStore(t)
  const [all, alarmsOnly, infoOnly] = [await webReceiver(t), await webReceiver(t), await webReceiver(t)]
  const clock = new MovedClock()
  const channels = testChannels({
    all: webhook(all),
    alarms: webhook(alarmsOnly, { severities: ['alarm'] }),
    info: webhook(infoOnly, { severities: ['info'] }),
  })
  const notices = startNotices(t, { store, clock, groupMs: HOUR_MS, channels })
  await notices.raise(alarm)
  clock.offsetMs = HOUR_MS / 2
  await notices.raise(other)
  await delay(LONG_ENOUGH_MS)
  assert.equal(all.calls.length, 0)
  clock.offsetMs = HOUR_MS + 1_000
  await waitUntil('both channels have it', () => all.calls.length === 1 && alarmsOnly.calls.length === 1)
  await delay(LONG_ENOUGH_MS)
  assert.deepEqual(sentTo(all).map(events), [[`opened ${alarm.key}`, `opened ${other.key}`]])
  assert.equal(sentTo(all)[0]?.subject, '[alarm] Osun HIS / his-db: A backup failed (and 1 more)')
  assert.deepEqual(sentTo(alarmsOnly).map(events), [[`opened ${alarm.key}`]])
  assert.deepEqual(infoOnly.calls, [])
})

test('what is still so after a day is told again, and what became worse at once', async (t) => {
  const store = await openStore(t)
  const receiver = await webReceiver(t)
  const alarmsOnly = await webReceiver(t)
  const clock = new MovedClock()
  const channels = testChannels({ all: webhook(receiver), alarms: webhook(alarmsOnly, { severities: ['alarm'] }) })
  const notices = startNotices(t, { store, clock, channels })
  await notices.raise(other)
  await waitUntil('it came', () => receiver.calls.length === 1)
  clock.offsetMs = 23 * HOUR_MS
  await delay(LONG_ENOUGH_MS)
  assert.equal(receiver.calls.length, 1)
  clock.offsetMs = 24 * HOUR_MS + 60_000
  await waitUntil('the reminder came', () => receiver.calls.length === 2)
  await notices.raise({ ...other, severity: 'alarm' })
  await waitUntil('the worse came', () => receiver.calls.length === 3 && alarmsOnly.calls.length === 1)
  await notices.raise(other)
  await notices.clear(other.key)
  await waitUntil('the end came', () => receiver.calls.length === 4 && alarmsOnly.calls.length === 2)
  const told = ['opened', 'reminder', 'worse', 'recovered'].map((event) => [`${event} ${other.key}`])
  assert.deepEqual(sentTo(receiver).map(events), told)
  assert.deepEqual(sentTo(alarmsOnly).map(events), told.slice(2))
})

test('what is so again before its end was told is neither new nor over', async (t) => {
  const store = await openStore(t)
  const receiver = await webReceiver(t)
  const clock = new MovedClock()
  const notices = startNotices(t, { store, clock, groupMs: HOUR_MS, channels: testChannels({ hook: webhook(receiver) }) })
  await notices.raise(alarm)
  clock.offsetMs = HOUR_MS + 1_000
  await waitUntil('it came', () => receiver.calls.length === 1)
  await notices.clear(alarm.key)
  await notices.raise(alarm)
  clock.offsetMs = 4 * HOUR_MS
  await delay(LONG_ENOUGH_MS)
  assert.equal(receiver.calls.length, 1)
  assert.deepEqual(
    (await notices.openAlarms()).map(({ count }) => count),
    [2],
  )
})

test('a dead channel keeps nothing from the others, is told there, and gets everything in order when it is back', async (t) => {
  const store = await openStore(t)
  const [good, dead] = [await webReceiver(t), await webReceiver(t)]
  dead.answer = (response) => response.writeHead(503).end()
  const clock = new MovedClock()
  const tries: string[] = []
  const channels = testChannels({ good: webhook(good), dead: webhook(dead) })
  const notices = startNotices(t, { store, clock, channels, onDelivery: ({ channel }) => tries.push(channel) })
  /** When the next try is due is then reckoned from an hour that has not moved on. */
  const isRecorded = () => tries.filter((channel) => channel === 'dead').length === dead.calls.length
  await notices.raise(alarm)
  await waitUntil('both were tried', () => good.calls.length === 1 && dead.calls.length === 1 && isRecorded())
  await notices.clear(alarm.key)
  await waitUntil('the end came on the good one', () => good.calls.length === 2)
  for (let hour = 1; hour <= 4; hour += 1) {
    clock.offsetMs = hour * HOUR_MS
    await waitUntil('it was tried again', () => dead.calls.length >= 1 + hour && isRecorded())
  }
  await waitUntil('the good one knows', () => good.calls.length === 3)
  assert.match(
    sentTo(good)[2]?.text ?? '',
    /Notices do not get through on a channel\nthe channel "dead": the receiver replied HTTP 503/,
  )
  assert.ok(!sentTo(dead).flatMap(events).includes(`recovered ${alarm.key}`), 'the end waits until its beginning is through')
  await waitUntil('nothing is on its way', isRecorded)
  dead.answer = (response) => response.end()
  const tried = dead.calls.length
  clock.offsetMs = 6 * HOUR_MS
  await waitUntil('both are told that it works again', () => sentTo(good).length === 4)
  await waitUntil('the dead one has all', () =>
    events(sentTo(dead).at(-1)).some((event) => event.startsWith('recovered CHANNEL_FAILED')),
  )
  const late = sentTo(dead).slice(tried).flatMap(events)
  assert.ok(late.indexOf(`opened ${alarm.key}`) < late.indexOf(`recovered ${alarm.key}`), late.join())
  assert.deepEqual(
    late.filter((event) => event.endsWith(alarm.key)),
    [`opened ${alarm.key}`, `recovered ${alarm.key}`],
  )
})

test('a delivery is given up after a day, and this is on record', async (t) => {
  const store = await openStore(t)
  const dead = await webReceiver(t)
  dead.answer = (response) => response.writeHead(404).end()
  const clock = new MovedClock()
  let tries = 0
  const notices = startNotices(t, {
    store,
    clock,
    remindAfterMs: 1_000 * HOUR_MS,
    channels: testChannels({ dead: webhook(dead) }),
    onDelivery: () => (tries += 1),
  })
  await notices.raise(alarm)
  await waitUntil('it was tried', () => tries > 0)
  clock.offsetMs = 23 * HOUR_MS + 50 * 60_000
  await waitUntil('it was given up', async () => {
    const all = await notices.recent({ limit: 100 })
    return all.at(-1)?.deliveries[0]?.state === 'given-up'
  })
  const [delivery] = (await notices.recent({ limit: 100 })).at(-1)?.deliveries ?? []
  assert.equal(delivery?.outcome, 'the receiver replied HTTP 404')
  assert.equal(delivery?.attempts, 2)
})

test('of two nodes on one store one sends each notice, and each digest', async (t) => {
  const connectionString = await testDatabase()
  const receiver = await webReceiver(t)
  const channels = testChannels({ hook: webhook(receiver, { digest: true }), more: webhook(receiver) })
  let asked = 0
  const lines = async () => {
    asked += 1
    // Both have seen that there is none yet.
    await waitUntil('both nodes make the digest', () => asked === 2)
    return ['12 backups, all proven']
  }
  const digest = { at: '00:00', timeZone: 'Africa/Lagos', lines }
  const nodes: Notices[] = []
  for (const node of ['node-1', 'node-2']) {
    nodes.push(startNotices(t, { store: await openStore(t, connectionString), node, channels, digest }))
  }
  const alarms = Array.from({ length: 20 }, (_, index) => ({ ...alarm, key: `a${index}` }))
  await Promise.all(alarms.map(async (each, index) => nodes[index % 2]?.raise(each)))
  await delay(LONG_ENOUGH_MS)
  await Promise.all(alarms.map(async (each, index) => nodes[(index + 1) % 2]?.clear(each.key)))
  await waitUntil(
    'all is over on both channels',
    () =>
      sentTo(receiver)
        .flatMap(events)
        .filter((event) => event.startsWith('recovered')).length === 40,
  )
  await waitUntil('the digest came', () => sentTo(receiver).some(({ kind }) => kind === 'digest'))
  await delay(LONG_ENOUGH_MS)
  const told = sentTo(receiver).flatMap(events).toSorted()
  const wanted = alarms
    .flatMap(({ key }) => [`opened ${key}`, `opened ${key}`, `recovered ${key}`, `recovered ${key}`])
    .toSorted()
  assert.deepEqual(told, wanted)
  const digests = sentTo(receiver).filter(({ kind }) => kind === 'digest')
  assert.deepEqual(
    digests.map((each) => each.lines),
    [['12 backups, all proven']],
  )
})

test('a digest goes out once a day, also by a process that was down at its time', async (t) => {
  const store = await openStore(t)
  const receiver = await webReceiver(t)
  const clock = new MovedClock()
  let asked = 0
  const options = {
    store,
    clock,
    channels: testChannels({ hook: webhook(receiver, { digest: true }), none: webhook(receiver) }),
    digest: { at: '00:00', timeZone: 'UTC', lines: async () => [`figures ${(asked += 1)}`] },
  }
  const first = startNotices(t, options)
  await waitUntil('it came, and is on record', async () => {
    const [notice] = await first.recent({ limit: 1 })
    return notice?.deliveries[0]?.state === 'sent'
  })
  await first[Symbol.asyncDispose]()
  startNotices(t, options)
  await delay(LONG_ENOUGH_MS * 4)
  assert.equal(receiver.calls.length, 1)
  clock.offsetMs = 24 * HOUR_MS
  await waitUntil('the next one came', () => receiver.calls.length === 2)
  assert.deepEqual(
    sentTo(receiver).map(({ lines }) => lines),
    [['figures 1'], ['figures 2']],
  )
})

test('a test message is marked, goes out at once, and its outcome is in words', async (t) => {
  const store = await openStore(t)
  const receiver = await webReceiver(t)
  const notices = startNotices(t, { store, channels: testChannels({ hook: webhook(receiver) }) })
  assert.deepEqual(await notices.testChannel('hook'), { delivered: true, words: 'HTTP 200' })
  assert.equal(sentTo(receiver)[0]?.kind, 'test')
  assert.match(sentTo(receiver)[0]?.text ?? '', /This is a test of the channel "hook". Nothing is wrong/)
  receiver.answer = (response) => response.writeHead(401).end('the secret of the inside')
  const { delivered, words } = await notices.testChannel('hook')
  assert.equal(delivered, false)
  assert.match(words, /^the receiver replied HTTP 401; /)
  assert.doesNotMatch(words, /inside/)
  await assert.rejects(notices.testChannel('none'), { code: 'CHANNEL_UNKNOWN', hint: 'there are "hook"' })
})

test('a mail that the server puts off comes later with the same id', async (t) => {
  const store = await openStore(t)
  const tried: string[] = []
  const onMail = ({ raw }: { raw: string }) => {
    tried.push(/^Message-ID: (.*)\r$/m.exec(raw)?.[1] ?? '')
    if (tried.length < 3) throw reply(451, 'greylisted, come back')
  }
  const server = await testMailServer(t, { onMail, disabledCommands: ['STARTTLS'] })
  const smtp = { host: '127.0.0.1', port: server.port, tls: 'none' as const }
  const channels = testChannels({
    mail: { kind: 'email', to: ['oncall@hospital.example'], from: 'resus@hospital.example', smtp },
  })
  const clock = new MovedClock()
  const outcomes: string[] = []
  const notices = startNotices(t, { store, clock, channels, onDelivery: ({ outcome }) => outcomes.push(outcome) })
  await notices.raise(alarm)
  for (const times of [1, 2]) {
    await waitUntil('it was put off', () => outcomes.length === times)
    clock.offsetMs += 60_000
  }
  await waitUntil('it came', () => server.mails.length === 1 && outcomes.length === 3)
  assert.equal(new Set(tried).size, 1)
  assert.match(outcomes.join(' | '), /451 greylisted, come back \| .*451 greylisted, come back \| 250 /)
})
