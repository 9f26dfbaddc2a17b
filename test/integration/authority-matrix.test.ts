import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import test from 'node:test'
import { ROLES, type Grant } from '../../src/authority/principal.ts'
import { MAY, PEOPLES, REACH, ROUTES, type Deed, type RouteRule } from '../services/authority-rules.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import {
  FACILITIES,
  nobody,
  OTHERS_WORDS,
  person,
  personActor,
  PLACES,
  tokenActors,
  twoFacilities,
  withoutFactor,
  type Actor,
  type Place,
  type Sent,
  type TwoFacilities,
} from '../services/two-facilities.ts'

const skip = await skipUnlessInstalled(18)
const NOBODY = '00000000-0000-4000-8000-000000000000'

test(
  'every route, whoever asks, of whichever facility: as the rules say, and nothing of another facility',
  { skip },
  async (t) => {
    await using here = await twoFacilities(t)
    await assertNoneForgotten(here)
    const actors = await actorsOf(here)
    const things = await thingsOf(here)
    const wrong: string[] = []
    let cells = 0
    for (const [route, rule] of Object.entries(ROUTES)) {
      for (const actor of actors) {
        for (const place of rule.about === undefined ? [undefined] : PLACES) {
          cells += 1
          wrong.push(...(await wrongIn({ here, things, actor, place }, route, rule)))
        }
      }
    }
    t.diagnostic(`${cells} cells, ${wrong.length} wrong`)
    assert.deepEqual(wrong, [])
  },
)

/** A route that the server has, and no line of the rules, is a mistake; and so is one that it has no more. */
async function assertNoneForgotten({ administrator }: TwoFacilities): Promise<void> {
  const { paths } = (await administrator.ask('GET /docs/json')).body as { paths: Record<string, Record<string, unknown>> }
  const documented = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  )
  const beside = ['GET /metrics', 'GET /api/v1/docs/', 'GET /api/v1/docs/json', 'GET /api/v1/nothing']
  assert.deepEqual([...documented, ...beside].toSorted(), Object.keys(ROUTES).toSorted())
}

async function actorsOf(here: TwoFacilities): Promise<Actor[]> {
  const actors: Actor[] = [nobody(here.plane)]
  const owners = new Map<string, Actor>()
  for (const role of ROLES) {
    for (const facilities of [null, ['fac-own']]) {
      const actor = await person(here, `${role}-${facilities === null ? 'all' : 'own'}`, [{ role, facilities }])
      owners.set(actor.name, actor)
      actors.push(actor)
    }
  }
  const everywhere = { role: 'viewer', facilities: null } as const
  for (const role of ['operator', 'approver'] as const) {
    const grants: Grant[] = [everywhere, { role, facilities: ['fac-own'] }]
    actors.push(await person(here, `viewer-all-${role}-own`, grants))
  }
  actors.push(personActor(here.administrator, [{ role: 'administrator', facilities: null }]))
  actors.push(await withoutFactor(here, 'without-factor', [{ role: 'operator', facilities: null }]))
  const tokens = (['viewer', 'operator', 'auditor'] as const).flatMap((role) => {
    const owner = owners.get(`${role}-all`)!.somebody!
    return [null, ['fac-own']].map((facilities) => ({ owner, role, facilities }))
  })
  return [...actors, ...(await tokenActors(here, tokens))]
}

interface Things {
  readonly tasks: Readonly<Record<Place, string>>
  readonly approvals: Readonly<Record<Place, string>>
  readonly newApproval: (place: Place) => Promise<string>
  readonly newEmergency: () => Promise<string>
}

/** Of each component a task that has ended, and a request that waits; all by real means. */
async function thingsOf(here: TwoFacilities): Promise<Things> {
  const asker = await person(here, 'asker', [{ role: 'operator', facilities: null }])
  const post = async (path: string, body: unknown) => {
    const { status, text } = await asker.send('POST', path, body)
    assert(status < 300, text)
    return JSON.parse(text) as { id: string }
  }
  let last = ''
  const newApproval = async (place: Place) => {
    // Nobody may let more than some wait.
    if (last !== '') await asker.send('POST', `/api/v1/approvals/${last}/revoke`, undefined)
    last = (await post('/api/v1/backup-dr/recovery', { component: `${place}-db`, name: randomUUID() })).id
    return last
  }
  const [tasks, approvals] = [{} as Record<Place, string>, {} as Record<Place, string>]
  for (const place of PLACES) {
    const { id } = await post('/api/v1/backup-dr/backups/database', { component: `${place}-db` })
    await post(`/api/v1/backup-dr/tasks/${id}/cancel`, undefined)
    tasks[place] = id
    approvals[place] = await newApproval(place)
    last = ''
  }
  const newEmergency = async () => String((await asker.somebody.declare('no power in the server room')).body['id'])
  return { tasks, approvals, newApproval, newEmergency }
}

interface Cell {
  readonly here: TwoFacilities
  readonly things: Things
  readonly actor: Actor
  readonly place: Place | undefined
}

