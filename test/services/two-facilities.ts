import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { TestContext } from 'node:test'
import { Accounts } from '../../src/authority/accounts.ts'
import type { Grant, Role } from '../../src/authority/principal.ts'
import { embeddedConnection } from '../../src/catalog/embedded-store.ts'
import { Store } from '../../src/catalog/store.ts'
import { systemClock, type Clock } from '../../src/clock.ts'
import { Secret } from '../../src/secret.ts'
import { HERE } from './accounts.ts'
import { controlPlane, type ControlPlane } from './control-plane.ts'
import { firstAdministrator, invitedBy, PEOPLES_PASSWORD, PUBLIC_URL, type Somebody } from './people.ts'
import { protectedCluster, type ProtectedCluster } from './protected-cluster.ts'
import { waitUntil } from './wait-until.ts'

/** Whose component: of their own facility alone, of that and another, of the other alone. */
export const PLACES = ['own', 'shared', 'other'] as const
export type Place = (typeof PLACES)[number]

export const FACILITIES: Readonly<Record<Place, readonly string[]>> = {
  own: ['fac-own'],
  shared: ['fac-own', 'fac-other'],
  other: ['fac-other'],
}

/** What nobody of the facility "own" may read anywhere: names of the other one, and of what it has alone. */
export const OTHERS_WORDS = ['other-db', 'fac-other', 'Hospital of the others'] as const

export interface TwoFacilities extends AsyncDisposable {
  readonly plane: ControlPlane
  readonly cluster: ProtectedCluster
  readonly administrator: Somebody
  /** One of each component. */
  readonly backups: Readonly<Record<Place, string>>
}

/** A system of two facilities and three components, each with a backup. No node reaches any of them: what is asked for waits. */
export async function twoFacilities(t: TestContext, clock: Clock = systemClock): Promise<TwoFacilities> {
  const cluster = await protectedCluster(t, { major: 18 })
  const backups = {} as Record<Place, string>
  for (const place of PLACES) {
    backups[place] = (await cluster.backup({ component: { ...cluster.component, name: `${place}-db` } })).id
  }
  await configure(cluster.configPath)
  const identityProvider = await awayProvider(dirname(cluster.configPath))
  const plane = await controlPlane(t, cluster.configPath, { settings: { url: PUBLIC_URL, identityProvider }, clock })
  await waitUntil('the backups are known', async () => (await plane.ask('GET /backup-dr/backups')).body['total'] === 3)
  return {
    plane,
    cluster,
    administrator: await firstAdministrator(plane),
    backups,
    [Symbol.asyncDispose]: async () => {
      await plane[Symbol.asyncDispose]()
      await cluster[Symbol.asyncDispose]()
    },
  }
}

/** So that its routes are there. */
async function awayProvider(directory: string): Promise<object> {
  const secret = join(directory, 'client-secret')
  await writeFile(secret, 'a secret of the client', { mode: 0o600 })
  const redirect = `${PUBLIC_URL}/api/v1/auth/oidc/callback`
  return { issuer: 'http://127.0.0.1:1', clientId: 'resus', clientSecret: `file:${secret}`, redirect, groups: {} }
}

async function configure(path: string): Promise<void> {
  const configuration = JSON.parse(await readFile(path, 'utf8')) as { components: Record<string, object> }
  const schedules = { backup: 'never', verify: 'never', prove: 'never', drill: 'never', expire: 'never', check: 'never' }
  const nowhere = {
    kind: 'postgres',
    tier: 'high',
    connection: 'postgres://resus@127.0.0.1:1/postgres',
    dataDirectory: 'nowhere',
  }
  const components = Object.fromEntries(
    PLACES.map((place) => [`${place}-db`, { ...nowhere, schedules, facilities: FACILITIES[place] }]),
  )
  const facilities = { 'fac-own': { name: 'Our hospital' }, 'fac-other': { name: 'Hospital of the others' } }
  await writeFile(path, JSON.stringify({ ...configuration, facilities, components }))
}

/** An answer, and its text: what must not be known is looked for in that. */
export interface Sent {
  readonly status: number
  readonly code: string
  readonly text: string
}

