import assert from 'node:assert/strict'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { systemClock, type Clock } from '../../src/clock.ts'
import { openTemporaryDirectory } from '../../src/postgres/staged-runtime.ts'
import type { RestoreReport } from '../../src/protect/postgres/restore.ts'
import { CliPerson } from '../services/cli-person.ts'
import { controlPlane, withoutSchedules, type ControlPlane } from '../services/control-plane.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'

const skip = await skipUnlessInstalled(18)
const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS

interface Hospital {
  readonly plane: ControlPlane
  readonly person: (name: string) => Promise<CliPerson>
  readonly move: (ms: number) => void
}

/** A control plane that knows nobody, and a clock that can be moved on. */
async function hospital(t: TestContext, cluster: ProtectedCluster): Promise<Hospital & AsyncDisposable> {
  let offsetMs = 0
  const clock: Clock = { ...systemClock, now: () => Date.now() + offsetMs }
  await withoutSchedules(cluster.configPath)
  const home = await mkdtemp(join(await openTemporaryDirectory(), 'resus-people-'))
  t.after(async () => rm(home, { recursive: true, force: true }))
  const plane = await controlPlane(t, cluster.configPath, { clock })
  return {
    plane,
    person: async (name) => CliPerson.open(name, { url: plane.url, home, clock }),
    move: (ms) => (offsetMs += ms),
    [Symbol.asyncDispose]: async () => plane[Symbol.asyncDispose](),
  }
}

/** The first administrator, by the link of the file. */
async function firstAdministrator({ plane, person }: Hospital): Promise<CliPerson> {
  const ada = await person('ada')
  const linkFile = join(plane.state, 'first-administrator')
  await waitUntil('there is a link', async () => (await stat(linkFile).catch(() => undefined)) !== undefined)
  const said = await ada.does(`log-on --first --link-file ${linkFile} --name ada`, [
    [/as others know you: /, 'Ada'],
    ...ada.enrolment(),
  ])
  assert.deepEqual(said.body['grants'], [{ role: 'administrator', facilities: null }])
  return ada
}

/** Somebody whom an administrator has made, in by their invitation. */
async function invited({ person }: Hospital, by: CliPerson, name: string): Promise<CliPerson> {
  const someone = await person(name)
  const { body } = await by.does(`user invite ${name}`)
  await someone.does('log-on --invitation', [[/invitation: /, String(body['code'])], ...someone.enrolment()])
  return someone
}

