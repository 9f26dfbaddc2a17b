import assert from 'node:assert/strict'
import { dirname } from 'node:path'
import { readFile } from 'node:fs/promises'
import test, { after } from 'node:test'
import { Writers } from '../faults/fault-scene.ts'
import { withoutSchedules } from '../services/control-plane.ts'
import { nodeProcess } from '../services/node-process.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { stopTestStore, testDatabase } from '../services/store.ts'
import { waitUntil } from '../services/wait-until.ts'

after(stopTestStore)

const COMMITS = 100
const ASKED_AT_ONCE = 64

test(
  'commits that wait for Resus go on while its API is flooded, and while nothing of it runs but the receivers',
  { skip: await skipUnlessInstalled(18) },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await withoutSchedules(cluster.configPath)
    const configuration = JSON.parse(await readFile(cluster.configPath, 'utf8')) as {
      components: Record<string, { stream?: object }>
    }
    configuration.components['his-db']!.stream = { synchronous: true }
    const databaseUrl = await testDatabase()
    const node = await nodeProcess(t, {
      name: 'one',
      home: dirname(cluster.configPath),
      configuration: { ...configuration },
      databaseUrl,
    })
    const synchronous = `select 1 from pg_stat_replication where application_name = 'resus' and sync_state = 'sync'`
    await waitUntil('WAL is received', async () => {
      return (
        (await cluster.query(`select 1 from pg_stat_replication where application_name = 'resus' and state = 'streaming'`))
          .length === 1
      )
    })
    await cluster.query("alter system set synchronous_standby_names = 'FIRST 1 (resus)'")
    await cluster.query('select pg_reload_conf()')
    await waitUntil('commits wait for Resus', async () => (await cluster.query(synchronous)).length === 1)
    const writers = await Writers.start(t, cluster.cluster, 4)
    const total = () => writers.acknowledged().reduce((sum, count) => sum + count, 0)
    const more = async (what: string) => {
      const from = total()
      await waitUntil(what, () => total() >= from + COMMITS)
    }

    let flooding = true
    let answered = 0
    const flood = Array.from({ length: ASKED_AT_ONCE }, async () => {
      while (flooding) {
        const { status } = await node.ask('GET /backup-dr/monitor')
        assert.equal(status, 200)
        answered += 1
      }
    })
    await waitUntil('the flood is there', () => answered > ASKED_AT_ONCE)
    await more('commits go on beside the flood')
    flooding = false
    await Promise.all(flood)

    // Whatever a client could do to it: worse than not running at all it cannot be.
    process.kill(node.pid, 'SIGSTOP')
    try {
      await more('commits go on while the supervisor stands still')
    } finally {
      process.kill(node.pid, 'SIGCONT')
    }
    assert.equal((await node.ask('GET /backup-dr/monitor')).status, 200)
    await cluster.query('alter system reset synchronous_standby_names')
    await cluster.query('select pg_reload_conf()')
    await writers.end()
  },
)