/** Somebody, or something, that asks. */
export interface Actor {
  readonly name: string
  readonly kind: 'nobody' | 'person' | 'token'
  /** What counts of theirs: nothing without a second factor. */
  readonly grants: readonly Grant[]
  readonly somebody?: Somebody
  readonly send: (method: string, path: string, body?: unknown) => Promise<Sent>
}

/** `path` as it is on the server. */
async function send(
  plane: ControlPlane,
  asked: readonly [string, string, unknown],
  headers: Record<string, string>,
): Promise<Sent> {
  const [method, path, body] = asked
  const answer = await fetch(`${plane.url}${path}`, {
    method,
    redirect: 'manual',
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await answer.text()
  const code = text.startsWith('{') ? ((JSON.parse(text) as { code?: unknown }).code ?? '') : ''
  return { status: answer.status, code: typeof code === 'string' ? code : '', text }
}

export function nobody(plane: ControlPlane): Actor {
  return { name: 'nobody', kind: 'nobody', grants: [], send: async (...asked) => send(plane, [asked[0], asked[1], asked[2]], {}) }
}

/** Each request goes by the person's own browser: their cookie may change. */
export function personActor(somebody: Somebody, grants: readonly Grant[], name = somebody.name): Actor {
  return {
    name,
    kind: 'person',
    grants,
    somebody,
    send: async (method, path, body) => {
      const under = path.startsWith('/api/v1') ? path.slice('/api/v1'.length) : `/../..${path}`
      const { status, body: document } = await somebody.ask(`${method} ${under}`, body)
      const { code = '' } = document as { code?: string }
      return { status, code, text: JSON.stringify(document) }
    },
  }
}

export async function person(
  { plane, administrator }: TwoFacilities,
  name: string,
  grants: readonly Grant[],
): Promise<Actor & { readonly somebody: Somebody }> {
  const somebody = await invitedBy(plane, administrator, { name, grants })
  return { ...personActor(somebody, grants), somebody }
}

/** Somebody who has chosen a password and made no second factor: whatever they were granted, it counts for nothing yet. */
export async function withoutFactor(
  { plane, administrator }: TwoFacilities,
  name: string,
  grants: readonly Grant[],
): Promise<Actor> {
  const made = await administrator.ask('POST /people', { change: 'make', name, displayName: name, email: null, grants })
  const invitation = await administrator.ask(`POST /people/${String(made.body['person'])}/invitation`)
  const body = { code: invitation.body['code'], password: PEOPLES_PASSWORD }
  const come = await plane.ask('POST /auth/invitation', { body, token: null })
  assert.equal(come.status, 200, JSON.stringify(come.body))
  const cookie = come.headers.getSetCookie()[0]!.split(';')[0]!
  const { csrf } = come.body['session'] as { csrf: string }
  const headers = { cookie, 'x-resus-csrf': csrf }
  return { name, kind: 'person', grants: [], send: async (...asked) => send(plane, [asked[0], asked[1], asked[2]], headers) }
}

/** Makes tokens in the store itself, as what was approved does: the API makes those alone that read. */
export async function tokenActors(
  { plane }: TwoFacilities,
  wanted: readonly { readonly owner: Somebody; readonly role: Role; readonly facilities: string[] | null }[],
): Promise<Actor[]> {
  await using store = await Store.open((await embeddedConnection(plane.state))!)
  const key = new Secret(Buffer.from(await readFile(join(plane.state, 'authority-key'), 'utf8'), 'base64'))
  const accounts = new Accounts({
    store,
    clock: systemClock,
    key: () => key,
    site: null,
    note: async () => undefined,
    onReplay: () => undefined,
  })
  const actors: Actor[] = []
  for (const { owner, role, facilities } of wanted) {
    const grants = [{ role, facilities }]
    const { grants: all } = await accounts.people.read(owner.id)
    const asked = { name: role, grants, expiresAt: new Date(Date.now() + 3_600_000) }
    const { token } = await accounts.tokens.make({ kind: 'person', id: owner.id, grants: all }, asked, HERE)
    const name = `token ${role} ${facilities === null ? 'all' : 'own'}`
    const headers = { authorization: `Bearer ${token}` }
    actors.push({ name, kind: 'token', grants, send: async (...each) => send(plane, [each[0], each[1], each[2]], headers) })
  }
  return actors
}
