import type { Factor } from './principal.ts'

/** From where somebody asks. */
export interface From {
  readonly address: string | null
  readonly userAgent: string | null
}

export const NOWHERE: From = { address: null, userAgent: null }

export const ACCOUNT_ACTIONS = [
  'log-on',
  'log-on.password',
  'log-on.second-factor',
  'log-on.identity-provider',
  'lock-out',
  'log-off',
  'log-off.everywhere',
  'session.replay',
  'factor.shown',
  'factor.made',
  'factor.removed',
  'factor.reset',
  'password.changed',
  'invitation.made',
  'invitation.accepted',
  'token.made',
  'token.revoked',
  'person.made',
  'person.grants',
  'person.disabled',
  'person.enabled',
] as const

/**
 * What happened to an account, for the trail: without any secret, and without the name that was given where nobody has it (people type their password there). It is awaited
 * before whoever asked is answered.
 */
export interface AccountEvent {
  readonly action: (typeof ACCOUNT_ACTIONS)[number]
  readonly outcome: 'done' | 'refused'
  /** Whose account it is; null for a name that nobody has. */
  readonly person: { readonly id: string; readonly name: string } | null
  /** Who did it, where it was somebody else: the id of a person, or "bootstrap". */
  readonly by?: string
  readonly factor?: Factor
  readonly from: From
  /** Why it was refused; for people to read. */
  readonly reason?: string
  readonly before?: unknown
  readonly after?: unknown
}

export type Note = (event: AccountEvent) => Promise<void>
