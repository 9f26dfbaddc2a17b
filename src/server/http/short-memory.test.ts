import assert from 'node:assert/strict'
import test from 'node:test'
import Fastify from 'fastify'
import { rememberAnswers } from './short-memory.ts'

function countingServer() {
  const control = { now: 1000 }
  let made = 0
  const server = Fastify()
  rememberAnswers(server, control)
  server.get('/made', async (request) => {
    made += 1
    if (made === 3) throw new Error('for once')
    return { made, query: request.query }
  })
  server.post('/made', async () => ({ made: (made += 1) }))
  const get = async (url: string) => {
    const { statusCode, body, headers } = await server.inject({ url })
    return { statusCode, body, type: headers['content-type'] }
  }
  return { control, server, get }
}

test('the same URL is answered with the same words for a quarter of a second, and no longer', async () => {
  const { control, get } = countingServer()
  const first = await get('/made')
  assert.deepEqual(first, { statusCode: 200, body: '{"made":1,"query":{}}', type: 'application/json; charset=utf-8' })
  control.now += 249
  assert.deepEqual(await get('/made'), first)
  control.now += 1
  assert.equal((await get('/made')).body, '{"made":2,"query":{}}')
})

test('after a clock that was set back it is made anew', async () => {
  const { control, get } = countingServer()
  await get('/made')
  control.now -= 3_600_000
  assert.match((await get('/made')).body, /"made":2/)
})

test('another URL is another answer, and a failure is none to remember', async () => {
  const { get } = countingServer()
  await get('/made')
  assert.equal((await get('/made?a=1')).body, '{"made":2,"query":{"a":"1"}}')
  assert.equal((await get('/made?a=2')).statusCode, 500)
  assert.equal((await get('/made?a=2')).body, '{"made":4,"query":{"a":"2"}}')
  assert.equal((await get('/made')).body, '{"made":1,"query":{}}')
})

test('what changes something is done each time', async () => {
  const { server } = countingServer()
  for (const made of [1, 2]) assert.deepEqual((await server.inject({ method: 'POST', url: '/made' })).json(), { made })
})
