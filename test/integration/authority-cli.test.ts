import assert from 'node:assert/strict'
import { chmod, copyFile, mkdtemp, readFile, rename, rm, stat, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { systemClock, type Clock } from '../../src/clock.ts'
import { loadConfiguration } from '../../src/config/configuration.ts'
import { configuredAccess, configuredStorage } from '../../src/config/open.ts'
import { openTemporaryDirectory } from '../../src/postgres/staged-runtime.ts'
import type { RestoreReport } from '../../src/protect/postgres/restore.ts'
import { initRepository } from '../../src/repository/repository.ts'
import { CliPerson } from '../services/cli-person.ts'
import { controlPlane, withoutSchedules, type ControlPlane } from '../services/control-plane.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { strangeSystem } from '../services/strange-system.ts'
import { waitUntil } from '../services/wait-until.ts'

const skip = await skipUnlessInstalled(18)
const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
/** For whoever may not decide at all: no code of theirs is used up. */
const UNLOOKED = '000000'

interface Hospital {
  readonly plane: ControlPlane
  readonly person: (name: string) => Promise<CliPerson>
  readonly move: (ms: number) => void
}

/** A control plane that knows nobody, and a clock that can be moved on. */
async function hospital(t: TestContext, configPath: string): Promise<Hospital & AsyncDisposable> {
  let offsetMs = 0
  const clock: Clock = { ...systemClock, now: () => Date.now() + offsetMs }
  const home = await mkdtemp(join(await openTemporaryDirectory(), 'resus-people-'))
  t.after(async () => rm(home, { recursive: true, force: true }))
  const plane = await controlPlane(t, configPath, { clock })
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
  await withoutSchedules(cluster.configPath)
  await using his = await hospital(t, cluster.configPath)
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

  // On the first day people are made by one; a sealed code takes two.
  assert.equal((await ada.does('user add dia --grant operator:ila,ede')).body['approval'], null)
  const { approval } = (await ada.does('break-glass make')).body as { approval: { id: string } }
  assert.equal((await ada.refused(`user disable nobody`))[0], 'PERSON_UNKNOWN')
  const [code, said] = await ben.refused(`approve ${approval.id} --yes`, [[/six digits\): /, UNLOOKED]])
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
  const own = await chi.refused(`approve ${id} --yes`, [[/six digits\): /, UNLOOKED]])
  assert.equal(own[0], 'FORBIDDEN')
  assert.match(own[1], /own request/)
  assert.equal((await chi.does(`approve ${id}`)).body['state'], 'pending')
  assert.equal((await ada.refused(`approve ${id} --yes`, [[/six digits\): /, UNLOOKED]]))[0], 'FORBIDDEN')
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

/** With a repository, and nothing else that can be reached. */
async function bareSystem(t: TestContext): Promise<string> {
  const configPath = await strangeSystem(t)
  const configuration = await loadConfiguration(configPath)
  await configuredStorage(configuration).prepare()
  await initRepository(await configuredAccess(configuration), { clock: systemClock, kdfCost: 1024 })
  return configPath
}

