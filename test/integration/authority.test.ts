import assert from 'node:assert/strict'
import { access, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { listAuthority, readAuthority } from '../../src/repository/authority-objects.ts'
import { controlPlane, lastingState, withoutSchedules } from '../services/control-plane.ts'
import { firstAdministrator, invitedBy, PUBLIC_URL } from '../services/people.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'

const skip = await skipUnlessInstalled(18)
const settings = { url: PUBLIC_URL }
const everywhere = (role: 'operator' | 'approver' | 'auditor' | 'viewer') => [{ role, facilities: null }]

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}

test('one asks for a restore, another approves it, and then it is done; each by themselves cannot', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await withoutSchedules(cluster.configPath)
  await using plane = await controlPlane(t, cluster.configPath, { settings })
  const { id: backup } = (await plane.ask('POST /backup-dr/backups/database', { body: {} })).body
  assert.equal((await plane.ended(String(backup)))['state'], 'done')

  const administrator = await firstAdministrator(plane)
  assert.equal((await plane.ask('GET /backup-dr/status')).status, 401, 'the token of the file is worth nothing any more')
  for (const file of ['administrator-token', 'first-administrator']) assert(!(await isThere(join(plane.state, file))), file)
  const approver = await invitedBy(plane, administrator, { name: 'approver', grants: everywhere('approver') })
  const operator = await invitedBy(plane, administrator, { name: 'operator', grants: everywhere('operator'), approver })

  const refused = await administrator.ask('POST /backup-dr/recovery', { name: 'refused' })
  assert.deepEqual([refused.status, refused.body['code']], [403, 'FORBIDDEN'])
  const asked = await operator.ask('POST /backup-dr/recovery', { name: 'two-people' })
  assert.deepEqual([asked.status, asked.body['state'], asked.body['operation']], [202, 'pending', 'restore'])
  const id = String(asked.body['id'])
  for (const alone of [operator, administrator]) assert.equal((await alone.decide(id)).status, 403, alone.name)
  assert(!(await isThere(join(plane.state, 'restores/two-people'))))

  assert.equal((await approver.decide(id, { digest: '0'.repeat(64) })).body['code'], 'APPROVAL_INVALID')
  const factor = await approver.factorFor(id)
  const decided = await approver.decide(id, { factor })
  assert.deepEqual([decided.status, decided.body['state']], [200, 'used'], JSON.stringify(decided.body))
  const task = String((decided.body['outcome'] as { task: string }).task)
  let done: Record<string, unknown> = {}
  await waitUntil('the restore has ended', async () => {
    done = (await operator.ask(`GET /backup-dr/tasks/${task}`)).body
    return !['waiting', 'running'].includes(String(done['state']))
  })
  assert.equal(done['state'], 'done', JSON.stringify(done['error']))
  assert(await isThere(join(plane.state, 'restores/two-people/PG_VERSION')))

  const review = (await administrator.ask('GET /access-review')).body as unknown as {
    last: string | null
    people: { name: string }[]
    copies: { by: string; approvedBy: string }[]
  }
  assert.deepEqual([review.last, review.people.length, review.copies.length], [null, 3, 1])
  assert.deepEqual([review.copies[0]?.by, review.copies[0]?.approvedBy], ['operator', 'approver'])
  assert.equal((await operator.ask('POST /access-review', { text: 'all is well' })).status, 403)
  assert.equal((await administrator.ask('POST /access-review', { text: 'all is well' })).status, 204)
  assert.notEqual((await administrator.ask('GET /access-review')).body['last'], null)

  // A factor is used up with its decision.
  const second = String((await operator.ask('POST /backup-dr/recovery', { name: 'again' })).body['id'])
  assert.equal((await approver.decide(second, { factor })).body['code'], 'FACTOR_WRONG')
  assert.equal((await approver.decide(second, { decision: 'refuse', reason: 'not needed' })).body['state'], 'refused')

  const trail = (
    await (
      await invitedBy(plane, administrator, { name: 'auditor', grants: everywhere('auditor'), approver })
    ).ask('GET /audit?limit=200')
  ).body
  const invitation = (trail['items'] as { action: string; address: string | null }[]).find(
    ({ action }) => action === 'invitation.made',
  )
  assert.equal(invitation?.address, '127.0.0.1')
  const actions = (trail['items'] as { action: string; actor: { name: string } }[]).map(
    ({ action, actor }) => `${action} ${actor.name}`,
  )
  for (const wanted of [
    'approval.asked operator',
    'approval.approved approver',
    'approval.used resus',
    'approval.refused approver',
    'request.refused first',
  ]) {
    assert(actions.includes(wanted), `${wanted} in ${actions.join(', ')}`)
  }
})

