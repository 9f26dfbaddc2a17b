import assert from 'node:assert/strict'
import { readdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { loadConfiguration } from '../../src/config/configuration.ts'
import { configuredAccess, configuredStorage } from '../../src/config/open.ts'
import { initRepository } from '../../src/repository/repository.ts'
import { controlPlane } from '../services/control-plane.ts'
import { strangeSystem } from '../services/strange-system.ts'
import { waitUntil } from '../services/wait-until.ts'

const DAY_MS = 24 * 3_600_000

test('the server verifies the trail each day, alarms when it was cut, and closes the alarm for who has looked', async (t) => {
  const configPath = await strangeSystem(t)
  const configuration = await loadConfiguration(configPath)
  const access = await configuredAccess(configuration)
  await configuredStorage(configuration).prepare()
  await initRepository(access, { clock: systemClock, kdfCost: 1024 })
  const clock = { aheadMs: 0, now: () => Date.now() + clock.aheadMs, sleep: systemClock.sleep.bind(systemClock) }
  await using plane = await controlPlane(t, configPath, { clock })
  const audit = async () =>
    (await plane.ask('GET /backup-dr/health')).body['audit'] as {
      protection: string | null
      verified: { at: string; inAll: number }[]
    }
  const broken = async () => {
    const { items } = (await plane.ask('GET /backup-dr/alarms')).body as { items: { code: string; key: string }[] }
    return items.filter(({ code }) => code === 'AUDIT_BROKEN')
  }
  await waitUntil('a copy is there', async () => {
    const { body } = await plane.ask('GET /audit/head')
    return (body['heads'] as unknown[]).length > 0
  })
  clock.aheadMs += DAY_MS
  await waitUntil('it was verified', async () => (await audit()).verified.length === 1)
  assert.deepEqual([(await audit()).verified[0]?.inAll, (await audit()).protection], [0, 'role'])
  assert.deepEqual(await broken(), [])

  const records = join(dirname(configPath), 'repository/control/audit')
  for (const name of (await readdir(records, { recursive: true, withFileTypes: true })).filter((each) => each.isFile()))
    await rm(join(name.parentPath, name.name))
  clock.aheadMs += DAY_MS
  await waitUntil('everybody is told', async () => (await broken()).some(({ key }) => key.includes('verified')))
  assert.notEqual((await audit()).verified[0]?.inAll, 0)
  assert.equal((await plane.ask('POST /audit/acknowledge', { body: {} })).status, 400)
  const { status, body } = await plane.ask('POST /audit/acknowledge', { body: { text: 'it was I who removed them' } })
  assert.equal(status, 200)
  assert((body['closed'] as { code: string }[]).some(({ code }) => code === 'AUDIT_BROKEN'))
  await waitUntil('it is over', async () => (await broken()).every(({ key }) => !key.includes('verified')))
  const [entry] = (await plane.ask('GET /audit?action=audit.acknowledged')).body['items'] as { reason: string }[]
  assert.equal(entry?.reason, 'it was I who removed them')
})
