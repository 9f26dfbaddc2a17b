import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { containerFile } from '../services/container-file.ts'
import { skipUnlessInstalled, testCluster } from '../services/postgres.ts'

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url))
const skip = await skipUnlessInstalled(15)

/** The last stage of the image, in an empty directory: what it copies, and nothing else. Packages are linked, not copied. */
async function image(t: TestContext): Promise<{ directory: string; command: readonly string[] }> {
  const directory = await mkdtemp(join(tmpdir(), 'resus-image-'))
  t.after(() => rm(directory, { recursive: true }))
  const { copies, stage, command } = await containerFile(CHECKOUT)
  for (const { sources, to } of copies.filter((copy) => copy.stage === stage)) {
    for (const source of sources) {
      const target = to.endsWith('/') ? join(directory, to, basename(source)) : join(directory, to)
      await mkdir(dirname(target), { recursive: true })
      if (source === 'node_modules') await symlink(join(CHECKOUT, source), target)
      else await cp(join(CHECKOUT, source), target, { recursive: true })
    }
  }
  return { directory, command }
}

function runImage(directory: string, args: readonly string[], env: Record<string, string>) {
  return new Promise<{ status: number; stdout: string; stderr: string }>((resolve) => {
    execFile(
      join(directory, 'resus'),
      [...args],
      { cwd: '/', env: { PATH: process.env.PATH!, HOME: '/tmp', ...env } },
      (error, stdout, stderr) => resolve({ status: typeof error?.code === 'number' ? error.code : 0, stdout, stderr }),
    )
  })
}

test('what the image holds is enough for a backup that a file and the environment configure', { skip }, async (t) => {
  const { directory, command } = await image(t)
  const cluster = await testCluster(t, { major: 15, walSegmentMegabytes: 1 })
  const mount = (name: string) => join(cluster.home, name)
  const example = await readFile(join(CHECKOUT, 'deploy/container/resus.yaml'), 'utf8')
  const mounts = {
    '/var/lib/postgresql/data': cluster.directory,
    '/var/lib/resus': mount('state'),
    '/repository': mount('repository'),
    '/run/secrets': mount('secrets'),
  }
  const here = Object.entries(mounts).reduce((text, [path, place]) => text.replaceAll(path, place), example)
  await mkdir(mount('secrets'))
  await writeFile(mount('resus.yaml'), here)
  await writeFile(join(mount('secrets'), 'resus-passphrase'), 'a passphrase', { mode: 0o440 })
  await writeFile(join(mount('secrets'), 'resus-connection'), cluster.connectionString, { mode: 0o440 })
  const env = { RESUS_CONFIG: mount('resus.yaml') }

  const early = await runImage(directory, command, env)
  assert.equal(early.status, 1)
  assert.equal((JSON.parse(early.stdout) as { error: { code: string } }).error.code, 'STORAGE_UNREACHABLE')
  const init = await runImage(directory, ['init', '--json'], env)
  assert.equal(init.status, 0, init.stderr)
  const backup = await runImage(directory, command, env)
  assert.equal(backup.status, 0, backup.stderr)
  assert.equal(backup.stdout.trim().split('\n').length, 1)
  const report = JSON.parse(backup.stdout) as { type: string; corruptPages: unknown[] }
  assert.deepEqual([report.type, report.corruptPages], ['full', []])
  const lines = backup.stderr.trim().split('\n')
  for (const line of lines) assert.match((JSON.parse(line) as { kind: string }).kind, /^(progress|log)$/)

  await rm(mount('resus.yaml'))
  const lost = await runImage(directory, command, env)
  assert.equal(lost.status, 2)
  assert.equal(lost.stdout.trim().split('\n').length, 1)
})
