import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { BackupReport } from '../../src/protect/postgres/backup.ts'
import { connect } from '../services/stream.ts'
import { testCluster } from '../services/postgres.ts'
import {
  askRestored,
  assertNothingLost,
  assertVerifies,
  backUpAgain,
  fillWithNoise,
  NOISE_FINGERPRINT,
  resusHome,
  type ResusHome,
  ResusProcess,
  runResus,
  visibleObjects,
  Writers,
} from './fault-scene.ts'
import { Random } from './random.ts'

/** More than the open packs of two workers hold together, so that a late kill finds finished packs. */
const NOISE_MEGABYTES = 80
const WRITERS = 3
const PACKS_WAITED_FOR = 3
const AFTER_PACK_MS = 200

/** SIGKILL of `resus backup` at any moment: what is visible is whole, the next run stores only what is missing, and it restores. */
export async function killBackups(t: TestContext, seeds: readonly number[]): Promise<void> {
  const cluster = await testCluster(t, { major: 18, settings: { max_wal_size: '2GB' } })
  const client = await connect(t, cluster.connectionString)
  await fillWithNoise(client, NOISE_MEGABYTES)
  const { rows: expected } = await client.query(NOISE_FINGERPRINT)
  const writers = await Writers.start(t, cluster, WRITERS)
  const usual = await usualBackup(t, cluster)
  for (const seed of seeds) {
    const random = new Random(seed)
    const home = await resusHome(cluster)
    const killed = new ResusProcess(t, home, ['backup', 'his-db'])
    const moment = await waitForMoment(home, killed, { random, usualMs: usual.durationMs })
    await killed.kill()
    const finished = (await visibleObjects(home, 'backups/')).length > 0
    const packs = await visibleObjects(home, 'packs/')
    const packBytes = packs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    // Whatever is visible is whole.
    await assertVerifies(home)

    const acknowledged = writers.acknowledged()
    const again = await backUpAgain<BackupReport>(t, home)
    const stored = `${again.bytesStored} of ${usual.bytesStored} bytes, ${packBytes} were there`
    t.diagnostic(`backup, seed ${seed}: killed ${moment}, finished: ${finished}; stored again ${stored}`)
    if (!finished) assert.ok(again.bytesStored < 1.1 * usual.bytesStored - 0.9 * packBytes, stored)
    await assertVerifies(home)
    const to = join(cluster.home, `restored-${seed}`)
    await runResus(t, home, ['restore', 'his-db', '--latest', '--to', to])
    await askRestored({ ...cluster, directory: to }, async (restored) => {
      assert.deepEqual((await restored.query(NOISE_FINGERPRINT)).rows, expected)
      await assertNothingLost(restored, acknowledged)
    })
    await rm(home.directory, { recursive: true })
  }
}

/** A moment of the backup's usual duration, or soon after a pack of it has become visible; gives it as text. */
async function waitForMoment(
  home: ResusHome,
  backup: ResusProcess,
  { random, usualMs }: { random: Random; usualMs: number },
): Promise<string> {
  if (random.below(2) === 0) {
    const afterMs = Math.round(random.fraction() * usualMs)
    await delay(afterMs)
    return `after ${afterMs} of ${Math.round(usualMs)} ms`
  }
  const packs = 1 + random.below(PACKS_WAITED_FOR)
  let ended = false
  void backup.exited.then(() => (ended = true))
  while (!ended && (await visibleObjects(home, 'packs/')).length < packs) await delay(2)
  const afterMs = random.below(AFTER_PACK_MS)
  await delay(afterMs)
  return `${afterMs} ms after pack ${packs}`
}

/** Two backups of one component at once: the second is refused, the first is not disturbed. */
export async function runTwoBackups(t: TestContext): Promise<void> {
  const cluster = await testCluster(t, { major: 18 })
  const client = await connect(t, cluster.connectionString)
  const home = await resusHome(cluster)
  const first = new ResusProcess(t, home, ['backup', 'his-db'])
  const locked = async () => (await client.query(`select 1 from pg_locks where locktype = 'advisory' and granted`)).rowCount! > 0
  while (!(await locked())) await delay(5)
  // However fast it is, it cannot end while the second one runs.
  first.signal('SIGSTOP')
  const second = await new ResusProcess(t, home, ['backup', 'his-db']).exited
  first.signal('SIGCONT')
  assert.equal(second.status, 2)
  assert.match(second.stdout, /"BACKUP_RUNNING"/)
  const { status, stderr } = await first.exited
  assert.equal(status, 0, stderr)
  assert.equal((await visibleObjects(home, 'backups/')).length, 1)
  await assertVerifies(home)
}

/** How long a backup from nothing takes here, and what it stores. */
async function usualBackup(t: TestContext, cluster: Awaited<ReturnType<typeof testCluster>>) {
  const home = await resusHome(cluster)
  const begun = performance.now()
  const { bytesStored } = await runResus<BackupReport>(t, home, ['backup', 'his-db'])
  const durationMs = performance.now() - begun
  await rm(home.directory, { recursive: true })
  return { bytesStored, durationMs }
}
