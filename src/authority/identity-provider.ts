import * as oidc from 'openid-client'
import { z } from 'zod'
import { useOnce } from '../catalog/tickets.ts'
import { resolveSecret } from '../config/secret-reference.ts'
import { Failure } from '../errors.ts'
import type { Secret } from '../secret.ts'
import type { From } from './account-event.ts'
import type { Accounts, AccountsOptions } from './accounts.ts'
import type { IdentityProviderSettings } from './identity-provider-settings.ts'
import type { LogOn } from './log-on.ts'
import type { Grant } from './principal.ts'
import { digestOf, randomSecret, SealingKey } from './sealing-key.ts'

const STATE_MS = 10 * 60_000
const STATE = /^([\w-]{43})\.([0-9a-z]{1,10})\.([\w-]{22})$/
const TIMEOUT_SECONDS = 10
/** Its keys and addresses may change; the client's secret too. */
const DISCOVERED_MS = 3_600_000
const GROUPS_MAX = 1_000
const LOOPBACK = /^http:\/\/(localhost|127\.0\.0\.1|\[::1\])[:/]/
const groupsSchema = z.union([z.string().transform((each) => [each]), z.array(z.string()).max(GROUPS_MAX)])

interface Options extends Pick<AccountsOptions, 'store' | 'clock' | 'note'> {
  readonly settings: IdentityProviderSettings
  readonly accounts: Accounts
  /** Of the accounts. */
  readonly key: () => Secret
}

/**
 * OpenID Connect: authorization code with PKCE, state and nonce. What is between the two requests is in the state itself, marked by us, and bound to the browser by a cookie; verifier and
 * nonce follow from it under our key, so that nothing is kept until it comes back, and then that it was used.
 */
export class IdentityProvider {
  readonly #options: Options
  readonly #seal: SealingKey
  #discovered: { readonly atMs: number; readonly configuration: Promise<oidc.Configuration> } | undefined

  constructor(options: Options) {
    this.#options = options
    this.#seal = new SealingKey(options.key)
  }

