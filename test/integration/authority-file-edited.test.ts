import assert from 'node:assert/strict'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { newestConfiguration } from '../../src/authority/configurations.ts'
import { controlPlane, lastingState, withoutSchedules } from '../services/control-plane.ts'
import { firstAdministrator, PUBLIC_URL } from '../services/people.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'

const skip = await skipUnlessInstalled(18)

test(
  'a file is edited while the server is down, and the server’s state removed: no repository takes it for accepted',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await withoutSchedules(cluster.configPath)
    const state = await lastingState(t)
    const settings = { url: PUBLIC_URL }
    const kept = async () => JSON.stringify((await newestConfiguration(cluster.repository))?.document['components'] ?? null)
    {
      await using plane = await controlPlane(t, cluster.configPath, { settings, state })
      await firstAdministrator(plane)
      await waitUntil('what is in force is kept', async () => (await kept()).includes('his-db'))
    }
    const before = await kept()
    const edited = JSON.parse(await readFile(cluster.configPath, 'utf8')) as { components: Record<string, { keep?: object }> }
    edited.components['his-db']!.keep = { daily: 1, weekly: 1, monthly: 1 }
    await writeFile(cluster.configPath, JSON.stringify(edited))
    for (const name of (await readdir(state)).filter((each) => each.startsWith('accepted')))
      await rm(join(state, name), { recursive: true })
    await using plane = await controlPlane(t, cluster.configPath, { settings, state })
    await waitUntil('it is said', () => plane.reports.some((text) => text.includes('no repository keeps it')))
    assert.equal(await kept(), before)
  },
)
