import type { AuditTrail } from '../../authority/audit-trail.ts'
import { siteOf } from '../../authority/passkeys.ts'
import { assert } from '../../assert.ts'
import type { Store } from '../../catalog/store.ts'
import type { Clock } from '../../clock.ts'
import { openConfigured } from '../../config/open.ts'
import { alarmKey, alarmOf } from '../../incident/alarm-kinds.ts'
import type { Notices } from '../../incident/notices.ts'
import type { Catalogue } from '../catalogue.ts'
import type { Control } from '../control.ts'
import type { SettingsInForce } from '../settings-in-force.ts'
import type { RaiseAlarm } from './approval-news.ts'
import { Authority } from './authority.ts'
import { ConfigurationGate } from './configuration-gate.ts'
import { FileApprovals } from './file-approvals.ts'
import { SettingsGate } from './settings-gate.ts'

export interface NodeAuthorityOptions {
  readonly store: Store
  readonly clock: Clock
  readonly inForce: SettingsInForce
  readonly serverFile: string
  /** Systems of which nobody could say at the start what was accepted. */
  readonly unproven: ReadonlySet<string>
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
  readonly settings: SettingsGate
  /** Browsers reach it by https. */
  readonly isSecure: boolean
  readonly #onError: (error: unknown) => void
  #control: Control | undefined
  #url: string
  readonly #isNamed: boolean

  constructor(options: NodeAuthorityOptions) {
    const { store, clock, inForce, catalogue, trail, notices, reload, report, onError } = options
    const { settings } = inForce
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
      admit: async () => {
        reload()
        await this.settings.look().catch(onError)
      },
      mayBeAnchored: async (configuration) => this.gate.mayBeAnchored(configuration),
      report,
      onError,
    })
    const approvals = new FileApprovals({
      store,
      node: settings.node,
      clock,
      approvals: () => this.authority.approvals,
      repositoriesOf: async (system) =>
        system === null ? this.authority.repositories() : [await catalogue.repositoryOf(system)],
    })
    this.gate = new ConfigurationGate({
      isGuarded: () => this.authority.isGuarded,
      approvals,
      clock,
      unproven: options.unproven,
      open: openConfigured,
      repositoryOf: async (system) => catalogue.repositoryOf(system),
    })
    this.settings = new SettingsGate({
      inForce,
      path: options.serverFile,
      clock,
      isGuarded: () => this.authority.isGuarded,
      approvals,
      repositories: async () => {
        const { opened, away } = await this.authority.askedRepositories()
        return { repositories: opened, isWhole: away.length === 0 }
      },
      report,
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