async function wrongIn(cell: Cell, route: string, rule: RouteRule): Promise<string[]> {
  const { actor, place } = cell
  const what = `${actor.name}: ${route}${place === undefined ? '' : ` of ${place}`}`
  const wanted = wantedOf(cell, rule)
  const sent = await ask(cell, route, rule)
  // A sealed code has that name, too.
  const found = sent.code === '' || sent.status < 300 ? String(sent.status) : `${sent.status} ${sent.code}`
  const wrong = found === wanted || (wanted === '404' && sent.status === 404) ? [] : [`${what}: ${found}, wanted ${wanted}`]
  if (wanted === '404') wrong.push(...(await wrongInAbsence(cell, { route, rule, sent })).map((why) => `${what}: ${why}`))
  else wrong.push(...leaks(cell, sent).map((word) => `${what}: tells of "${word}"`))
  if (rule.lists === true && sent.status === 200) wrong.push(...wrongInList(cell, rule, sent).map((why) => `${what}: ${why}`))
  return wrong
}

/** What the rules say. */
function wantedOf({ actor, place }: Cell, { deed, answer, token = answer, withoutFactor: bare = answer }: RouteRule): string {
  if (deed === 'open') return answer
  if (actor.kind === 'nobody') return '401 UNAUTHENTICATED'
  if (deed === 'self') {
    if (actor.kind === 'token') return token
    return actor.grants.length === 0 ? bare : answer
  }
  const may = actor.grants.filter(({ role }) => MAY[role].includes(deed))
  const isWhole = may.some(({ facilities }) => facilities === null)
  if (may.length === 0 || (REACH[deed] === 'none' && !isWhole)) return '403 FORBIDDEN'
  if (actor.kind === 'token' && PEOPLES.includes(deed)) return '403 FORBIDDEN'
  if (place === undefined) return answer
  // A request is seen by who may read requests of that component, and everything else by who may read its status.
  const seeing: Deed = deed === 'decide' || deed === 'read approvals' ? 'read approvals' : 'read status'
  if (!sees(actor, seeing, place)) return '404'
  const isReached =
    REACH[deed] === 'some' ||
    isWhole ||
    FACILITIES[place].every((each) => may.some(({ facilities }) => facilities?.includes(each)))
  return isReached ? answer : '403 FORBIDDEN'
}

function sees({ grants }: Actor, deed: Deed, place: Place): boolean {
  return grants.some(
    ({ role, facilities }) =>
      MAY[role].includes(deed) && (facilities === null || FACILITIES[place].some((each) => facilities.includes(each))),
  )
}

async function ask(cell: Cell, route: string, rule: RouteRule, instead?: string): Promise<Sent> {
  const { actor, place, here, things } = cell
  const [method = '', path = ''] = route.split(' ')
  const component = instead ?? `${place}-db`
  if (route.endsWith('/decision')) return await decide(cell, instead)
  const ids = { backup: here.backups, task: things.tasks, approval: things.approvals, component: undefined }
  const fresh = rule.deed === 'review' ? await things.newEmergency() : NOBODY
  const id = place === undefined || rule.about === undefined ? fresh : (instead ?? ids[rule.about]?.[place] ?? NOBODY)
  const url = path
    .replace('{id}', id)
    .replace('{sequence}', '999')
    .replace('{action}', '00000000-0000-4000-8000-000000000000')
    .replace(/\{\w+\}/, 'none')
  const query = rule.query === undefined ? '' : `?${rule.query}${component}`
  const body = rule.about === 'component' && rule.body !== undefined ? { ...rule.body, component } : rule.body
  return await actor.send(method, `${url}${query}`, body)
}

/** A fresh request each time, and all that a decision takes: what is refused is refused for who asks alone. */
async function decide({ actor, place, things }: Cell, instead?: string): Promise<Sent> {
  const id = instead ?? (await things.newApproval(place!))
  const shown = await actor.send('GET', `/api/v1/approvals/${id}`)
  const { digest = '0'.repeat(64) } = JSON.parse(shown.text || '{}') as { digest?: string }
  const factor = (await actor.somebody?.factorFor(id)) ?? { kind: 'totp', code: '000000' }
  const body = { decision: 'refuse', digest, factor, reason: 'a test' }
  return await actor.send('POST', `/api/v1/approvals/${id}/decision`, body)
}

/** Whoever may not know of something is answered as for something that nobody has. */
async function wrongInAbsence(
  cell: Cell,
  { route, rule, sent }: { readonly route: string; readonly rule: RouteRule; readonly sent: Sent },
): Promise<string[]> {
  const absent = { component: 'nowhere-db', backup: 'f'.repeat(26), task: NOBODY, approval: NOBODY }[rule.about!]
  const never = await ask(cell, route, rule, absent)
  const plain = ({ text }: Sent) =>
    text.replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}|"there is no backup \\"[^"]*|(other|nowhere)-db/g, '…')
  return never.status === sent.status && plain(never) === plain(sent)
    ? []
    : [`another answer than for none: ${sent.text} / ${never.text}`]
}

/** Words of the other facility, in an answer to somebody who sees nothing of it. */
function leaks({ actor, here, things, place }: Cell, { text }: Sent): string[] {
  if (actor.grants.some(({ facilities }) => facilities === null)) return []
  const asked = place === 'other' ? [] : [here.backups.other, things.tasks.other, things.approvals.other]
  return [...OTHERS_WORDS, ...asked].filter((word) => text.includes(word))
}

function wrongInList({ actor }: Cell, { deed }: RouteRule, { text }: Sent): string[] {
  return PLACES.filter((place) => text.includes(`${place}-db`) !== sees(actor, deed, place)).map((place) =>
    sees(actor, deed, place) ? `lacks ${place}` : `shows ${place}`,
  )
}
