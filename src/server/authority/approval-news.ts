import type { NewAuditEntry } from '../../authority/audit-entry.ts'
import type { Json } from '../../authority/canonical-json.ts'
import type { Approval } from '../../catalog/approvals.ts'
import type { ChangedOutside } from '../../authority/sealed-people.ts'
import type { Severity } from '../../catalog/schema.ts'
import type { AlarmKindName } from '../../incident/alarm-kinds.ts'
import { OWN_SYSTEM } from '../health-watch.ts'
import type { FoundChanged, Sorted } from './people-keeper.ts'
import type { Alone } from './reviews.ts'

/** Raises an alarm, or takes it back where nothing is found. */
export type RaiseAlarm = (
  kind: AlarmKindName,
  place: { readonly system: string; readonly component?: string; readonly subject: string },
  found: { readonly text: string; readonly severity?: Severity } | null,
) => Promise<void>

type ApprovalEvent = 'asked' | 'approved' | 'refused' | 'revoked' | 'expired' | 'used' | 'failed' | 'waits'

/** Tells people what takes two, and writes down what became of it. */
export class ApprovalNews {
  readonly #raise: RaiseAlarm
  readonly #note: (entry: NewAuditEntry) => Promise<void>
  /** What was told last of each. */
  readonly #told = new Map<string, string>()

  constructor(raise: RaiseAlarm, note: (entry: NewAuditEntry) => Promise<void>) {
    this.#raise = raise
    this.#note = note
  }

  async note(event: ApprovalEvent, approval: Approval): Promise<void> {
    const { id, operation, system, component, digest } = approval
    const place = { system: system ?? OWN_SYSTEM, ...(component === null ? {} : { component }), subject: id }
    const waits = event === 'asked' || event === 'waits'
    const text = `${approval.asked_name} asks for: ${operation} ${JSON.stringify(approval.parameters).slice(0, 1000)} (request ${id}, digest ${digest})`
    await this.#raise('APPROVAL_WAITS', place, waits ? { text, severity: event === 'waits' ? 'alarm' : 'warning' } : null)
    if (event === 'waits') return
    await this.#note(this.#entryOf(event, approval))
  }

  async tellReplay(person: string): Promise<void> {
    await this.#raise('SESSION_STOLEN', { system: OWN_SYSTEM, subject: person }, { text: `a session of "${person}" was ended` })
  }

  /** Of a credential that was shown, or of an account that was asked for. */
  async tellChanged({ id, name }: { readonly id: string; readonly name: string }, what: ChangedOutside['what']): Promise<void> {
    if (what === 'account') return await this.#tellAccount({ id, name, isReplaced: false })
    const key = `${what} ${id}`
    if (this.#told.has(key)) return
    this.#told.set(key, what)
    const text = `a ${what} of "${name}" (${id}) was changed in the store: it is worth nothing`
    await this.#raise('PEOPLE_CHANGED_OUTSIDE', { system: OWN_SYSTEM, subject: `${name}, a ${what}` }, { text })
  }

  /** Of all people: an account that was made good again is told of no more. */
  async tellAllChanged({ found, good }: Sorted): Promise<void> {
    for (const each of found) await this.#tellAccount(each)
    for (const { id, name } of good) {
      const key = `account ${id}`
      if (this.#told.get(key) === '') continue
      // Also what was told before this node began.
      await this.#raise('PEOPLE_CHANGED_OUTSIDE', { system: OWN_SYSTEM, subject: this.#told.get(key) ?? name }, null)
      this.#told.set(key, '')
    }
  }

  async #tellAccount({ id, name, isReplaced }: FoundChanged): Promise<void> {
    const key = `account ${id}`
    if (!isReplaced && (this.#told.get(key) ?? '') !== '') return
    const became = isReplaced ? 'what the repository has of it counts again' : 'nobody logs on with it'
    const text = `the account "${name}" (${id}) was changed in the store, and not by Resus: ${became}`
    const subject = isReplaced ? `${name}, put back` : name
    await this.#raise('PEOPLE_CHANGED_OUTSIDE', { system: OWN_SYSTEM, subject }, { text })
    if (!isReplaced) this.#told.set(key, name)
    await this.#note({
      actor: { kind: 'unknown', id: null, name: 'unknown' },
      action: 'people.changed-outside',
      object: { person: id, name },
      outcome: isReplaced ? 'refused' : 'done',
      reason: text,
    })
  }

  async tellAccessReview(due: Date | null, nowMs: number, makers: () => Promise<string>): Promise<void> {
    const isDue = due !== null && due.getTime() <= nowMs
    const told = isDue ? due.toISOString() : ''
    if ((this.#told.get('access review') ?? '') === told) return
    const found = isDue ? { text: `who may do what was to be looked at until ${told}; made were: ${await makers()}` } : null
    await this.#raise('ACCESS_REVIEW_DUE', { system: OWN_SYSTEM, subject: 'access' }, found)
    this.#told.set('access review', told)
  }

  /** Each is open until another person has reviewed it. */
  async tellReviews(all: readonly Alone[], nowMs: number): Promise<void> {
    for (const { kind, id, at, by, reason, reviewDue, review } of all) {
      const isLate = Date.parse(reviewDue) <= nowMs
      const found =
        review === null
          ? {
              text: `at ${at}, by ${by.name}${reason === null ? '' : `: ${reason}`}; ${isLate ? 'its review is overdue' : `to be reviewed until ${reviewDue}`}`,
            }
          : null
      const told = JSON.stringify(found)
      if (this.#told.get(id) === told) continue
      await this.#raise(
        kind === 'emergency' ? 'EMERGENCY_DECLARED' : 'BREAK_GLASS_USED',
        { system: OWN_SYSTEM, subject: id },
        found,
      )
      this.#told.set(id, told)
    }
  }

  #entryOf(event: Exclude<ApprovalEvent, 'waits'>, approval: Approval): NewAuditEntry {
    const isDecision = event === 'approved' || event === 'refused'
    const person = isDecision
      ? { id: approval.decided_by, name: approval.decided_name ?? '' }
      : { id: approval.asked_by, name: approval.asked_name }
    const byItself = event === 'expired' || event === 'used' || event === 'failed'
    return {
      actor: byItself ? { kind: 'resus', id: null, name: 'resus' } : { kind: kindOf(person.id), ...person },
      factor: isDecision ? (approval.factor as 'totp' | 'passkey') : null,
      action: `approval.${event}`,
      object: {
        id: approval.id,
        operation: approval.operation,
        system: approval.system,
        component: approval.component,
        digest: approval.digest,
      },
      after: (event === 'asked' ? approval.parameters : (approval.outcome ?? null)) as Json,
      outcome: event === 'failed' ? 'failed' : 'done',
      reason: approval.reason,
      approval: approval.id,
    }
  }
}

function kindOf(id: string | null): 'person' | 'command-line' | 'resus' {
  if (id?.startsWith('host:') === true) return 'command-line'
  return id?.startsWith('file:') === true ? 'resus' : 'person'
}
