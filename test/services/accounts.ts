import { randomBytes } from 'node:crypto'
import type { TestContext } from 'node:test'
import { generateSync } from 'otplib'
import type { AccountEvent, From } from '../../src/authority/account-event.ts'
import { Accounts, type AccountsOptions } from '../../src/authority/accounts.ts'
import type { LogOn } from '../../src/authority/log-on.ts'
import type { Self } from '../../src/authority/own-account.ts'
import type { PersonView } from '../../src/authority/people.ts'
import type { Grant } from '../../src/authority/principal.ts'
import type { NewSession } from '../../src/authority/sessions.ts'
import type { Store } from '../../src/catalog/store.ts'
import type { Clock } from '../../src/clock.ts'
import { Secret } from '../../src/secret.ts'
import { testStore } from './store.ts'

export const HERE: From = { address: '192.0.2.7', userAgent: 'a test' }
export const PASSWORD = 'seven storks over the lagoon'
const BEGIN = Date.UTC(2026, 0, 5, 8)

/** A clock that stands still until it is moved. */
export interface HandClock extends Clock {
  move(ms: number): void
}

export function handClock(): HandClock {
  let nowMs = BEGIN
  const sleepers = new Set<{ readonly untilMs: number; readonly wake: () => void }>()
  return {
    now: () => nowMs,
    move: (ms) => {
      nowMs += ms
      for (const { untilMs, wake } of sleepers) if (untilMs <= nowMs) wake()
    },
    sleep: async (ms, signal) =>
      new Promise<void>((resolve, reject) => {
        const sleeper = { untilMs: nowMs + ms, wake: resolve }
        sleepers.add(sleeper)
        signal?.addEventListener('abort', () => {
          sleepers.delete(sleeper)
          reject(new Error('aborted'))
        })
      }),
  }
}

export interface TestAccounts {
  readonly accounts: Accounts
  readonly store: Store
  readonly clock: HandClock
  readonly events: AccountEvent[]
  readonly replays: unknown[]
  /** Another node on the same store. */
  readonly another: (changes?: Partial<AccountsOptions>) => Accounts
}

export async function testAccounts(t: TestContext, changes: Partial<AccountsOptions> = {}): Promise<TestAccounts> {
  const store = changes.store ?? (await testStore(t))
  const clock = handClock()
  const key = new Secret(randomBytes(32))
  const events: AccountEvent[] = []
  const replays: unknown[] = []
  const options: AccountsOptions = {
    store,
    clock,
    key: () => key,
    site: { origin: 'https://resus.test', rpId: 'resus.test' },
    note: async (event) => {
      events.push(event)
    },
    onReplay: (replay) => replays.push(replay),
    ...changes,
  }
  return {
    accounts: new Accounts(options),
    store,
    clock,
    events,
    replays,
    another: (more) => new Accounts({ ...options, ...more }),
  }
}

export const ALL: readonly Grant[] = [{ role: 'administrator', facilities: null }]
export const OPERATOR: readonly Grant[] = [{ role: 'operator', facilities: null }]

/** Somebody with a password and no factor yet. */
export async function invited(accounts: Accounts, name: string, grants: readonly Grant[] = OPERATOR): Promise<PersonView> {
  const person = await accounts.people.insertPerson({ name, displayName: name, email: null, grants }, { id: 'bootstrap' })
  const { code } = await accounts.people.invite(person.id, { id: 'bootstrap' })
  sessionOf(await accounts.acceptInvitation({ code, password: PASSWORD }, HERE))
  return await accounts.people.read(person.id)
}

export function sessionOf(logOn: LogOn): NewSession {
  if (logOn.kind !== 'session') throw new Error('it wants a second factor')
  return logOn.session
}

export function ticketOf(logOn: LogOn): string {
  if (logOn.kind !== 'second-factor') throw new Error('it wants no second factor')
  return logOn.ticket
}

export interface Enrolled {
  readonly person: PersonView
  readonly session: NewSession
  /** Of now; of another step with a number. */
  readonly code: (step?: number) => string
}

/** Somebody with a password and TOTP, and a session; the next code is another than the one that was used. */
export async function enrolled({ accounts, clock }: TestAccounts, name: string, grants?: readonly Grant[]): Promise<Enrolled> {
  const person = await invited(accounts, name, grants)
  const self = await selfOf(accounts, sessionOf(await accounts.logOn({ name, password: PASSWORD }, HERE)))
  const { ticket, secret } = await accounts.own.beginTotp(self, { label: 'phone' })
  const code = (step = 0) => generateSync({ secret, epoch: Math.floor(clock.now() / 1000) + 30 * step })
  const { session } = await accounts.own.finishTotp(self, { ticket, code: code() })
  clock.move(30_000)
  return { person, session: session!, code }
}

export async function selfOf(accounts: Accounts, { cookie }: NewSession): Promise<Self> {
  const found = await accounts.principalOf({ kind: 'session', cookie }, HERE)
  if (found === undefined || found.session === null) throw new Error('there is no such session')
  return { principal: found.principal, session: found.session.id, from: HERE }
}
