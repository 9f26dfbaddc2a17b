import { z } from 'zod'
import type { Secret } from '../secret.ts'
import { forgetSession, keepSession, readSession } from './kept-session.ts'

/** What says who asks a control plane. */
export interface Credential {
  readonly kind: 'token' | 'session'
  /** For one request. */
  headers(): Promise<Record<string, string>>
  /** Keeps what the server has given in its place, before anything is made of the answer. */
  keep(headers: Headers, body: unknown): Promise<void>
}

export function tokenCredential(token: Secret): Credential {
  return {
    kind: 'token',
    headers: async () => ({ authorization: `Bearer ${token.reveal().toString('utf8')}` }),
    keep: async () => undefined,
  }
}

const COOKIE = /^((?:__Host-resus|resus-session)=([^;]*))/
const bodySchema = z.object({ session: z.object({ csrf: z.string() }) })

/** The session that this account keeps for an address; whoever has none yet is nobody. */
export class SessionCredential implements Credential {
  readonly kind = 'session'
  readonly #url: string
  #shown: string | undefined

  constructor(url: string) {
    this.#url = url
  }

  /** Read each time: another command may have got another secret since, and the one before would be taken for stolen. */
  async headers(): Promise<Record<string, string>> {
    const kept = await readSession(this.#url)
    this.#shown = kept?.cookie
    return kept === undefined ? {} : { cookie: kept.cookie, 'x-resus-csrf': kept.csrf }
  }

  async keep(headers: Headers, body: unknown): Promise<void> {
    const [, cookie, value] = headers.getSetCookie().flatMap((each) => COOKIE.exec(each) ?? [])
    if (cookie === undefined) return
    if (value === '') return await forgetSession(this.#url)
    const begun = bodySchema.safeParse(body)
    const kept = await readSession(this.#url)
    const csrf = begun.success ? begun.data.session.csrf : kept?.csrf
    // Another command has logged on meanwhile: what it has is newer.
    if (csrf === undefined || (!begun.success && kept?.cookie !== this.#shown)) return
    await keepSession({ url: this.#url, cookie, csrf })
  }
}
