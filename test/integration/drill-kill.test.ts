import assert from 'node:assert/strict'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { loadConfiguration } from '../../src/config/configuration.ts'
import { isRunning } from '../../src/postgres/cluster-process.ts'
import { processesIn } from '../../src/protect/postgres/scratch-processes.ts'
import { ScratchRemoval } from '../../src/server/abandoned-scratch.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { scratchRootOf, startResus, type RunningResus } from '../services/proving.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { HANGS_AFTER_MS } from '../services/wait-until.ts'

interface Scratch {
  readonly directory: string
  readonly socketDirectory: string
}

const MOMENTS: Readonly<Record<string, (scratch: Scratch) => Promise<boolean>>> = {
  'its directory was made': ({ directory }) => isThere(directory),
  'files are written': ({ directory }) => isThere(join(directory, 'data/base')),
  'WAL is laid out': ({ directory }) => isThere(join(directory, 'wal/beat')),
  'the server runs': ({ directory }) => isRunning(join(directory, 'data')).catch(() => false),
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}

async function killAt(cluster: ProtectedCluster, running: RunningResus, reached: (scratch: Scratch) => Promise<boolean>) {
  const root = scratchRootOf(cluster)
  for (const begun = performance.now(); performance.now() - begun < HANGS_AFTER_MS; await delay(2)) {
    assert.equal(running.child.exitCode, null, 'the drill runs still')
    const marker = (await readdir(root).catch(() => [])).find((name) => name.endsWith('.json'))
    const text = marker === undefined ? '' : await readFile(join(root, marker), 'utf8').catch(() => '')
    const scratch = text.endsWith('}') ? (JSON.parse(text) as Scratch) : undefined
    if (scratch === undefined || !(await reached(scratch))) continue
    running.child.kill('SIGKILL')
    await running.ended
    return scratch
  }
  throw new Error('the drill does not come so far')
}

const skip = await skipUnlessInstalled(18)

test('what a killed drill leaves is taken away by the next start of a drill, or of the control plane', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18, settings: { autovacuum: 'off' } })
  await cluster.query('create table patients as select i as id, md5(i::text) as name from generate_series(1, 50000) i')
  await cluster.backup()
  const configuration = await loadConfiguration(cluster.configPath)
  const assertNothing = async ({ directory, socketDirectory }: Scratch, moment: string) => {
    assert.deepEqual([await isThere(directory), await isThere(socketDirectory)], [false, false], moment)
    assert.deepEqual(await processesIn(directory), [], moment)
  }
  for (const [moment, reached] of Object.entries(MOMENTS)) {
    const scratch = await killAt(cluster, startResus(cluster, 'drill'), reached)
    const said: string[] = []
    await new ScratchRemoval([configuration], (text) => said.push(text))[Symbol.asyncDispose]()
    await assertNothing(scratch, moment)
    assert.match(said.join(), /^removed ".*", which a "resus verify --by-restore" that was killed had left$/, moment)
    assert.deepEqual(await readdir(scratchRootOf(cluster)), [], moment)
  }
  const scratch = await killAt(cluster, startResus(cluster, 'drill'), MOMENTS['the server runs']!)
  const { status, stderr } = await startResus(cluster, 'drill').ended
  // There is no check of its own, and so it is not proven.
  assert.equal(status, 1, stderr)
  await assertNothing(scratch, 'the next drill')
  assert.deepEqual(await readdir(scratchRootOf(cluster)), [])
})