test('from the first administrator to a restore that two people wanted, by the command line alone', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query('create table patients (id int primary key); insert into patients select generate_series(1, 500)')
  await cluster.backup()
  await using his = await hospital(t, cluster)
  const { plane, move } = his
  const ada = await firstAdministrator(his)
  assert.equal((await stat((await ada.session()).path)).mode & 0o777, 0o600)
  assert.equal((await stat(join(ada.runtime, 'resus'))).mode & 0o777, 0o700)
  // The link and the administrator's token are gone.
  assert.equal((await plane.ask('GET /people')).status, 401)

  // Nobody could approve it yet: it is done by one.
  assert.equal((await ada.does('user add ben --grant approver')).body['approval'], null)
  assert.equal((await ada.does('user add chi --grant operator --grant approver')).body['approval'], null)
  assert.equal((await ada.refused('user add dia --grant chief'))[0], 'ARGUMENTS_INVALID')
  assert.equal((await ada.refused('user add ben --grant viewer'))[0], 'PERSON_EXISTS')
  const ben = await invited(his, ada, 'ben')
  const chi = await invited(his, ada, 'chi')
  assert.equal((await ada.refused('user invite ben'))[0], 'PERSON_EXISTS')
  const { items } = (await ben.does('user list')).body as { items: { name: string; factors: number }[] }
  assert.deepEqual(
    items.map(({ name, factors }) => [name, factors]),
    [
      ['ada', 1],
      ['ben', 1],
      ['chi', 1],
    ],
  )

  // From now on it takes two.
  const { approval } = (await ada.does('user add dia --grant operator:ila,ede')).body as { approval: { id: string } }
  assert.equal((await ada.refused(`user disable nobody`))[0], 'PERSON_UNKNOWN')
  const [code, said] = await ben.refused(`approve ${approval.id} --yes`, [[/six digits\): /, () => ben.code()]])
  assert.equal(code, 'FORBIDDEN', said)
  assert.match(said, /made this account/)
  assert.equal((await ada.does(`approve ${approval.id} --revoke`)).body['state'], 'revoked')

  const asked = await chi.ask('POST /backup-dr/recovery', { component: 'his-db' })
  assert.equal(asked.status, 202, JSON.stringify(asked.body))
  const { id, digest, parameters } = asked.body as { id: string; digest: string; parameters: { to: string } }
  assert.deepEqual(
    ((await ben.does('approve')).body['items'] as { id: string }[]).map((each) => each.id),
    [id],
  )
  // What must not work.
  const own = await chi.refused(`approve ${id} --yes`, [[/six digits\): /, () => chi.code()]])
  assert.equal(own[0], 'FORBIDDEN')
  assert.match(own[1], /own request/)
  assert.equal((await chi.does(`approve ${id}`)).body['state'], 'pending')
  assert.equal((await ada.refused(`approve ${id} --yes`, [[/six digits\): /, () => ada.code()]]))[0], 'FORBIDDEN')
  const wrong = await ben.refused(`approve ${id} --yes`, [[/six digits\): /, ben.wrongCode()]])
  assert.equal(wrong[0], 'FACTOR_WRONG')
  assert.equal((await ben.refused(`approve ${id} --yes`, [[/six digits\): /, 'abcdef']]))[0], 'FACTOR_WRONG')
  assert.equal((await ben.refused(`approve ${id}`, [[/approve or refuse: /, 'y']]))[0], 'ARGUMENTS_INVALID')

  const approved = await ben.does(`approve ${id}`, [
    [/approve or refuse: /, 'approve'],
    [/reason.*: /, 'the ward needs it'],
    [/six digits\): /, () => ben.code()],
  ])
  for (const shown of [id, digest, parameters.to, 'his-db', 'chi']) assert(approved.stderr.includes(shown), shown)
  assert.equal(approved.body['state'], 'used')
  const { task } = approved.body['outcome'] as { task: string }
  assert.equal((await chi.does(`tasks ${task} --follow`)).body['state'], 'done')
  {
    await using restored = await cluster.startRestored({ directory: parameters.to } as RestoreReport)
    assert.deepEqual(await restored.query('select count(*)::int as count from patients'), [{ count: 500 }])
  }

  // A code is good once, and so is a request.
  const again = (await chi.ask('POST /backup-dr/recovery', { component: 'his-db' })).body as { id: string }
  const used = await ben.refused(`approve ${again.id} --yes`, [[/six digits\): /, ben.usedCode()]])
  assert.equal(used[0], 'FACTOR_WRONG')
  move(MINUTE_MS)
  const over = await ben.refused(`approve ${id} --yes`, [[/six digits\): /, () => ben.code()]])
  assert.equal(over[0], 'APPROVAL_INVALID')
  const refused = await ben.does(`approve ${again.id} --refuse --reason late`, [[/six digits\): /, () => ben.code()]])
  assert.deepEqual([refused.body['state'], refused.body['reason']], ['refused', 'late'])

  // A day later nobody is in anybody's hand any more, and everybody logs on again.
  move(25 * HOUR_MS)
  assert.match((await ben.refused('approve'))[1], /has ended/)
  await ada.does('log-on', ada.logOn())
  await ben.does('log-on', ben.logOn())
  const later = (await ada.does('user grant chi --grant operator:ila')).body as { approval: { id: string } }
  const listed = await ben.does(`approve ${later.approval.id} --yes`, [[/six digits\): /, () => ben.code()]])
  assert.match(listed.stderr, /grants "chi", as operator:ila/)
  const { items: now } = (await ada.does('user list')).body as { items: { name: string; grants: unknown }[] }
  assert.deepEqual(now.find(({ name }) => name === 'chi')?.grants, [{ role: 'operator', facilities: ['ila'] }])
})
