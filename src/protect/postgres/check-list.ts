import pg from 'pg'
import type { Clock } from '../../clock.ts'
import { Failure, type FailureCode } from '../../errors.ts'
import type { Check, Verdict } from '../../repository/verdicts.ts'
import { BoundedFindings, readable, type CheckDetail } from './bounded-findings.ts'
import { withoutValues } from './server-words.ts'

/** What looking at something gave. */
export interface Finding {
  readonly verdict: 'verified' | 'failed' | 'not proven'
  /** It may be shown to anybody: counts, names of tables, and nothing of a patient. */
  readonly found: string
  /** What may name rows: JSON. */
  readonly findings?: unknown
  /** What it was made of, each listed as a check of its own. */
  readonly parts?: readonly FindingPart[]
  /** False: whatever it gave, nothing of the hospital's own content was seen to be right. */
  readonly own?: false
}

export interface FindingPart extends Check {
  readonly findings?: unknown
}

export interface PlannedCheck {
  readonly name: string
  readonly expected: string
  /** Names of checks without which this one proves nothing: unless all are verified, it is skipped. */
  readonly needs?: readonly string[]
  /** It looks at the hospital's own content. */
  readonly own?: boolean
}

/** Failures that say something about the backup. Any other (no room, no storage, interrupted) ends the verification without a verdict. */
const JUDGING: ReadonlySet<FailureCode> = new Set<FailureCode>([
  'OBJECT_DAMAGED',
  'OBJECT_MISSING',
  'BLOB_MISSING',
  // A flipped bit in an object's header looks like this.
  'REPOSITORY_TOO_NEW',
  'WAL_GAP',
  'WAL_INVALID',
  'WAL_CONFLICT',
  'SPOOL_DAMAGED',
  'POSTGRES_FAILED',
  'DATA_DIRECTORY_UNREADABLE',
  'NOT_VERIFIED',
])

/** Failures that say that this machine or user lacks something: nothing is proven, and nothing is said against the backup. */
const LACKING: ReadonlySet<FailureCode> = new Set<FailureCode>([
  'RESTORE_COMMAND_FAILED',
  'KEY_WRONG',
  'SECRET_UNREADABLE',
  'CONFIG_UNREADABLE',
  // This host is where the tablespace was made: elsewhere the same backup can be recovered.
  'TABLESPACE_IN_WAL',
])

/** Whether a failure is a finding about what is verified. */
export function isJudgement(error: unknown): error is Failure {
  return error instanceof Failure && JUDGING.has(error.code)
}

/** The checks of one verification, in the order in which they are made. */
export class CheckList {
  readonly #clock: Clock
  readonly #signal: AbortSignal
  readonly #checks: Check[] = []
  readonly #findings = new BoundedFindings()
  #isContentVerified = false

  constructor(clock: Clock, signal: AbortSignal) {
    this.#clock = clock
    this.#signal = signal
  }

  get checks(): readonly Check[] {
    return this.#checks
  }

  get details(): readonly CheckDetail[] {
    return this.#findings.details
  }

  /** Whether at least one check of the hospital's own content was verified. */
  get isContentVerified(): boolean {
    return this.#isContentVerified
  }

  /** Makes a check unless one that it needs was not verified. A failure that judges is what was found, one that says what is lacking proves nothing; others are thrown. */
  async run(planned: PlannedCheck, look: () => Promise<Finding>): Promise<boolean> {
    const { name, expected, needs = [] } = planned
    const missing = needs.find((need) => !this.#isVerified(need))
    if (missing !== undefined) {
      this.#checks.push({ name, verdict: 'skipped', expected, found: `not looked at, because of "${missing}"`, seconds: 0 })
      return false
    }
    const beganMs = this.#clock.now()
    this.#signal.throwIfAborted()
    const finding = await look().catch(judged)
    // What is torn down while it works finds all sorts of things.
    this.#signal.throwIfAborted()
    const seconds = Math.max(0, this.#clock.now() - beganMs) / 1000
    const own = (planned.own ?? false) && finding.own !== false
    this.#add(own, { name, verdict: finding.verdict, expected, found: finding.found, seconds, findings: finding.findings })
    for (const part of finding.parts ?? []) this.#add(own, { ...part, name: `${name}: ${part.name}` })
    return finding.verdict === 'verified'
  }

  #add(own: boolean, { findings, ...words }: FindingPart): void {
    const check = { ...words, name: readable(words.name), expected: readable(words.expected), found: readable(words.found) }
    this.#checks.push(check)
    if (own && check.verdict === 'verified') this.#isContentVerified = true
    if (findings !== undefined) this.#findings.add({ name: check.name, said: check.found, findings })
  }

  /** Verified only if nothing failed and all of `proving` were verified. What was merely not proven is listed, and does not forbid it. */
  verdict(proving: readonly string[]): Verdict['verdict'] {
    if (this.#checks.some(({ verdict }) => verdict === 'failed')) return 'failed'
    return proving.every((name) => this.#isVerified(name)) ? 'verified' : 'not proven'
  }

  #isVerified(name: string): boolean {
    return this.#checks.some((check) => check.name === name && check.verdict === 'verified')
  }
}

function judged(error: unknown): Finding {
  if (error instanceof Failure && LACKING.has(error.code)) return { verdict: 'not proven', found: error.message }
  if (isJudgement(error)) return { verdict: 'failed', found: error.message }
  const said = serverSaid(error)
  return { verdict: 'failed', found: withoutValues(said), findings: said.message }
}

/** The server's own words, or that its connection broke: it may have died of what it read. Anything else is thrown. */
export function serverSaid(error: unknown): Error {
  const lost = /Connection terminated|ECONNRESET|EPIPE|ECONNREFUSED|ENOENT|not queryable/
  if (error instanceof pg.DatabaseError || (error instanceof Error && lost.test(error.message))) return error
  throw error
}
