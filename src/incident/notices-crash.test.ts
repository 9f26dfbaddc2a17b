import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import test, { after, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { testChannels } from '../../test/services/channels.ts'
import {
  alarm,
  events,
  LONG_ENOUGH_MS,
  MovedClock,
  openStore,
  other,
  sentTo,
  startNotices,
  webhook,
} from '../../test/services/notices.ts'
import { storeProxy } from '../../test/services/store-proxy.ts'
import { stopTestStore, testDatabase } from '../../test/services/store.ts'
import { waitUntil } from '../../test/services/wait-until.ts'
import { webReceiver, type WebReceiver } from '../../test/services/web-receiver.ts'
import { systemClock } from '../clock.ts'
import { Notices } from './notices.ts'

after(stopTestStore)

const PROCESS = fileURLToPath(new URL('../../test/services/notices-process.ts', import.meta.url))
const MINUTE_MS = 60_000

/** A process that has raised an alarm; the caller kills it. */
async function doomed(t: TestContext, options: { connectionString: string; receiver: WebReceiver; groupMs: number }) {
  const url = `http://127.0.0.1:${options.receiver.port}/hook`
  const child = spawn(process.execPath, [PROCESS, options.connectionString, url, String(options.groupMs)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => child.kill('SIGKILL'))
  const [said] = (await once(child.stdout, 'data')) as [Buffer]
  assert.equal(said.toString(), 'kept\n')
  return {
    kill: async () => {
      child.kill('SIGKILL')
      await once(child, 'exit')
    },
  }
}

test('an alarm that was raised and not sent when the process was killed is sent by the next', async (t) => {
  const connectionString = await testDatabase()
  const receiver = await webReceiver(t)
  const process = await doomed(t, { connectionString, receiver, groupMs: MINUTE_MS })
  await process.kill()
  assert.deepEqual(receiver.calls, [])
  const clock = new MovedClock()
  clock.offsetMs = 2 * MINUTE_MS
  startNotices(t, { store: await openStore(t, connectionString), clock, channels: testChannels({ hook: webhook(receiver) }) })
  await waitUntil('the notice came', () => receiver.calls.length === 1)
  assert.deepEqual(sentTo(receiver).flatMap(events), ['opened BACKUP_FAILED | Osun HIS | -'])
})

test('a notice on its way when the process was killed comes again with the same id, once its lease is over', async (t) => {
  const connectionString = await testDatabase()
  const receiver = await webReceiver(t)
  receiver.answer = () => undefined
  const process = await doomed(t, { connectionString, receiver, groupMs: 0 })
  await waitUntil('it is on its way', () => receiver.calls.length === 1)
  await process.kill()
  receiver.answer = (response) => response.end()
  const clock = new MovedClock()
  startNotices(t, { store: await openStore(t, connectionString), clock, channels: testChannels({ hook: webhook(receiver) }) })
  await delay(LONG_ENOUGH_MS)
  assert.equal(receiver.calls.length, 1, 'the lease still holds')
  clock.offsetMs = 2 * MINUTE_MS
  await waitUntil('it came again', () => receiver.calls.length === 2)
  await delay(LONG_ENOUGH_MS)
  const [first, second, ...more] = sentTo(receiver)
  assert.deepEqual(more, [])
  assert.equal(first?.id, second?.id)
})

test('what is on its way when the process is told to end is sent by the next at once', async (t) => {
  const connectionString = await testDatabase()
  const receiver = await webReceiver(t)
  receiver.answer = () => undefined
  const channels = testChannels({ hook: webhook(receiver) })
  const first = startNotices(t, { store: await openStore(t, connectionString), channels })
  await first.raise(alarm)
  await waitUntil('it is on its way', () => receiver.calls.length === 1)
  await first[Symbol.asyncDispose]()
  const [notice] = await first.recent({ limit: 1 })
  assert.deepEqual(notice?.deliveries, [{ channel: 'hook', state: 'waiting', attempts: 1, outcome: 'interrupted' }])
  receiver.answer = (response) => response.end()
  startNotices(t, { store: await openStore(t, connectionString), channels })
  await waitUntil('it came', () => receiver.calls.length === 2)
  assert.equal(sentTo(receiver)[0]?.id, sentTo(receiver)[1]?.id)
})

test('a notice that came while the store went away does not come again when it is back', async (t) => {
  const proxy = await storeProxy(t, await testDatabase())
  const receiver = await webReceiver(t)
  const store = await openStore(t, proxy.connectionString)
  const clock = new MovedClock()
  const notices = startNotices(t, { store, clock, channels: testChannels({ hook: webhook(receiver) }), storeTimeoutMs: 300 })
  receiver.answer = (response) => {
    proxy.behave('refuse')
    response.end()
  }
  await notices.raise(alarm)
  await waitUntil('it came', () => receiver.calls.length === 1)
  // Until its lease is long over.
  clock.offsetMs = 10 * MINUTE_MS
  await delay(LONG_ENOUGH_MS)
  proxy.behave('pass')
  await waitUntil('it is on record', async () => {
    const [notice] = await notices.recent({ limit: 1 }).catch(() => [])
    return notice?.deliveries[0]?.state === 'sent'
  })
  await delay(LONG_ENOUGH_MS)
  assert.equal(receiver.calls.length, 1)
})

for (const manner of ['refuse', 'stall'] as const) {
  test(`alarms go out without the store when it does ${manner}, once, and are written down when it is back`, async (t) => {
    const proxy = await storeProxy(t, await testDatabase())
    const [told, untold, dead] = [await webReceiver(t), await webReceiver(t), await webReceiver(t)]
    const channels = testChannels({
      told: webhook(told),
      untold: webhook(untold, { withoutStore: false }),
      dead: webhook(dead),
    })
    const store = await openStore(t, proxy.connectionString)
    const clock = new MovedClock()
    const notices = startNotices(t, { store, clock, channels, storeTimeoutMs: 300 })
    await notices.raise(other)
    await waitUntil(
      'it came with the store',
      () => told.calls.length === 1 && untold.calls.length === 1 && dead.calls.length === 1,
    )

    dead.answer = (response) => response.writeHead(500).end()
    proxy.behave(manner)
    assert.equal(await notices.raise(alarm), 'held')
    assert.equal(await notices.raise(other), 'held')
    assert.equal(await notices.raise({ ...alarm, key: 'short' }), 'held')
    assert.equal(await notices.clear('short'), 'held')
    assert.equal(await notices.raise(alarm), 'held')
    await delay(LONG_ENOUGH_MS)
    assert.equal(told.calls.length, 1)
    clock.offsetMs = MINUTE_MS
    await waitUntil('it came without the store', () => told.calls.length === 2 && dead.calls.length === 2)
    await delay(LONG_ENOUGH_MS)
    assert.deepEqual(sentTo(told).slice(1).flatMap(events), [`opened ${alarm.key}`])
    assert.equal(untold.calls.length, 1)
    await assert.rejects(notices.openAlarms(), { code: 'STORE_UNREACHABLE' })

    proxy.behave('pass')
    dead.answer = (response) => response.end()
    await waitUntil('the others got it too', () => untold.calls.length === 2 && dead.calls.length === 3)
    await waitUntil('the store takes alarms', async () => (await notices.raise(alarm)) === 'kept')
    await notices.clear(alarm.key)
    await waitUntil('all know that it is over', () =>
      [told, untold, dead].every((each) => events(sentTo(each).at(-1))[0]?.startsWith('recovered')),
    )
    assert.deepEqual(sentTo(told).slice(1).flatMap(events), [`opened ${alarm.key}`, `recovered ${alarm.key}`])
    assert.deepEqual(sentTo(untold).slice(1).flatMap(events), [`opened ${alarm.key}`, `recovered ${alarm.key}`])
    assert.equal(sentTo(told)[1]?.id, sentTo(untold)[1]?.id)
    assert.equal(sentTo(told)[1]?.id, sentTo(dead)[2]?.id)
    assert.deepEqual(
      (await notices.openAlarms()).map(({ key }) => key),
      [other.key],
    )
  })
}

test('alarms go out although there never was a store, and one that comes later has them', async (t) => {
  const receiver = await webReceiver(t)
  const notices = startNotices(t, { channels: testChannels({ hook: webhook(receiver) }), directAfterMs: 0 })
  assert.equal(await notices.raise(alarm), 'held')
  await waitUntil('it came', () => receiver.calls.length === 1)
  notices.attach(await openStore(t))
  await waitUntil('it is written', async () => (await notices.openAlarms().catch(() => [])).length === 1)
  await delay(LONG_ENOUGH_MS)
  assert.equal(receiver.calls.length, 1)
  await notices[Symbol.asyncDispose]()
})

test('of more alarms than memory should hold the newest are kept', async (t) => {
  const receiver = await webReceiver(t)
  const notices = Notices.start({ node: 'n', clock: systemClock, channels: [], pollMs: 20 })
  for (let index = 0; index < 1_100; index += 1) await notices.raise({ ...alarm, key: `a${index}` })
  notices.setChannels(testChannels({ hook: webhook(receiver) }))
  const store = await openStore(t)
  notices.attach(store)
  await waitUntil('they are written', async () => (await notices.openAlarms()).length === 1_000)
  const keys = (await notices.openAlarms()).map(({ key }) => key)
  assert.deepEqual([keys.includes('a99'), keys.includes('a100'), keys.includes('a1099')], [false, true, true])
  await notices[Symbol.asyncDispose]()
})
