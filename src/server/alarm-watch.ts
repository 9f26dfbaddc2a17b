import type { Node } from '../catalog/nodes.ts'
import type { Task, TaskOutcome } from '../catalog/tasks.ts'
import type { Clock } from '../clock.ts'
import { alarmKey, alarmOf, type AlarmFacts, type AlarmKindName } from '../incident/alarm-kinds.ts'
import type { Notices } from '../incident/notices.ts'
import type { Judgement } from '../recovery/judgement.ts'
import type { AuditKeeper } from './audit-keeper.ts'
import type { Catalogue, ComponentPicture } from './catalogue.ts'
import { componentKey } from './component-key.ts'
import { STALE_BACKUP_MS } from './health-looks.ts'
import { OWN_SYSTEM, type HealthWatch, type WatchedView } from './health-watch.ts'
import type { ObjectivesWatch } from './objectives-watch.ts'
import type { ReceiverMessage } from './receivers.ts'
import type { ReadinessWatch } from './readiness-watch.ts'
import type { RecordKeeper, RecordsState } from './record-keeper.ts'
import { DEAD_AFTER_MS } from './task-worker.ts'

const KEY_CODES: ReadonlySet<string> = new Set(['KEY_WRONG', 'SECRET_UNREADABLE'])

/** Something that is so or is not so now. */
interface Condition {
  readonly kind: AlarmKindName
  readonly place: Omit<AlarmFacts, 'text' | 'severity'>
  /** What was found; null when all is well; undefined when nobody can tell, which changes nothing. */
  readonly found: string | null | undefined
}

/** Turns what is known into alarms, and takes them back when it is over. */
export class AlarmWatch {
  readonly #notices: Notices
  readonly #catalogue: Catalogue
  readonly #health: HealthWatch
  readonly #objectives: ObjectivesWatch
  readonly #readiness: ReadinessWatch
  readonly #records: RecordKeeper
  readonly #audit: AuditKeeper
  readonly #clock: Clock
  /** Keys that were taken back by this process: an alarm may be open since before it began. */
  readonly #cleared = new Set<string>()
  readonly #startedMs: number
  #nodes: readonly Pick<Node, 'name' | 'reach' | 'renewed_at'>[] = []
  /** What is open in the store: also since before this process, by another one that led, or as it was read from a repository. */
  #open: ReadonlyMap<string, string | null> = new Map()
  #refused: string | null = null
  #storeAway: string | null = null

  constructor(options: {
    readonly notices: Notices
    readonly catalogue: Catalogue
    readonly health: HealthWatch
    readonly objectives: ObjectivesWatch
    readonly readiness: ReadinessWatch
    readonly records: RecordKeeper
    readonly audit: AuditKeeper
    readonly clock: Clock
  }) {
    this.#notices = options.notices
    this.#catalogue = options.catalogue
    this.#health = options.health
    this.#objectives = options.objectives
    this.#readiness = options.readiness
    this.#records = options.records
    this.#audit = options.audit
    this.#clock = options.clock
    this.#startedMs = options.clock.now()
  }

  noteNodes(nodes: readonly Pick<Node, 'name' | 'reach' | 'renewed_at'>[]): void {
    this.#nodes = nodes
  }

  /** None where nobody can tell. */
  noteOpen(alarms: readonly { readonly key: string; readonly code: string | null }[]): void {
    this.#open = new Map(alarms.map(({ key, code }) => [key, code]))
  }

  noteConfiguration(refused: string | null): void {
    this.#refused = refused
  }

  noteStore(away: string | null): void {
    this.#storeAway = away
  }

