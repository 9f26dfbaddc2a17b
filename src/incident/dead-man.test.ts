import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { testSecret } from '../../test/services/channels.ts'
import { waitUntil } from '../../test/services/wait-until.ts'
import { webReceiver } from '../../test/services/web-receiver.ts'
import { systemClock } from '../clock.ts'
import type { Alarm } from './alarm.ts'
import { DeadMan, deadManSchema, type DeadManOptions } from './dead-man.ts'

function start(t: TestContext, options: Partial<DeadManOptions> & Pick<DeadManOptions, 'url'>) {
  const raised: Alarm[] = []
  const cleared: string[] = []
  const notices: DeadManOptions['notices'] = {
    raise: async (alarm) => {
      raised.push(alarm)
      return 'kept'
    },
    clear: async (key) => {
      cleared.push(key)
      return 'kept'
    },
  }
  const deadMan = DeadMan.start({
    method: 'GET',
    allowPrivate: true,
    everyMs: 10,
    directory: '/nowhere',
    healthy: () => true,
    notices,
    clock: systemClock,
    ...options,
  })
  t.after(async () => deadMan[Symbol.asyncDispose]())
  return { deadMan, raised, cleared }
}

test('the outside watch is called while all is well, and not when it is not', async (t) => {
  const receiver = await webReceiver(t)
  let health: 'good' | 'bad' | 'unknown' = 'good'
  const { raised } = start(t, {
    url: testSecret(`http://127.0.0.1:${receiver.port}/ping/secret?x=1`),
    method: 'POST',
    healthy: async () => {
      if (health === 'unknown') throw new Error('nobody knows')
      return health === 'good'
    },
  })
  await waitUntil('it was called some times', () => receiver.calls.length > 3)
  assert.deepEqual([receiver.calls[0]?.method, receiver.calls[0]?.path], ['POST', '/ping/secret?x=1'])
  for (const bad of ['bad', 'unknown'] as const) {
    health = bad
    await delay(100)
    const before = receiver.calls.length
    await delay(200)
    assert.equal(receiver.calls.length, before)
  }
  health = 'good'
  const before = receiver.calls.length
  await waitUntil('it is called again', () => receiver.calls.length > before)
  assert.deepEqual(raised, [])
})

test('a watch that does not answer is an alarm after three times, without its address, and over when it answers', async (t) => {
  const receiver = await webReceiver(t)
  receiver.answer = (response) => response.writeHead(500).end()
  const { raised, cleared } = start(t, { url: `http://127.0.0.1:${receiver.port}/ping/secret` })
  await waitUntil('it is told', () => raised.length > 0)
  assert.ok(receiver.calls.length >= 3, `${receiver.calls.length} calls`)
  assert.equal(raised[0]?.code, 'DEAD_MAN_FAILED')
  assert.match(raised[0]?.text ?? '', /HTTP 500/)
  assert.doesNotMatch(JSON.stringify(raised), /secret/)
  assert.equal(new Set(raised.map(({ key }) => key)).size, 1)
  assert.deepEqual(cleared, [])
  receiver.answer = (response) => response.end()
  await waitUntil('it is over', () => cleared.length > 0)
  await delay(100)
  assert.deepEqual(cleared, [raised[0]?.key])
})

test('a watch without TLS is taken on the inner network only', () => {
  assert.equal(deadManSchema.parse({ url: 'https://watch.example/ping' }).everySeconds, 60)
  assert.equal(deadManSchema.safeParse({ url: 'http://watch.example/ping' }).success, false)
  assert.equal(deadManSchema.safeParse({ url: 'file:secrets/watch' }).success, true)
  assert.equal(deadManSchema.safeParse({ url: 'ftp://watch.example' }).success, false)
})
