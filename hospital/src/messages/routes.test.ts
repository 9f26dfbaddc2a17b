import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { appointmentChange, patientChange } from '../../test/services/clinical-changes.ts'
import { facility, GROUP, skip, testHospital } from '../../test/services/hospital-database.ts'
import { record } from '../events/record.ts'
import { addUser } from '../facilities/users.ts'
import { makeToken } from '../http/authentication.ts'
import { buildServer } from '../http/server.ts'
import { queueMessages } from './queue.ts'

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url))

test('the outbound queue is shown by facility, and held and released by the group in its own name', { skip }, async (t) => {
  const { database, admin, home } = await testHospital(t)
  for (const at of ['FAC001', 'FAC002']) {
    await database.transaction(facility(at), async (tx) => {
      const patient = patientChange(at)
      await record(tx, patient)
      const change = appointmentChange(at, patient.stream.slice('Patient/'.length))
      const event = await record(tx, change)
      await queueMessages(tx, { ...change, ...event }, (change.payload as { resource: object }).resource)
    })
  }
  await database.transaction(GROUP, async (tx) => {
    await addUser(tx, { id: 'bisi', name: 'Bisi', role: 'group', facility: null })
    await addUser(tx, { id: 'ade', name: 'Ade', role: 'clerk', facility: 'FAC001' })
  })
  const server = await buildServer({ database, filesDirectory: home })
  t.after(async () => server.close())
  const tokens = { bisi: await makeToken(admin, 'bisi'), ade: await makeToken(admin, 'ade') }
  const ask = async (who: keyof typeof tokens, method: 'GET' | 'POST', url: string, body?: object) => {
    const headers = { authorization: `Bearer ${tokens[who]}` }
    const answer = await server.inject({ method, url, headers, ...(body === undefined ? {} : { payload: body }) })
    return { status: answer.statusCode, body: answer.json() as Record<string, unknown> }
  }
  const sms = (at: string) => ({ facility: at, kind: 'sms', status: 'queued', messages: 1 })
  assert.deepEqual((await ask('bisi', 'GET', '/outbound')).body, {
    hold: { held: false },
    messages: [sms('FAC001'), sms('FAC002')],
  })
  assert.deepEqual((await ask('ade', 'GET', '/outbound')).body['messages'], [sms('FAC001')])
  for (const path of ['/outbound/hold', '/outbound/release']) {
    assert.equal((await ask('ade', 'POST', path, { reason: 'x' })).status, 403)
  }
  assert.equal((await ask('bisi', 'POST', '/outbound/hold', {})).status, 400)
  const held = await ask('bisi', 'POST', '/outbound/hold', { reason: 'a drill' })
  assert.deepEqual([held.status, held.body['held'], held.body['person']], [200, true, 'bisi'])
  assert.deepEqual((await ask('ade', 'GET', '/outbound')).body['hold'], held.body)
  const released = await ask('bisi', 'POST', '/outbound/release')
  assert.deepEqual([released.status, released.body['held']], [200, false])
  assert.equal((await ask('bisi', 'POST', '/outbound/release')).status, 409)
})

test('`hospital hold` and `hospital release` say who and why, and cannot run without a name', { skip }, async (t) => {
  const { connectionString, admin } = await testHospital(t)
  const run = async (words: readonly string[]): Promise<number | null> => {
    const child = spawn(process.execPath, [MAIN, '--database', connectionString, ...words], { stdio: 'ignore' })
    return await new Promise((resolve) => child.once('exit', resolve))
  }
  assert.equal(await run(['hold', '--reason', 'a drill', '--by', ' ']), 2)
  assert.equal(await run(['release', '--by', 'Bisi']), 2)
  assert.equal(await run(['hold', '--reason', 'a drill', '--by', 'Ade']), 0)
  assert.equal(await run(['release']), 2)
  assert.equal(await run(['release', '--by', 'Bisi', '--reason', 'over']), 0)
  const { rows } = await admin.query('select type, actor, payload from events where stream = $1 order by version', ['Hold/1'])
  assert.deepEqual(rows, [
    { type: 'HoldEngaged', actor: 'Ade', payload: { held: true, reason: 'a drill', person: 'Ade' } },
    { type: 'HoldReleased', actor: 'Bisi', payload: { held: false, reason: 'over', person: 'Bisi' } },
  ])
})