  /** A task has ended. */
  async noteTask({ system, component, kind, result }: Task, { state, error }: TaskOutcome): Promise<void> {
    if (component === null || state === 'cancelled') return
    const place = { system, component }
    const failed = state === 'failed' ? (error?.message ?? 'it failed') : null
    if (kind === 'backup') {
      await this.#tell({ kind: 'BACKUP_FAILED', place, found: failed })
      const corrupt = corruptPagesOf(result)
      if (state === 'done' || corrupt > 0) {
        await this.#tell({ kind: 'PAGES_CORRUPT', place, found: corrupt > 0 ? `${corrupt} pages have a wrong checksum` : null })
      }
    } else if (kind === 'prove' || kind === 'verify' || kind === 'drill') {
      await this.#tell({ kind: 'NOT_VERIFIED', place: { ...place, subject: kind }, found: failed })
    } else {
      await this.#tell({
        kind: 'JOB_FAILED',
        place: { ...place, subject: kind },
        found: failed === null ? null : `${kind}: ${failed}`,
      })
    }
  }

  async noteReceiver(message: ReceiverMessage): Promise<void> {
    if (message.kind !== 'event') return
    const { system, component, event } = message
    if (event['kind'] === 'gap') {
      const found = `the server no longer has [${String(event['from'])}, ${String(event['to'])})`
      await this.#tell({ kind: 'GAP_MADE', place: { system, component }, found })
    }
    if (event['kind'] === 'alarm' && event['code'] === 'SLOT_LOST') {
      await this.#tell({ kind: 'SLOT_LOST', place: { system, component }, found: String(event['message']) })
    }
  }

  /** What each node has by itself, whoever leads. */
  async lookAtOwn(node: string, settingsRefused: string | null): Promise<void> {
    const place = { system: OWN_SYSTEM, subject: node }
    await this.#tell({ kind: 'CONFIGURATION_REFUSED', place, found: settingsRefused })
    const view = this.#health.views().find(isOwnCertificate)
    // Without a certificate none expires; of one that nobody has looked at yet nobody can tell.
    const unseen = this.#health.hasCertificate ? undefined : null
    const found = view === undefined ? unseen : certificateFound(view)
    await this.#tell({ kind: 'CERTIFICATE_EXPIRING', place, found })
    for (const { system } of this.#catalogue.systems) {
      const copy = { ...this.#audit.broken(system), verified: this.#audit.verification.found(system) }
      for (const condition of ofAuditCopy(system, copy)) await this.#tell(this.#unlessLookedAt(condition))
    }
  }

  /** Looks at all that is known. */
  async look(): Promise<void> {
    const rpos = new Map(
      this.#objectives.views().map((view) => [componentKey(view.system, view.component), view.judgements.rpoMinutes]),
    )
    const conditions = [
      ...this.#catalogue
        .pictures()
        .flatMap((picture) => this.#ofComponent(picture, rpos.get(componentKey(picture.system, picture.component.name)))),
      ...this.#health
        .views()
        .filter((view) => !isOwnCertificate(view))
        .flatMap(ofHealth),
      ...this.#withoutCertificate(),
      ...this.#catalogue.systems.flatMap(({ system }) => ofRecords(system, this.#records.state(system))),
      ...this.#catalogue.systems.map(({ system }) => ({
        kind: 'AUDIT_LATE' as const,
        place: { system },
        found: this.#audit.late(system),
      })),
      { kind: 'AUDIT_LATE' as const, place: { system: OWN_SYSTEM, subject: 'syslog' }, found: this.#audit.forwardLate },
      ...this.#nodes.map((node) => this.#ofNode(node)),
      { kind: 'CONFIGURATION_REFUSED' as const, place: { system: OWN_SYSTEM }, found: this.#refused },
      { kind: 'STORE_DOWN' as const, place: { system: OWN_SYSTEM }, found: this.#storeAway },
    ]
    for (const condition of conditions) await this.#tell(condition)
    for (const key of this.#keysOfGoneNodes()) await this.#notices.clear(key)
  }

  /** Alarms of nodes that nobody knows any more: they were forgotten, or the store is another one than at their time. */
  #keysOfGoneNodes(): string[] {
    const known = new Set(this.#nodes.map(({ name }) => alarmKey('NODE_DEAD', { system: OWN_SYSTEM, subject: name })))
    return [...this.#open].filter(([key, code]) => code === 'NODE_DEAD' && !known.has(key)).map(([key]) => key)
  }

  /** Servers that answer, and have no certificate (any more). */
  #withoutCertificate(): Condition[] {
    const views = this.#health.views()
    const placeOf = ({ system, component }: WatchedView) => componentKey(system, component ?? '')
    const have = new Set(views.filter(({ thing }) => thing === 'certificate').map(placeOf))
    return views
      .filter((view) => view.thing === 'database' && view.health.state === 'up' && !have.has(placeOf(view)))
      .map(({ system, component }) => ({
        kind: 'CERTIFICATE_EXPIRING',
        place: component === null ? { system } : { system, component },
        found: null,
      }))
  }

  #ofComponent(picture: ComponentPicture, rpo: Judgement | null | undefined): Condition[] {
    const { system, component, backups, problem, asOf } = picture
    const place = { system, component: component.name }
    const [newest] = backups
    const now = this.#clock.now()
    const since = newest === undefined ? this.#startedMs : Date.parse(newest.finishedAt)
    const hours = Math.floor((now - since) / 3_600_000)
    const age = newest === undefined ? `there is no backup, ${hours} h after the start` : `the newest is ${hours} h old`
    const reached = this.#nodes.some(({ reach }) =>
      reach.some((each) => each.system === system && each.component === component.name && each.reached),
    )
    const isKey = problem !== null && KEY_CODES.has(problem.code)
    return [
      // What could not be read says nothing of its age.
      { kind: 'BACKUP_STALE', place, found: asOf === null ? undefined : now - since > STALE_BACKUP_MS ? age : null },
      { kind: 'KEY_UNREACHABLE', place, found: isKey ? problem.message : null },
      {
        kind: 'STORAGE_UNREACHABLE',
        place: { ...place, subject: 'repository' },
        found: problem === null || isKey ? null : problem.message,
      },
      {
        kind: 'COMPONENT_UNREACHED',
        place,
        found:
          this.#nodes.length === 0 ? undefined : reached ? null : `none of ${this.#nodes.map(({ name }) => name).join(', ')}`,
      },
      { kind: 'RPO_BROKEN', place, found: rpoFound(rpo) },
      { kind: 'READINESS_FELL', place, found: this.#readiness.fell(system, component.name) },
      { kind: 'NOT_VERIFIED', place: { ...place, subject: 'newest' }, found: verdictFound(picture) },
      { kind: 'NOT_VERIFIED', place: { ...place, subject: 'damage' }, found: damageFound(picture) },
    ]
  }

  #ofNode({ name, renewed_at: renewedAt }: Pick<Node, 'name' | 'renewed_at'>): Condition {
    const silentMs = this.#clock.now() - renewedAt.getTime()
    const found = silentMs > 2 * DEAD_AFTER_MS ? `nothing was heard of it for ${Math.round(silentMs / 1000)} s` : null
    return { kind: 'NODE_DEAD', place: { system: OWN_SYSTEM, subject: name }, found }
  }

  /** Somebody has looked at exactly this, and said so on record. */
  #unlessLookedAt({ kind, place, found }: Condition): Condition {
    const isKnown = typeof found === 'string' && this.#audit.verification.isAcknowledged(alarmKey(kind, place), found)
    return { kind, place, found: isKnown ? null : found }
  }

  async #tell({ kind, place, found }: Condition): Promise<void> {
    if (found === undefined) return
    const key = alarmKey(kind, place)
    if (found !== null) {
      this.#cleared.delete(key)
      await this.#notices.raise(alarmOf(kind, { ...place, text: found }))
      return
    }
    if (this.#cleared.has(key) && !this.#open.has(key)) return
    await this.#notices.clear(key)
    this.#cleared.add(key)
  }
}

