import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { controlPlane, withoutSchedules } from '../services/control-plane.ts'
import { firstAdministrator, invitedBy, madeLongAgo, PUBLIC_URL } from '../services/people.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
const skip = await skipUnlessInstalled(18)

interface Ran {
  readonly status: number | null
  readonly body: Record<string, unknown>
  readonly stderr: string
}

/** `resus` on the host, with the key. */
async function resus(configPath: string, args: readonly string[], input = ''): Promise<Ran> {
  const child = spawn(process.execPath, [MAIN, ...args, '--json', '--config', configPath], { stdio: 'pipe' })
  child.stdin.end(input)
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  return { status: child.exitCode, body: JSON.parse(stdout) as Record<string, unknown>, stderr }
}

const codeOf = ({ body }: Ran) => (body['error'] as { code?: string } | undefined)?.code ?? body['code']

test('on a host with the key a restore takes a second person, an emergency or the sealed code', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.backup()
  await withoutSchedules(cluster.configPath)
  await using plane = await controlPlane(t, cluster.configPath, { settings: { url: PUBLIC_URL } })
  const place = (name: string) => join(cluster.stateDirectory, '..', name)
  const restore = async (name: string, more: readonly string[], input?: string) =>
    await resus(cluster.configPath, ['restore', '--to', place(name), ...more], input)
  const isThere = async (name: string) =>
    await access(join(place(name), 'PG_VERSION')).then(
      () => true,
      () => false,
    )
  // While nobody is known.
  assert.equal((await restore('alone', [])).status, 0)

  const administrator = await firstAdministrator(plane)
  const approver = await invitedBy(plane, administrator, { name: 'approver', grants: [{ role: 'approver', facilities: null }] })
  const operator = await invitedBy(plane, administrator, { name: 'operator', grants: [{ role: 'operator', facilities: null }] })
  await waitUntil('the repository knows people', async () => codeOf(await restore('none', [])) === 'APPROVAL_NEEDED')
  assert(!(await isThere('none')))

  const asked = await restore('two', ['--ask', 'the server is gone'])
  assert.deepEqual([asked.status, codeOf(asked)], [2, 'APPROVAL_NEEDED'])
  const [, id = ''] = /as ([0-9a-f-]{36})/.exec(JSON.stringify(asked.body)) ?? []
  assert.equal(codeOf(await restore('two', ['--approval', id])), 'APPROVAL_NEEDED', 'nobody has decided')
  await waitUntil('the control plane has found it', async () => (await approver.ask(`GET /approvals/${id}`)).status === 200)
  // Made and approved by another person than the one who made the approver: the approver was made by the administrator today.
  const sealed = (await administrator.ask('POST /break-glass')).body as { code: string; approval: { id: string } }
  assert.equal((await approver.decide(sealed.approval.id)).body['code'], 'FORBIDDEN')
  assert.equal((await approver.decide(id)).body['code'], 'FORBIDDEN', 'nor does whoever was made today decide for a host')
  await madeLongAgo(plane, approver)
  assert.equal((await approver.decide(id)).body['state'], 'approved')
  assert.equal(codeOf(await restore('elsewhere', ['--approval', id])), 'APPROVAL_INVALID')
  assert.equal(
    codeOf(await restore('two', ['--approval', id, '--exclusive', '--target-time', '2026-11-22T00:00:00Z'])),
    'APPROVAL_INVALID',
  )
  const done = await restore('two', ['--approval', id])
  assert.equal(done.status, 0, done.stderr)
  assert(await isThere('two'))
  await rm(place('two'), { recursive: true })
  assert.equal(codeOf(await restore('two', ['--approval', id])), 'APPROVAL_INVALID', 'it is good once')
  await waitUntil(
    'the control plane sees that it was used',
    async () => (await approver.ask(`GET /approvals/${id}`)).body['state'] === 'used',
  )

  assert.equal((await operator.ask('POST /emergencies', { reason: 'without a factor' })).body['code'], 'FACTOR_NEEDED')
  const emergency = (await operator.declare('the whole site is down')).body as { id: string }
  assert.equal((await restore('fire', ['--emergency', emergency.id])).status, 0)
  const over = await resus(cluster.configPath, ['restore', '--to', place('fire'), '--delta', '--emergency', emergency.id])
  assert.equal(codeOf(over), 'APPROVAL_NEEDED', 'nothing is restored over alone')

  assert.equal(codeOf(await restore('glass', ['--break-glass'], `${sealed.code}\n`)), 'APPROVAL_INVALID')
  assert(!(await isThere('glass')))

  // What somebody writes into the file on the host.
  const configuration = JSON.parse(await readFile(cluster.configPath, 'utf8')) as {
    components: Record<string, { keep?: object }>
  }
  await waitUntil('the repository knows what is in force', async () => (await resus(cluster.configPath, ['expire'])).status === 0)
  const copy = join(cluster.stateDirectory, '..', 'weak.json')
  configuration.components['his-db']!.keep = { daily: 1, weekly: 0, monthly: 0, pitrDays: 0 }
  await writeFile(copy, JSON.stringify(configuration))
  t.after(async () => rm(copy, { force: true }))
  assert.equal(codeOf(await resus(copy, ['expire'])), 'APPROVAL_NEEDED')
  assert.equal((await resus(copy, ['expire', '--dry-run'])).status, 0)
  for (const name of ['alone', 'fire']) await rm(place(name), { recursive: true })
})