test('a session is one account’s alone: it is replaced, and a copy of it that is used later ends it', async (t) => {
  await using his = await hospital(t, await bareSystem(t))
  const { move, plane } = his
  const ada = await firstAdministrator(his)
  const first = await ada.session()
  const stale = `${ada.runtime}-stale`
  await copyFile(first.path, stale)

  // Two at once, when its secret is due to be replaced: both are answered, and what is kept is good.
  move(6 * MINUTE_MS)
  await Promise.all([ada.does('user list'), ada.does('user list')])
  const second = await ada.session()
  assert.notEqual(second.cookie, first.cookie)
  assert.equal(second.csrf, first.csrf)
  move(MINUTE_MS)
  await ada.does('user list')
  assert.equal((await ada.session()).cookie, second.cookie)

  // What others may read, or a link to somewhere else, is not used; nothing is sent.
  await chmod(second.path, 0o640)
  assert.equal((await ada.refused('user list'))[0], 'SECRET_UNREADABLE')
  await chmod(second.path, 0o600)
  await rename(second.path, `${ada.runtime}-moved`)
  await symlink(`${ada.runtime}-moved`, second.path)
  assert.equal((await ada.refused('user list'))[0], 'SECRET_UNREADABLE')
  await rename(`${ada.runtime}-moved`, second.path)
  await ada.does('user list')

  // Somebody has copied it before: the session ends, for them and for her. (What was under way when it was replaced is good for half a minute more.)
  move(MINUTE_MS)
  await rename(second.path, `${ada.runtime}-now`)
  await rename(stale, second.path)
  assert.match((await ada.refused('user list'))[1], /has ended/)
  await rename(`${ada.runtime}-now`, second.path)
  assert.match((await ada.refused('user add eve --grant viewer'))[1], /has ended/)

  const [name, password] = ada.logOn()
  const wrong = await ada.refused('log-on', [name!, password!, [/six digits\): /, ada.wrongCode()]])
  assert.equal(wrong[0], 'FACTOR_WRONG')
  assert.equal((await ada.refused('log-on', [name!, [/password: /, 'another']]))[0], 'LOG_ON_REFUSED')
  assert.equal((await ada.refused('log-on --name nobody', [password!]))[0], 'LOG_ON_REFUSED')
  assert.equal((await ada.refused('log-on', [name!]))[0], 'ARGUMENTS_INVALID')
  const elsewhere = await ada.run('log-on', [], { RESUS_URL: 'http://resus.hospital.example' })
  assert.equal(elsewhere.code, 'ARGUMENTS_INVALID')
  const unreachable = await ada.run('log-on', [name!, password!], { RESUS_URL: 'http://127.0.0.1:1' })
  assert.equal(unreachable.code, 'CONTROL_PLANE_UNREACHABLE')
  await ada.does('log-on', ada.logOn())
  const before = await ada.session()
  move(MINUTE_MS)
  // Whoever logs on again leaves no session behind.
  await ada.does('log-on', ada.logOn())
  const mine = await ada.session()
  assert.equal(await cookieIsGood(plane, before.cookie), false)
  assert.equal(await cookieIsGood(plane, mine.cookie), true)
  assert.equal((await ada.does('log-off')).body['ended'], true)
  assert.equal(await cookieIsGood(plane, mine.cookie), false)
  assert.match((await ada.refused('user list'))[1], /nobody is logged on/)
  assert.equal((await ada.does('log-off')).body['ended'], false)
  // Nothing that was printed is a secret.
  for (const printed of ada.printed) {
    for (const secret of [ada.password, ...[first, second, before, mine].map(({ cookie }) => cookie.slice(-40))]) {
      assert(!printed.includes(secret), printed)
    }
  }
})

async function cookieIsGood({ url }: ControlPlane, cookie: string): Promise<boolean> {
  return (await fetch(`${url}/api/v1/auth/me`, { headers: { cookie } })).status === 200
}

