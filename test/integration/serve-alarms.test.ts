import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { randomUUID } from 'node:crypto'
import test, { after, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { raiseAlarm } from '../../src/catalog/alarms.ts'
import { Store } from '../../src/catalog/store.ts'
import { systemClock, type Clock } from '../../src/clock.ts'
import { alarmOf } from '../../src/incident/alarm-kinds.ts'
import { OWN_SYSTEM } from '../../src/server/health-watch.ts'
import { controlPlane, withoutSchedules, type ControlPlane } from '../services/control-plane.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { stopTestStore, testDatabase } from '../services/store.ts'
import { waitUntil } from '../services/wait-until.ts'
import { webReceiver } from '../services/web-receiver.ts'

after(stopTestStore)
const skip = await skipUnlessInstalled(18)
const RESUS = fileURLToPath(new URL('../../resus', import.meta.url))
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

interface Said {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

async function resus(plane: ControlPlane, args: readonly string[], url = plane.url): Promise<Said> {
  const where = ['--url', url, '--token-file', join(plane.state, 'administrator-token')]
  return await new Promise((settle) => {
    execFile(RESUS, [...args, ...where], (error, stdout, stderr) => {
      settle({ status: error === null ? 0 : Number(error.code), stdout, stderr })
    })
  })
}

/** Schedules, recent jobs, and the log of one, from the command line (DBB-09). */
async function assertCommands(plane: ControlPlane, id: string): Promise<void> {
  const listed = await resus(plane, ['tasks', '--kind', 'backup', '--state', 'failed'])
  assert.equal(listed.status, 0, listed.stderr)
  assert.match(listed.stdout, new RegExp(`${id} .*backup .*his-db.* failed `))
  const shown = await resus(plane, ['tasks', id])
  assert.equal(shown.status, 1, 'as the task')
  assert.match(
    shown.stdout,
    /state: +failed[\s\S]*reason: .*does not let a backup begin.*POSTGRES_FAILED[\s\S]*to do: [\s\S]*\[.* running 1\]/,
  )
  const followed = await resus(plane, ['tasks', id, '--follow', '--json'])
  assert.equal((JSON.parse(followed.stdout) as { id: string }).id, id)
  assert.match(followed.stderr, /\[failed\]/)
  const schedules = await resus(plane, ['schedules'])
  assert.match(schedules.stdout, /test-his\/his-db +backup +never/)
  assert.match((await resus(plane, ['tasks', 'x'])).stderr, /no id of a task/)
  const unknown = await resus(plane, ['tasks', id.replace(/^./, (digit) => (digit === '0' ? '1' : '0'))])
  assert.deepEqual([unknown.status, /there is no task/.test(unknown.stderr)], [2, true], unknown.stderr)
  const nobody = await resus(plane, ['tasks'], 'http://127.0.0.1:9')
  assert.deepEqual([nobody.status, /cannot be asked/.test(nobody.stderr)], [1, true], nobody.stderr)
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
  assert.match((await alarm(plane, 'BACKUP_FAILED'))?.text ?? '', /checkpoint request failed/)
  await assertCommands(closing, String(failed['id']))
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

test('a node was dead when the store was lost, and is known to nobody since: that ends', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await withoutSchedules(cluster.configPath)
  const databaseUrl = await testDatabase()
  await using store = await Store.open(databaseUrl)
  const dead = alarmOf('NODE_DEAD', {
    system: OWN_SYSTEM,
    subject: 'gone',
    text: 'nothing was heard of it',
  })
  const now = new Date()
  // As a rebuild leaves it.
  const times = { openedAt: now, raisedAt: now, dueAt: now, toldAt: now, remindAfterMs: 24 * HOUR_MS }
  await raiseAlarm(store, { ...dead, id: randomUUID(), component: null, code: 'NODE_DEAD', count: 1, ...times })
  await using plane = await controlPlane(t, cluster.configPath, { databaseUrl })
  await waitUntil('it is open no more', async () => (await alarm(plane, 'NODE_DEAD')) === undefined)
})