function rpoFound(rpo: Judgement | null | undefined): string | null | undefined {
  if (rpo === null || rpo === undefined || rpo.verdict === 'not proven') return undefined
  if (rpo.verdict === 'met') return null
  return `${((rpo.actual ?? 0) * 60).toFixed(0)} s, agreed ${(rpo.target ?? 0) * 60} s: ${rpo.why}`
}

function verdictFound({ status }: ComponentPicture): string | null | undefined {
  if (status === null || status.verdict === 'not proven') return undefined
  return status.verdict === 'failed' ? (status.verdictRemarks[0] ?? 'the newest backup has failed its proof') : null
}

/** Manifests that cannot be read, and what is wrong with the spool of this host. */
function damageFound({ asOf, damaged, status }: ComponentPicture): string | null | undefined {
  const [first, ...others] = [...damaged, ...(status?.spoolProblems ?? [])]
  if (first === undefined) return asOf === null ? undefined : null
  return others.length === 0 ? first : `${first} (and ${others.length} more)`
}

function isOwnCertificate({ system, thing }: WatchedView): boolean {
  return system === OWN_SYSTEM && thing === 'certificate'
}

/** Down, slow or well; undefined while nobody can tell. */
function certificateFound({ health }: WatchedView): string | null | undefined {
  if (health.state === 'unknown') return undefined
  return health.state === 'up' ? null : (health.why ?? 'it expires')
}

