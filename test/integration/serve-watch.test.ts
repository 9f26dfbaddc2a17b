import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test from 'node:test'
import { heartbeatSetup } from '../../src/protect/postgres/heartbeat-setup.ts'
import { controlPlane, type ControlPlane } from '../services/control-plane.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'
import { webReceiver } from '../services/web-receiver.ts'

const skip = await skipUnlessInstalled(18)

interface Objectives {
  readonly components: readonly {
    readonly judgements: Readonly<
      Record<string, { readonly verdict: string; readonly target: number; readonly why: string } | null>
    >
    readonly actualRpo: { readonly repository: { readonly kind: string; readonly seconds?: number } }
  }[]
}
interface Monitor {
  readonly components: readonly {
    readonly backups: number
    readonly storedBytes: number
    readonly tasks30Days: { readonly done: number; readonly failed: number; readonly successPercent: number | null }
  }[]
}
interface Storage {
  readonly systems: readonly {
    readonly storage: { readonly free: { readonly bytes: number | null } }
    readonly components: readonly Record<
      'cluster' | 'stored',
      { readonly bytes: number | null; readonly bytesPerDay: number | null }
    >[]
  }[]
}
interface HealthAnswer {
  readonly state: string
  readonly watched: readonly {
    readonly thing: string
    readonly state: string
    readonly figures: Readonly<Record<string, number>>
  }[]
}

async function objectivesOf(plane: ControlPlane) {
  const { status, body } = await plane.ask('GET /backup-dr/recovery-objectives')
  assert.equal(status, 200, JSON.stringify(body))
  return (body as unknown as Objectives).components[0]!
}

/** What was, as far as it is known so soon: sizes of this hour, minutes of compliance, how facilities stand. */
async function assertHistory(plane: ControlPlane): Promise<void> {
  const storage = (await plane.ask('GET /backup-dr/storage')).body as unknown as Storage
  const { cluster, stored } = storage.systems[0]!.components[0]!
  assert((cluster.bytes ?? 0) > 1e6 && (stored.bytes ?? 0) > 1e5, JSON.stringify(storage))
  assert.equal(cluster.bytesPerDay, null, 'of less than a day nobody says how it grows')
  assert((storage.systems[0]?.storage.free.bytes ?? 0) > 0)
  const { facilities } = (await plane.ask('GET /backup-dr/facilities')).body as { facilities: Record<string, unknown>[] }
  assert.deepEqual(
    facilities.map(({ facility, verdict, components, ownBytes, rtoMinutes }) => [
      facility,
      verdict,
      components,
      ownBytes,
      rtoMinutes,
    ]),
    [
      ['FAC001', 'not proven', ['his-db'], 0, null],
      ['FAC002', 'not proven', ['his-db'], 0, null],
    ],
  )
  await waitUntil('a minute of compliance is kept', async () => {
    const { status, body } = await plane.ask('GET /backup-dr/recovery-objectives/history?objective=rpoMinutes')
    assert.equal(status, 200, JSON.stringify(body))
    const points = body['points'] as { per: string; target: number }[]
    return points.length > 0 && points.every(({ per, target }) => per === 'minute' && target === 1)
  })
  const backwards = 'from=2026-11-22T00:00:00Z&to=2026-11-21T00:00:00Z'
  const refused = await plane.ask(`GET /backup-dr/recovery-objectives/history?objective=rpoMinutes&${backwards}`)
  assert.equal(refused.status, 400)
  assert.equal((await plane.ask('GET /backup-dr/storage/history?system=nobody')).status, 404)
  const sizes = await plane.ask('GET /backup-dr/storage/history')
  assert.equal(sizes.status, 200, JSON.stringify(sizes.body))
}

async function metricsOf(plane: ControlPlane): Promise<string> {
  const answer = await fetch(`${plane.url}/metrics`, { headers: { authorization: `Bearer ${plane.token}` } })
  assert.equal(answer.status, 200)
  return await answer.text()
}

