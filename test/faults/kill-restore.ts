import assert from 'node:assert/strict'
import { access, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { connect } from '../services/stream.ts'
import { testCluster } from '../services/postgres.ts'
import { askRestored, fillWithNoise, NOISE_FINGERPRINT, resusHome, ResusProcess, runResus } from './fault-scene.ts'
import { Random } from './random.ts'
import { startRestoredDirectory } from './stopped-recovery.ts'

const NOISE_MEGABYTES = 60

/** SIGKILL of `resus restore` at any moment: what it leaves does not start, and running it again completes it. */
export async function killRestores(t: TestContext, seeds: readonly number[]): Promise<void> {
  const cluster = await testCluster(t, { major: 18, settings: { max_wal_size: '2GB' } })
  const client = await connect(t, cluster.connectionString)
  await fillWithNoise(client, NOISE_MEGABYTES)
  const { rows: expected } = await client.query(NOISE_FINGERPRINT)
  const home = await resusHome(cluster)
  await runResus(t, home, ['backup', 'his-db'])
  await cluster.kill()
  const restore = (to: string) => ['restore', 'his-db', '--latest', '--to', to]
  const usual = join(cluster.home, 'restored-usual')
  const begun = performance.now()
  await runResus(t, home, restore(usual))
  const durationMs = performance.now() - begun
  await rm(usual, { recursive: true })
  for (const seed of seeds) {
    const random = new Random(seed)
    const to = join(cluster.home, `restored-${seed}`)
    const afterMs = Math.round(random.fraction() * durationMs)
    const killed = new ResusProcess(t, home, restore(to))
    await delay(afterMs)
    await killed.kill()
    const finished = await exists(join(to, 'global/pg_control'))
    t.diagnostic(`restore, seed ${seed}: killed after ${afterMs} of ${Math.round(durationMs)} ms, finished: ${finished}`)
    if (!finished) {
      await assertDoesNotStart({ ...cluster, directory: to })
      await runResus(t, home, restore(to))
    }
    await askRestored({ ...cluster, directory: to }, async (restored) => {
      assert.deepEqual((await restored.query(NOISE_FINGERPRINT)).rows, expected)
    })
  }
}

async function assertDoesNotStart(cluster: Parameters<typeof startRestoredDirectory>[0]): Promise<void> {
  if (!(await exists(cluster.directory))) return
  const logFile = `${cluster.directory}.refused.log`
  await assert.rejects(startRestoredDirectory(cluster, { logFile }), { code: 'POSTGRES_FAILED' })
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}
