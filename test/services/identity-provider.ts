import { createSign, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'
import Provider from 'oidc-provider'

const CLIENT = 'resus'
export const CLIENT_SECRET = 'a secret of the client, long enough for anybody'

export type Claims = Record<string, unknown>

export interface TestProvider {
  readonly issuer: string
  /** Who logs on next, and what is said of them. */
  account: { readonly sub: string } & Claims
  /** Changes the claims of the next tokens before they are signed again; `null` signs them with nothing. */
  forge: ((claims: Claims) => Claims) | undefined
  algorithm: 'RS256' | 'none' | 'another key'
  manner: 'work' | 'fail'
}

/** A real OpenID provider on loopback; it logs everybody on without asking. */
export async function testProvider(t: TestContext, redirect: string): Promise<TestProvider> {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const other = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const control: TestProvider = { issuer, account: { sub: 'ada' }, forge: undefined, algorithm: 'RS256', manner: 'work' }
  const provider = newProvider({ issuer, redirect, privateKey, control })
  const handle = provider.callback()
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    if (control.manner === 'fail') {
      response.writeHead(503).end()
      return
    }
    if (request.url?.startsWith('/interaction/') === true) {
      void provider.interactionFinished(request, response, { login: { accountId: control.account.sub } })
      return
    }
    if (request.url?.startsWith('/token') === true) rewrite(response, { control, privateKey, other })
    void handle(request, response)
  })
  return control
}

function newProvider({
  issuer,
  redirect,
  privateKey,
  control,
}: {
  readonly issuer: string
  readonly redirect: string
  readonly privateKey: KeyObject
  readonly control: TestProvider
}): Provider {
  return new Provider(issuer, {
    clients: [{ client_id: CLIENT, client_secret: CLIENT_SECRET, redirect_uris: [redirect] }],
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'key', alg: 'RS256', use: 'sig' } as never] },
    cookies: { keys: ['a test'] },
    claims: { openid: ['sub'], profile: ['name', 'preferred_username', 'groups'], email: ['email'] },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_, { uid }) => `/interaction/${uid}` },
    findAccount: async (_, sub) => ({ accountId: sub, claims: async () => ({ ...control.account, sub }) }),
    loadExistingGrant: async ({ oidc }) => {
      const grant = new oidc.provider.Grant({ clientId: oidc.client!.clientId, accountId: oidc.session!.accountId! })
      grant.addOIDCScope('openid profile email')
      await grant.save()
      return grant
    },
    pkce: { required: () => true },
  })
}

/** Signs the token again, as the test wants it to be. */
function rewrite(
  response: ServerResponse,
  { control, privateKey, other }: { readonly control: TestProvider; readonly privateKey: KeyObject; readonly other: KeyObject },
): void {
  const end = response.end.bind(response) as (text: string) => ServerResponse
  response.end = ((chunk: string | Buffer) => {
    const answer = JSON.parse(String(chunk)) as { id_token?: string }
    if (answer.id_token === undefined || (control.forge === undefined && control.algorithm === 'RS256')) return end(String(chunk))
    const claims = JSON.parse(Buffer.from(answer.id_token.split('.')[1]!, 'base64url').toString()) as Claims
    const key = control.algorithm === 'none' ? undefined : control.algorithm === 'another key' ? other : privateKey
    const text = JSON.stringify({ ...answer, id_token: signed(control.forge?.(claims) ?? claims, key) })
    response.setHeader('content-length', Buffer.byteLength(text))
    return end(text)
  }) as typeof response.end
}

function signed(claims: Claims, key: KeyObject | undefined): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const text = `${part(key === undefined ? { alg: 'none' } : { alg: 'RS256', kid: 'key' })}.${part(claims)}`
  return `${text}.${key === undefined ? '' : createSign('sha256').update(text).sign(key).toString('base64url')}`
}

/** Goes through the provider as a browser does, from its address back to ours; gives the query of the callback. */
export async function passProvider(url: string, redirect: string): Promise<string> {
  const jar = new Map<string, string>()
  let next = url
  for (let step = 0; step < 10; step += 1) {
    const answer = await fetch(next, {
      redirect: 'manual',
      headers: { cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; ') },
    })
    await answer.arrayBuffer()
    for (const each of answer.headers.getSetCookie()) {
      const [name = '', value = ''] = each.split(';')[0]!.split(/=(.*)/s)
      jar.set(name, value)
    }
    next = new URL(answer.headers.get('location') ?? '', next).href
    if (next.startsWith(redirect)) return new URL(next).search.slice(1)
  }
  throw new Error('the provider did not send the browser back')
}
