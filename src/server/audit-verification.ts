import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { AuditActor, AuditEntry, NewAuditEntry } from '../authority/audit-entry.ts'
import { headsIn, type AuditHead } from '../authority/audit-head.ts'
import type { AuditTrail } from '../authority/audit-trail.ts'
import { verifyTrail, type AuditReport } from '../authority/audit-verify.ts'
import { auditProtection } from '../catalog/audit-entries.ts'
import type { Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import { replaceFile } from '../protect/postgres/durable-file.ts'
import type { Repository } from '../repository/repository.ts'

const EVERY_MS = 24 * 3_600_000
/** A copy that cannot be read is tried again. */
const AGAIN_MS = 3_600_000
/** Of what was found; the rest is a number. */
const LISTED_MAX = 20
const TEXT_MAX = 200
const ENTRIES_READ = 200
const HEAD_FILES = ['audit-head.json', 'audit-head-verified.json'] as const
export const VERIFIED = 'audit.verified'
export const ACKNOWLEDGED = 'audit.acknowledged'

const verifiedSchema = z.object({ system: z.string() })
const foundSchema = z.object({ problems: z.array(z.string()), inAll: z.number() })
const acknowledgedSchema = z.object({ alarms: z.array(z.string()) })

/** The last verification of a system's copy and the store's. */
export interface Verified {
  readonly system: string
  readonly at: string
  /** In words; of many the first. */
  readonly problems: readonly string[]
  readonly inAll: number
}

/** An alarm that is open. */
export interface OpenAlarm {
  readonly key: string
  readonly text: string
}

interface Options {
  readonly store: Store
  readonly clock: Clock
  readonly state: string
  readonly trail: AuditTrail
  readonly systems: () => readonly string[]
  readonly repositoryOf: (system: string) => Promise<Repository>
  readonly report: (text: string) => void
}

/**
 * Verifies the trail once a day: the store's copy and each repository's, two at a time, which takes 32 bytes of memory an entry each. When it was done, what was found, and who has looked at that, is in the trail
 * itself: known to all nodes, and after a restart.
 */
export class AuditVerification {
  readonly #options: Options
  #verified: readonly Verified[] = []
  #acknowledged: ReadonlySet<string> = new Set()
  #protection: AuditReport['protection'] = null
  readonly #triedMs = new Map<string, number>()

  constructor(options: Options) {
    this.#options = options
  }

  /** As of the last look. */
  get all(): readonly Verified[] {
    return this.#verified
  }

  /** What keeps Resus itself from changing entries in the store; null where nobody has looked yet. */
  get protection(): AuditReport['protection'] {
    return this.#protection
  }

  /** What people are to be told of a system's copy; undefined where nobody has verified it yet. */
  found(system: string): string | null | undefined {
    const last = this.#verified.find((each) => each.system === system)
    if (last === undefined) return undefined
    if (last.inAll === 0) return null
    const more = last.inAll > last.problems.length ? ` (${last.inAll} in all)` : ''
    return `${last.problems.slice(0, 5).join('; ')}${more}`
  }

  /** Whether somebody has looked at exactly this. */
  isAcknowledged(key: string, text: string): boolean {
    return this.#acknowledged.has(markOf({ key, text }))
  }

  /** What the trail says of it. Throws what the store throws. */
  async refresh(): Promise<void> {
    const { trail, store } = this.#options
    const verified = new Map<string, Verified>()
    for (const entry of (await trail.page({ action: VERIFIED, limit: ENTRIES_READ })).items) {
      const each = verifiedOf(entry)
      if (each !== undefined && !verified.has(each.system)) verified.set(each.system, each)
    }
    const acknowledged = (await trail.page({ action: ACKNOWLEDGED, limit: ENTRIES_READ })).items.flatMap(({ object }) => {
      const parsed = acknowledgedSchema.safeParse(object)
      return parsed.success ? parsed.data.alarms : []
    })
    this.#verified = [...verified.values()]
    this.#acknowledged = new Set(acknowledged)
    this.#protection = await auditProtection(store.sql)
  }

  /** Verifies what was not verified for a day; of several nodes one. What one storage cannot do keeps no other. Throws what the store throws. */
  async look(leads: boolean, signal: AbortSignal): Promise<void> {
    const { clock, systems, report } = this.#options
    await this.refresh()
    if (!leads) return
    const oldest = await this.#options.trail.oldestAt()
    if (oldest === undefined) return
    for (const system of systems()) {
      const last = this.#verified.find((each) => each.system === system)
      const nowMs = clock.now()
      if (nowMs - (last === undefined ? oldest.getTime() : Date.parse(last.at)) < EVERY_MS) continue
      if (nowMs - (this.#triedMs.get(system) ?? Number.NEGATIVE_INFINITY) < AGAIN_MS) continue
      this.#triedMs.set(system, nowMs)
      try {
        await this.#verify(system, signal)
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        report(`the audit trail of "${system}" could not be verified: ${error.message}`)
      }
    }
    await this.refresh()
  }

  /** Somebody has looked at these alarms: what is still found of exactly that is told no more. Throws what the store throws. */
  async acknowledge(
    alarms: readonly OpenAlarm[],
    by: Pick<NewAuditEntry, 'actor' | 'factor' | 'address'>,
    text: string,
  ): Promise<void> {
    if (alarms.length === 0) return
    await this.#options.trail.appendSoon({
      ...by,
      action: ACKNOWLEDGED,
      object: { alarms: alarms.map(markOf), about: alarms.map(({ key }) => key.slice(0, TEXT_MAX)) },
      outcome: 'done',
      reason: text,
    })
    await this.refresh()
  }

  async #verify(system: string, signal: AbortSignal): Promise<void> {
    const { store, clock, repositoryOf, trail, state, report } = this.#options
    const heads = await this.#heads(system)
    const repositories = [await repositoryOf(system)]
    const asked = { repositories, store: store.sql, heads, publicKey: undefined, nowMs: clock.now(), signal }
    const { problems: found, copies } = await verifyTrail(asked)
    // That a copy is late is an alarm of its own.
    const problems = found.filter(({ kind }) => kind !== 'late').map(wordsOf)
    if (problems.length > 0) report(`the audit trail of "${system}" is not whole: ${problems[0]}`)
    await trail.appendSoon({
      actor: RESUS,
      action: VERIFIED,
      object: { system, copies: copies.map(({ where, first, last }) => ({ where, first, last })) },
      after: { problems: problems.slice(0, LISTED_MAX), inAll: problems.length },
      outcome: problems.length === 0 ? 'done' : 'failed',
    })
    if (problems.length === 0) await this.#keepHead(state)
  }

  /** What this node has told outside: the last, and the last with which all was well. */
  async #heads(system: string): Promise<AuditHead[]> {
    const texts = await Promise.all(HEAD_FILES.map(async (file) => readIfThere(join(this.#options.state, file))))
    return headsIn(texts.join('\n')).filter((head) => head.system === system)
  }

  async #keepHead(state: string): Promise<void> {
    const [newest] = HEAD_FILES
    const text = await readIfThere(join(state, newest))
    if (text !== '') await replaceFile(join(state, HEAD_FILES[1]), text)
  }
}

const RESUS: AuditActor = { kind: 'resus', id: null, name: 'Resus' }

/** Exactly what was looked at: another text is another thing. */
function markOf({ key, text }: OpenAlarm): string {
  return createHash('sha256').update(`${key}\0${text}`).digest('hex').slice(0, 32)
}

function verifiedOf({ object, after, at }: AuditEntry): Verified | undefined {
  const [of, found] = [verifiedSchema.safeParse(object), foundSchema.safeParse(after)]
  return of.success && found.success ? { system: of.data.system, at, ...found.data } : undefined
}

function wordsOf({ kind, where, seq, to, text }: AuditReport['problems'][number]): string {
  const entries = seq === null ? '' : to === null || to === seq ? `entry ${seq} of ` : `entries ${seq} to ${to} of `
  return `${kind}: ${entries}${where}: ${text}`.slice(0, TEXT_MAX)
}

async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return ''
    throw error
  }
}

/** Of which alarms somebody says on record that they have looked. */
export const LOOKED_AT: ReadonlySet<string> = new Set(['AUDIT_BROKEN', 'PEOPLE_CHANGED_OUTSIDE', 'SESSION_STOLEN'])