test(
  'left to itself it backs up, measures what would be lost, and tells when the database is gone and when it is back',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    const receiver = await webReceiver(t)
    const configuration = JSON.parse(await readFile(cluster.configPath, 'utf8')) as {
      components: Record<string, object>
      facilities?: object
    }
    configuration.facilities = { FAC001: { name: 'Osogbo General' }, FAC002: { name: 'Ilesa Clinic', lga: 'Ilesa East' } }
    configuration.components['his-db'] = {
      ...configuration.components['his-db'],
      owner: 'the database team',
      schedules: { drill: 'never', verify: 'never' },
      objectives: { rpoMinutes: 1 },
    }
    await writeFile(cluster.configPath, JSON.stringify(configuration))
    const secret = join(dirname(cluster.configPath), 'webhook-secret')
    await writeFile(secret, 'a secret for the webhook', { mode: 0o600 })
    const channels = {
      desk: { kind: 'webhook', url: `http://127.0.0.1:${receiver.port}/desk`, secret: `file:${secret}`, allowPrivate: true },
    }
    await using plane = await controlPlane(t, cluster.configPath, { settings: { channels } })

    // Without the heartbeat nobody knows what would be lost.
    await waitUntil('it says why', async () => /heartbeat/.test((await objectivesOf(plane)).judgements['rpoMinutes']?.why ?? ''))
    assert.equal((await objectivesOf(plane)).judgements['rpoMinutes']?.verdict, 'not proven')
    assert(!(await metricsOf(plane)).includes('resus_rpo_seconds{'), 'what is not measured has no sample')
    await cluster.query(heartbeatSetup('postgres'))
    await waitUntil('the schedule has made a backup', async () => (await plane.ask('GET /backup-dr/backups')).body['total'] === 1)
    const { body } = await plane.ask('GET /backup-dr/tasks?kind=backup')
    assert.equal((body['items'] as { requestedBy: string }[])[0]?.requestedBy, 'schedule')

    const health = async () => (await plane.ask('GET /backup-dr/health')).body as unknown as HealthAnswer
    const works = async () => {
      const { watched } = await health()
      return watched.length >= 6 && watched.every(({ thing, state }) => thing === 'proof' || state === 'up')
    }
    await waitUntil('all is up but the proof, which nobody has made', works)
    assert.equal((await health()).watched.find(({ thing }) => thing === 'proof')?.state, 'degraded')
    assert(((await health()).watched.find(({ thing }) => thing === 'database')?.figures['connectionsMax'] ?? 0) > 0)
    assert.equal((await plane.ask('GET /backup-dr/status')).body['health'], 'degraded', 'what no restore has proven is not green')
    const monitored = async () => ((await plane.ask('GET /backup-dr/monitor')).body as unknown as Monitor).components[0]!
    await waitUntil('the backup counts as done', async () => (await monitored()).tasks30Days.done === 1)
    const { backups, storedBytes, tasks30Days } = await monitored()
    assert.deepEqual([backups, tasks30Days.failed, tasks30Days.successPercent], [1, 0, 100])
    assert(storedBytes > 0)
    await waitUntil('the next backup is due some time', async () => {
      const { body: due } = await plane.ask('GET /backup-dr/schedules')
      const { leads, schedules } = due as { leads: boolean; schedules: { kind: string; nextDueAt: string | null }[] }
      return leads && schedules.find(({ kind }) => kind === 'backup')?.nextDueAt !== null
    })
    assert.deepEqual((await plane.ask('POST /backup-dr/channels/desk/test')).body['delivered'], true)

    await assertHistory(plane)

    await waitUntil('the heartbeat is measured', async () => (await objectivesOf(plane)).actualRpo.repository.kind === 'measured')
    await waitUntil('each facility and the whole have their canary', async () => {
      const canaries = await cluster.query<{ facility: string }>('select facility from resus.canary order by 1')
      return canaries.map(({ facility }) => facility).join(' ') === ' FAC001 FAC002'
    })
    await waitUntil('and the objective met', async () => (await objectivesOf(plane)).judgements['rpoMinutes']?.verdict === 'met')
    const metrics = await metricsOf(plane)
    assert.match(metrics, /resus_rpo_seconds\{system="test-his",component="his-db",place="repository"\} \d/)
    assert.match(metrics, /resus_objective_met\{system="test-his",component="his-db",objective="rpoMinutes"\} 1/)
    assert.match(metrics, /resus_watched_up\{system="test-his",component="his-db",thing="database"\} 1/)
    assert.match(metrics, /resus_facility_proven\{system="test-his",facility="FAC001",name="Osogbo General"\} 0/)
    assert.match(metrics, /resus_tasks_ended_total\{system="test-his",component="his-db",kind="backup",state="done"\} 1/)
    assert.match(metrics, /resus_task_duration_seconds_count\{kind="backup",state="done"\} 1/)

    await cluster.cluster.kill()
    const told = (what: string) => receiver.calls.some(({ path, body: text }) => path === '/desk' && text.includes(what))
    await waitUntil('people are told', () => told('The database does not answer'))
    assert.equal((await health()).state, 'down')
    const alarms = (await plane.ask('GET /backup-dr/alarms')).body as { items: { code: string; hint: string }[] }
    assert(
      alarms.items.some(({ code, hint }) => code === 'DATABASE_UNREACHABLE' && hint !== ''),
      JSON.stringify(alarms),
    )
    await cluster.cluster.start()
    await waitUntil('it is up again', works)
    await waitUntil('and the alarm is over', async () => {
      const { items } = (await plane.ask('GET /backup-dr/alarms')).body as { items: { code: string }[] }
      return !items.some(({ code }) => code === 'DATABASE_UNREACHABLE')
    })
  },
)
