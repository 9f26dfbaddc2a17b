import assert from 'node:assert/strict'
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { newestSettings } from '../../src/authority/accepted-settings.ts'
import { controlPlane, lastingState, withoutSchedules, type ControlPlane } from '../services/control-plane.ts'
import { firstAdministrator, invitedBy, madeLongAgo, PUBLIC_URL, type Somebody } from '../services/people.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'

const skip = await skipUnlessInstalled(18)

const SECRET_PING = 'https://watch.example/ping/3f1f6d3a5a'

interface Waiting {
  readonly id: string
  readonly askedBy: string
  readonly parameters: { readonly changes: readonly { readonly path: string; readonly after: unknown }[] }
}

async function waitingOf(somebody: Somebody, node: string): Promise<Waiting> {
  let found: Waiting | undefined
  await waitUntil('a request waits', async () => {
    const { body } = await somebody.ask('GET /approvals?state=pending')
    found = (body['items'] as Waiting[] | undefined)?.find(({ askedBy }) => askedBy.endsWith(` on ${node}`))
    return found !== undefined
  })
  return found!
}

/** Where a restore that somebody asks for would go. */
async function restoredTo(somebody: Somebody): Promise<unknown> {
  const { status, body } = await somebody.ask('POST /backup-dr/recovery', { name: 'a' })
  assert.equal(status, 202, JSON.stringify(body))
  return (body['parameters'] as { to: unknown }).to
}

async function said(plane: ControlPlane, text: string): Promise<void> {
  await waitUntil(`it is said: ${text}`, () => plane.reports.some((each) => each.includes(text)))
}

test(
  'server.yaml is edited while the server is down: what weakens is without effect until a second person has agreed, also where the state is removed',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await withoutSchedules(cluster.configPath)
    const state = await lastingState(t)
    const roots = [join(state, 'restores')]
    const settings = { url: PUBLIC_URL, node: 'one', restoreRoots: roots, deadMan: { url: SECRET_PING, everySeconds: 3600 } }
    const weaker = { ...settings, restoreRoots: ['/'], deadMan: undefined }
    const kept = async () => (await newestSettings([cluster.repository], 'one'))?.document['restoreRoots']
    const start = async (file: Record<string, unknown>) => controlPlane(t, cluster.configPath, { settings: file, state })
    let approver: Somebody
    let operator: Somebody
    // A browser stays logged on while the server is started anew.
    let now: ControlPlane
    {
      await using plane = await start(settings)
      now = plane
      const lasting: ControlPlane = { ...plane, ask: async (...what) => now.ask(...what) }
      const first = await firstAdministrator(lasting)
      approver = await invitedBy(lasting, first, { name: 'lead', grants: [{ role: 'approver', facilities: null }] })
      operator = await invitedBy(lasting, first, { name: 'night', grants: [{ role: 'operator', facilities: null }] })
      await waitUntil('what is in force is kept', async () => (await kept()) !== undefined)
    }
    {
      // A name that no repository knows is no way around.
      await using plane = await start({ ...weaker, node: 'two' })
      await said(plane, 'restoreRoots, deadMan: weakens protection and waits')
    }
    {
      await using plane = await start(weaker)
      now = plane
      await said(plane, 'restoreRoots, deadMan: weakens protection and waits')
      assert.deepEqual(await kept(), roots)
      const waiting = await waitingOf(approver, 'one')
      assert.deepEqual(waiting.parameters.changes.map(({ path }) => path).toSorted(), ['deadMan', 'restoreRoots'])
      assert(!JSON.stringify(waiting).includes(SECRET_PING), JSON.stringify(waiting))
      await waitUntil('people are told', async () => {
        const { body } = await approver.ask('GET /backup-dr/alarms')
        const alarms = body['items'] as { code: string; text: string }[]
        return alarms.some(({ code, text }) => code === 'CONFIGURATION_REFUSED' && text.includes('restoreRoots'))
      })
      assert.equal(await restoredTo(operator), join(roots[0]!, 'a'))
      assert.equal(
        (await approver.decide(waiting.id)).body['code'],
        'FORBIDDEN',
        'whoever made the account may have edited the file',
      )
      await madeLongAgo(plane, approver)
      const decided = await approver.decide(waiting.id)
      assert.equal(decided.status, 200, JSON.stringify(decided.body))
      await said(plane, 'in force at the next start')
      assert.deepEqual(await kept(), ['/'])
    }
    {
      await using plane = await start(weaker)
      now = plane
      assert(!plane.reports.some((each) => each.includes('server.yaml')), plane.reports.join('\n'))
      assert.equal(await restoredTo(operator), '/a')
    }
    const text = await readFile(join(state, 'accepted-server.json'), 'utf8')
    assert.deepEqual((JSON.parse(text) as { document: { restoreRoots: unknown } }).document.restoreRoots, ['/'])
    for (const name of await readdir(state)) await rm(join(state, name), { recursive: true })
    await using plane = await start({ ...weaker, url: 'https://evil.test' })
    await said(plane, 'url: weakens protection')
  },
)
