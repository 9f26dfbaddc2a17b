import assert from 'node:assert/strict'
import { lstat, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test from 'node:test'
import { openTemporaryDirectory } from '../../src/postgres/staged-runtime.ts'
import { controlPlane, withoutSchedules, type ControlPlane } from '../services/control-plane.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'

const skip = await skipUnlessInstalled(18)

async function backUp(plane: ControlPlane): Promise<void> {
  const asked = await plane.ask('POST /backup-dr/backups/database', { body: {} })
  const task = await plane.ended(String(asked.body['id']))
  assert.equal(task['state'], 'done', JSON.stringify(task))
}

async function receiverOf(plane: ControlPlane): Promise<string | undefined> {
  const { body } = await plane.ask('GET /backup-dr/backups/status')
  return (body as { components: { receiver: { state: string } }[] }).components[0]?.receiver.state
}

async function isRefused(plane: ControlPlane): Promise<boolean> {
  const { body } = await plane.ask('GET /backup-dr/alarms')
  return (body['items'] as { code: string }[]).some(({ code }) => code === 'CONFIGURATION_REFUSED')
}

/** Kills the processes of receivers that this process has started. */
async function killReceivers(): Promise<number> {
  let killed = 0
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const [command, status] = await Promise.all(
      ['cmdline', 'stat'].map(async (name) => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '')),
    )
    const parent = Number(status!.slice(status!.lastIndexOf(')') + 2).split(' ')[1])
    if (!command!.includes('receivers-main.ts') || parent !== process.pid) continue
    process.kill(Number(pid), 'SIGKILL')
    killed += 1
  }
  return killed
}

test('while a change is refused, jobs and receivers go on with what was accepted, also after a restart', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await withoutSchedules(cluster.configPath)
  const state = await mkdtemp(join(await openTemporaryDirectory(), 'resus-serve-'))
  t.after(async () => rm(state, { recursive: true, force: true }))
  const good = await readFile(cluster.configPath, 'utf8')
  {
    await using plane = await controlPlane(t, cluster.configPath, { state })
    await waitUntil('it receives', async () => (await receiverOf(plane)) === 'receiving')
    await writeFile(cluster.configPath, `${good.slice(0, -2)}, "nonsense": 1}`)
    await waitUntil('it is refused', async () => isRefused(plane))
    await backUp(plane)
    assert.equal(await killReceivers(), 1)
    await waitUntil('its end was seen', () => plane.reports.some((text) => text.includes("receivers' process ended")))
    await waitUntil('it receives again', async () => (await receiverOf(plane)) === 'receiving')
  }
  {
    await using plane = await controlPlane(t, cluster.configPath, { state })
    await waitUntil('it receives', async () => (await receiverOf(plane)) === 'receiving')
    await waitUntil('people are told', async () => isRefused(plane))
    await backUp(plane)
    await writeFile(cluster.configPath, good.replace('"tier":"critical"', '"tier":"low"'))
    await waitUntil('what is right is taken', () => plane.reports.some((text) => text.includes('is in force')))
    await waitUntil('and people are told', async () => !(await isRefused(plane)))
  }
  await writeFile(cluster.configPath, 'nonsense')
  await rm(join(state, 'accepted'))
  await assert.rejects(
    async () => {
      await using _plane = await controlPlane(t, cluster.configPath, { state })
    },
    { code: 'CONFIG_INVALID' },
  )
})

test(
  'a start that cannot keep the configuration, which is no *.yaml, protects all the same, and keeps it when it can',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await withoutSchedules(cluster.configPath)
    const configPath = join(dirname(cluster.configPath), 'resus.conf')
    await rename(cluster.configPath, configPath)
    const state = await mkdtemp(join(await openTemporaryDirectory(), 'resus-serve-'))
    t.after(async () => rm(state, { recursive: true, force: true }))
    await mkdir(join(state, 'accepted/in-the-way'), { recursive: true })
    await using plane = await controlPlane(t, configPath, { state })
    await waitUntil('it receives', async () => (await receiverOf(plane)) === 'receiving')
    await backUp(plane)
    await waitUntil('people are told', async () => isRefused(plane))
    await rm(join(state, 'accepted'), { recursive: true })
    await waitUntil('it is kept', () => plane.reports.some((text) => text.includes('is in force')))
    assert((await lstat(join(state, 'accepted'))).isSymbolicLink())
    await backUp(plane)
    await waitUntil('and people are told', async () => !(await isRefused(plane)))
  },
)
