import assert from 'node:assert/strict'
import { chmod, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { newestConfiguration } from '../../src/authority/configurations.ts'
import { controlPlane, lastingState, withoutSchedules } from '../services/control-plane.ts'
import { firstAdministrator, PUBLIC_URL } from '../services/people.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'

const skip = await skipUnlessInstalled(18)

/** Somebody has been made, the configuration is accepted, the server is down, and its file is edited to keep less. */
async function editedBehind(t: TestContext, configPath: string, kept: () => Promise<string>) {
  await withoutSchedules(configPath)
  const state = await lastingState(t)
  const start = async () => controlPlane(t, configPath, { settings: { url: PUBLIC_URL }, state })
  {
    await using plane = await start()
    await firstAdministrator(plane)
    await waitUntil('what is in force is kept', async () => (await kept()).includes('his-db'))
  }
  const edited = JSON.parse(await readFile(configPath, 'utf8')) as { components: Record<string, { keep?: object }> }
  edited.components['his-db']!.keep = { daily: 1, weekly: 1, monthly: 1 }
  await writeFile(configPath, JSON.stringify(edited))
  return { state, start, kept, before: await kept() }
}

/** The components that jobs and receivers go by. */
async function inForce(state: string): Promise<unknown> {
  const directory = join(state, 'accepted')
  const names = await readdir(directory).catch(() => [])
  const name = names.find((each) => each.endsWith('.yaml'))
  if (name === undefined) return null
  return (JSON.parse(await readFile(join(directory, name), 'utf8')) as { components: unknown }).components
}

for (const [what, isRemoved] of [
  ['what it accepted', (name: string) => name.startsWith('accepted')],
  ['all of its state', () => true],
] as const) {
  test(
    `a file is edited while the server is down, and ${what} removed: it begins by what the repository knows, and asks`,
    { skip },
    async (t) => {
      await using cluster = await protectedCluster(t, { major: 18 })
      const accepted = async () => JSON.stringify((await newestConfiguration(cluster.repository))?.document['components'] ?? null)
      const { state, start, before } = await editedBehind(t, cluster.configPath, accepted)
      for (const name of (await readdir(state)).filter(isRemoved)) await rm(join(state, name), { recursive: true })
      await using plane = await start()
      assert.deepEqual(await inForce(state), JSON.parse(before))
      await waitUntil('it is asked', () => plane.reports.some((text) => text.includes('waits for a second person, as request')))
      assert.equal(await accepted(), before)
      assert.deepEqual(await inForce(state), JSON.parse(before))
    },
  )
}

test(
  'no storage answers at the start of a server whose state is removed: it begins by its file, and goes back to what was accepted when one does',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    const accepted = async () => JSON.stringify((await newestConfiguration(cluster.repository))?.document['components'] ?? null)
    const { state, start, before } = await editedBehind(t, cluster.configPath, accepted)
    for (const name of await readdir(state)) await rm(join(state, name), { recursive: true })
    const { repository } = JSON.parse(await readFile(cluster.configPath, 'utf8')) as {
      repository: { storages: { path: string }[] }
    }
    const { path } = repository.storages[0]!
    await chmod(path, 0)
    t.after(async () => chmod(path, 0o700).catch(() => undefined))
    await using plane = await start()
    assert(
      plane.reports.some((text) => text.includes('the file is in force until a storage answers')),
      plane.reports.join('\n'),
    )
    assert.equal(await inForce(state), null)
    await chmod(path, 0o700)
    await waitUntil('what was accepted is in force', async () => isDeepStrictEqual(await inForce(state), JSON.parse(before)))
    await waitUntil('it is asked', () => plane.reports.some((text) => text.includes('waits for a second person, as request')))
    assert.equal(await accepted(), before)
  },
)