  /** Where the browser is sent, and the state that it keeps meanwhile. Throws IDENTITY_PROVIDER_UNREACHABLE. */
  async begin(): Promise<{ readonly url: string; readonly state: string }> {
    const { settings, clock } = this.#options
    const configuration = await this.#configuration()
    const text = `${randomSecret()}.${(clock.now() + STATE_MS).toString(36)}`
    const state = `${text}.${this.#seal.mark('oidc state', text).toString('base64url')}`
    const url = oidc.buildAuthorizationUrl(configuration, {
      redirect_uri: settings.redirect,
      scope: 'openid profile email',
      code_challenge: await oidc.calculatePKCECodeChallenge(this.#seal.derive('oidc verifier', state)),
      code_challenge_method: 'S256',
      state,
      nonce: this.#seal.derive('oidc nonce', state),
    })
    return { url: url.href, state }
  }

  /** What came back: the query of the callback, and the state that the browser kept. Throws LOG_ON_REFUSED, IDENTITY_PROVIDER_UNREACHABLE, LOCKED_OUT. */
  async finish({ query, kept }: { readonly query: string; readonly kept: string | undefined }, from: From): Promise<LogOn> {
    const { accounts } = this.#options
    const place = accounts.claimAddress(from)
    const given = new URLSearchParams(query).get('state') ?? ''
    if (given !== kept || !(await this.#useState(given))) throw await this.#refused('another state, or used', from)
    const claims = await this.#exchange(query, given, from)
    const grants = this.#grantsOf(claims[this.#options.settings.groupsClaim])
    if (grants.length === 0) throw await this.#refused('in no group that may do anything', from)
    const text = (name: string) =>
      typeof claims[name] === 'string' && claims[name] !== '' ? claims[name].slice(0, 200) : undefined
    const name = text('preferred_username') ?? claims.sub
    const person = await accounts.people.ofIdentity({
      issuer: claims.iss,
      subject: claims.sub,
      name,
      displayName: text('name') ?? name,
      email: text('email') ?? null,
    })
    const logOn = await accounts.logOnByIdentity(person, grants, from)
    place.release()
    return logOn
  }

  async #exchange(query: string, state: string, from: From): Promise<oidc.IDToken> {
    const { settings } = this.#options
    const configuration = await this.#configuration()
    try {
      // Of the address that the provider knows, and not of what the request calls us.
      const tokens = await oidc.authorizationCodeGrant(configuration, new URL(`${settings.redirect}?${query}`), {
        expectedState: state,
        expectedNonce: this.#seal.derive('oidc nonce', state),
        pkceCodeVerifier: this.#seal.derive('oidc verifier', state),
        idTokenExpected: true,
      })
      const claims = tokens.claims()!
      const isWhole = claims[settings.groupsClaim] !== undefined || configuration.serverMetadata().userinfo_endpoint === undefined
      // Many keep the token small, and say the rest when they are asked.
      return isWhole ? claims : { ...(await oidc.fetchUserInfo(configuration, tokens.access_token, claims.sub)), ...claims }
    } catch (error) {
      if (isUnreachable(error)) throw unreachable(error)
      throw await this.#refused(`what the provider gave is not taken (${codeOf(error)})`, from)
    }
  }

  /** Ours, of the last ten minutes, and not used before. */
  async #useState(state: string): Promise<boolean> {
    const { store, clock } = this.#options
    const [, random = '', until = '', mark = ''] = STATE.exec(state) ?? []
    if (!this.#seal.isMark(Buffer.from(mark, 'base64url'), 'oidc state', `${random}.${until}`)) return false
    const at = new Date(clock.now())
    const expiresAt = new Date(Number.parseInt(until, 36))
    if (expiresAt <= at) return false
    return await useOnce(store.sql, { digest: digestOf(state), purpose: 'oidc', at, expiresAt })
  }

  #grantsOf(claimed: unknown): Grant[] {
    const { roles } = this.#options.settings
    const parsed = groupsSchema.safeParse(claimed)
    const groups = parsed.success ? parsed.data : []
    return [...new Set(groups.flatMap((group) => roles.get(group) ?? []))].map((role) => ({ role, facilities: null }))
  }

  /** Asked once an hour, and again after it could not be. */
  async #configuration(): Promise<oidc.Configuration> {
    const { clock } = this.#options
    const nowMs = clock.now()
    if (this.#discovered === undefined || Math.abs(nowMs - this.#discovered.atMs) >= DISCOVERED_MS) {
      this.#discovered = { atMs: nowMs, configuration: this.#discover() }
    }
    const asked = this.#discovered
    try {
      return await asked.configuration
    } catch (error) {
      if (this.#discovered === asked) this.#discovered = undefined
      if (error instanceof Failure) throw error
      throw unreachable(error)
    }
  }

  async #discover(): Promise<oidc.Configuration> {
    const { issuer, clientId, clientSecret } = this.#options.settings
    const secret = (await resolveSecret(clientSecret, 'the secret of the identity provider')).reveal().toString()
    const [basic, post] = [oidc.ClientSecretBasic(secret), oidc.ClientSecretPost(secret)]
    const authenticate: oidc.ClientAuth = (server, ...rest) => {
      const takesBasic = server.token_endpoint_auth_methods_supported?.includes('client_secret_basic') ?? true
      ;(takesBasic ? basic : post)(server, ...rest)
    }
    const configuration = await oidc.discovery(new URL(issuer), clientId, undefined, authenticate, {
      timeout: TIMEOUT_SECONDS,
      execute: LOOPBACK.test(issuer) ? [oidc.allowInsecureRequests] : [],
    })
    // Of a token that comes straight from the provider too, its signature is looked at.
    oidc.enableNonRepudiationChecks(configuration)
    return configuration
  }

  async #refused(reason: string, from: From): Promise<Failure> {
    await this.#options.note({ action: 'log-on.identity-provider', outcome: 'refused', person: null, from, reason })
    return new Failure('LOG_ON_REFUSED', 'the identity provider has logged nobody on here', {
      hint: 'begin again; whoever is in none of the groups of "identityProvider" in server.yaml may do nothing',
    })
  }
}

/** Its connection or its time has failed, or it says that it cannot. */
function isUnreachable(error: unknown): boolean {
  if (error instanceof oidc.ResponseBodyError) return error.status >= 500
  if (error instanceof Error && error.cause instanceof Response) return error.cause.status >= 500
  const code = codeOf(error)
  return code === 'OAUTH_TIMEOUT' || (error instanceof TypeError && error.message === 'fetch failed')
}

function unreachable(cause: unknown): Failure {
  return new Failure('IDENTITY_PROVIDER_UNREACHABLE', `the identity provider does not answer as it should (${codeOf(cause)})`, {
    hint: 'log on with a password of Resus, or try again',
    cause,
  })
}

function codeOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code
  return error instanceof Error ? error.name : 'unknown'
}
