import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { openTemporaryDirectory } from '../../src/postgres/staged-runtime.ts'
import { controlPlane, withoutSchedules, type ControlPlane } from '../services/control-plane.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'

const skip = await skipUnlessInstalled(18)

async function doBackup(plane: ControlPlane): Promise<Record<string, unknown>> {
  const asked = await plane.ask('POST /backup-dr/backups/database', { body: {} })
  assert.equal(asked.status, 202, JSON.stringify(asked.body))
  const task = await plane.ended(String(asked.body['id']))
  assert.equal(task['state'], 'done', JSON.stringify(task))
  return task
}

test('the store is destroyed: the next start knows again what was done, also where a record is damaged', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await withoutSchedules(cluster.configPath)
  const state = await mkdtemp(join(await openTemporaryDirectory(), 'resus-serve-'))
  t.after(async () => rm(state, { recursive: true, force: true }))
  const records = join(cluster.repositoryDirectory, 'control/work')
  const batches = async () => (await readdir(records).catch((): string[] => [])).toSorted()
  const tasks: Record<string, unknown>[] = []
  {
    await using plane = await controlPlane(t, cluster.configPath, { state })
    await waitUntil('the node reaches it', async () => (await plane.ask('GET /backup-dr/backups/status')).status === 200)
    tasks.push(await doBackup(plane))
    await waitUntil('its record is in the repository', async () => (await batches()).length > 0)
    tasks.push(await doBackup(plane))
    // A good end writes what waits.
  }
  for (const name of ['store', 'store.log']) await rm(join(state, name), { recursive: true })
  {
    await using plane = await controlPlane(t, cluster.configPath, { state })
    const known = async () => (await plane.ask('GET /backup-dr/tasks')).body['items'] as Record<string, unknown>[]
    await waitUntil('the history is there', async () => (await known()).length === 2)
    assert.deepEqual(
      (await known()).map(({ source: _source, progress: _progress, ...rest }) => rest),
      tasks.toReversed().map(({ source: _source, progress: _progress, ...rest }) => rest),
    )
    assert((await known()).every(({ source }) => source === 'repository'))
    const log = await plane.ask(`GET /backup-dr/tasks/${String(tasks[0]?.['id'])}/log`)
    assert.equal((log.body['items'] as unknown[]).length, 1)
    await waitUntil('the backups are known', async () => {
      const status = (await plane.ask('GET /backup-dr/backups/status')).body as { components: { backups: number }[] }
      return status.components[0]?.backups === 2
    })
    tasks.push(await doBackup(plane))
  }
  for (const name of ['store', 'store.log']) await rm(join(state, name), { recursive: true })
  const [first] = await batches()
  await truncate(join(records, first!), 40)
  await using plane = await controlPlane(t, cluster.configPath, { state })
  await waitUntil('the damaged object is named', () => plane.reports.some((text) => text.includes(first!)))
  await waitUntil('the rest is there', async () => {
    const { body } = await plane.ask('GET /backup-dr/tasks')
    return (body['items'] as unknown[]).length === 2
  })
})
