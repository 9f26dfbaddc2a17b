import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { isRunning } from '../../src/postgres/cluster-process.ts'
import { processStart } from '../../src/postgres/process-start.ts'
import type { Verdict } from '../../src/repository/verdicts.ts'
import { listVerdicts } from '../../src/repository/verdicts.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { scratchRootOf, startResus, type RunningResus } from '../services/proving.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { HANGS_AFTER_MS } from '../services/wait-until.ts'

const POLL_MS = 5

/** What a verification has made so far. */
interface Scratch {
  readonly directory: string
  readonly socketDirectory: string
}

async function markers(root: string): Promise<string[]> {
  return (await readdir(root).catch(() => [])).filter((name) => /^verify-[0-9a-f]{16}\.json$/.test(name))
}

/** Waits until a running verification has come so far that `reached` holds of its scratch directory. */
async function waitUntil(
  cluster: ProtectedCluster,
  running: RunningResus,
  reached: (scratch: Scratch) => Promise<boolean>,
): Promise<Scratch> {
  const root = scratchRootOf(cluster)
  for (const begun = performance.now(); performance.now() - begun < HANGS_AFTER_MS; await delay(POLL_MS)) {
    assert.equal(running.child.exitCode, null, 'the verification runs still')
    const [marker] = await markers(root)
    const text = marker === undefined ? '' : await readFile(join(root, marker), 'utf8').catch(() => '')
    const scratch = text.endsWith('}') ? (JSON.parse(text) as Scratch) : undefined
    if (scratch !== undefined && (await reached(scratch))) return scratch
  }
  throw new Error('the verification does not come so far')
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}

const MOMENTS: Readonly<Record<string, (scratch: Scratch) => Promise<boolean>>> = {
  'files are being written': ({ directory }) => isThere(join(directory, 'data/base')),
  'the server runs': ({ directory }) => isRunning(join(directory, 'data')).catch(() => false),
}

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(
    `PostgreSQL ${major}: what a killed verification leaves is removed by the next one, and nothing else`,
    { skip },
    async (t) => {
      await using cluster = await protectedCluster(t, { major, settings: { autovacuum: 'off' } })
      await cluster.query('create table patients as select i as id, md5(i::text) as name from generate_series(1, 50000) i')
      const backup = await cluster.backup()
      const root = scratchRootOf(cluster)
      // Neither may be touched: the one has no marker, the other's is that of a living process.
      const strangers = ['verify-0123456789abcdef', 'verify-fedcba9876543210', 'of-the-auditor']
      for (const name of strangers) await mkdir(join(root, name), { recursive: true })
      for (const [moment, reached] of Object.entries(MOMENTS)) {
        const running = startResus(cluster, 'verify', '--by-restore')
        const scratch = await waitUntil(cluster, running, reached)
        running.child.kill('SIGKILL')
        await running.ended
        assert.ok(await isThere(scratch.directory), moment)
        // The one that is told to end removes the killed one's, and its own.
        const ended = startResus(cluster, 'verify', '--by-restore')
        const own = await waitUntil(
          cluster,
          ended,
          async ({ directory }) => directory !== scratch.directory && (await reached({ directory, socketDirectory: '' })),
        )
        assert.equal(await isThere(scratch.directory), false, moment)
        ended.child.kill('SIGINT')
        const { status, stdout, stderr } = await ended.ended
        assert.deepEqual([status, (JSON.parse(stdout) as { error: { code: string } }).error.code], [1, 'INTERRUPTED'], stderr)
        for (const { directory, socketDirectory } of [scratch, own]) {
          assert.equal(await isRunning(join(directory, 'data')).catch(() => false), false)
          assert.deepEqual([await isThere(directory), await isThere(socketDirectory)], [false, false], moment)
        }
        assert.deepEqual((await readdir(root)).toSorted(), strangers.toSorted())
      }
      assert.deepEqual(await listVerdicts(cluster.repository, cluster.component.name, backup.id), [])

      const alive = {
        format: 1,
        purpose: 'resus verify --by-restore',
        id: 'fedcba9876543210',
        directory: join(root, 'verify-fedcba9876543210'),
      }
      const started = await processStart(process.pid)
      const more = {
        socketDirectory: '/nowhere/resus-fedcba9876543210',
        host: 'any',
        pid: process.pid,
        started,
        component: 'c',
        backup: 'b',
        at: '',
      }
      await writeFile(join(root, 'verify-fedcba9876543210.json'), JSON.stringify({ ...alive, ...more }))
      const { status, stdout, stderr } = await startResus(cluster, 'verify', '--by-restore', 'latest').ended
      assert.equal(status, 0, stderr)
      const verdict = JSON.parse(stdout) as Verdict & { kept: boolean }
      assert.deepEqual([verdict.verdict, verdict.target, verdict.kept], ['verified', 'latest', true])
      assert.deepEqual((await readdir(root)).toSorted(), [...strangers, 'verify-fedcba9876543210.json'].toSorted())
      const kept = await listVerdicts(cluster.repository, cluster.component.name, backup.id)
      assert.deepEqual(
        kept.map((each) => each.verdict?.verdict),
        ['verified'],
      )
      // The cluster that was backed up is as it was.
      assert.deepEqual(await cluster.query('select count(*)::int from patients'), [{ count: 50_000 }])
    },
  )
}

test(
  'a scratch directory that would lie in the data directory or the storage is refused before anything is written',
  { skip: await skipUnlessInstalled(18) },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await cluster.backup()
    for (const inside of [join(cluster.cluster.directory, 'scratch'), join(cluster.repositoryDirectory, 'scratch')]) {
      const { status, stdout } = await startResus(cluster, 'verify', '--by-restore', '--scratch', inside).ended
      assert.deepEqual([status, (JSON.parse(stdout) as { error: { code: string } }).error.code], [2, 'ARGUMENTS_INVALID'])
      assert.equal(await isThere(inside), false)
    }
  },
)
