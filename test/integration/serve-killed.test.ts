import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test, { after } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { withoutSchedules } from '../services/control-plane.ts'
import { nodeProcess } from '../services/node-process.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { stopTestStore, testDatabase } from '../services/store.ts'
import { waitUntil } from '../services/wait-until.ts'

after(stopTestStore)
const skip = await skipUnlessInstalled(18)
const run = promisify(execFile)
const SILENT_MS = 4_000

/** The process whose arguments have this. */
async function processWith(argument: string): Promise<number | undefined> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (command.split('\0').includes(argument)) return Number(pid)
  }
  return undefined
}

async function largestFile(directory: string): Promise<string> {
  const found = await readdir(directory, { recursive: true, withFileTypes: true })
  const paths = found.filter((each) => each.isFile()).map((each) => join(each.parentPath, each.name))
  const sizes = await Promise.all(paths.map(async (path) => (await stat(path)).size))
  return paths[sizes.indexOf(Math.max(...sizes))]!
}

/** Whoever opens the file waits. Gives what mends it. */
async function hang(path: string): Promise<() => Promise<void>> {
  await rename(path, `${path}.whole`)
  await run('mkfifo', [path])
  return async () => {
    await rm(path)
    await rename(`${path}.whole`, path)
  }
}

test(
  'a node is killed, and nothing else: the restore that it ran ends, and the next attempt has the place',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await withoutSchedules(cluster.configPath)
    await cluster.backup()
    const home = dirname(cluster.configPath)
    const configuration = JSON.parse(await readFile(cluster.configPath, 'utf8')) as Record<string, unknown>
    const settings = { restoreRoots: [join(home, 'restores')] }
    const options = { name: 'one', home, configuration, databaseUrl: await testDatabase(), settings }
    const killed = await nodeProcess(t, options)
    const mend = await hang(await largestFile(join(cluster.repositoryDirectory, 'packs')))
    let asked: Record<string, unknown> = {}
    await waitUntil('a restore is taken', async () => {
      const { status, body } = await killed.ask('POST /backup-dr/recovery', { name: 'again' })
      asked = body
      return status === 202
    })
    const id = String(asked['id'])
    let command: number | undefined
    await waitUntil('its command runs', async () => (command = await processWith(id)) !== undefined)
    // One that prints would find out by itself that nobody reads: it waits for its storage by then.
    await delay(SILENT_MS)
    assert.equal(await processWith(id), command)
    process.kill(killed.pid, 'SIGKILL')
    await waitUntil('its command has ended', async () => (await processWith(id)) === undefined)
    await mend()
    const next = await nodeProcess(t, options)
    let task: Record<string, unknown> = {}
    await waitUntil('the restore has ended', async () => {
      task = (await next.ask(`GET /backup-dr/tasks/${id}`)).body
      return !['waiting', 'running'].includes(String(task['state']))
    })
    assert.deepEqual([task['state'], task['attempts']], ['done', 2], JSON.stringify(task))
  },
)
