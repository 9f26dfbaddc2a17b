import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { systemClock } from '../../src/clock.ts'
import { segmentAt, segmentName } from '../../src/postgres/wal-segment.ts'
import { encodePlan, planRecovery } from '../../src/protect/postgres/recovery-plan.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import type { FullDiskFetch } from './wal-get-on-full-disk.ts'

const run = promisify(execFile)
const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
const SCRIPT = fileURLToPath(new URL('wal-get-on-full-disk.ts', import.meta.url))
const MOUNT = ['--map-current-user', '--keep-caps', '--mount', '--kill-child']

const skip = (await skipUnlessInstalled(18)) || (await noMounts())

test('wal-get onto a full disk says that the disk is full, leaves nothing, and is doubt to PostgreSQL', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18, walSegmentMegabytes: 1 })
  await cluster.backup()
  const target = { kind: 'latest' } as const
  const { plan } = await planRecovery({ repository: cluster.repository, component: 'his-db', target, clock: systemClock })
  const home = join(cluster.configPath, '..')
  const mountPoint = join(home, 'small-disk')
  await mkdir(mountPoint)
  await writeFile(join(home, 'plan.json'), encodePlan(plan))
  const command = [process.execPath, MAIN, 'wal-get', '--config', cluster.configPath, '--plan', join(home, 'plan.json')]
  const [stretch] = plan.stretches
  const name = segmentName(segmentAt(stretch!.from, stretch!.timeline, plan.segmentSize))
  const options = JSON.stringify({ command, mountPoint, name })
  const { stdout } = await run('unshare', [...MOUNT, process.execPath, SCRIPT, options])
  const fetched = JSON.parse(stdout) as FullDiskFetch
  assert.deepEqual({ status: fetched.status, left: fetched.left }, { status: 255, left: [] })
  assert.match(fetched.errors, /^resus: there is no room for ".*": ENOSPC\nhint: make room/)
  assert.doesNotMatch(fetched.errors, /bug of Resus/)
})

async function noMounts(): Promise<string | false> {
  const directory = await mkdtemp('/tmp/resus-mount-')
  try {
    await run('unshare', [...MOUNT, 'mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', directory])
    return false
  } catch {
    return 'this user may not mount a file system of its own'
  } finally {
    await rm(directory, { recursive: true })
  }
}
