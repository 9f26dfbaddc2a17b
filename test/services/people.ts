import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Accounts } from '../../src/authority/accounts.ts'
import type { Grant } from '../../src/authority/principal.ts'
import { embeddedConnection } from '../../src/catalog/embedded-store.ts'
import { Store } from '../../src/catalog/store.ts'
import { systemClock } from '../../src/clock.ts'
import { Secret } from '../../src/secret.ts'
import { Authenticator } from './authenticator.ts'
import type { ApiAnswer, ControlPlane } from './control-plane.ts'
import { waitUntil } from './wait-until.ts'

/** For the settings of a control plane with people: passkeys are bound to it. */
export const PUBLIC_URL = 'https://resus.test'
export const PEOPLES_PASSWORD = 'a staple that no horse has seen'

interface WantedToken {
  readonly name: string
  readonly grants: readonly Grant[]
  readonly expiresAt: string
}

/** Somebody in a browser, logged on, with a passkey. */
export interface Somebody {
  readonly id: string
  readonly name: string
  readonly ask: (what: string, body?: unknown, headers?: Record<string, string>) => Promise<ApiAnswer>
  /** Decides on what another asks for; as it is, unless said. */
  readonly decide: (
    approval: string,
    how?: { decision?: string; digest?: string; factor?: unknown; reason?: string },
  ) => Promise<ApiAnswer>
  /** An answer of the passkey, good for this request for a second person. */
  readonly factorFor: (approval: string) => Promise<unknown>
  /** Makes an API token, or asks for one. */
  readonly makeToken: (shownFor: WantedToken, wanted?: WantedToken) => Promise<ApiAnswer>
  /** Declares an emergency. */
  readonly declare: (reason: string) => Promise<ApiAnswer>
  readonly cookie: () => string
  readonly csrf: () => string
}

/** Whoever has the file of mode 0600 becomes the first administrator. */
export async function firstAdministrator(plane: ControlPlane, name = 'first'): Promise<Somebody> {
  let link = ''
  await waitUntil('there is a link for the first administrator', async () => {
    link = await readFile(join(plane.state, 'first-administrator'), 'utf8').catch(() => '')
    return link !== ''
  })
  const [, code] = /#([\w-]{43})\n$/.exec(link)!
  const browser = newBrowser(plane)
  const come = await browser.ask('POST /first-administrator', { code, name, displayName: name, password: PEOPLES_PASSWORD })
  assert.equal(come.status, 200, JSON.stringify(come.body))
  return await withPasskey(browser, name)
}

/** Somebody whom an administrator makes, and an approver approves where there is one. */
export async function invitedBy(
  plane: ControlPlane,
  administrator: Somebody,
  person: { readonly name: string; readonly grants: readonly Grant[]; readonly approver?: Somebody },
): Promise<Somebody> {
  const { name, grants, approver } = person
  const asked = await administrator.ask('POST /people', { change: 'make', name, displayName: name, email: null, grants })
  assert.equal(asked.status, 202, JSON.stringify(asked.body))
  const { approval, person: made } = asked.body as { approval: { id: string } | null; person: string | null }
  let id = made
  if (approval !== null) {
    const decided = await approver!.decide(approval.id)
    assert.equal(decided.status, 200, JSON.stringify(decided.body))
    id = (decided.body['outcome'] as { person: string }).person
  }
  const invitation = await administrator.ask(`POST /people/${id}/invitation`)
  assert.equal(invitation.status, 201, JSON.stringify(invitation.body))
  const browser = newBrowser(plane)
  const come = await browser.ask('POST /auth/invitation', { code: invitation.body['code'], password: PEOPLES_PASSWORD })
  assert.equal(come.status, 200, JSON.stringify(come.body))
  return await withPasskey(browser, name)
}

/** As if these had been made and invited two days ago: on what a file or a host asks for nobody decides before. */
export async function madeLongAgo(plane: ControlPlane, ...people: readonly Somebody[]): Promise<void> {
  await using store = await Store.open((await embeddedConnection(plane.state))!)
  const key = new Secret(Buffer.from(await readFile(join(plane.state, 'authority-key'), 'utf8'), 'base64'))
  const note = async () => undefined
  const accounts = new Accounts({ store, clock: systemClock, key: () => key, site: null, note, onReplay: () => undefined })
  const at = new Date(Date.now() - 48 * 3_600_000)
  for (const { id } of people) {
    await accounts.sealed.change(id, async (queries) =>
      queries.updateTable('people').set({ made_at: at, reset_at: at }).where('id', '=', id).execute(),
    )
  }
}

interface Browser {
  readonly ask: Somebody['ask']
  cookie: string
  csrf: string
}

function newBrowser(plane: ControlPlane): Browser {
  const browser: Browser = {
    cookie: '',
    csrf: '',
    ask: async (what, body, headers) => {
      const answer = await plane.ask(what, {
        ...(body === undefined ? {} : { body }),
        token: null,
        headers: {
          ...(browser.cookie === '' ? {} : { cookie: browser.cookie, 'x-resus-csrf': browser.csrf }),
          ...headers,
        },
      })
      const set = answer.headers.getSetCookie().find((each) => each.startsWith('__Host-resus='))
      if (set !== undefined) browser.cookie = set.split(';')[0]!
      const session = answer.body['session'] as { csrf: string } | null | undefined
      if (session !== null && session !== undefined) browser.csrf = session.csrf
      return answer
    },
  }
  return browser
}

async function withPasskey(browser: Browser, name: string): Promise<Somebody> {
  const authenticator = new Authenticator('resus.test')
  const { ask } = browser
  const begun = await ask('POST /auth/factors/passkey', { label: 'key' })
  assert.equal(begun.status, 200, JSON.stringify(begun.body))
  const response = authenticator.register(begun.body['passkey'] as { challenge: string })
  const finished = await ask('POST /auth/factors/passkey/finish', { response })
  assert.equal(finished.status, 200, JSON.stringify(finished.body))
  const me = await ask('GET /auth/me')
  const factorFor = async (approval: string) => {
    const { body } = await ask(`GET /approvals/${approval}/challenge`)
    const passkey = body['passkey'] as { challenge: string } | null | undefined
    return { kind: 'passkey', response: authenticator.assert(passkey ?? { challenge: 'bm9uZQ' }) }
  }
  return {
    id: String(me.body['id']),
    name,
    ask,
    factorFor,
    makeToken: async (shownFor, wanted = shownFor) => {
      const { body } = await ask('POST /auth/tokens/challenge', shownFor)
      const answer = authenticator.assert(body['passkey'] as { challenge: string })
      return await ask('POST /auth/tokens', { ...wanted, shown: { kind: 'passkey', response: answer } })
    },
    declare: async (reason) => {
      const { body } = await ask(`GET /emergencies/challenge?reason=${encodeURIComponent(reason)}`)
      const answer = authenticator.assert(body['passkey'] as { challenge: string })
      return await ask('POST /emergencies', { reason, factor: { kind: 'passkey', response: answer } })
    },
    cookie: () => browser.cookie,
    csrf: () => browser.csrf,
    decide: async (approval, { decision = 'approve', digest, factor, reason } = {}) => {
      const shown = digest ?? String((await ask(`GET /approvals/${approval}`)).body['digest'])
      const body = {
        decision,
        digest: shown,
        factor: factor ?? (await factorFor(approval)),
        ...(reason === undefined ? {} : { reason }),
      }
      return await ask(`POST /approvals/${approval}/decision`, body)
    },
  }
}
