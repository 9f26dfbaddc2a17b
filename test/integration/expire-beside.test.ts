import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import test from 'node:test'
import type { ExpireReport } from '../../src/repository/expire.ts'
import type { Keep } from '../../src/repository/retention.ts'
import { beginDays } from '../services/days.ts'
import type { ProtectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'

const DAY_MS = 24 * 3600 * 1000
const KEEP: Keep = { daily: 1, weekly: 0, monthly: 0, pitrDays: 0 }

test('an expiry beside a backup of another process: the backup is whole, or says that it has to be run again', async (t) => {
  const days = await beginDays(t, 18)
  await using cluster = days.cluster
  await cluster.query(`insert into patients select -i, repeat(md5(i::text), 20) from generate_series(1, 20000) i`)
  for (let day = 0; day < 4; day++) await days.pass(day)
  const leasesBefore = await leases(cluster)
  const backup = days.run('backup')
  let ended = false
  void backup.then(() => (ended = true))
  // It has begun when its lease is there.
  await waitUntil('the backup has begun', async () => ended || (await leases(cluster)) > leasesBefore)
  const marked = await days.expire(KEEP)
  assert(marked.components[0]!.backups.some(({ fate }) => fate === 'expires'))
  let outcome = await backup
  t.diagnostic(`${marked.packs.marked} packs were marked beside the backup, which ended with ${outcome.status}`)
  if (outcome.status !== 0) {
    assert.equal((outcome.json as { error: { code: string } }).error.code, 'BACKUP_ABORTED', outcome.stderr)
    outcome = await days.run('backup')
  }
  assert.equal(outcome.status, 0, outcome.stderr)
  days.offsetMs += DAY_MS
  const swept = await days.expire(KEEP)
  assert(swept.components[0]!.backups.some(({ fate }) => fate === 'goes'))
  assert.equal(swept.packs.deleted, marked.packs.marked)
  assert((await days.verify(`${cluster.stateDirectory}-other`)).includes((outcome.json as { id: string }).id))
  assert.equal(await days.restoredRows(), await days.count())
})

async function leases(cluster: ProtectedCluster): Promise<number> {
  let count = 0
  for await (const _ of cluster.repository.storage.list('leases/')) count += 1
  return count
}

test('resus expire: a dry run lists why each backup stays or goes; a policy that is none is refused', async (t) => {
  const days = await beginDays(t, 18)
  await using cluster = days.cluster
  for (let day = 0; day < 4; day++) await days.pass(day)
  const configuration = JSON.parse(await readFile(cluster.configPath, 'utf8')) as { components: { 'his-db': { keep?: unknown } } }
  const configure = async (keep: unknown) => {
    configuration.components['his-db'].keep = keep
    await writeFile(cluster.configPath, JSON.stringify(configuration))
  }
  await configure({ daily: 1, weekly: 0, monthly: 0, pitrDays: 1 })
  const dry = await days.run('expire', 'his-db', '--dry-run')
  assert.equal(dry.status, 0, dry.stderr)
  const { dryRun, components } = dry.json as ExpireReport
  assert.deepEqual(
    [dryRun, components[0]!.backups.map(({ fate, reasons }) => [fate, ...reasons])],
    [true, [['stays', 'newest', 'pitr', 'daily'], ['expires'], ['expires'], ['expires']]],
  )
  const marked = (await days.run('expire')).json as ExpireReport
  assert.deepEqual(
    marked.components[0]!.backups.map(({ id, fate }) => [id, fate]),
    components[0]!.backups.map(({ id, fate }) => [id, fate]),
  )
  assert(marked.packs.marked > 0 && !marked.dryRun)
  days.offsetMs += DAY_MS
  assert(((await days.run('expire')).json as ExpireReport).packs.deleted > 0)
  assert.equal((await days.verify(`${cluster.stateDirectory}-other`)).length, 1)
  await configure({ daily: 1, hourly: 3 })
  const refused = await days.run('expire')
  assert.deepEqual([refused.status, (refused.json as { error: { code: string } }).error.code], [2, 'CONFIG_INVALID'])
})