/** Down is one alarm, slow or short another: each is taken back when it is over. */
function ofHealth({ system, component, thing, health }: WatchedView): Condition[] {
  const place = component === null ? { system } : { system, component }
  const text = health.why ?? 'it does not answer'
  const unknown = health.state === 'unknown'
  const down = unknown ? undefined : health.state === 'down' ? text : null
  const slow = unknown ? undefined : health.state === 'degraded' ? text : null
  switch (thing) {
    case 'database':
      return [
        { kind: 'DATABASE_UNREACHABLE', place, found: down },
        { kind: 'DATABASE_SLOW', place, found: slow },
      ]
    case 'receiver':
      return [
        { kind: 'RECEIVER_DOWN', place, found: down },
        { kind: 'RECEIVER_BEHIND', place, found: slow },
      ]
    case 'storage':
      return [
        { kind: 'STORAGE_UNREACHABLE', place, found: down },
        { kind: 'STORAGE_FULL_SOON', place, found: slow },
      ]
    case 'clock':
      return [{ kind: 'CLOCK_WRONG', place, found: unknown ? undefined : (down ?? slow ?? null) }]
    case 'certificate':
      return [{ kind: 'CERTIFICATE_EXPIRING', place, found: unknown ? undefined : (down ?? slow ?? null) }]
    // The age of a backup and its verdict have alarms of their own.
    case 'backup':
    case 'proof':
      return []
    default:
      return thing satisfies never
  }
}

function ofRecords(system: string, { late, damaged }: RecordsState): Condition[] {
  return [
    { kind: 'RECORDS_LATE', place: { system }, found: late },
    { kind: 'RECORDS_DAMAGED', place: { system }, found: damaged },
  ]
}

/** Of who writes the copy. */
function ofAuditCopy(
  system: string,
  { forked, damaged, verified }: ReturnType<AuditKeeper['broken']> & { readonly verified: string | null | undefined },
): Condition[] {
  return [
    { kind: 'AUDIT_BROKEN', place: { system, subject: 'forked' }, found: forked },
    { kind: 'AUDIT_BROKEN', place: { system, subject: 'damaged' }, found: damaged },
    { kind: 'AUDIT_BROKEN', place: { system, subject: 'verified' }, found: verified },
  ]
}

function corruptPagesOf(result: unknown): number {
  const pages = (result as { readonly corruptPages?: unknown } | null)?.corruptPages
  return Array.isArray(pages) ? pages.length : 0
}
