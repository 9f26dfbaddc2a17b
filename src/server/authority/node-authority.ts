import type { AuditTrail } from '../../authority/audit-trail.ts'
import { siteOf } from '../../authority/passkeys.ts'
import { assert } from '../../assert.ts'
import type { Store } from '../../catalog/store.ts'
import type { Clock } from '../../clock.ts'
import { alarmKey, alarmOf } from '../../incident/alarm-kinds.ts'
import type { Notices } from '../../incident/notices.ts'
import type { Catalogue } from '../catalogue.ts'
import type { Control } from '../control.ts'
import type { ServerSettings } from '../settings.ts'
import type { RaiseAlarm } from './approval-news.ts'
import { Authority } from './authority.ts'
import { ConfigurationGate } from './configuration-gate.ts'

export interface NodeAuthorityOptions {
  readonly store: Store
  readonly clock: Clock
  readonly settings: ServerSettings
  readonly catalogue: Catalogue
  readonly trail: AuditTrail
  readonly notices: Notices
  /** Looks at the configuration's files again. */
  readonly reload: () => void
  readonly report: (text: string) => void
  readonly onError: (error: unknown) => void
}

const SETTLE_MS = 5_000

/** Authority as one node has it: with its address, its tasks and its notices. */
export class NodeAuthority {
  readonly authority: Authority
  readonly gate: ConfigurationGate
  /** Browsers reach it by https. */
  readonly isSecure: boolean
  readonly #onError: (error: unknown) => void
  #control: Control | undefined
  #url: string
  readonly #isNamed: boolean

  constructor(options: NodeAuthorityOptions) {
    const { store, clock, settings, catalogue, trail, notices, reload, report, onError } = options
    this.#onError = onError
    const { host, port } = settings.listen
    const isTls = settings.tls !== undefined
    this.#url = settings.url ?? `${isTls ? 'https' : 'http'}://${host}:${port}`
    this.#isNamed = settings.url !== undefined
    this.isSecure = this.#url.startsWith('https:')
    this.authority = new Authority({
      store,
      clock,
      directory: settings.state,
      catalogue,
      trail,
      site: settings.url === undefined ? null : siteOf(settings.url),
      identityProvider: settings.identityProvider,
      control: () => {
        assert(this.#control !== undefined, 'what is approved is done when the node is at work')
        return this.#control
      },
      url: () => this.#url,
      alarms: alarmsTo(notices),
      admit: async () => reload(),
      mayBeAnchored: async (configuration) => this.gate.mayBeAnchored(configuration),
      report,
      onError,
    })
    this.gate = new ConfigurationGate({
      store,
      node: settings.node,
      clock,
      isGuarded: () => this.authority.isGuarded,
      approvals: () => this.authority.approvals,
      repositoryOf: async (system) => catalogue.repositoryOf(system),
    })
  }

  /** What the repositories know of people counts from the first request on, where they answer in time. */
  async begin(clock: Clock): Promise<void> {
    const settled = new AbortController()
    const limit = clock.sleep(SETTLE_MS, settled.signal).catch(() => undefined)
    await Promise.race([this.authority.settle().catch(this.#onError), limit])
    settled.abort()
  }

  serves(control: Control): void {
    this.#control = control
  }

  /** Where it listens, where nobody has said where people reach it. */
  listens(url: string): void {
    if (!this.#isNamed) this.#url = url
  }
}

function alarmsTo(notices: Notices): RaiseAlarm {
  return async (kind, place, found) => {
    if (found === null) await notices.clear(alarmKey(kind, place))
    else await notices.raise(alarmOf(kind, { ...place, ...found }))
  }
}