test('people come back with the repository, and the token of a new store does not open anything', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await withoutSchedules(cluster.configPath)
  let before: { name: string; grants: unknown }[] = []
  {
    await using plane = await controlPlane(t, cluster.configPath, { settings })
    const administrator = await firstAdministrator(plane)
    await invitedBy(plane, administrator, { name: 'approver', grants: everywhere('approver') })
    before = (await administrator.ask('GET /people')).body['items'] as typeof before
    await waitUntil('the repository knows both, with their passkeys', async () => {
      const names = await listAuthority(cluster.repository, 'people/')
      const documents = await Promise.all(
        names.map(async (name) => JSON.stringify(await readAuthority(cluster.repository, name))),
      )
      return documents.filter((text) => text.includes('"kind":"passkey"')).length >= 2
    })
  }
  // Another store, another state: only the repository is the same.
  await using plane = await controlPlane(t, cluster.configPath, { settings })
  assert.equal((await plane.ask('GET /backup-dr/status')).status, 401)
  assert(!(await isThere(join(plane.state, 'first-administrator'))))
  const logOn = async () =>
    await plane.ask('POST /auth/log-on', {
      body: { name: 'approver', password: 'a staple that no horse has seen' },
      token: null,
    })
  await waitUntil('the store knows them again', async () => (await logOn()).status === 200)
  assert.equal((await logOn()).body['kind'], 'second-factor', 'and what they have shown before is asked for')
  assert.equal(before.length, 2)
})

test(
  'a file that weakens protection waits for a second person, across a restart too; one that strengthens it does not',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await withoutSchedules(cluster.configPath)
    const state = await lastingState(t)
    const change = async (keep: object) => {
      const configuration = JSON.parse(await readFile(cluster.configPath, 'utf8')) as {
        components: Record<string, { keep?: object }>
      }
      configuration.components['his-db']!.keep = keep
      await writeFile(cluster.configPath, JSON.stringify(configuration))
    }
    const keepOf = (body: Record<string, unknown>) =>
      (body['systems'] as { components: Record<string, { keep: { daily: number } }> }[])[0]!.components['his-db']!.keep.daily
    let id = ''
    {
      await using plane = await controlPlane(t, cluster.configPath, { settings, state })
      const administrator = await firstAdministrator(plane)
      await invitedBy(plane, administrator, { name: 'approver', grants: everywhere('approver') })
      const daily = async () => keepOf((await administrator.ask('GET /backup-dr/config')).body)
      await change({ daily: 9 })
      await waitUntil('what strengthens is in force', async () => (await daily()) === 9)
      await change({ daily: 1 })
      await waitUntil('what weakens is asked for', async () => {
        const { items } = (await administrator.ask('GET /approvals?state=pending')).body as {
          items: { id: string; operation: string }[]
        }
        id = items.find(({ operation }) => operation === 'configuration')?.id ?? ''
        return id !== ''
      })
      assert.equal(await daily(), 9)
    }
    await using plane = await controlPlane(t, cluster.configPath, { settings, state })
    const logOn = await plane.ask('GET /backup-dr/config')
    assert.equal(logOn.status, 401)
    assert(
      plane.reports.some((text) => text.includes('weakens protection')),
      plane.reports.join('\n'),
    )
  },
)
