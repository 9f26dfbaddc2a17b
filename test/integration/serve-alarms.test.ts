import assert from 'node:assert/strict'
import { chmod, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { systemClock, type Clock } from '../../src/clock.ts'
import { controlPlane, withoutSchedules, type ControlPlane } from '../services/control-plane.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'
import { webReceiver } from '../services/web-receiver.ts'

const skip = await skipUnlessInstalled(18)
const HOUR_MS = 3_600_000

interface Alarm {
  readonly code: string
  readonly text: string
}

/** A control plane that tells a webhook, and whether that was told something. */
async function telling(t: TestContext, cluster: ProtectedCluster, clock: Clock = systemClock) {
  const receiver = await webReceiver(t)
  const secret = join(dirname(cluster.configPath), 'webhook-secret')
  await writeFile(secret, 'a secret for the webhook', { mode: 0o600 })
  const url = `http://127.0.0.1:${receiver.port}/desk`
  const channels = { desk: { kind: 'webhook', url, secret: `file:${secret}`, allowPrivate: true } }
  const plane = await controlPlane(t, cluster.configPath, { settings: { channels }, clock })
  return { plane, told: (what: string) => receiver.calls.some(({ body }) => body.includes(what)) }
}

async function alarm(plane: ControlPlane, code: string): Promise<Alarm | undefined> {
  const { items } = (await plane.ask('GET /backup-dr/alarms')).body as unknown as { items: Alarm[] }
  return items.find((each) => each.code === code)
}

test('the first backup that fails is told at once, with its reason, and taken back by one that does not', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await withoutSchedules(cluster.configPath)
  await cluster.query('create table patients as select generate_series(1, 1000) id')
  const [path] = await cluster.query<{ path: string }>("select pg_relation_filepath('patients') as path")
  const file = join(cluster.cluster.directory, path!.path)
  const { plane, told } = await telling(t, cluster)
  await using closing = plane
  await chmod(file, 0)
  const backUp = async () => String((await closing.ask('POST /backup-dr/backups/database', { body: {} })).body['id'])
  const failed = await plane.ended(await backUp())
  assert.equal(failed['state'], 'failed')
  assert.equal(failed['attempts'], 1, 'what will not pass is not tried again')
  await waitUntil('people are told', () => told('A backup failed'))
  assert.match((await alarm(plane, 'BACKUP_FAILED'))?.text ?? '', /cannot|could not|EACCES/)
  await chmod(file, 0o600)
  assert.equal((await plane.ended(await backUp()))['state'], 'done')
  await waitUntil('it is taken back', async () => (await alarm(plane, 'BACKUP_FAILED')) === undefined)
})

test('a backup that is older than 25 hours is told, and so are clocks that differ', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await withoutSchedules(cluster.configPath)
  await cluster.backup()
  const ahead: Clock = { ...systemClock, now: () => systemClock.now() + 26 * HOUR_MS }
  const { plane, told } = await telling(t, cluster, ahead)
  await using closing = plane
  await waitUntil('people are told of the backup', () => told('The last backup is too old'))
  assert.match((await alarm(closing, 'BACKUP_STALE'))?.text ?? '', /26 h old/)
  await waitUntil('people are told of the clocks', () => told('Clocks differ'))
  assert.match((await alarm(plane, 'CLOCK_WRONG'))?.text ?? '', /databaseOffsetSeconds is 936\d\d s/)
})
