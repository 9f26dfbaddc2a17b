import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { keepBreakGlass, newBreakGlass, useBreakGlass } from '../../src/authority/break-glass.ts'
import { loadConfiguration } from '../../src/config/configuration.ts'
import { configuredAccess, configuredStorage } from '../../src/config/open.ts'
import { openTemporaryDirectory } from '../../src/postgres/staged-runtime.ts'
import { initRepository } from '../../src/repository/repository.ts'
import { controlPlane, type ControlPlane } from '../services/control-plane.ts'
import { strangeSystem } from '../services/strange-system.ts'
import { waitUntil } from '../services/wait-until.ts'

async function stateDirectory(t: TestContext): Promise<string> {
  const state = await mkdtemp(join(await openTemporaryDirectory(), 'resus-serve-'))
  t.after(async () => rm(state, { recursive: true, force: true }))
  return state
}

async function opened(plane: ControlPlane): Promise<{ actor: { kind: string }; object: { code: string } }[]> {
  return (await plane.ask('GET /audit?action=break-glass.used')).body['items'] as never
}

test('a sealed code that was opened on a host is one entry of the trail, after a restart and in a new store too', async (t) => {
  const configPath = await strangeSystem(t)
  const configuration = await loadConfiguration(configPath)
  const access = await configuredAccess(configuration)
  await configuredStorage(configuration).prepare()
  const { repository } = await initRepository(access, { clock: systemClock, kdfCost: 1024 })
  const { id, code, digest } = newBreakGlass()
  await keepBreakGlass([repository], { id, digest }, randomUUID(), systemClock)
  const [state, another] = [await stateDirectory(t), await stateDirectory(t)]
  const looked = async (plane: ControlPlane) => {
    // One look after another has to have come by, with something to show for it.
    await waitUntil('it is in the trail', async () => (await opened(plane)).length > 0)
    await waitUntil('it was looked at again', async () => (await plane.ask('GET /emergencies')).status === 200)
    return await opened(plane)
  }
  {
    await using plane = await controlPlane(t, configPath, { state })
    await waitUntil('the trail has begun', async () => (await plane.ask('GET /audit')).status === 200)
    assert.deepEqual(await opened(plane), [])
    await useBreakGlass(repository, code, 'a run', systemClock)
    const [entry, ...others] = await looked(plane)
    assert.deepEqual([entry?.actor.kind, entry?.object.code, others.length], ['break-glass', id, 0])
    await waitUntil('the repository has it', async () => {
      const { body } = await plane.ask('GET /audit/head')
      const [head] = body['heads'] as { seq: number }[]
      return head !== undefined && head.seq >= (body['newest'] as { seq: number }).seq
    })
  }
  {
    await using plane = await controlPlane(t, configPath, { state })
    assert.equal((await looked(plane)).length, 1, 'after a restart')
  }
  await using plane = await controlPlane(t, configPath, { state: another })
  assert.equal((await looked(plane)).length, 1, 'in a new store')
})