test('emergencies, sealed codes and tokens; what others have written does nothing to a terminal', async (t) => {
  await using his = await hospital(t, await bareSystem(t))
  const { move, plane } = his
  const ada = await firstAdministrator(his)
  await ada.does('user add ben --grant approver --grant auditor')
  await ada.does('user add chi --grant operator')
  const ben = await invited(his, ada, 'ben')
  const chi = await invited(his, ada, 'chi')

  assert.equal((await ben.refused('emergency declare --reason fire', [[/six digits\): /, UNLOOKED]]))[0], 'FORBIDDEN')
  assert.equal((await chi.refused('emergency declare'))[0], 'ARGUMENTS_INVALID')
  move(MINUTE_MS)
  const shown = [[/six digits\): /, () => chi.code()]] as const
  const declared = (await chi.does('emergency declare --reason fire\u001b[2J', shown)).body as { id: string }
  const { items } = (await ada.does('emergency list')).body as { items: { id: string; review: unknown }[] }
  assert.deepEqual(
    items.map(({ id, review }) => [id, review]),
    [[declared.id, null]],
  )
  assert.equal((await chi.refused(`emergency review ${declared.id} --text good`))[0], 'FORBIDDEN')
  await ben.does(`emergency review ${declared.id} --text it-was-one`)
  const reviewed = (await ben.does('emergency list')).body as { items: { review: { by: string } }[] }
  assert.equal(reviewed.items[0]!.review.by, 'ben')

  const file = `${chi.runtime}-token`
  const strong = `${chi.runtime}-strong`
  assert.equal(
    (await chi.refused(`token make backups --grant operator --to ${strong}`))[0],
    'ARGUMENTS_INVALID',
    'without a code',
  )
  move(MINUTE_MS)
  const waiting = (await chi.does(`token make backups --grant operator --to ${strong}`, shown)).body as {
    approval: { id: string }
  }
  const other = await his.person('other')
  assert.equal((await other.refused(`tasks --token-file ${strong}`))[0], 'UNAUTHENTICATED')
  move(MINUTE_MS)
  const approved = await ben.does(`approve ${waiting.approval.id} --yes`, [[/six digits\): /, () => ben.code()]])
  assert.match(approved.stderr, /an API token "backups", as operator/)
  await other.does(`tasks --token-file ${strong}`)
  const made = await chi.does(`token make board --grant viewer --days 7 --to ${file}`, shown)
  assert.equal((await stat(file)).mode & 0o777, 0o600)
  assert(!made.stdout.includes((await readFile(file, 'utf8')).trim()))
  assert.equal((await chi.refused(`token make board --grant viewer --to ${file}`))[0], 'ARGUMENTS_INVALID')
  const nobody = await his.person('nobody')
  assert.equal((await nobody.refused('tasks --token-file /does/not/exist'))[0], 'SECRET_UNREADABLE')
  await nobody.does(`tasks --token-file ${file}`)
  await chi.does('tasks')
  const id = String(made.body['id'])
  const tokens = (await chi.does('token list')).body['items'] as { id: string; lastUsedAt: string | null }[]
  assert.deepEqual([tokens[0]?.id, tokens[0]?.lastUsedAt === null], [id, false])
  await chi.does(`token revoke ${id}`)
  assert.equal((await nobody.refused(`tasks --token-file ${file}`))[0], 'UNAUTHENTICATED')

  assert.equal((await chi.refused('audit acknowledge --text looked'))[0], 'FORBIDDEN')
  assert.equal((await ben.refused('audit acknowledge'))[0], 'ARGUMENTS_INVALID')
  assert.deepEqual((await ben.does('audit acknowledge --text looked')).body['items'], [])

  const sealed = await ada.does('break-glass make')
  const { code, approval } = sealed.body as { code: string; approval: { id: string; digest: string } }
  assert.match(code, /^([A-Z0-9]{5}-){5}[A-Z0-9]{5}$/)
  assert(!sealed.stderr.includes(code) && sealed.stderr.includes(approval.id))
  assert.equal((await chi.refused('break-glass make'))[0], 'FORBIDDEN')

  // The envelope is good when another has approved it, who was made by the asker no less than a day ago.
  move(25 * HOUR_MS)
  await Promise.all([ada.does('log-on', ada.logOn()), ben.does('log-on', ben.logOn())])

  // Who asks does not choose what is seen of it.
  const hostile = { change: 'make', name: 'dia', displayName: 'Dia\u001b[1A\u001b[2K\u202e\u200b', email: null }
  const asked = await ada.ask('POST /people', { ...hostile, grants: [{ role: 'administrator', facilities: null }] })
  const request = (asked.body['approval'] as { id: string }).id
  const seen = await ben.refused(`approve ${request}`, [[/approve or refuse: /, 'neither']])
  assert.match(seen[1], /people: make "dia", as administrator/)
  assert.match(seen[1], /"Dia\\u001b\[1A\\u001b\[2K\\u\{202e\}\\u\{200b\}"/)
  assert.deepEqual(
    ['\u001b', '\u202e', '\u200b'].filter((each) => seen[1].includes(each)),
    [],
  )

  const late = await ben.refused(`approve ${approval.id} --yes`, [[/six digits\): /, UNLOOKED]])
  assert.deepEqual([late[0], /expired/.test(late[1])], ['APPROVAL_INVALID', true])
  const next = (await ada.does('break-glass make')).body as { approval: { id: string } }
  const good = await ben.does(`approve ${next.approval.id} --yes`, [[/six digits\): /, () => ben.code()]])
  assert.equal(good.body['state'], 'used')
  assert.equal(
    plane.reports.some((report) => report.includes(code)),
    false,
  )
})
